//! Reaping: no zombie stays, and each process that has ended is reported once.
//!
//! sockd is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): what its descendants leave behind becomes its child, and
//! that is how a worker forked by a template becomes sockd's own.

use rustix::process::{Pid, WaitOptions, wait};
use std::fmt;
use std::io;

/// A process that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its number, which may name another process from here on.
    pub pid: Pid,
    /// How it ended.
    pub end: End,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal (a number of signal(7)).
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// A signal's name, for people: `SIGHUP`; None for real-time signals.
pub fn signal_name(number: i32) -> Option<&'static str> {
    Some(nix::sys::signal::Signal::try_from(number).ok()?.as_str())
}

/// Makes orphaned descendants our children. Call once, before the first process is made.
///
/// # Errors
/// None is known since Linux 3.4.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// The next process that has ended, if there is one. Call it again until it says None: one SIGCHLD may stand for many.
pub fn reap() -> Option<Ended> {
    loop {
        return match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let end = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => End::Code(code),
                    (None, Some(signal)) => End::Signal(signal),
                    // Stopped or continued: only with WUNTRACED or WCONTINUED, which nobody asked for.
                    (None, None) => continue,
                };
                Some(Ended { pid, end })
            }
            // ECHILD: we have no children.
            Ok(None) | Err(_) => None,
        };
    }
}
