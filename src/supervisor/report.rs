//! Reports of the state at a moment: the overview and the snapshot that the daemon shows.

use super::generation::Generation;
use super::health::Health;
use super::id::{SlotId, WorkerId};
use super::rollout::state::Rollout;
use super::slot::Slot;
use super::snapshot::{Overview, Refusal, SlotSnapshot, Snapshot, WorkerSnapshot};
use super::time::Time;
use super::worker::Worker;
use super::{Mode, Supervisor};

impl Supervisor {
    /// Grows whenever an overview may say something else than before.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The state at this moment, without its workers and slots: that takes time and memory for each of them.
    pub fn overview(&self, now: Time) -> Overview {
        let now = self.clock.read(now);
        let slots = self.slots.iter().filter_map(|slot| slot.retry_at);
        let pause = self.life.pause.as_ref().map(|pause| pause.until);
        let preparation = self.generations.get(&self.serving).and_then(|generation| generation.retry_at());
        Overview {
            generation: self.serving,
            wanted: self.wanted(),
            ready: u32::try_from(self.workers.serving_count()).unwrap_or(u32::MAX),
            living: self.workers.len(),
            next_worker: WorkerId(self.ids.next_worker),
            waiting: self.life.mode == Mode::Waiting,
            stopping: matches!(self.life.mode, Mode::Stopping | Mode::Stopped),
            fallback: self.fallback.is_wanted(),
            fallback_failure: self.fallback.failure().map(str::to_owned),
            failing: self.failing.clone(),
            next_attempt_in: slots.chain(preparation).chain(pause).min().map(|at| at.since(now)),
            pause: self.life.pause.as_ref().map(|pause| pause.snapshot(now)),
            maintenance: self.life.maintenance,
            warmth: self.generations.get(&self.serving).map(|generation| generation.warmth.clone()).unwrap_or_default(),
            rollout: self.rollouts.current.as_ref().map(|rollout: &Rollout| (rollout.generation, rollout.step())),
            refusal: self
                .rollouts
                .refusal
                .clone()
                .map(|refusal| Refusal { awaits_successors: !self.keeps_its_code(), ..refusal }),
            unserved: self.rollouts.rebinding.unserved(),
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
            takes_its_sockets: self
                .generations
                .get(&worker.place.generation)
                .is_some_and(Generation::was_seen_to_answer),
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
            restarts: self.life.restarts,
        }
    }
}
