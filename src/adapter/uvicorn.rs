//! What is known of uvicorn.
//!
//! On a unix socket it has no address of a peer, and trusts X-Forwarded-For only with FORWARDED_ALLOW_IPS='*' or
//! --forwarded-allow-ips. That is left to it: who may write to the socket is for the socket unit to say.

use super::declared_sockets::{Bind, DeclaredSockets, Mode, Options};
use super::python::{DRAIN_SIGNALS, Python, STOP_SIGNAL};
use super::{Adapter, Making};
use crate::app::{Conventions, ExitMeaning};
use crate::supervisor::Protocol;

/// uvicorn, by its console script or by `python -m uvicorn`.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "uvicorn",
        drain_signals: DRAIN_SIGNALS,
        stop_signal: STOP_SIGNAL,
        reopen: None,
        // `STARTUP_FAILURE` of uvicorn's `config.py`.
        exits: &[(3, ExitMeaning::FailedToStart("application failed to start"))],
    },
    making: Making::Template(&PYTHON),
    protocol: Protocol::Http,
};

static PYTHON: Python = Python {
    script: "uvicorn",
    package: "uvicorn",
    oldest: (0, 15),
    modules: &["uvicorn"],
    default_bind: "127.0.0.1:8000",
    bind_options: "--host, --port, --uds or --fd",
    options,
};

fn options(options: &Options<'_>) -> Result<DeclaredSockets, String> {
    let value = |option| options.last_or_variable(option, "UVICORN");
    let bind = if let Some(number) = value("--fd") {
        Bind::fds("--fd", &number)
    } else if let Some(path) = value("--uds") {
        Bind::unix("--uds", &path)
    } else {
        Bind::tcp(("--host", value("--host")), ("--port", value("--port")), PYTHON.default_bind)
    };
    // It opens its socket to everybody.
    Ok(DeclaredSockets::new([bind], Mode::Is(0o666)))
}
