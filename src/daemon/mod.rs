//! The event loop: it owns all state, and it carries out what the core decides.
//!
//! ```text
//!   startup.rs           what the command line and systemd give -> listeners, configuration, log
//!   event_loop.rs        the one event loop: signals, timers, drivers' messages -> core; effects -> effects.rs
//!   message.rs           what tasks and threads report to it
//!   outbox.rs            what a part may do to the outside: an event for the core, a task that reports
//!   signals.rs           what each signal to sockd means
//!   effects.rs           one arm for each effect
//!   generation.rs        Effect::Prepare: what was read -> Spec, or a template that reports it
//!   reading.rs           what a generation is made from, read by a thread: configuration -> command
//!   workers.rs           Effect::Spawn and Effect::Signal: the processes of the core's workers, how they ended
//!   notifications.rs     what they say on their notification sockets
//!   heartbeats.rs        what they show on their scoreboards: Effect::ReadHeartbeat
//!   unclaimed_exits.rs   ends of processes that nobody knows yet
//!   children.rs          what a child of ours is known to be
//!   orphans.rs           what dead workers leave behind where they have no control groups
//!   worker_cgroups.rs    the workers' control groups: made, watched for want of memory, killed and removed
//!   spec.rs              settings and the server's own words -> Spec
//!   health/mod.rs        Effect::Judge and Effect::Probe: whether a worker may serve, and is well
//!   health/http.rs       asking it over HTTP
//!   health/exec.rs       running the operator's program
//!   fallback.rs          the helper process that answers 503
//!   listener_monitor.rs  looking after the listeners: queue, backlog, path
//!   measure.rs           what workers and listeners are measured by
//!   timerfd.rs           timers that wake the loop once: its deadline, the watchdog, the looks at listeners
//!   log_limit.rs         how many lines others can bring about
//!   repeats.rs           what processes that cannot start write again: counted
//!   notice_log.rs        notices -> log
//!   status.rs            snapshot -> STATUS= and `sockd status`
//! ```
//!
//! One thread, one loop, one bounded channel that every driver's task ends in. Nothing here decides what should be:
//! that is the core's.
#![forbid(unsafe_code)]

mod children;
mod effects;
mod event_loop;
mod fallback;
mod generation;
mod health;
mod heartbeats;
mod hooks;
mod listener_monitor;
mod log_limit;
mod measure;
mod message;
mod notice_log;
mod notifications;
mod orphans;
mod outbox;
mod reading;
mod repeats;
mod signals;
mod spec;
mod startup;
mod status;
mod timerfd;
mod unclaimed_exits;
mod worker_cgroups;
mod workers;

pub use startup::{Setup, run};
