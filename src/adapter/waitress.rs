//! What is known of waitress.

use super::declared_sockets::{Bind, DeclaredSockets, Mode, Options};
use super::python::{DRAIN_SIGNALS, Python, STOP_SIGNAL};
use super::{Adapter, Making};
use crate::app::Conventions;
use crate::supervisor::Protocol;

/// waitress, by its console script `waitress-serve` or by `python -m waitress`.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions {
        name: "waitress",
        drain_signals: DRAIN_SIGNALS,
        stop_signal: STOP_SIGNAL,
        reopen: None,
        exits: &[],
    },
    making: Making::Template(&PYTHON),
    protocol: Protocol::Http,
};

static PYTHON: Python = Python {
    script: "waitress-serve",
    package: "waitress",
    oldest: (1, 4),
    modules: &["waitress"],
    default_bind: "0.0.0.0:8080",
    bind_options: "--listen, --host, --port or --unix-socket",
    options,
};

fn options(options: &Options<'_>) -> Result<DeclaredSockets, String> {
    let mut binds = Vec::new();
    for text in options.all(&["--listen"]).iter().flat_map(|text| text.split_whitespace()) {
        let port = text.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
        binds.push(Bind::new("--listen", &if port { text.to_owned() } else { format!("{text}:8080") }));
    }
    if let Some(path) = options.last(&["--unix-socket"]) {
        binds.push(Bind::unix("--unix-socket", &path));
    } else if binds.is_empty() {
        let (host, port) = (options.last(&["--host"]), options.last(&["--port"]));
        binds.push(Bind::tcp(("--host", host), ("--port", port), PYTHON.default_bind));
    }
    let binds = binds.into_iter().flat_map(|bind| match bind.address.strip_prefix('*') {
        // Every address of both families, in a socket for each.
        Some(port) => {
            let address = |host| Bind { address: format!("{host}{port}"), written: bind.written.clone() };
            vec![address("0.0.0.0"), address("[::]")]
        }
        None => vec![bind],
    });
    let mode = options.last(&["--unix-socket-perms"]).map_or(Ok(0o600), |text| {
        u32::from_str_radix(&text, 8).map_err(|_| format!("--unix-socket-perms {text} is no number"))
    })?;
    Ok(DeclaredSockets::new(binds, Mode::Is(mode)))
}
