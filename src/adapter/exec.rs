//! What is said of a server that is executed once for each worker.
//!
//! A server with the manners of a good systemd service needs nothing of this: its [`LaunchPlan`] is the default one. Another
//! has its command line, its environment and its files read once for each generation, and its command put together for
//! each worker. Owns no IO: files are read through [`ServerInputs::read`] and [`ServerInputs::names`], descriptors are the numbers in [`WorkerFds`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::origins::Origins;
use crate::app::{Address, Command};

/// One server that is executed once for each worker.
#[derive(Debug)]
pub struct Exec {
    /// Whether a command, the program's name and its arguments, runs this server.
    pub runs: fn(&[OsString]) -> bool,
    /// Reads the server's command, environment and files: what follows from them for the pool, and how a worker is
    /// executed.
    pub plan: fn(&ServerInputs<'_>) -> Result<LaunchPlan, String>,
}

/// The command and environment of a server, and what an adapter may ask while it reads them.
pub struct ServerInputs<'a> {
    /// The command, its program's name first.
    pub command: &'a [OsString],
    /// The environment of the workers.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// The working directory of the workers, an absolute path.
    pub directory: &'a Path,
    /// How many processors there are.
    pub processors: usize,
    /// Reads a whole file; an error names it.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The names in a directory; an error names it.
    pub names: &'a dyn Fn(&Path) -> Result<Vec<OsString>, String>,
}

/// What holds for all workers of one generation.
#[derive(Debug, Default)]
pub struct LaunchPlan {
    /// How many workers its own options ask for, 1 or more.
    pub workers: Option<u32>,
    /// How long its own options let a worker finish its requests.
    pub graceful_timeout: Option<Duration>,
    /// Where it would listen by itself. A relative path begins at the working directory.
    pub listen: Vec<Address>,
    /// The permissions of the unix sockets it would make, 0 to 0o777.
    pub mode: Option<u32>,
    /// Whether every worker says itself when it is ready, so that its silence proves nothing.
    pub says_ready: bool,
    /// Whether every worker takes a private HTTP socket beside the public ones, and a canary that one alone.
    pub private_socket: bool,
    /// Whether a worker serves one request at a time, so that its silence on the private socket says nothing.
    pub silent_when_busy: bool,
    /// How long its own options let a worker be silent; zero means for ever. `None`: they say nothing about it.
    pub timeout: Option<Duration>,
    /// Texts that each worker finds in descriptors of its own, behind its sockets.
    pub files: Vec<String>,
    /// By which interface of its own a worker tells of its requests, where it has one.
    pub stats: Option<StatsInterface>,
    /// What its owner should know.
    pub warnings: Vec<String>,
    /// How one worker is executed. `None`: by the command as it is, with LISTEN_FDS and NOTIFY_SOCKET.
    pub worker: Option<Box<dyn Worker>>,
}

/// What a server says of its requests when it is asked on a socket of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsInterface {
    /// `Puma.stats`: one object of JSON, written to each connection.
    Puma,
    /// The status page of PHP-FPM, as JSON, by FastCGI.
    PhpFpm {
        /// `pm.status_path`.
        path: Arc<str>,
    },
}

/// How one worker is executed.
pub trait Worker: Debug + Send {
    /// The command for a worker that is given this.
    fn execution(&self, command: &Command, fds: &WorkerFds<'_>) -> WorkerCommand;
}

/// What one worker is given.
#[derive(Clone, Copy, Debug)]
pub struct WorkerFds<'a> {
    /// Where its public sockets listen: descriptors from 3 on, in this order. In their places a canary has sockets that
    /// nobody knows; with a private socket it has none.
    pub listeners: &'a [&'a Address],
    /// The descriptor of its private socket, if it has one.
    pub private_socket: Option<usize>,
    /// The descriptor of the first of [`LaunchPlan::files`]; the others follow.
    pub files: usize,
    /// The descriptor of the socket on which it is asked of its requests, if it is: [`LaunchPlan::stats`].
    pub stats_socket: Option<usize>,
    /// The socket that READY=1 is sent to: a path, or `@` and an abstract name.
    pub notify: &'a str,
}

/// One execution.
#[derive(Debug)]
pub struct WorkerCommand {
    /// What is executed.
    pub command: Command,
    /// Whether the worker finds LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID.
    pub listen_fds: bool,
    /// Whether the worker finds NOTIFY_SOCKET.
    pub notify_socket: bool,
    /// The name by which it speaks of its owner's files, if it does not know theirs.
    pub alias: Option<TextAlias>,
}

/// A text that was put together of its owner's files, as a worker knows it.
#[derive(Clone, Debug)]
pub struct TextAlias {
    /// The path by which the worker reads it.
    pub path: String,
    /// Where its lines come from.
    pub origins: Arc<Origins>,
}

impl TextAlias {
    /// What the worker writes, with the files in the place of the alias.
    pub fn name_files<'a>(&self, said: &'a str) -> Cow<'a, str> {
        self.origins.name_files(said, &self.path)
    }
}

impl LaunchPlan {
    /// Whether its workers get a scoreboard to count their answers on. The servers that we know have other ways to say
    /// what they do, in none of which is how a request was answered.
    pub fn takes_scoreboard(&self) -> bool {
        self.worker.is_none()
    }

    /// How a worker is executed.
    pub fn execution(&self, command: &Command, fds: &WorkerFds<'_>) -> WorkerCommand {
        match &self.worker {
            Some(worker) => worker.execution(command, fds),
            None => WorkerCommand { command: command.clone(), listen_fds: true, notify_socket: true, alias: None },
        }
    }
}
