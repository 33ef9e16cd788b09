//! What is known of uWSGI: one site, from its command line, its environment and its .ini files.
//!
//! A worker is a uWSGI without a master: one process, which loads the application, says READY=1 and serves. It takes
//! our sockets by number (`--socket fd://3`), so the options that would make uWSGI bind, own or remove sockets, fork
//! workers or daemonize are taken out of command line, environment and files; all else is left as it is. uWSGI gets
//! what is left of a file as a descriptor of its own. Nothing is appended that a file's later line could undo.
//!
//! The options and signals of a worker (uWSGI 2.0.21 to 2.0.31, measured):
//! - `need-app`: without it, uWSGI serves 500 when the application cannot be loaded.
//! - SIGTERM finishes the request and leaves, by `goodbye_cruel_world`, uWSGI's own function for `max-requests`: 150
//!   workers so replaced under load lost nothing. `gracefully_kill`, its function for SIGHUP, exits at once when it
//!   comes between accept(2) and the request; 150 workers lost 7 requests. Before uWSGI 2.0.25 there is only that one.
//! - `stats` makes uWSGI start a master, whose process alone serves it (`core/master_events.c`) and which wakes once a second:
//!   a worker has none, and nobody can be asked of its requests.
//! - READY=1 is sent from a hook behind that handler. uWSGI itself says READY=1 where SIGTERM is still ignored, and in
//!   its master before a lazy application is loaded; so it never sees NOTIFY_SOCKET.

pub mod ini;
mod options;
mod site;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use self::options::SEVERAL_AT_A_TIME;
use self::site::{Site, Word};
use super::exec::{Exec, LaunchPlan, ServerInputs, Worker, WorkerCommand, WorkerFds};
use super::{Adapter, Making};
use crate::app::{Address, Command, Conventions, ExitMeaning};
use crate::supervisor::Protocol;

/// SIGTERM (signal(7)).
const SIGTERM: i32 = 15;

/// uWSGI, by the name of its program.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "uwsgi",
        drain_signals: &[SIGTERM],
        stop_signal: SIGTERM,
        reopen: None,
        // UWSGI_END_CODE, UWSGI_RELOAD_CODE and UWSGI_FAILED_APP_CODE of `uwsgi.h`.
        exits: &[
            (30, ExitMeaning::Clean),
            (17, ExitMeaning::Clean),
            (22, ExitMeaning::FailedToStart("application failed to load")),
        ],
    },
    making: Making::Exec(&EXEC),
    // By its private socket.
    protocol: Protocol::Http,
};

static EXEC: Exec = Exec { runs, plan };

/// `uwsgi`, and Debian's `uwsgi-core` and `uwsgi_python3`, which loads the plugin that its name says.
fn runs(command: &[OsString]) -> bool {
    let name = command.first().and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    name.is_some_and(|name| matches!(name, "uwsgi" | "uwsgi-core") || name.starts_with("uwsgi_"))
}

fn plan(inputs: &ServerInputs<'_>) -> Result<LaunchPlan, String> {
    let site = Site::read(inputs)?;
    let workers = match &site.processes {
        Some(text) => Some(site.value(text, inputs).and_then(|text| text.parse().ok()).ok_or_else(|| {
            format!("cannot tell how many workers processes = {text} means: write the number, or workers.count")
        })?),
        None => None,
    };
    let mode = match site.mode.as_deref() {
        // As uWSGI has it: everybody may connect.
        Some("") => Some(0o666),
        Some(text) => Some(
            u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o777)
                .ok_or_else(|| format!("chmod-socket = {text} is no permissions: write them as 660"))?,
        ),
        None => None,
    };
    let directory = site.directory.as_deref().and_then(|text| site.value(text, inputs)).unwrap_or_default();
    let directory = inputs.directory.join(directory);
    let mut listen = Vec::new();
    let mut sockets = Vec::new();
    for socket in &site.sockets {
        let address = site.value(&socket.value, inputs).and_then(|text| address(&text, &directory).transpose());
        let address = address.transpose().map_err(|why| format!("{} = {}: {why}", socket.option, socket.value))?;
        listen.extend(address.clone());
        sockets.push((address, socket.option));
    }
    // With more than one it has time for our question, too.
    let number = |name: &&str| site.value(&format!("%({name})"), inputs)?.parse::<u32>().ok();
    let several = SEVERAL_AT_A_TIME.iter().filter_map(number).any(|number| number > 1);
    let stop = site.files.len();
    let files = site.files.into_iter().chain([stop_hooks()]).collect();
    Ok(LaunchPlan {
        workers: workers.filter(|count| *count > 0),
        graceful_timeout: site.mercy.as_ref().and_then(|text| text.parse().ok()).map(Duration::from_secs),
        listen,
        mode,
        says_ready: true,
        private_socket: true,
        silent_when_busy: !several,
        // Its own watchdog is harakiri, which ends a worker whose request takes too long: silence means something only
        // where a health.path is asked for.
        timeout: Some(Duration::ZERO),
        files,
        stats: None,
        warnings: site.warnings,
        worker: Some(Box::new(Process { words: site.words, sockets, stop, unset: site.unset })),
    })
}

/// What uWSGI means by the value of a socket's option. `None` for `fd://N`, a socket it was given.
fn address(text: &str, directory: &Path) -> Result<Option<Address>, String> {
    if text.starts_with("fd://") {
        return Ok(None);
    }
    if text.starts_with('@') || text.contains(':') {
        return text.parse().map(Some).map_err(|error: crate::app::ParseAddressError| error.to_string());
    }
    let path = directory.join(text);
    // sun_path holds 108 bytes with its closing zero (unix(7)).
    if path.as_os_str().as_bytes().len() > 107 {
        return Err(format!("{}: the path of a unix socket has at most 107 bytes", path.display()));
    }
    Ok(Some(Address::Unix(path)))
}

/// One worker's process.
#[derive(Debug)]
struct Process {
    /// The command line behind the program's name, without what is ours.
    words: Vec<Word>,
    /// What it was to listen on, and by which option.
    sockets: Vec<(Option<Address>, &'static str)>,
    /// The file with [`stop_hooks`], by its index.
    stop: usize,
    /// Variables of the environment that are ours.
    unset: Vec<OsString>,
}

/// The last uWSGI 2.0 whose `goodbye_cruel_world` exits in the middle of a request.
const LAST_RUDE: u32 = 24;

/// What a worker does at SIGTERM. The hook that comes last counts; an exclamation mark keeps a hook out of the log.
fn stop_hooks() -> String {
    let mut text = "[uwsgi]\nhook-accepting = !unix_signal:15 goodbye_cruel_world\n\
                    set-placeholder = sockd-uwsgi-version=%V\n"
        .to_owned();
    // uWSGI can compare for equality alone.
    for version in 0..=LAST_RUDE {
        for packager in ["", "-debian"] {
            text.push_str(&format!(
                "if-opt = sockd-uwsgi-version=2.0.{version}{packager}\n\
                 hook-accepting = !unix_signal:15 gracefully_kill\nendif =\n"
            ));
        }
    }
    text
}

impl Process {
    /// By which option uWSGI takes a socket: the one that names this place, else that of the first.
    fn option(&self, listener: &Address) -> &'static str {
        let named = self.sockets.iter().find(|(address, _)| address.as_ref() == Some(listener));
        named.or(self.sockets.first()).map_or("socket", |(_, option)| option)
    }
}

impl Worker for Process {
    fn execution(&self, command: &Command, fds: &WorkerFds<'_>) -> WorkerCommand {
        let mut arguments: Vec<OsString> = command.arguments.iter().take(1).cloned().collect();
        for word in &self.words {
            match word {
                Word::Kept(word) => arguments.push(word.clone()),
                Word::File(index) => {
                    arguments.push("--ini".into());
                    // A name of its own for each worker: the descriptor itself would be read only once.
                    arguments.push(format!("/proc/self/fd/{}", fds.files + index).into());
                }
            }
        }
        let mut option = |name: &str, value: String| {
            arguments.push(format!("--{name}").into());
            arguments.push(value.into());
        };
        for (fd, listener) in (3..).zip(fds.listeners) {
            option(self.option(listener), format!("fd://{fd}"));
        }
        if let Some(fd) = fds.private_socket {
            option("http-socket", format!("fd://{fd}"));
        }
        option("ini", format!("/proc/self/fd/{}", fds.files + self.stop));
        option("hook-accepting", format!("!call:uwsgi_systemd_init {}", fds.notify));
        option("hook-accepting", "!call:uwsgi_systemd_notify_ready".to_owned());
        // For options that make uWSGI insist on a master: it passes SIGTERM on in the same spirit.
        option("hook-master-start", "unix_signal:15 gracefully_kill_them_all".to_owned());
        arguments.extend(["--need-app", "--die-on-term"].map(OsString::from));
        let mut command = Command { arguments, ..command.clone() };
        command.environment.retain(|name, _| !self.unset.contains(name));
        // A worker that hangs in an import is sent SIGABRT: Python then writes its stack.
        command.environment.entry("PYTHONFAULTHANDLER".into()).or_insert_with(|| "1".into());
        WorkerCommand { command, listen_fds: false, notify_socket: false, alias: None }
    }
}

#[cfg(test)]
mod tests;
