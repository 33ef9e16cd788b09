//! What is known of waitress.

use super::python::{DRAIN_SIGNAL, Python, STOP_SIGNAL, template};
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
};
