//! Health in the simulated world: who is asked and fails, who is too old or too big, and what must never come of it.
//!
//! Two invariants: nobody is replaced who is well, and nobody stays who has long been found silent.

use super::simulation::{World, ms};
use sockd_supervisor::{
    Effect, Effects, Event, GenerationId, Phase, ProbeOutcome, Signal, Snapshot, Spec, Time, WorkerEvent, WorkerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a question may remain without an answer.
const PATIENCE: Duration = ms(5_000);

/// What a worker suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sickness {
    /// Its loop turns and beats, and nobody gets an answer.
    Silent,
    /// It answers everybody, and wrongly.
    Ill,
}

/// What the world knows of its workers' health.
#[derive(Clone, Debug, Default)]
pub struct Records {
    sick: BTreeMap<WorkerId, (Sickness, Time)>,
    asked: BTreeSet<WorkerId>,
    ever_silent: BTreeSet<WorkerId>,
    /// Questions in a row that failed.
    failures: BTreeMap<WorkerId, u32>,
    /// Who asked for a successor, or was found to be too big.
    retiring: BTreeSet<WorkerId>,
    specs: BTreeMap<GenerationId, Spec>,
    /// Until then nobody is being served.
    idle_until: Time,
}

impl Records {
    /// What holds for a generation.
    pub fn spec(&self, generation: GenerationId) -> &Spec {
        &self.specs[&generation]
    }
}

impl World {
    /// From here on this worker suffers.
    pub fn sicken(&mut self, id: WorkerId, sickness: Sickness) {
        self.records.sick.insert(id, (sickness, self.now));
        if sickness == Sickness::Silent {
            self.records.ever_silent.insert(id);
        }
    }

    /// From here on it is well.
    pub fn heal(&mut self, id: WorkerId) {
        self.records.sick.remove(&id);
    }

    /// From here on nobody is being served for so long.
    pub fn be_idle(&mut self, span: Duration) {
        self.records.idle_until = self.now + span;
    }

    /// It holds more memory than it may.
    pub fn bloat(&mut self, id: WorkerId) {
        self.records.retiring.insert(id);
        self.event(Event::Worker(id, WorkerEvent::Measured { memory: u64::MAX }));
    }

    /// Whether it ever suffered: what came of that may still be under way.
    pub fn was_silent(&self, id: WorkerId) -> bool {
        self.records.ever_silent.contains(&id)
    }

    pub fn is_silent(&self, id: WorkerId) -> bool {
        matches!(self.records.sick.get(&id), Some((Sickness::Silent, _)))
    }

    pub(super) fn record_spec(&mut self, generation: GenerationId, spec: Spec) {
        self.records.specs.insert(generation, spec);
    }

    /// The question, and when its answer comes.
    pub(super) fn probed(
        &mut self,
        id: WorkerId,
        skip_when_idle: bool,
        dead: bool,
        ill: bool,
    ) -> (Duration, ProbeOutcome) {
        assert!(self.records.asked.insert(id), "worker {id} is asked twice at a time\n{}", self.story());
        // Not as recorded here: a bad answer after a standstill does not count, and a judgement makes up for one.
        let shown = self.core.snapshot(self.now).workers.into_iter().find(|worker| worker.worker == id);
        let failed = shown.and_then(|worker| worker.last_probe).is_some_and(|(_, verdict)| verdict.is_err());
        assert!(!(skip_when_idle && failed), "worker {id} failed and is not asked in earnest\n{}", self.story());
        if skip_when_idle && self.now < self.records.idle_until {
            return (ms(0), ProbeOutcome::Idle);
        }
        match self.records.sick.get(&id) {
            _ if dead => (PATIENCE, ProbeOutcome::NoAnswer("no answer".to_owned())),
            Some((Sickness::Silent, _)) => (PATIENCE, ProbeOutcome::NoAnswer("no answer".to_owned())),
            Some((Sickness::Ill, _)) => (ms(20), ProbeOutcome::BadAnswer("500".to_owned())),
            None if ill => (ms(20), ProbeOutcome::BadAnswer("500".to_owned())),
            None => (ms(20), ProbeOutcome::Healthy),
        }
    }

    /// What an event says of a worker's health.
    pub(super) fn record(&mut self, event: &Event) {
        if let Event::Worker(id, WorkerEvent::Probed(finding)) = event {
            assert!(self.records.asked.remove(id), "answered unasked");
            match finding {
                ProbeOutcome::Healthy | ProbeOutcome::Idle => drop(self.records.failures.remove(id)),
                ProbeOutcome::BadAnswer(_) | ProbeOutcome::NoAnswer(_) => {
                    *self.records.failures.entry(*id).or_default() += 1
                }
            }
        } else if let Event::Worker(id, WorkerEvent::Served { .. }) = event
            && let Some((_, since)) = self.records.sick.get_mut(id)
        {
            // Stuck it is from here on, if at all.
            *since = self.now;
        } else if let Event::Worker(id, WorkerEvent::WantsRetirement) | Event::ReplacementRequested { worker: id, .. } =
            event
        {
            self.records.retiring.insert(*id);
        } else if let Event::Warmed(generation) = event {
            // Each that is there was made before.
            let theirs = self.processes.iter().filter(|(_, process)| process.generation == *generation);
            self.records.retiring.extend(theirs.map(|(id, _)| *id));
        }
    }

    /// The invariants of one step.
    pub(super) fn check_health(&self, before: &Snapshot, after: &Snapshot, effects: &Effects) {
        for worker in after.workers.iter().filter(|w| w.phase == Phase::Ready) {
            let Some((Sickness::Silent, since)) = self.records.sick.get(&worker.worker) else { continue };
            let spec = &self.records.specs[&worker.generation];
            let Some(probe) = spec.probe else { continue };
            let since = (*since).max(self.last_standstill).max(self.records.idle_until);
            let ready = self.now.since(since).min(worker.ready_for.unwrap_or_default());
            // The first questions may fall into the grace; a second goes to the common grid.
            let found = probe.grace + (probe.interval.max(PATIENCE) + ms(1_000)) * (probe.failures + 1) + PATIENCE;
            let most = found + spec.start_timeout;
            assert!(ready <= most, "worker {} is silent and stays for {ready:?}\n{}", worker.worker, self.story());
        }
        if before.rollout.is_some() || after.rollout.is_some() || before.generation != after.generation {
            return;
        }
        for effect in effects {
            let Effect::Signal(id, Signal::Drain) = effect else { continue };
            let serves = |w: &&sockd_supervisor::WorkerSnapshot| {
                w.worker == *id && w.phase == Phase::Ready && w.generation == before.generation
            };
            let Some(worker) = before.workers.iter().find(serves) else { continue };
            let Some(slot) = before.slots.iter().find(|slot| slot.current == Some(*id)) else { continue };
            let spec = &self.records.specs[&worker.generation];
            let old = spec.max_age.is_some_and(|age| worker.ready_for.unwrap_or_default() >= age.mul_f64(0.9));
            let failures = self.records.failures.get(id).copied().unwrap_or_default();
            let sick = spec.probe.is_some_and(|probe| failures >= probe.failures);
            let surplus = slot.slot.0 >= after.wanted.unwrap_or(0);
            let reason = old || sick || surplus || self.records.retiring.contains(id);
            assert!(reason, "worker {id} was replaced without a reason\n{}", self.story());
        }
    }
}
