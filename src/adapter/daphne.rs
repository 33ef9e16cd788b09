//! What is known of daphne.

use super::declared_sockets::{Bind, DeclaredSockets, Mode, Options};
use super::python::{DRAIN_SIGNALS, Python, STOP_SIGNAL};
use super::{Adapter, Making};
use crate::app::Conventions;
use crate::supervisor::Protocol;

/// daphne, by its console script or by `python -m daphne`.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions {
        name: "daphne",
        drain_signals: DRAIN_SIGNALS,
        stop_signal: STOP_SIGNAL,
        reopen: None,
        exits: &[],
    },
    making: Making::Template(&PYTHON),
    protocol: Protocol::Http,
};

static PYTHON: Python = Python {
    script: "daphne",
    package: "daphne",
    oldest: (3, 0),
    modules: &["daphne"],
    default_bind: "127.0.0.1:8000",
    bind_options: "--bind, --port, --unix-socket or --fd",
    options,
};

fn options(options: &Options<'_>) -> Result<DeclaredSockets, String> {
    let (host, port) = (options.last(&["-b", "--bind"]), options.last(&["-p", "--port"]));
    let mut binds = Vec::new();
    binds.extend(options.last(&["-u", "--unix-socket"]).map(|path| Bind::unix("--unix-socket", &path)));
    binds.extend(options.last(&["--fd"]).map(|number| Bind::fds("--fd", &number)));
    if let Some(endpoint) = options.last(&["-e", "--endpoint"]) {
        return Err(format!("--endpoint {endpoint} is in Twisted's own writing"));
    }
    if host.is_some() || port.is_some() || binds.is_empty() {
        binds.push(Bind::tcp(("--bind", host), ("--port", port), PYTHON.default_bind));
    }
    // Twisted opens it to everybody.
    Ok(DeclaredSockets::new(binds, Mode::Is(0o666)))
}
