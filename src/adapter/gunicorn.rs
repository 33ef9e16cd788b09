//! What is known of gunicorn: how it is recognised, what its command line says, its exit codes.
//!
//! All of this serves the time before the template, gunicorn's own code, has reported its settings; the report wins.

mod args;
mod file;

pub use args::GunicornArgs;

use super::declared_sockets::{Bind, DeclaredSockets, Mode, MoreSettings, Options};
use super::python::{DRAIN_SIGNALS, Python, STOP_SIGNAL};
use super::{Adapter, Making};
use crate::app::{Conventions, ExitMeaning, Reopen};
use crate::supervisor::Protocol;
use file::FileSetting;

/// gunicorn, by its console script or by `python -m gunicorn`.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "gunicorn",
        drain_signals: DRAIN_SIGNALS,
        stop_signal: STOP_SIGNAL,
        // SIGUSR1, as gunicorn's arbiter passes it on; our worker program heeds it from the start.
        reopen: Some(Reopen { signal: 10, while_starting: true }),
        // gunicorn's `arbiter.py`.
        exits: &[
            (3, ExitMeaning::FailedToStart("worker failed to boot")),
            (4, ExitMeaning::FailedToStart("application failed to load")),
        ],
    },
    making: Making::Template(&PYTHON),
    protocol: Protocol::Http,
};

/// How gunicorn is called, and its template.
pub static PYTHON: Python = Python {
    script: "gunicorn",
    package: "gunicorn",
    oldest: (19, 9),
    modules: &["gunicorn", "gunicorn.app.wsgiapp"],
    default_bind: "127.0.0.1:8000",
    bind_options: "--bind",
    options,
};

fn options(options: &Options<'_>) -> Result<DeclaredSockets, String> {
    let known = GunicornArgs::read(options.arguments, options.environment);
    let perhaps = known.bind.is_empty() && known.config.is_none();
    let more = known.config_file().map_or(MoreSettings::Module, |file| MoreSettings::File(file.to_owned()));
    let binds = if perhaps { vec![known.default_bind] } else { known.bind };
    Ok(DeclaredSockets {
        binds: binds.iter().map(|address| Bind::new("--bind", address)).collect(),
        perhaps,
        // gunicorn's umask is 0 unless it is given another.
        mode: Mode::Is(0o777 & !known.umask.unwrap_or(0)),
        directory: known.chdir,
        uwsgi: known.uwsgi,
        more,
    })
}

/// Adds what a configuration file says, where the options say nothing. `None`: there is none.
pub fn add_file(sockets: &mut DeclaredSockets, text: Option<&str>) {
    let setting = |name| text.map_or(FileSetting::Absent, |text| file::setting(text, name));
    if sockets.uwsgi.is_none() {
        sockets.uwsgi = match setting("protocol") {
            FileSetting::Absent => Some(false),
            FileSetting::Values(values) => Some(values.iter().map(|value| value.trim()).eq(["uwsgi"])),
            FileSetting::Unknown => None,
        };
    }
    if sockets.perhaps || sockets.binds.is_empty() {
        match setting("bind") {
            FileSetting::Absent => {}
            FileSetting::Values(values) => {
                let binds = values.iter().flat_map(|value| value.split(',')).map(str::trim);
                sockets.binds = binds.filter(|bind| !bind.is_empty()).map(|bind| Bind::new("--bind", bind)).collect();
            }
            FileSetting::Unknown => sockets.binds.clear(),
        }
        sockets.perhaps = false;
    }
}
