//! What gunicorn's template reports of its settings: the server's own reading of command line, environment and file.

use serde::Deserialize;
use std::time::Duration;

/// The settings that matter to us, as gunicorn itself understood them. Unknown ones are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Report {
    /// How many workers, 1 or more.
    pub workers: u32,
    /// Seconds without a heartbeat after which a worker hangs; 0 means never.
    pub timeout: u32,
    /// Seconds a worker may drain.
    pub graceful_timeout: u32,
    /// Where gunicorn would listen by itself.
    pub bind: Vec<String>,
    /// The umask for unix sockets it would bind.
    pub umask: u32,
    /// The backlog it would ask for.
    pub backlog: u32,
}

impl Report {
    /// Reads the `settings` of a template's hello.
    ///
    /// # Errors
    /// What is missing or of the wrong type.
    pub fn read(settings: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(settings).map_err(|error| format!("the template reports no settings we know: {error}"))
    }

    /// `--timeout`, unless it is switched off.
    pub fn watchdog(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| Duration::from_secs(self.timeout.into()))
    }
}
