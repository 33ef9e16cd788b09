//! A generation: one configuration, and whether workers can be made from it at this time.

use super::acceptance::Baseline;
use super::backoff::Backoff;
use super::effect::{Effect, Effects};
use super::id::GenerationId;
use super::random::Random;
use super::spec::{PREPARE_TIMEOUT, Spec};
use super::time::Time;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) id: GenerationId,
    /// Known once it has been prepared, and fixed from then on.
    pub(super) spec: Option<Spec>,
    pub(super) preparation: Preparation,
    /// Whether a worker of it was ready, and none failed to start since.
    pub(super) proven: bool,
    /// Whether it was prepared more than once: then its code was read again.
    prepared_again: bool,
    /// Whether a worker of what was prepared last was ready.
    worked: bool,
    /// How long the slowest of its workers that were seen to accept or to answer took to do so.
    pub(super) answers_after: Option<Duration>,
    /// What its workers are compared with.
    pub(super) baseline: Baseline,
    backoff: Backoff,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Preparation {
    /// The daemon is at it.
    Running { since: Time, deadline: Time },
    /// Workers can be spawned.
    Done { took: Duration, since: Time, orders: Orders },
    /// It failed or was lost; the next attempt is due at this time.
    Missing { retry_at: Time },
}

/// Workers that were ordered and of which nothing came yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orders {
    open: u32,
    /// When the first of them was ordered, or the last answer to one came.
    since: Time,
}

impl Generation {
    /// A generation that the daemon is asked to prepare.
    pub(super) fn begin(now: Time, id: GenerationId, effects: &mut Effects) -> Self {
        let preparation = Preparation::Running { since: now, deadline: now + PREPARE_TIMEOUT };
        effects.push(Effect::Prepare(id));
        Self {
            id,
            spec: None,
            preparation,
            proven: false,
            prepared_again: false,
            worked: false,
            answers_after: None,
            baseline: Baseline::default(),
            backoff: Backoff::default(),
        }
    }

    /// Prepares again if it must be and may be.
    pub(super) fn prepare_if_due(&mut self, now: Time, effects: &mut Effects) {
        if matches!(self.preparation, Preparation::Missing { retry_at } if retry_at <= now) {
            self.preparation = Preparation::Running { since: now, deadline: now + PREPARE_TIMEOUT };
            effects.push(Effect::Prepare(self.id));
        }
    }

    /// What is under way may take this long since it was begun. Whether anything is.
    pub(super) fn may_take(&mut self, limit: Duration) -> bool {
        let Preparation::Running { since, deadline } = &mut self.preparation else { return false };
        *deadline = *since + limit;
        true
    }

    /// How long what is under way may take; zero if nothing is.
    pub(super) fn limit(&self) -> Duration {
        match self.preparation {
            Preparation::Running { since, deadline } => deadline.since(since),
            Preparation::Done { .. } | Preparation::Missing { .. } => Duration::ZERO,
        }
    }

    pub(super) fn prepared(&mut self, now: Time, spec: Spec) {
        let took = match self.preparation {
            Preparation::Running { since, .. } => now.since(since),
            Preparation::Done { .. } | Preparation::Missing { .. } => Duration::ZERO,
        };
        self.preparation = Preparation::Done { took, since: now, orders: Orders { open: 0, since: now } };
        self.prepared_again = self.spec.is_some();
        self.worked = false;
        self.spec.get_or_insert(spec);
    }

    /// The preparation failed or was lost; returns the wait before the next attempt.
    pub(super) fn failed(&mut self, now: Time, random: &mut Random) -> Duration {
        let (start, well_for) = match self.preparation {
            // What makes workers is well for as long as it makes them.
            Preparation::Done { took, since, orders } => {
                let until = if orders.open > 0 { orders.since } else { now };
                (took, until.since(since))
            }
            Preparation::Running { .. } | Preparation::Missing { .. } => (Duration::ZERO, Duration::ZERO),
        };
        let wait = self.backoff.after_failure(start, well_for, random);
        self.preparation = Preparation::Missing { retry_at: now + wait };
        wait
    }

    /// A worker is ordered from what was prepared.
    pub(super) fn ordered(&mut self, now: Time) {
        if let Preparation::Done { orders, .. } = &mut self.preparation {
            if orders.open == 0 {
                orders.since = now;
            }
            orders.open += 1;
        }
    }

    /// An order was answered: the worker was made, or there will be none.
    pub(super) fn order_answered(&mut self, now: Time) {
        if let Preparation::Done { orders, .. } = &mut self.preparation {
            *orders = Orders { open: orders.open.saturating_sub(1), since: now };
        }
    }

    /// Whether nothing has come of its orders for too long.
    pub(super) fn ignores_orders(&self, now: Time) -> bool {
        match self.preparation {
            Preparation::Done { orders, .. } => self.next_answer(orders).is_some_and(|at| at <= now),
            Preparation::Running { .. } | Preparation::Missing { .. } => false,
        }
    }

    /// When it is too late for the next answer to one of its orders.
    fn next_answer(&self, orders: Orders) -> Option<Time> {
        let spec = self.spec.as_ref().filter(|_| orders.open > 0)?;
        Some(orders.since + spec.order_timeout)
    }

    /// The specification, if workers can be spawned from it at this time.
    pub(super) fn spawnable(&self) -> Option<&Spec> {
        match self.preparation {
            Preparation::Done { .. } => self.spec.as_ref(),
            Preparation::Running { .. } | Preparation::Missing { .. } => None,
        }
    }

    /// A worker of it was seen to accept or to answer so long after its birth.
    pub(super) fn answered_after(&mut self, took: Duration) {
        self.answers_after = self.answers_after.max(Some(took));
    }

    /// Whether a worker of it was.
    pub(super) fn was_seen_to_answer(&self) -> bool {
        self.answers_after.is_some()
    }

    /// Whether what makes its workers is there, and has work of its own to do at the end of the service.
    pub(super) fn concludes(&self) -> bool {
        self.spawnable().is_some_and(|spec| spec.concludes)
    }

    /// A worker of it that was born at this time is ready.
    pub(super) fn works(&mut self, born: Time) {
        self.proven = true;
        self.worked |= self.made(born);
    }

    /// Whether a worker of it that was born at this time has the code of the next one: it was not prepared again since.
    pub(super) fn made(&self, born: Time) -> bool {
        matches!(self.preparation, Preparation::Done { since, .. } if since <= born)
    }

    /// Whether its workers come from code in memory of which none was ever ready: only reading it again can be better.
    pub(super) fn holds_useless_code(&self) -> bool {
        let preloaded = self.spec.as_ref().is_some_and(|spec| spec.preloaded);
        preloaded && !self.worked && matches!(self.preparation, Preparation::Done { .. })
    }

    /// Whether its next worker has the code that its workers have, whatever lies on disk.
    pub(super) fn keeps_its_code(&self) -> bool {
        !self.prepared_again && self.spawnable().is_some_and(|spec| spec.preloaded)
    }

    /// When the time is over that its preparation, or the next worker, may take.
    pub(super) fn runs_until(&self) -> Option<Time> {
        match self.preparation {
            Preparation::Running { deadline, .. } => Some(deadline),
            Preparation::Done { orders, .. } => self.next_answer(orders),
            Preparation::Missing { .. } => None,
        }
    }

    /// When this generation must be looked at again.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.runs_until().or(self.retry_at())
    }

    /// When it is prepared again, if it must be.
    pub(super) fn retry_at(&self) -> Option<Time> {
        match self.preparation {
            Preparation::Missing { retry_at } => Some(retry_at),
            Preparation::Running { .. } | Preparation::Done { .. } => None,
        }
    }
}
