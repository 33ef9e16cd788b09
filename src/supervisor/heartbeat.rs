//! A worker's heartbeats: when the last one was, and when it hangs for want of another.
//!
//! Some workers say each one. Others only show it, on a page that the daemon can read: then nobody is woken by a worker that
//! is well. So what a worker shows is read before it counts as hung.

use super::time::Time;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Heartbeats {
    /// It hangs when the last one is so long ago.
    limit: Duration,
    /// The last one that is known of.
    last: Time,
    /// What the worker shows is being read.
    reading: bool,
}

impl Heartbeats {
    /// Of a worker that beats at this time.
    pub(super) fn new(now: Time, limit: Duration) -> Self {
        Self { limit, last: now, reading: false }
    }

    /// It beat at this time.
    pub(super) fn beat(&mut self, at: Time) {
        self.last = self.last.max(at);
    }

    /// When it must be looked at again. None: while it is.
    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.reading).then(|| self.last + self.limit)
    }

    /// Whether what it shows is to be read; then [`Self::read`] will decide.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let due = self.deadline().is_some_and(|at| at <= now);
        self.reading |= due;
        due
    }

    /// What it shows was read: its last heartbeat, if it shows any. Returns for how long it has hung, if it does.
    pub(super) fn read(&mut self, now: Time, last: Option<Time>) -> Option<Duration> {
        last.into_iter().for_each(|at| self.beat(at));
        if !std::mem::take(&mut self.reading) {
            return None;
        }
        Some(now.since(self.last)).filter(|silence| *silence >= self.limit)
    }
}
