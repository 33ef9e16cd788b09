//! What is known of hypercorn.

use super::declared_sockets::{Bind, DeclaredSockets, Mode, Options};
use super::python::{DRAIN_SIGNALS, Python, STOP_SIGNAL};
use super::{Adapter, Making};
use crate::app::Conventions;
use crate::supervisor::Protocol;

/// hypercorn, by its console script or by `python -m hypercorn`.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions {
        name: "hypercorn",
        drain_signals: DRAIN_SIGNALS,
        stop_signal: STOP_SIGNAL,
        reopen: None,
        exits: &[],
    },
    making: Making::Template(&PYTHON),
    protocol: Protocol::Http,
};

static PYTHON: Python = Python {
    script: "hypercorn",
    package: "hypercorn",
    oldest: (0, 11),
    modules: &["hypercorn"],
    default_bind: "127.0.0.1:8000",
    bind_options: "--bind",
    options,
};

fn options(options: &Options<'_>) -> Result<DeclaredSockets, String> {
    let mut written = options.all(&["-b", "--bind"]);
    if written.is_empty() && options.last(&["-c", "--config"]).is_none() {
        written.push(PYTHON.default_bind.to_owned());
    }
    let mode = match options.last(&["-m", "--umask"]) {
        // Decimal.
        Some(text) => {
            let umask: u32 = text.parse().map_err(|_| format!("--umask {text} is no number"))?;
            Mode::Is(0o777 & !umask)
        }
        None => Mode::ByUmask,
    };
    Ok(DeclaredSockets::new(written.iter().map(|address| Bind::new("--bind", address)), mode))
}
