//! sockd: the systemd-native way to run an application server.
//!
//! # Theory of operation
//!
//! systemd owns the listening socket, the user, the sandbox, the journal and the restart of the service. sockd owns
//! what systemd cannot do: many workers on one socket, each one proven before it serves, watched while it serves and
//! replaced before it is missed. The application's own server does the serving; sockd is never in the data path.
//!
//! ```text
//!   command line, TOML file          template's report
//!            |                              |
//!            v                              v
//!         config  -- Settings -->  adapter: what this server is like
//!                                           |
//!                                           v  Spec (plain data)
//!   drivers -- Event --> daemon ------> supervisor       decides; knows no system
//!   (sockets, pids,         ^               |
//!    signals, timers)       +--- Effects ---+            says what to do
//! ```
//!
//! [`supervisor`] is the decision core: a synchronous, deterministic state machine. It gets what happened
//! (`handle_event`, `handle_timeout`) and returns what to do (`Effects`). It never asks for the time, randomness or the
//! system. [`daemon`] is the shell around it: one event loop that owns all state, feeds events in and carries effects
//! out. Each driver owns one outside thing: [`process`] worker processes, [`listener`] inherited sockets, [`notify`]
//! the workers' notification sockets, [`scoreboard`] what they show in memory, [`fallback`] the 503 answers,
//! [`systemd`] the service manager above us, [`journal`] the log, [`control`] the socket of `sockd status`, [`queue`]
//! the kernel's view of waiting connections, [`cgroup`] the control group. [`doctor`] stands beside the daemon: it looks at a site from outside.
//!
//! Workers of Python servers are forked by a template, a Python process that runs `sockd_worker`, a package of Python's
//! in `src/adapter/python`. It travels in memory ([`process::Template`]); nothing of it is installed. It would hide an
//! application's own module of that name.
//!
//! # Who may import whom
//!
//! Arrows go down only, and drivers never import each other; `tests/layering.rs` reads the `use` lines.
//!
//! ```text
//!   cli
//!   daemon   doctor
//!   process
//!   listener notify probe cgroup queue fallback scoreboard systemd journal control
//!   config
//!   adapter
//!   sock_diag           (what drivers that ask the kernel about sockets share)
//!   private_socket      (what drivers with a socket for each worker share)
//!   peer                (what drivers share whose sockets others send to)
//!   app
//!   supervisor          (std only)
//!   suggestion diagnostic exit
//!   printable           (which characters act on a terminal)
//!   regular_file        (opening what others have made)
//! ```
#![deny(unsafe_code)]

pub mod adapter;
pub mod app;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod diagnostic;
pub mod doctor;
pub mod exit;
pub mod fallback;
pub mod journal;
pub mod listener;
pub mod notify;
pub mod peer;
pub mod printable;
pub mod private_socket;
pub mod probe;
pub mod process;
pub mod queue;
pub mod regular_file;
pub mod scoreboard;
pub mod sock_diag;
pub mod suggestion;
pub mod supervisor;
pub mod systemd;
