//! The log: systemd's journal when our output goes there, lines for people otherwise, or JSON where that is asked for.
//!
//! Owns: the choice between them, the log thread, the priorities, and the ids of [`message_id`].
//! Never: decides what is worth a message, waits, or fails: without a journal there is stderr.
//!
//! An event is written with the plain macros of tracing; upper-case names become fields of the journal as they are:
//!
//! ```
//! use sockd::journal::message_id;
//! tracing::info!(
//!     MESSAGE_ID = message_id::WORKER_READY,
//!     SOCKD_EVENT = "worker-ready",
//!     SOCKD_WORKER = 3,
//!     SOCKD_GENERATION = 2,
//!     "worker 3 is ready after 0.4 s"
//! );
//! ```
//!
//! An event about a worker to which something happened has SOCKD_REQUEST, the request that it served, where it shows that; so
//! has one about a slow request.
//!
//! Levels and priorities (sd-daemon(3)): ERROR 3, WARN 4, INFO 6, DEBUG and TRACE 7. The variable SOCKD_LOG (`error`,
//! `warn`, `info`, `debug`, `trace`) sets the least important level that is written; it is `info` when unset.
//!
//! Nobody waits for the log: a message is copied into a queue, and a thread of its own writes it, which may wait for
//! journald, a pipe or a terminal as long as that likes. The queue is bounded; the number of lost messages is logged.
#![forbid(unsafe_code)]

mod init;
mod json;
pub mod message_id;
mod queue;
mod stderr;

pub use init::{Format, Sink, finish, init, is_congested};
