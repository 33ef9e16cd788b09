//! What the core knows, for `sockd status` and the status line.

use super::health::Health;
use super::id::{GenerationId, SlotId, WorkerId};
use super::rollout::Rollout;
use super::slot::Slot;
use super::time::Time;
use super::worker::{Phase, Worker};
use super::{Mode, Supervisor};
use std::ops::Deref;
use std::time::Duration;

/// The state of the instance at one moment, without its workers and slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The generation that empty slots are filled from.
    pub generation: GenerationId,
    /// How many workers it wants, once known.
    pub wanted: Option<u32>,
    /// How many workers are ready and serve.
    pub ready: u32,
    /// How many workers there are, whatever they do.
    pub living: usize,
    /// Who will be the next worker, whichever generation makes it.
    pub next_worker: WorkerId,
    /// Whether sockd waits for the first connection.
    pub waiting: bool,
    /// Whether sockd is stopping.
    pub stopping: bool,
    /// Whether visitors get 503.
    pub fallback: bool,
    /// Why they do not get it although they should.
    pub fallback_failure: Option<String>,
    /// Why the last attempt to start failed, if no worker has been ready since.
    pub failing: Option<String>,
    /// The next attempt to start a worker or to prepare, if one is due.
    pub next_attempt_in: Option<Duration>,
    /// The rollout under way.
    pub rollout: Option<(GenerationId, RolloutStep)>,
    /// The last reload, if it was refused.
    pub refusal: Option<Refusal>,
}

/// An overview with everybody in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The instance as a whole.
    pub overview: Overview,
    /// Everybody, oldest first.
    pub workers: Vec<WorkerSnapshot>,
    /// The pool.
    pub slots: Vec<SlotSnapshot>,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStep {
    /// Reading the configuration, loading the server.
    Preparing,
    /// The canary is being asked.
    Proving,
    /// Slot by slot.
    Replacing,
    /// All are there; the old ones wait to see that they stay well.
    Soaking,
}

/// A reload that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The generation that would have served.
    pub generation: GenerationId,
    /// Why not.
    pub why: String,
    /// When it was decided.
    pub at: Time,
    /// Whether a new worker would load what was refused, because the serving code is not kept in memory.
    pub awaits_successors: bool,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Who.
    pub worker: WorkerId,
    /// Where; a canary has no slot.
    pub slot: Option<SlotId>,
    /// Of which generation.
    pub generation: GenerationId,
    /// In which state.
    pub phase: Phase,
    /// Since the decision to start it.
    pub age: Duration,
    /// Since it was proven, if it is ready.
    pub ready_for: Option<Duration>,
    /// What came of asking it, and how long ago; None while nobody has.
    pub last_probe: Option<(Duration, Result<(), String>)>,
    /// Whether a successor shall take its place, although it serves.
    pub wants_successor: bool,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSnapshot {
    /// Which.
    pub slot: SlotId,
    /// Who stands in it.
    pub current: Option<WorkerId>,
    /// Who comes next.
    pub successor: Option<WorkerId>,
    /// How many workers were started here because the one before had died.
    pub restarts: u32,
    /// Until the next attempt, if the slot backs off.
    pub retry_in: Option<Duration>,
}

impl Deref for Snapshot {
    type Target = Overview;

    fn deref(&self) -> &Overview {
        &self.overview
    }
}

impl Supervisor {
    /// Grows whenever an overview may say something else than before.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The state at this moment, without its workers and slots: that takes time and memory for each of them.
    pub fn overview(&self, now: Time) -> Overview {
        let now = self.clock.read(now);
        let slots = self.slots.iter().filter_map(|slot| slot.retry_at);
        let preparation = self.generations.get(&self.serving).and_then(|generation| generation.retry_at());
        Overview {
            generation: self.serving,
            wanted: self.wanted(),
            ready: u32::try_from(self.workers.serving_count()).unwrap_or(u32::MAX),
            living: self.workers.len(),
            next_worker: WorkerId(self.next_worker),
            waiting: self.mode == Mode::Waiting,
            stopping: matches!(self.mode, Mode::Stopping | Mode::Stopped),
            fallback: self.fallback.is_wanted(),
            fallback_failure: self.fallback.failure().map(str::to_owned),
            failing: self.failing.clone(),
            next_attempt_in: slots.chain(preparation).min().map(|at| at.since(now)),
            rollout: self.rollout.as_ref().map(|rollout: &Rollout| (rollout.generation, rollout.step())),
            refusal: self
                .refusal
                .clone()
                .map(|refusal| Refusal { awaits_successors: !self.keeps_its_code(), ..refusal }),
        }
    }

    /// The whole state at this moment.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        let (outside, now) = (now, self.clock.read(now));
        let worker = |worker: &Worker| WorkerSnapshot {
            worker: worker.id(),
            slot: worker.place.slot,
            generation: worker.place.generation,
            phase: worker.phase(),
            age: now.since(worker.born()),
            ready_for: worker.ready_for(now),
            last_probe: worker.health().and_then(Health::last).map(|(at, verdict)| (now.since(*at), verdict.clone())),
            wants_successor: worker.wants_successor(),
        };
        let slot = |(index, slot): (u32, &Slot)| SlotSnapshot {
            slot: SlotId(index),
            current: slot.current,
            successor: slot.successor,
            restarts: slot.restarts,
            retry_in: slot.retry_at.map(|at| at.since(now)),
        };
        Snapshot {
            overview: self.overview(outside),
            workers: self.workers.values().map(worker).collect(),
            slots: (0..).zip(&self.slots).map(slot).collect(),
        }
    }
}
