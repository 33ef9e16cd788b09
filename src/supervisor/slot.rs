//! A place in the pool: who stands in it, who comes next, and when the next attempt is due.

use super::backoff::Backoff;
use super::id::WorkerId;
use super::random::Random;
use super::time::Time;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// The worker whose place this is: starting or ready.
    pub(super) current: Option<WorkerId>,
    /// The worker that shall take its place: starting, or ready and held until a rollout is complete.
    pub(super) successor: Option<WorkerId>,
    /// Whether a canary has just proven what the next worker is made from.
    pub(super) trusted: bool,
    /// No attempt before this time.
    pub(super) retry_at: Option<Time>,
    /// How many workers were started here because the one before had died.
    pub(super) restarts: u32,
    /// Whether any worker was ever started here.
    pub(super) used: bool,
    backoff: Backoff,
}

impl Slot {
    /// Whether the next attempt may be made.
    pub(super) fn may_try(&self, now: Time) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// A worker of this slot failed that took `start` to be ready and was so for `ready_for`: when the next one may be
    /// tried.
    pub(super) fn failed(&mut self, now: Time, start: Duration, ready_for: Duration, random: &mut Random) -> Duration {
        let wait = self.backoff.after_failure(start, ready_for, random);
        self.retry_at = (!wait.is_zero()).then(|| now + wait);
        wait
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        if self.current == Some(worker) {
            self.current = None;
        }
        if self.successor == Some(worker) {
            self.successor = None;
        }
    }

    /// The successor takes the place; returns who had it.
    pub(super) fn promote(&mut self) -> Option<WorkerId> {
        let predecessor = self.current.take();
        self.current = self.successor.take();
        self.retry_at = None;
        predecessor
    }
}
