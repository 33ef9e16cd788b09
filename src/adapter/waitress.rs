//! What is known of waitress.

use super::python::{DRAIN_SIGNAL, Python, STOP_SIGNAL, template};
use super::stated::{Bind, Mode, Options, Stated};
use super::{Adapter, Making};
use crate::app::Conventions;

/// waitress, by its console script `waitress-serve` or by `python -m waitress`.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions { name: "waitress", drain_signal: DRAIN_SIGNAL, stop_signal: STOP_SIGNAL, exits: &[] },
    making: Making::Template(&PYTHON),
    speaks_http: true,
};

static PYTHON: Python = Python {
    script: "waitress-serve",
    modules: &["waitress"],
    program: template!("waitress.py"),
    default_bind: "0.0.0.0:8080",
    bind_options: "--listen, --host, --port or --unix-socket",
    options,
};

fn options(options: &Options<'_>) -> Result<Stated, String> {
    let listen = options.all(&["--listen"]);
    let binds = if let Some(path) = options.last(&["--unix-socket"]) {
        vec![Bind::unix("--unix-socket", &path)]
    } else if listen.is_empty() {
        let (host, port) = (options.last(&["--host"]), options.last(&["--port"]));
        let (host, port) = (host.as_deref().unwrap_or("0.0.0.0"), port.as_deref().unwrap_or("8080"));
        vec![Bind::tcp(("--host", host), ("--port", port))]
    } else {
        let addresses = listen.iter().flat_map(|text| text.split_whitespace());
        addresses.map(|text| Bind::new("--listen", &text.replacen("*:", "0.0.0.0:", 1))).collect()
    };
    let mode = options.last(&["--unix-socket-perms"]).map_or(Ok(0o600), |text| {
        u32::from_str_radix(&text, 8).map_err(|_| format!("--unix-socket-perms {text} is no number"))
    })?;
    Ok(Stated::new(binds, Mode::Is(mode)))
}
