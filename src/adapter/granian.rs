//! What is known of granian.

use super::declared_sockets::{Bind, DeclaredSockets, Mode, Options};
use super::python::{DRAIN_SIGNALS, Python, STOP_SIGNAL};
use super::{Adapter, Making};
use crate::app::Conventions;
use crate::supervisor::Protocol;

/// granian, by its console script or by `python -m granian`, whichever of its interfaces it serves.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions {
        name: "granian",
        drain_signals: DRAIN_SIGNALS,
        stop_signal: STOP_SIGNAL,
        reopen: None,
        exits: &[],
    },
    making: Making::Template(&PYTHON),
    protocol: Protocol::Http,
};

static PYTHON: Python = Python {
    script: "granian",
    package: "granian",
    oldest: (2, 8),
    modules: &["granian"],
    default_bind: "127.0.0.1:8000",
    bind_options: "--host, --port or --uds",
    options,
};

fn options(options: &Options<'_>) -> Result<DeclaredSockets, String> {
    let value = |option| options.last_or_variable(option, "GRANIAN");
    let bind = match value("--uds") {
        Some(path) => Bind::unix("--uds", &path),
        None => Bind::tcp(("--host", value("--host")), ("--port", value("--port")), PYTHON.default_bind),
    };
    let mode = match value("--uds-permissions") {
        // Decimal, unless it begins with a 0.
        Some(text) => u32::from_str_radix(&text, if text.starts_with('0') { 8 } else { 10 })
            .map(Mode::Is)
            .map_err(|_| format!("--uds-permissions {text} is no number"))?,
        None => Mode::ByUmask,
    };
    Ok(DeclaredSockets::new([bind], mode))
}
