//! The real binary and real workers; the test plays systemd.
//!
//! It binds the sockets, hands them over as LISTEN_FDS, listens on a NOTIFY_SOCKET of its own and reads the log. Every
//! wait is for an event (a notification, a line of the log, an answer, the end of a process) and has a deadline; none
//! is for a time to pass. No test needs root. Whatever a test started is gone when it ends, also when it fails.
//!
//! ```text
//!   instance.rs     one running sockd: its builder, what is asked of it, its end
//!   launcher.py     puts the sockets where systemd puts them and executes sockd
//!   transcript.rs   everything that was heard, in order: log, workers' stdout, notifications
//!   processes.rs    who is still there
//!   http.rs         requests written by hand
//!   python.rs       gunicorn's applications and virtual environment
//!   chromium.rs     a real browser
//!   tmux.rs         a real terminal
//!   workers/        workers of the generic adapter that can misbehave
//! ```
#![forbid(unsafe_code)]

mod chromium;
mod http;
mod instance;
mod processes;
mod python;
mod tmux;
mod transcript;

mod bad_input;
mod balancers;
mod checks;
mod crashes;
mod explain;
mod fallback;
mod frameworks;
mod generic;
mod gunicorn;
mod health;
mod history;
mod launchers;
mod limits;
mod listeners;
mod log;
mod maintenance;
mod metrics;
mod pause;
mod php_fpm;
mod preload;
mod programs;
mod prometheus;
mod proof;
mod protocol;
mod reasons;
mod reload;
mod replace;
mod requests;
mod servers;
mod signals;
mod slow_requests;
mod strangers;
mod top;
mod trials;
mod uwsgi;
mod warm;
