//! What a unit's ExecStop= runs, for the case that sockd itself was killed.
//!
//! When the main process of a unit with KillMode=mixed dies, systemd kills everything that is left at once, and with it
//! the requests that the workers were serving. ExecStop= comes before that where such an end counts as a success, which
//! SuccessExitStatus=SIGKILL makes it (measured on 252 and 257: else systemd leaves ExecStop= out). This command tells the
//! workers to finish, and waits for them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use crate::cgroup;

/// Visitors wait in the queue until the service has been restarted: a slow request must not keep them for ever.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for the workers where nobody else does.
pub(super) fn run() -> ExitCode {
    // systemd sets MAINPID while the main process lives (systemd.service(5)): then it is sockd who stops the workers.
    if std::env::var_os("MAINPID").is_none() {
        wait_for_workers(Instant::now() + DRAIN_TIMEOUT);
    }
    ExitCode::SUCCESS
}

/// Tells every process of the unit, once, to finish, and waits until all have ended.
fn wait_for_workers(end: Instant) {
    let mut signalled = BTreeSet::new();
    loop {
        let others = cgroup::processes_of_own_unit().into_iter().filter(|pid| *pid != getpid());
        let processes: Vec<_> =
            others.filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?))).collect();
        for (pid, process) in &processes {
            if signalled.insert(pid.as_raw_nonzero()) {
                // One that has ended meanwhile needs no signal.
                let _ = pidfd_send_signal(process, Signal::TERM);
            }
        }
        let Some((_, process)) = processes.first() else { return };
        let left = end.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else { return };
        // A pidfd becomes readable when its process ends (pidfd_open(2)).
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        if poll(&mut fds, Some(&left)).is_ok_and(|ended| ended == 0) {
            return;
        }
    }
}
