//! What is known of gunicorn: how it is recognised, what its command line says, its exit codes.
//!
//! All of this serves the time before the template, gunicorn's own code, has reported its settings; the report wins.

mod known;

pub use known::Known;

use super::python::{DRAIN_SIGNAL, Python, STOP_SIGNAL, template};
use super::{Adapter, Making};
use crate::app::{Conventions, ExitMeaning};

/// gunicorn, by its console script or by `python -m gunicorn`.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "gunicorn",
        drain_signal: DRAIN_SIGNAL,
        stop_signal: STOP_SIGNAL,
        // gunicorn's `arbiter.py`.
        exits: &[
            (3, ExitMeaning::FailedToStart("worker failed to boot")),
            (4, ExitMeaning::FailedToStart("application failed to load")),
        ],
    },
    making: Making::Template(&PYTHON),
    speaks_http: true,
};

/// How gunicorn is called, and its template.
pub static PYTHON: Python = Python {
    script: "gunicorn",
    modules: &["gunicorn", "gunicorn.app.wsgiapp"],
    program: template!("uvicorn_drain.py", "gunicorn.py"),
    default_bind: "127.0.0.1:8000",
    bind_options: "--bind",
};
