//! The shell: it owns all state, and it carries out what the core decides.
//!
//! ```text
//!   setup.rs      what the command line and systemd give -> listeners, configuration, log
//!   shell.rs      the one event loop: signals, timers, drivers' messages -> core; effects -> effects.rs
//!   signals.rs    what each signal to sockd means
//!   effects.rs    one arm for each effect
//!   prepare.rs    Effect::Prepare: what was read -> Spec, or a template that reports it
//!   reading.rs    what a generation is made from, read by a thread: configuration -> command
//!   workers.rs    Effect::Spawn and Effect::Signal: the processes of the core's workers, how they ended
//!   strangers.rs  ends of processes that nobody knows yet
//!   children.rs   what a child of ours is known to be
//!   orphans.rs    what dead workers leave behind where they have no control groups
//!   groups.rs     the workers' control groups: made, watched for want of memory, killed and removed
//!   spec.rs       settings and the server's own words -> Spec
//!   judge.rs      Effect::Judge and Effect::Probe: asking a worker over HTTP
//!   health_command.rs  the same, by a program
//!   fallback.rs   the helper process that answers 503
//!   listeners.rs  looking after the listeners: queue, backlog, path
//!   measure.rs    what workers and listeners are measured by
//!   ticker.rs     when to look at them
//!   log_limit.rs  how many lines others can bring about
//!   repeats.rs    what processes that cannot start write again: counted
//!   narrate.rs    notices -> log
//!   status.rs     snapshot -> STATUS= and `sockd status`
//! ```
//!
//! One thread, one loop, one bounded channel that every driver's task ends in. Nothing here decides what should be:
//! that is the core's.
#![forbid(unsafe_code)]

mod children;
mod effects;
mod fallback;
mod groups;
mod health_command;
mod hooks;
mod judge;
mod listeners;
mod log_limit;
mod measure;
mod narrate;
mod orphans;
mod prepare;
mod reading;
mod repeats;
mod setup;
mod shell;
mod signals;
mod spec;
mod status;
mod strangers;
mod ticker;
mod workers;

pub use setup::{Setup, run};
