//! A place in the pool: who stands in it, who comes next, and when the next attempt is due.

use super::backoff::Backoff;
use super::id::WorkerId;
use super::random::Random;
use super::time::Time;
use std::time::Duration;

/// So many deaths of workers that were ready are replaced at once, if they come within this time.
const ACCIDENTS: u32 = 2;
const ACCIDENTS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// The worker whose place this is: starting or ready.
    pub(super) current: Option<WorkerId>,
    /// The worker that shall take its place: starting, or ready and held until a rollout is complete.
    pub(super) successor: Option<WorkerId>,
    /// When the canary was born that has proven what the next worker is made from.
    pub(super) trusted: Option<Time>,
    /// No attempt before this time.
    pub(super) retry_at: Option<Time>,
    /// How many workers were started here because the one before had died.
    pub(super) restarts: u32,
    /// Whether any worker was ever started here.
    pub(super) used: bool,
    backoff: Backoff,
    /// When the first of the deaths was that are replaced at once, and how many there were.
    accidents: Option<(Time, u32)>,
}

impl Slot {
    /// Whether the next attempt may be made.
    pub(super) fn may_try(&self, now: Time) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }

    /// A worker of this slot failed that took `start` to be ready and was so for `ready_for` (None: it never was): when the
    /// next one may be tried.
    pub(super) fn failed(
        &mut self,
        now: Time,
        start: Duration,
        ready_for: Option<Duration>,
        random: &mut Random,
    ) -> Duration {
        let wait = self.backoff.after_failure(start, ready_for.unwrap_or_default(), random);
        // Its code starts: two such deaths are an accident.
        let wait = if ready_for.is_some() && self.is_accident(now) { Duration::ZERO } else { wait };
        self.retry_at = (!wait.is_zero()).then(|| now + wait);
        wait
    }

    /// Whether this is no more than the second death of a ready worker within [`ACCIDENTS_WITHIN`].
    fn is_accident(&mut self, now: Time) -> bool {
        let (since, before) =
            self.accidents.filter(|(since, _)| now.since(*since) < ACCIDENTS_WITHIN).unwrap_or((now, 0));
        self.accidents = Some((since, before.saturating_add(1)));
        before < ACCIDENTS
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
