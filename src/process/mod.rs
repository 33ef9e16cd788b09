//! Worker processes: made by exec or forked by a template, signalled through pidfds, reaped once.
//!
//! Two ways lead to a worker, and the caller need not care which: [`SpawnRequest::spawn`] executes a program, and a
//! [`Template`] forks one on command. Both give a [`Child`] with a pidfd from the start. [`reap()`] collects whatever
//! ended; [`Stderr`] reads a worker's stderr, [`LastOutput`] that of a program that is run once.
//!
//! Owns every process id. Must never decide whether a process should live, and never sends a signal to a bare pid
//! that may have been reaped.

mod connected;
mod last_output;
mod listening;
mod memfd;
mod procfs;
mod reap;
mod reason;
mod rlimit;
mod signals;
mod spawn;
mod stderr;
mod template;

pub use connected::connected;
pub use last_output::LastOutput;
pub use listening::listening;
pub use memfd::memory_file;
pub use procfs::{
    Thread, Usage, children, cpu_time, descendants, handles_signal, held_sockets, holds_socket, is_descendant_of,
    kill_descendant, process_group, resident_memory, session, threads, usage,
};
pub use reap::{End, Ended, become_subreaper, reap, signal_name};
pub use rlimit::{explain, raise_descriptor_limit};
pub use signals::{Sender, Signals, hold_signals};
pub use spawn::{FIRST_DESCRIPTOR, SpawnError, SpawnRequest, concerns_the_unit, release_file_pages, signal_by_number};
pub use stderr::{Stderr, TAIL_LINES, Tail};
pub use template::{
    ForkError, ForkRequest, Hello, Life, Notice, Phase, Template, TemplateMessage, TemplateMessages, Warming,
    WorkerProcess,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// A process that we made and have not reaped yet.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Takes note of a child that has not been reaped: until then its number belongs to no other process. The source
    /// of the number need not be trusted.
    ///
    /// # Errors
    /// ESRCH if there is no such process, ECHILD if it is not a child of ours, EMFILE when there are no descriptors left.
    pub fn adopt(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        // Waits for nothing and reaps nothing: the kernel answers for our own children alone (waitid(2)).
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::PidFd(pidfd.as_fd()), look)?;
        Ok(Self { pid, pidfd })
    }

    /// Its process id, which is also that of its session and process group.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal to the process; that it has ended meanwhile is no error.
    ///
    /// # Errors
    /// EPERM if the process has changed its user and we are not root.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills the process, its process group and its descendants.
    ///
    /// # Errors
    /// EPERM if the process has changed its user and we are not root.
    pub fn kill(&self) -> io::Result<()> {
        // It is not reaped, so its number still names its group and no other.
        let descendants = descendants(self.pid);
        self.signal(Signal::KILL)?;
        #[expect(clippy::disallowed_methods, reason = "its leader is not reaped, so the number names no other group")]
        let _ = kill_process_group(self.pid, Signal::KILL);
        for pid in descendants {
            procfs::kill_descendant(pid);
        }
        Ok(())
    }
}
