//! What a template reports of its server's settings: the server's own reading of command line, environment and file.

use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// The settings that matter to us, as the server itself understood them. Unknown ones are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Report {
    /// How many workers, 1 or more.
    pub workers: u32,
    /// Seconds without a heartbeat after which a worker hangs; 0 means never.
    pub timeout: u32,
    /// Seconds a worker may drain. `None`: the server sets no limit, and ours counts.
    pub graceful_timeout: Option<u32>,
    /// The directory it changed to, relative to where it was started.
    pub chdir: PathBuf,
    /// Where the server would listen by itself, as gunicorn writes it: see [`super::gunicorn::Known::address`].
    pub bind: Vec<String>,
    /// The umask for unix sockets it would bind.
    pub umask: u32,
    /// The backlog it would ask for.
    pub backlog: u32,
    /// Whether the template holds the application.
    #[serde(default)]
    pub preload: bool,
    /// Whether a worker serves one request at a time, so that a busy one is as silent as a hung one.
    #[serde(default)]
    pub silent_when_busy: bool,
    /// Whether its sockets speak TLS, its private one too.
    #[serde(default)]
    pub speaks_tls: bool,
}

/// How often the worker program sends WATCHDOG=1: `beat_interval` of `python/reports.py`.
fn heartbeat_interval(timeout: Duration) -> Duration {
    (timeout / 8).max(Duration::from_millis(500)).min(timeout / 4)
}

impl Report {
    /// Reads the `settings` of a template's hello.
    ///
    /// # Errors
    /// What is missing or of the wrong type.
    pub fn read(settings: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(settings).map_err(|error| format!("the template reports no settings we know: {error}"))
    }

    /// When a worker's silence means that it hangs: `--timeout`, unless it is switched off, and the time for which the
    /// worker program keeps a heartbeat to itself so that an idle one wakes us seldom.
    pub fn watchdog(&self) -> Option<Duration> {
        let timeout = Duration::from_secs(self.timeout.into());
        (self.timeout > 0).then(|| timeout + heartbeat_interval(timeout))
    }
}
