//! What is known of granian.

use super::python::{DRAIN_SIGNAL, Python, STOP_SIGNAL, template};
use super::{Adapter, Making};
use crate::app::Conventions;

/// granian, by its console script or by `python -m granian`, whichever of its interfaces it serves.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions { name: "granian", drain_signal: DRAIN_SIGNAL, stop_signal: STOP_SIGNAL, exits: &[] },
    making: Making::Template(&PYTHON),
    speaks_http: true,
};

static PYTHON: Python = Python {
    script: "granian",
    modules: &["granian"],
    program: template!("websockets.py", "granian.py"),
    default_bind: "127.0.0.1:8000",
    bind_options: "--host, --port or --uds",
};
