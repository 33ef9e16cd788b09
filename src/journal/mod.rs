//! The log: systemd's journal when our output goes there, lines for people otherwise.
//!
//! Owns: the choice between the two, the priorities, and the ids of [`message_id`].
//! Never: decides what is worth a message, or fails: without a journal there is stderr.
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
//! Levels and priorities (sd-daemon(3)): ERROR 3, WARN 4, INFO 6, DEBUG and TRACE 7. The variable SOCKD_LOG (`error`,
//! `warn`, `info`, `debug`, `trace`) sets the least important level that is written; it is `info` when unset.
//!
//! A message to the journal is sent on the calling thread and waits while journald's queue is full: a journald that
//! stands still makes the supervisor stand still, as it does every program that logs. Workers serve on meanwhile.
#![forbid(unsafe_code)]

mod human;
pub mod message_id;
mod sink;

pub use sink::{Sink, init};
