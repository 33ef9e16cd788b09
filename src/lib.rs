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
//! system. [`daemon`] is around it: parts that own processes, sockets and timers, and one event loop through them that
//! feeds events in and carries effects out. Each driver owns one outside thing: [`process`] worker processes, [`listener`] inherited sockets, [`notify`]
//! the workers' notification sockets, [`scoreboard`] what they show in memory, [`server_stats`] what
//! they say of their requests when they are asked, [`fallback`] the 503 answers,
//! [`systemd`] the service manager above us, [`journal`] the log, [`control`] the socket of `sockd status`,
//! [`status_socket`] the one for programs that speak HTTP, [`queue`]
//! the kernel's view of waiting connections, [`cgroup`] the control group. [`doctor`] stands beside the daemon: it looks at a site from outside; [`explain`] says what the recording of one means.
//!
//! Workers of Python servers are forked by a template, a Python process that runs `sockd_worker`, a package of Python's
//! in `src/adapter/python`. It travels in memory ([`process::Template`]); nothing of it is installed. It would hide an
//! application's own module of that name.
//!
//! # Five ways through it
//!
//! The guide's line to a worker:
//! ```text
//!   cli/run.rs -> daemon/startup.rs: listeners -> daemon/event_loop
//!   Effect::Read -> daemon/reading.rs: config::load, config::resolve, adapter::recognise -> Message::Read -> Event::Read
//!   Effect::Load -> event_loop/generations.rs: daemon/templates.rs boots sockd_worker -> Report::Hello -> spec.rs -> Event::Prepared
//!   Effect::Spawn -> workers/spawn.rs -> templates.rs: fork -> Report::Forked -> WorkerEvent::Spawned
//!   READY=1 -> workers/notify.rs -> WorkerEvent::SaidReady -> supervisor/pool.rs: it serves
//! ```
//! A first connection:
//! ```text
//!   Effect::WatchListeners -> daemon/listener_monitor.rs: listener::wait_readable -> Event::ConnectionWaiting
//!     -> supervisor: Effect::Spawn, as above. The connection waits in the kernel's queue for the worker's accept(2).
//! ```
//! A reload to its exit status:
//! ```text
//!   cli/reload.rs -> control/server.rs -> Call -> event_loop/calls.rs -> Event::ReloadRequested
//!     (or Event::RollbackRequested: daemon/history.rs knows which release that is)
//!     -> supervisor/rollout.rs: Effect::Read -> rollout/check.rs: Effect::Check -> daemon/checks.rs: the operator's programs
//!     -> Event::Checked -> Effect::Load, Effect::Spawn (a canary), Effect::Judge -> daemon/health
//!     -> WorkerEvent::Judged -> rollout.rs: slot by slot -> Effect::Answer -> waiting_clients.rs
//!     -> control/client.rs -> cli/reload.rs: exit code. Effect::RunAfterReload -> daemon/after_reload.rs;
//!        Effect::Record -> daemon/history.rs -> history/file.rs, by a thread
//! ```
//! A second of the flight recorder to `sockd explain`:
//! ```text
//!   daemon/recorder (its timer) -> event_loop/recording.rs: what workers show -> recorder/sampler.rs (a thread: control groups,
//!     /proc, queues) -> Message::Sampled -> recorder/store.rs -> recording/file.rs, by a thread
//!   cli/explain -> control socket, or the file where nobody answers -> explain/situation.rs -> explain/rules -> cli/explain/render.rs
//! ```
//! A worker's stderr line to the journal:
//! ```text
//!   its pipe -> process/stderr.rs (a task: lines) -> daemon/repeats.rs (is it the same as at the last failed start?)
//!     -> tracing -> journal: SOCKD_WORKER=, MESSAGE_ID= -> journald's socket
//! ```
//!
//! # Who may import whom
//!
//! Arrows go down only, drivers never import each other, and no two files import each other in a circle;
//! `tests/layering` reads the `use` lines.
//!
//! ```text
//!   cli
//!   daemon   doctor   explain
//!   metrics             (the status as text for Prometheus)
//!   history             (the file of reloads and starts, and where a rollback leads)
//!   recording           (the file of what was so in the last minutes)
//!   maintenance         (that it is on, over a restart)
//!   process
//!   listener notify probe cgroup queue fallback scoreboard server_stats systemd journal control status_socket
//!   config
//!   adapter
//!   sock_diag           (what drivers that ask the kernel about sockets share)
//!   private_socket      (what drivers with a socket for each worker share)
//!   peer                (what drivers share whose sockets others send to)
//!   app
//!   supervisor          (std only: a package of its own)
//!   suggestion diagnostic exit
//!   printable           (which characters act on a terminal)
//!   state_file          (what an instance keeps in its state directory)
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
pub mod explain;
pub mod fallback;
pub mod history;
pub mod journal;
pub mod listener;
pub mod maintenance;
pub mod metrics;
pub mod notify;
pub mod peer;
pub mod printable;
pub mod private_socket;
pub mod probe;
pub mod process;
pub mod queue;
pub mod recording;
pub mod regular_file;
pub mod scoreboard;
pub mod server_stats;
pub mod sock_diag;
pub mod state_file;
pub mod status_socket;
pub mod suggestion;
pub mod systemd;

pub use sockd_supervisor as supervisor;
