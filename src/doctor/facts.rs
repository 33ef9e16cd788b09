//! The facts: all that a diagnosis is made from, as plain data.
//!
//! Owns: their shape here, and their gathering in the files below: all IO of the doctor, each look with a limit of time
//! and of size. What could not be seen is a fact, too ([`Facts::unseen`]).
//! Never: judges. A golden case of tests/doctor/cases is one of these values, written as TOML.

pub mod alike;
mod collect;
mod database;
mod disk;
mod file;
mod http;
mod journal;
mod nginx_files;
pub mod path_access;
mod process;
mod program;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::control::Status;
use crate::systemd::details::Details;

pub use collect::{Question, application_units, gather};

/// Everything that was seen of one unit and its surroundings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// The name that a browser asks for, if the user gave one.
    pub host: Option<String>,
    /// The path of the page that was asked for; empty for `/`.
    pub path: String,
    /// The name of this machine.
    pub hostname: String,
    /// When systemd was asked, in microseconds of CLOCK_MONOTONIC.
    pub now_us: u64,
    /// The service.
    pub service: Details,
    /// Whether it was restarted while it was asked for a page.
    pub restarted: bool,
    /// The files that define it, in the order in which they count: its unit file, its drop-ins, sockd's configuration.
    pub definition: Vec<File>,
    /// The requirements.txt of its directory.
    pub requirements: Option<File>,
    /// The user that may have been meant by one that does not exist.
    pub alike_user: Option<String>,
    /// The same of its group.
    pub alike_group: Option<String>,
    /// The module of the application's own that may have been meant by one that cannot be imported.
    pub alike_module: Option<String>,
    /// The socket units that start it.
    pub sockets: Vec<Details>,
    /// Other socket units that are loaded or enabled: for two on one path.
    pub other_sockets: Vec<Details>,
    /// The program that the service starts.
    pub program: Program,
    /// Whether the service's user can get to its directory and its program; the answers of `sockd check`.
    pub problems: Vec<Problem>,
    /// The .ini files of a uWSGI that the service starts.
    pub uwsgi: Vec<File>,
    /// The configuration file of the server's own, where its options leave it something to say of its sockets.
    pub server_file: Option<File>,
    /// There is one, and only the server can read it.
    pub server_file_unread: bool,
    /// The service's processes. `None`: not looked at.
    pub processes: Option<Vec<Process>>,
    /// Listening sockets that concern us: at our addresses, at those of Nginx, and those of the service's processes.
    pub listening: Vec<Listening>,
    /// Every path that Nginx passes to, or that the application listens on.
    pub places: Vec<PathFacts>,
    /// What is known of Nginx.
    pub nginx: Nginx,
    /// net.core.somaxconn.
    pub somaxconn: Option<u32>,
    /// What sockd says of itself.
    pub status: Option<Status>,
    /// The lines of its last run in the journal since it last loaded its code, oldest first.
    pub journal: Vec<String>,
    /// So many of the last of them were written in the last ten minutes.
    pub recent: usize,
    /// The journal could not be read: that there is nothing in it says nothing.
    pub journal_unread: bool,
    /// The file systems that the site writes to.
    pub file_systems: Vec<FileSystem>,
    /// What Nginx serves itself of the application's sites.
    pub served: Vec<Served>,
    /// What was answered when a page was asked for.
    pub answers: Vec<Answer>,
    /// The Django settings that decide who is answered and where the database is.
    pub settings: Option<Settings>,
    /// Attempts to reach the databases of the settings and the tracebacks.
    pub databases: Vec<Database>,
    /// The PostgreSQL clusters of this machine.
    pub clusters: Vec<Cluster>,
    /// What could not be seen: what, and why.
    pub unseen: Vec<String>,
}

/// A file's text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Its path, as it was named.
    pub path: String,
    /// Where symbolic links lead; empty when that is the same.
    pub real: String,
    /// What it holds.
    pub text: String,
    /// Who may write it: 0 is root alone, [`File::ANYBODY`] more than one user.
    pub writer: u32,
}

impl File {
    /// More than one user may write it.
    pub const ANYBODY: u32 = u32::MAX;
}

/// The program of ExecStart=: the server's, behind `sockd run --` or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Program {
    /// Its path, absolute if it could be found.
    pub path: String,
    /// Whether it is there. `None`: not looked at.
    pub exists: Option<bool>,
    /// The interpreter that its first line names; empty without one.
    pub interpreter: String,
    /// Whether that is there.
    pub interpreter_exists: Option<bool>,
    /// Whether it may be executed by anyone.
    pub executable: Option<bool>,
    /// Whether there is a Python beside it: then it is a virtual environment's.
    pub python: bool,
    /// The program that may have been meant by one that does not exist.
    pub alike: Option<String>,
    /// Why sockd, where it runs the program, cannot look through it: each of its workers is a whole server.
    pub opaque: Option<String>,
}

/// A problem that `sockd check` found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Problem {
    /// Whether it keeps the service from working.
    pub error: bool,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A process of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, as in `ps -o comm`.
    pub name: String,
    /// The inodes of the listening sockets that it has. `None`: we may not look.
    pub listeners: Option<Vec<u64>>,
}

/// A listening socket, as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listening {
    /// Its address: `/run/gunicorn.sock`, `@name`, `127.0.0.1:8000`.
    pub address: String,
    /// Its inode, as in `/proc/PID/fd`.
    pub inode: u64,
    /// How many connections wait. `None`: the kernel did not tell.
    pub waiting: Option<u32>,
    /// How many may wait.
    pub limit: Option<u32>,
    /// How many connections were accepted there and are not closed. `None`: the kernel did not tell.
    pub in_flight: Option<u32>,
    /// The lower 32 bits of the inode of the file that a unix socket was bound to.
    pub file_inode: Option<u32>,
    /// The process that has it, if it is none of the service: `apache2 (pid 812, apache2.service)`. Empty: unknown.
    pub holder: String,
}

/// A file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSystem {
    /// A path on it.
    pub path: String,
    /// What users other than root may still write, in bytes.
    pub free_bytes: u64,
    /// What it holds, in bytes.
    pub size_bytes: u64,
    /// How many files may still be made. `None`: it does not count them.
    pub free_inodes: Option<u64>,
}

/// A location whose files Nginx serves itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Served {
    /// `/static/`.
    pub location: String,
    /// Where its files are.
    pub directory: String,
    /// `files`, `empty`, `missing`; empty when we may not look.
    pub state: String,
}

/// The permissions of a file or directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// The nine permission bits and the three above them, in octal digits.
    pub mode: String,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The access control list beyond the mode bits, as getfacl(1) writes entries: `user:33:--x`, `mask::r-x`.
    pub acl: Vec<String>,
}

/// A path where a unix socket should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathFacts {
    /// The path.
    pub path: String,
    /// `socket`, `file`, `directory`, `missing`; empty when we may not look.
    pub kind: String,
    /// The lower 32 bits of its inode.
    pub inode: u32,
    /// Its permissions, if it is there.
    pub permissions: Permissions,
    /// Every directory on the way, from the root.
    pub way: Vec<Directory>,
}

/// A directory on the way to a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Directory {
    /// Its path.
    pub path: String,
    /// Its permissions. `None`: it is not there, or we may not look.
    pub permissions: Option<Permissions>,
}

/// What is known of Nginx.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nginx {
    /// Whether there is a configuration of it.
    pub installed: bool,
    /// Whether a process of it runs. `None`: not looked at.
    pub running: Option<bool>,
    /// Whether its unit is enabled.
    pub enabled: Option<bool>,
    /// Its unit's PrivateTmp=.
    pub private_tmp: bool,
    /// What `nginx -t` says when it is not content.
    pub test_error: Option<String>,
    /// Every file of the configuration that is read, the main one first.
    pub files: Vec<File>,
    /// Files of sites-available that are not read.
    pub available: Vec<File>,
    /// Files that were changed after Nginx last read them.
    pub unread: Vec<String>,
    /// The user of its workers.
    pub account: Option<Account>,
    /// The last lines of its error logs.
    pub error_log: Vec<String>,
    /// So many of the last of them were written in the last ten minutes.
    pub recent: usize,
    /// A file of the configuration could not be read: what is not in the others may be there.
    pub unread_files: bool,
    /// While it does not run: who listens on its ports.
    pub rivals: Vec<Listening>,
}

/// A user with its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uid: u32,
    /// Its groups.
    pub groups: BTreeSet<u32>,
}

/// What was answered when a page was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Who was asked: an address of the application, or Nginx.
    pub address: String,
    /// Whether that was Nginx.
    pub nginx: bool,
    /// The Host header.
    pub host: String,
    /// The status; `None` when there was no answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// How many other connections waited with ours in the queue, when ours waited there for more than a second.
    pub queued: Option<u32>,
    /// The beginning of the body.
    pub body: String,
    /// Why there was no answer: `refused`, `missing`, `denied`, `busy`, `silent`, `closed`, or what the system said.
    pub error: String,
}

/// A place in Django's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setting {
    /// The line, counted from 1.
    pub line: usize,
    /// The value, or the values.
    pub values: Vec<String>,
}

/// What Django's settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The file.
    pub file: String,
    /// `ALLOWED_HOSTS`, if it is a plain list.
    pub allowed_hosts: Option<Setting>,
    /// `ENGINE` of the database.
    pub engine: Option<Setting>,
    /// `HOST` of the database.
    pub database_host: Option<Setting>,
    /// `PORT` of the database.
    pub database_port: Option<Setting>,
    /// Where `STATIC_ROOT` leads, if that is plain.
    pub static_root: Option<Setting>,
}

/// An attempt to reach a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Its host, as written.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who named it: `settings` or `traceback`.
    pub source: String,
    /// Whether it can be reached. `None`: it is not on this machine, and was not tried.
    pub reached: Option<bool>,
}

/// A PostgreSQL cluster, as Debian has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Its version and name: `15-main`.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Whether it can be reached there.
    pub reached: bool,
}
