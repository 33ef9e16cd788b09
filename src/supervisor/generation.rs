//! A generation: one configuration, and whether workers can be made from it at this time.

use super::acceptance::Baseline;
use super::backoff::Backoff;
use super::effect::{Effect, Effects};
use super::id::{GenerationId, WorkerId};
use super::random::Random;
use super::record::Source;
use super::spec::{Checks, PREPARE_TIMEOUT, Spec};
use super::time::Time;
use super::warm::state::Warmth;
use std::time::Duration;

/// What a generation's checks are, or why they cannot be run.
pub(super) type Checkable = Result<Checks, String>;

#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) id: GenerationId,
    /// What it is read from.
    pub(super) source: Source,
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
    pub(super) warmth: Warmth,
    backoff: Backoff,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Preparation {
    /// The daemon reads the configuration.
    Reading { since: Time, deadline: Time },
    /// It was read, and nothing is loaded: that of a rollout is checked first.
    Read { since: Time, deadline: Time, checks: Checkable },
    /// The daemon boots what makes the workers.
    Loading { since: Time, deadline: Time },
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
    pub(super) fn begin(now: Time, id: GenerationId, source: Source, effects: &mut Effects) -> Self {
        effects.push(Effect::Read { generation: id, source });
        Self {
            id,
            source,
            spec: None,
            preparation: Preparation::Reading { since: now, deadline: now + PREPARE_TIMEOUT },
            proven: false,
            prepared_again: false,
            worked: false,
            answers_after: None,
            baseline: Baseline::default(),
            warmth: Warmth::default(),
            backoff: Backoff::default(),
        }
    }

    /// Prepares the serving generation: again if it must be and may be, and without its checks, since there is no better
    /// code to keep.
    pub(super) fn prepare_if_due(&mut self, now: Time, effects: &mut Effects) {
        if matches!(self.preparation, Preparation::Missing { retry_at } if retry_at <= now) {
            self.preparation = Preparation::Reading { since: now, deadline: now + PREPARE_TIMEOUT };
            effects.push(Effect::Read { generation: self.id, source: self.source });
        }
        self.load(effects);
    }

    /// What there was to read was read.
    pub(super) fn was_read(&mut self, checks: Checkable) {
        if let Preparation::Reading { since, deadline } = self.preparation {
            self.preparation = Preparation::Read { since, deadline, checks };
        }
    }

    /// Its checks, if it waits for them.
    pub(super) fn checkable(&self) -> Option<&Checkable> {
        match &self.preparation {
            Preparation::Read { checks, .. } => Some(checks),
            Preparation::Reading { .. }
            | Preparation::Loading { .. }
            | Preparation::Done { .. }
            | Preparation::Missing { .. } => None,
        }
    }

    /// What was read is loaded in the time that is left, if it was read.
    pub(super) fn load(&mut self, effects: &mut Effects) {
        if let Preparation::Read { since, deadline, .. } = self.preparation {
            self.preparation = Preparation::Loading { since, deadline };
            effects.push(Effect::Load(self.id));
        }
    }

    /// Its checks have ended well: it is loaded, and the time for that begins.
    pub(super) fn load_checked(&mut self, now: Time, effects: &mut Effects) {
        if let Preparation::Read { since, deadline, .. } = &mut self.preparation {
            (*since, *deadline) = (now, now + PREPARE_TIMEOUT);
        }
        self.load(effects);
    }

    /// Loading may take this long since it was begun. Whether it is under way.
    pub(super) fn may_take(&mut self, limit: Duration) -> bool {
        let Preparation::Loading { since, deadline } = &mut self.preparation else { return false };
        *deadline = *since + limit;
        true
    }

    /// How long what is under way may take, if its time is over.
    pub(super) fn overdue(&self, now: Time) -> Option<Duration> {
        match self.preparation {
            Preparation::Reading { since, deadline } | Preparation::Loading { since, deadline } if deadline <= now => {
                Some(deadline.since(since))
            }
            Preparation::Reading { .. }
            | Preparation::Read { .. }
            | Preparation::Loading { .. }
            | Preparation::Done { .. }
            | Preparation::Missing { .. } => None,
        }
    }

    pub(super) fn prepared(&mut self, now: Time, spec: Spec) {
        // Prepared unasked, it was released meanwhile.
        let Preparation::Loading { since, .. } = self.preparation else { return };
        let took = now.since(since);
        self.preparation = Preparation::Done { took, since: now, orders: Orders { open: 0, since: now } };
        self.prepared_again = self.spec.is_some();
        self.worked = false;
        self.warmth = Warmth::default();
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
            Preparation::Reading { .. }
            | Preparation::Read { .. }
            | Preparation::Loading { .. }
            | Preparation::Missing { .. } => (Duration::ZERO, Duration::ZERO),
        };
        let wait = self.backoff.after_failure(start, well_for, random);
        self.warmth = Warmth::default();
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
            Preparation::Reading { .. }
            | Preparation::Read { .. }
            | Preparation::Loading { .. }
            | Preparation::Missing { .. } => false,
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
            Preparation::Reading { .. }
            | Preparation::Read { .. }
            | Preparation::Loading { .. }
            | Preparation::Missing { .. } => None,
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

    /// The first of its workers that its warm template makes, if it has one: those before are to be replaced.
    pub(super) fn warm_from(&self) -> Option<WorkerId> {
        if let Warmth::Warm(first) = self.warmth { Some(first) } else { None }
    }

    /// Whether its next worker has the code that its workers have, whatever lies on disk.
    pub(super) fn keeps_its_code(&self) -> bool {
        !self.prepared_again && self.spawnable().is_some_and(|spec| spec.preloaded)
    }

    /// When the time is over that its preparation, or the next worker, may take.
    pub(super) fn runs_until(&self) -> Option<Time> {
        match self.preparation {
            Preparation::Reading { deadline, .. } | Preparation::Loading { deadline, .. } => Some(deadline),
            Preparation::Done { orders, .. } => self.next_answer(orders),
            Preparation::Read { .. } | Preparation::Missing { .. } => None,
        }
    }

    /// When this generation must be looked at again.
    pub(super) fn deadline(&self) -> Option<Time> {
        let warms_at = if let Warmth::Due(at) = self.warmth { Some(at) } else { None };
        [self.runs_until().or(self.retry_at()), warms_at].into_iter().flatten().min()
    }

    /// When it is prepared again, if it must be.
    pub(super) fn retry_at(&self) -> Option<Time> {
        match self.preparation {
            Preparation::Missing { retry_at } => Some(retry_at),
            Preparation::Reading { .. }
            | Preparation::Read { .. }
            | Preparation::Loading { .. }
            | Preparation::Done { .. } => None,
        }
    }
}
