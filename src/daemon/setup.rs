//! What stays the same as long as an instance lives: its options, its environment, its unit.

use crate::config::Options;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// What stays the same as long as this instance lives.
#[derive(Debug)]
pub struct Setup {
    /// The options of `sockd run`; the configuration is read again at each reload.
    pub options: Options,
    /// The environment that workers inherit from.
    pub environment: BTreeMap<OsString, OsString>,
    /// Where sockd was started.
    pub directory: PathBuf,
    /// The systemd unit, if there is one.
    pub unit: Option<String>,
    /// Whether systemd handed over sockets.
    pub activated: bool,
    /// A line for people that is printed once everything listens, in place of a log line.
    pub greeting: Option<String>,
}
