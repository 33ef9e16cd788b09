//! What the configuration comes to: plain, checked data.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::adapter::launcher::Launcher;
use crate::app::Address;

use super::share::Share;

/// One instance's configuration. Everything in it is within its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's command, its program first. Never empty; no part holds a zero byte.
    pub command: Vec<OsString>,
    /// What stands before the server on the command line and executes it. It is no longer in `command`.
    pub launcher: Launcher,
    /// The working directory: an absolute path, symbolic links not yet resolved. `None`: where sockd was started.
    pub directory: Option<PathBuf>,
    /// Variables of the workers; they win over `environment_files`.
    pub environment: BTreeMap<String, String>,
    /// Files of `KEY=value` lines, absolute paths, read by `resolve`. A leading `-`: the file may be missing.
    pub environment_files: Vec<PathBuf>,
    /// The sockets to bind when systemd hands over none.
    pub listen: Listen,
    /// The workers.
    pub workers: Workers,
    /// How a worker is asked whether it is well.
    pub health: Health,
    /// What is known of requests.
    pub requests: Requests,
    /// How new code replaces old.
    pub reload: Reload,
    /// What visitors get while no worker can serve.
    pub fallback: Fallback,
    /// How programs get the state.
    pub status: StatusSocket,
}

/// Sockets that sockd binds itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listen {
    /// Where to listen; without repetitions.
    pub addresses: Vec<Address>,
    /// Permissions of unix sockets, 0 to 0o777. `None`: what the umask leaves.
    pub mode: Option<u32>,
    /// Connections that may wait in the queue, 1 to 65535. `None`: as many as the kernel allows.
    pub backlog: Option<u32>,
}

/// The workers and their times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many, 1 to 4096. `None`: what the server's own options say, else one.
    pub count: Option<u32>,
    /// When the first one starts. `None`: on the first connection if systemd handed over a socket, else at once.
    pub start: Option<Start>,
    /// A worker that is not ready by then has failed. More than zero.
    pub start_timeout: Duration,
    /// A worker that can tell nothing of itself is ready when it has lived so long.
    pub ready_after: Duration,
    /// A worker that is asked to stop is killed after this time. `None`: what the server's own options say, else 30 s.
    pub stop_timeout: Option<Duration>,
    /// A worker that was replaced may finish its requests for so long. `None`: as `stop_timeout`.
    pub drain_timeout: Option<Duration>,
    /// A worker without a heartbeat for so long is replaced. `None`: what the server's own options say, else never.
    pub watchdog: Option<Duration>,
    /// Whether the application is loaded once, into the template that workers are forked from. `None`: what the server's
    /// own options say, else no.
    pub preload: Option<bool>,
    /// What a copy of the template is asked for before it makes workers, where it is preloaded: paths with their leading
    /// slash, 50 at most. Empty: there is no such copy.
    pub warm: Vec<String>,
    /// How often it is asked for each, 1 to 1000.
    pub warm_requests: u32,
    /// A worker so old, give or take a tenth, is replaced. More than zero. `None`: never.
    pub max_age: Option<Duration>,
    /// A worker that holds more bytes of memory than this is replaced, its successor first. `None`: never.
    pub max_memory: Option<u64>,
    /// Bytes above which a worker with its descendants is slowed down and its memory reclaimed (cgroups(7),
    /// memory.high). `None`: no limit of its own.
    pub memory_high: Option<u64>,
    /// Bytes that a worker with its descendants cannot exceed: the kernel kills it first (memory.max). `None`: no limit
    /// of its own.
    pub memory_max: Option<u64>,
}

/// When the first worker starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Start {
    /// As soon as sockd starts.
    AtOnce,
    /// When the first connection waits.
    OnConnection,
}

/// The question that tells whether a worker is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether ready workers are asked again and again; new code is asked in any case.
    pub probe: bool,
    /// The path to ask for, with its leading slash. `None`: `/`, and any answer is a good one.
    pub path: Option<String>,
    /// The Host header. `None`: `localhost`.
    pub host: Option<String>,
    /// More headers, name and value.
    pub headers: Vec<(String, String)>,
    /// The replies to `path` that count as well, each 100 to 599, never empty. `None`: 200 to 299.
    pub status: Option<Vec<u16>>,
    /// What is run in place of an HTTP request, its program first. Empty: nothing.
    pub command: Vec<OsString>,
    /// Between two questions to the same worker: at least a second. `None`: 10 seconds, or less where the server's own
    /// timeout is shorter.
    pub interval: Option<Duration>,
    /// How long the reply may take. More than zero.
    pub timeout: Duration,
    /// So many failures in a row mean that a worker is not well, 1 to 100. `None`: as many as fit into the server's own
    /// timeout.
    pub failures: Option<u32>,
    /// Failures so soon after a worker got ready do not count.
    pub grace: Duration,
}

/// What is known of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// Whether workers that can show their requests do.
    pub show: bool,
    /// One that is served for longer is written to the log, with the stack of its thread. More than zero. `None`: none is.
    pub slow: Option<Duration>,
}

/// How a reload goes about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Whether a canary proves new code before any worker is replaced.
    pub canary: bool,
    /// How many workers more than `count` may live during a rollout, 1 to 4096. `None`: as many as `count`.
    pub surge: Option<u32>,
    /// On how many workers visitors try new code before the others are replaced. `None`: on none.
    pub canary_workers: Option<Share>,
    /// So many requests of theirs decide, 1 to 1,000,000.
    pub canary_requests: u32,
    /// How long visitors try it at most. More than zero.
    pub canary_time: Duration,
    /// How long the complete new generation must stay well before the old one drains.
    pub soak: Duration,
    /// What is run before new code is loaded, one after the other, each with its program first. Empty: nothing.
    pub check: Vec<Vec<OsString>>,
    /// How long each of them may take. More than zero.
    pub check_timeout: Duration,
    /// What is run after a reload, its program first. Empty: nothing.
    pub after: Vec<OsString>,
}

/// The answer while no worker can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallback {
    /// A page in place of the built-in one: an absolute path. Whether it can be used is seen when it is shown.
    pub page: Option<PathBuf>,
}

/// The socket on which programs get the state over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSocket {
    /// Where it is. `None`: there is none.
    pub listen: Option<Address>,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            count: None,
            start: None,
            start_timeout: Duration::from_secs(60),
            ready_after: Duration::from_secs(1),
            stop_timeout: None,
            drain_timeout: None,
            watchdog: None,
            preload: None,
            warm: Vec::new(),
            warm_requests: 20,
            max_age: None,
            max_memory: None,
            memory_high: None,
            memory_max: None,
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            probe: true,
            path: None,
            host: None,
            headers: Vec::new(),
            status: None,
            command: Vec::new(),
            interval: None,
            timeout: Duration::from_secs(5),
            failures: None,
            grace: Duration::ZERO,
        }
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self { show: true, slow: None }
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            canary: true,
            surge: None,
            canary_workers: None,
            canary_requests: 500,
            canary_time: Duration::from_secs(300),
            soak: Duration::from_secs(2),
            check: Vec::new(),
            check_timeout: Duration::from_secs(60),
            after: Vec::new(),
        }
    }
}
