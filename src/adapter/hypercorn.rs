//! What is known of hypercorn.

use super::python::{DRAIN_SIGNAL, Python, STOP_SIGNAL, template};
use super::{Adapter, Making};
use crate::app::Conventions;

/// hypercorn, by its console script or by `python -m hypercorn`.
pub static ADAPTER: Adapter = Adapter {
    // A worker that cannot start ends with a traceback and exit code 1.
    conventions: Conventions { name: "hypercorn", drain_signal: DRAIN_SIGNAL, stop_signal: STOP_SIGNAL, exits: &[] },
    making: Making::Template(&PYTHON),
    speaks_http: true,
};

static PYTHON: Python = Python {
    script: "hypercorn",
    modules: &["hypercorn"],
    program: template!("websockets.py", "hypercorn.py"),
    default_bind: "127.0.0.1:8000",
    bind_options: "--bind",
};
