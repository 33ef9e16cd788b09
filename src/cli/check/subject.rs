//! One thing to check: options, surroundings, and what was found wrong with its unit.

use crate::config::Options;
use crate::diagnostic::Diagnostics;
use crate::doctor::facts::Account;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// One thing to check.
#[derive(Debug)]
pub(super) struct Subject {
    /// What it is called in messages.
    pub(super) name: String,
    /// The options of `sockd run`, the configuration file among them.
    pub(super) options: Options,
    /// The environment and the directory that sockd would be started with.
    pub(super) environment: BTreeMap<OsString, OsString>,
    pub(super) directory: PathBuf,
    /// Environment files that systemd would read before; `-` as in the configuration.
    pub(super) environment_files: Vec<PathBuf>,
    /// The user that sockd would run as. `None`: the one who asks, or root.
    pub(super) account: Option<Account>,
    /// What was found wrong with the unit.
    pub(super) problems: Diagnostics,
}

impl Subject {
    /// Something that would be run from here, by the one who asks.
    pub(super) fn here(name: String, options: Options) -> Result<Self, String> {
        let directory = std::env::current_dir().map_err(|error| format!("cannot tell where this is: {error}"))?;
        Ok(Self {
            name,
            options,
            environment: std::env::vars_os().collect(),
            directory,
            environment_files: Vec::new(),
            account: None,
            problems: Diagnostics::default(),
        })
    }
}
