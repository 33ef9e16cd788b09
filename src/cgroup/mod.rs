//! The control groups (cgroups(7), version 2): that of the unit we run in, and below it one for each worker.
//!
//! Where systemd has delegated the unit's group to us (Delegate=yes), it comes to look like this:
//!
//! ```text
//!   web.service/              systemd's: its limits are those of the unit
//!     .control/               systemd's: where ExecReload= and ExecStop= run
//!     supervisor/             sockd, the templates and the helper that answers 503
//!     worker-7/               worker 7 and all that it starts
//!     worker-8/
//! ```
//!
//! [`Tree`] is that unit, [`Group`] one worker's place in it. A worker enters its group itself, as early as it can: memory
//! stays charged to the group it was first touched in.
//!
//! Moving a process by writing to `cgroup.procs` waits for an RCU grace period, if nobody has moved one within the last
//! moments: measured 2 ms on an idle machine (kernel 6.18), up to 60 ms on a loaded one, while a second move soon
//! after takes 0.1 ms and making a group 0.06 ms. clone3(2) with CLONE_INTO_CGROUP would wait for nothing, but
//! RestrictNamespaces=, which our own unit sets, forbids clone3. So nobody who is waited for should move: a template's
//! spare process goes ahead into the group of the worker that comes next; one that could not, the first of all above
//! others, moves while it imports the application. A worker that is executed moves between fork
//! and exec, a small part of the time that its program takes to load.
//!
//! Owns: reading of the unit's group, and all below it but `.control`. Never: touches a group that was not delegated to
//! this very process, and never decides whether a process should live.
#![forbid(unsafe_code)]

mod account;
mod file;
mod group;
mod tree;
mod unit;
mod watch;

pub use account::{Account, Machine, account, machine, own_unit};
pub use group::{Group, Limits, OutOfMemory, Usage};
pub use tree::{Absent, Tree, check_kernel};
pub use unit::{processes_of, processes_of_own_unit};
pub use watch::OomWatch;
