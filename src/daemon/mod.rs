//! The daemon: parts that own what is outside, and one event loop through them that carries out what the core decides.
//!
//! ```text
//!   startup.rs             what the command line and systemd give -> listeners, configuration, log
//!   setup.rs clock.rs      what stays the same as long as the instance lives
//!
//!   event_loop/            the one event loop: signals, timers, reports -> core; effects -> parts
//!     effects.rs           one arm for each effect
//!     reports.rs           one arm for each report of a task or thread
//!     generations.rs       Effect::Read and Effect::Load: what was read -> Spec, or a template that reports it
//!     recording.rs         what the parts know at one moment, for the recorder
//!     calls.rs             what clients of the control socket ask
//!     children.rs          reaping, and what else ends with a child
//!     signals.rs           signals that came, carried out
//!
//!   The parts; none names the loop:
//!   workers/               the processes of the core's workers: spawn.rs, notify.rs (what they say), heartbeat.rs (what
//!                          they show), requests.rs and stacks.rs (what they serve, and where they stand), exit.rs (how they
//!                          ended), cgroups.rs (their control groups)
//!   slow_requests.rs       requests that take longer than is usual, to the log
//!   templates.rs hooks.rs  templates that fork workers, and what they are sent for the user's hooks
//!   reading.rs             what a generation is made from, read by a thread: configuration -> command
//!   health/                Effect::Judge and Effect::Probe: http.rs asks a worker, exec.rs runs the operator's program
//!   checks.rs              Effect::Check: the operator's programs that a reload runs before it loads what was read
//!   after_reload.rs        Effect::RunAfterReload: the operator's program that hears of the outcome
//!   history.rs             Effect::Record: which reloads and starts there were, and where a rollback leads
//!   recorder/              the flight recorder: samples once a second while something happens, and events
//!   listener_monitor.rs    the listeners: queue, backlog, path
//!   fallback.rs            the helper process that answers 503
//!   orphans.rs             what dead workers leave behind where they have no control groups
//!   unclaimed_exits.rs     ends of processes that nobody knows yet
//!   measure.rs             what workers and listeners are measured by
//!   service_manager.rs     READY, STATUS and WATCHDOG to systemd
//!   status_socket.rs       who asks for metrics over HTTP
//!   balancer.rs            what balancers hear
//!   waiting_clients.rs     who waits for the outcome of a request
//!   signals.rs             what each signal to sockd means
//!   children.rs            what a child of ours is known to be
//!
//!   What parts have in common:
//!   outbox.rs message.rs   what a part may do to the outside: an event for the core, a task that reports
//!   generation.rs spec.rs  what workers are made from; settings and the server's own words -> Spec
//!   program.rs             a program of the operator's: started, killed with its descendants, its last lines
//!   output.rs              the stderr of workers and templates, to the log
//!   bind.rs path_alarm.rs  binding addresses; what is wrong with a listener's path
//!   timerfd.rs             timers that wake the loop once
//!   log_limit.rs           how many lines others can bring about
//!   repeats.rs             what processes that cannot start write again: counted
//!   notice_log.rs          notices -> log
//!   status.rs counts.rs    snapshot -> STATUS= and `sockd status`; what happened since the start
//! ```
//!
//! One thread, one loop, one bounded channel that every driver's task ends in. Nothing here decides what should be:
//! that is the core's.
#![forbid(unsafe_code)]

mod after_reload;
mod balancer;
mod bind;
mod checks;
mod children;
mod clock;
mod counts;
mod event_loop;
mod fallback;
mod generation;
mod health;
mod history;
mod hooks;
mod listener_monitor;
mod log_limit;
mod maintenance;
mod measure;
mod message;
mod notice_log;
mod orphans;
mod outbox;
mod output;
mod path_alarm;
mod program;
mod reading;
mod recorder;
mod repeats;
mod service_manager;
mod setup;
mod signals;
mod slow_requests;
mod spec;
mod startup;
mod status;
mod status_socket;
mod templates;
mod timerfd;
mod unclaimed_exits;
mod waiting_clients;
mod workers;

pub use setup::Setup;
pub use startup::run;
