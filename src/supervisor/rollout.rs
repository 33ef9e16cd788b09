//! A rollout: from one generation to the next by a canary, so that the old one serves until the new one is proven.
//!
//! ```text
//!   Preparing -> Proving (the canary, without the public socket) -> Replacing -> Soaking -> the old ones drain, handover
//!     |  ^  |          |                                                |           |
//!     v  |  |          |                                                |           |
//!   Checking|          |                                                |           |
//!     |     |          |                                                |           |
//!     +-----+----------+------------------- refused: the new ones go ---+-----------+
//! ```
//!
//! Checking (check.rs) is between reading and loading, where the operator has programs for it. Trying (trial.rs) is between
//! proving and replacing, where visitors are to try the new generation on a few workers first.
//!
//! A new worker that is proven stands beside its predecessor until the whole generation is proven: the old workers
//! are not touched before, so backing out takes nothing from anybody. Where memory does not allow for two workers in
//! every slot, `surge` limits the pairs; then the predecessor of the oldest pair drains to make room for the next, and
//! backing out puts workers of the old generation into those slots again, proven first, like any replacement.
//!
//! A request that arrives during a rollout waits for its end and gets a rollout of its own, since the files may have
//! changed meanwhile; all requests that wait for the same source share it: a rollback never shares that of a plain reload.
//! It never supersedes the running one: a script that reloads
//! every second could otherwise keep every rollout from its end. The wait is bounded by the start timeout.

mod check;
pub(super) mod comparison;
mod exact_test;
pub(super) mod state;
mod trial;

use super::effect::{Announcement, Effect, Effects, Outcome, Progress};
use super::generation::Generation;
use super::id::{GenerationId, RequestId, SlotId, WorkerId};
use super::notice::Notice;
use super::record::{Proof, RecordResult};
use super::slot::Slot;
use super::snapshot::Refusal;
use super::spec::{CANARY_WATCH, HANDOVER, MANAGER_MARGIN, PREPARE_TIMEOUT, Spec};
use super::time::Time;
use super::worker::{Phase, Worker};
use super::{Mode, Supervisor};
use state::{Handover, Rollout, Rollouts, Step, Wanted};
use std::time::Duration;

impl Supervisor {
    /// Begins a rollout if one was asked for, and takes the running one as far as it goes at this time.
    pub(super) fn settle_rollout(&mut self, now: Time, effects: &mut Effects) {
        self.settle_handover(now, effects);
        self.begin_rollout_if_asked(now, effects);
        self.advance_checks(now, effects);
        self.advance_rollout(now, effects);
        // It may be over, with others who wait for the next one.
        self.begin_rollout_if_asked(now, effects);
        let may_reload = self.may_bring_socket();
        self.rollouts.rebinding.settle(now, self.serving, may_reload, effects);
    }

    /// Whether workers serve that a socket may be brought to, and none are being replaced.
    pub(super) fn may_bring_socket(&self) -> bool {
        let Rollouts { current, handover, waiting, .. } = &self.rollouts;
        let reloads = current.is_some() || handover.is_some() || !waiting.is_empty();
        self.life.mode == Mode::Running && !reloads && self.somebody_serves()
    }

    /// Somebody wants a reload, a trial or a rollback.
    pub(super) fn reload_requested(&mut self, wanted: Wanted, effects: &mut Effects) {
        match self.life.mode {
            Mode::Waiting | Mode::Running => self.rollouts.waiting.push(wanted),
            Mode::Stopping | Mode::Stopped => effects.push(Effect::Answer(wanted.request, Outcome::Stopping)),
        }
    }

    fn advance_rollout(&mut self, now: Time, effects: &mut Effects) {
        let Some(rollout) = &self.rollouts.current else { return };
        let id = rollout.generation;
        // Once prepared, a rollout's generation stays so: losing the preparation refuses the rollout.
        let Some(spec) = self.generations.get(&id).and_then(Generation::spawnable).cloned() else { return };
        match rollout.step {
            Step::Preparing => self.leave_preparing(now, id, &spec, effects),
            Step::Proving { canary, watch_until: Some(until) } if until <= now => {
                self.drain(now, Some(canary), effects);
                self.note_proof(|proof| proof.canary = true);
                effects.push(Effect::ReportProgress(Progress::CanaryProven));
                effects.notice(Notice::CanaryProven(id));
                self.leave_proving(now, id, &spec, effects);
            }
            Step::Checking { .. } | Step::Proving { .. } => {}
            Step::Trying(_) => self.advance_trial(now, id, &spec, effects),
            Step::Replacing => self.replace(now, id, &spec, effects),
            Step::Soaking { until } if until <= now => self.complete_rollout(now, id, effects),
            Step::Soaking { .. } => {}
        }
    }

    fn begin_rollout_if_asked(&mut self, now: Time, effects: &mut Effects) {
        if self.rollouts.current.is_some() || self.rollouts.handover.is_some() {
            return;
        }
        let Some((source, trial, requests)) = self.rollouts.take_waiting() else { return };
        let generation = GenerationId(self.ids.next_generation);
        self.ids.next_generation += 1;
        effects.push(Effect::Announce(Announcement::Reloading));
        effects.push(Effect::Announce(Announcement::ExtendTimeout(PREPARE_TIMEOUT + MANAGER_MARGIN)));
        effects.push(Effect::ReportProgress(Progress::Preparing(generation)));
        effects.notice(Notice::RolloutBegun(generation));
        let (step, proof) = (Step::Preparing, Proof::default());
        self.rollouts.current = Some(Rollout { generation, requests, trial, step, source, begun: now, proof });
        self.generations.insert(generation, Generation::begin(now, generation, source, effects));
    }

    fn leave_preparing(&mut self, now: Time, id: GenerationId, spec: &Spec, effects: &mut Effects) {
        // With nobody who serves there is nothing to protect, and a visitor waits for the first worker.
        let protects = self.holds_back() || self.somebody_serves();
        if spec.canary && protects {
            let canary = self.spawn(now, id, None, spec, effects);
            self.set_step(Step::Proving { canary, watch_until: None });
        } else {
            self.leave_proving(now, id, spec, effects);
        }
    }

    /// The canary has answered well. It is watched a little longer: a process that ends right after its first request
    /// would otherwise take a visitor along, once its code holds the public socket.
    pub(super) fn canary_proven(&mut self, now: Time, canary: WorkerId, effects: &mut Effects) {
        let Some(Rollout { generation, step: Step::Proving { .. }, .. }) = &self.rollouts.current else {
            self.drain(now, Some(canary), effects);
            return;
        };
        let soak = self.generations.get(generation).and_then(|g| g.spec.as_ref()).map_or(Duration::ZERO, |s| s.soak);
        self.set_step(Step::Proving { canary, watch_until: Some(now + soak.min(CANARY_WATCH)) });
    }

    fn leave_proving(&mut self, now: Time, id: GenerationId, spec: &Spec, effects: &mut Effects) {
        if self.holds_back() {
            self.complete_rollout(now, id, effects);
            return;
        }
        // Replacements that were under way for other reasons are overtaken.
        for index in 0..self.slots.len() {
            let successor = self.slots[index].successor.take();
            self.drain(now, successor, effects);
        }
        self.set_step(self.trial(spec).unwrap_or(Step::Replacing));
        self.advance_rollout(now, effects);
    }

    /// Starts the next successors, or notices that all are there.
    fn replace(&mut self, now: Time, id: GenerationId, spec: &Spec, effects: &mut Effects) {
        if self.fill_with_successors(now, id, spec, spec.workers, effects) {
            effects.push(Effect::ReportProgress(Progress::Soaking(spec.soak)));
            effects.notice(Notice::Soaking { generation: id, soak: spec.soak });
            let by = now + spec.soak / 2;
            self.workers.update_each(|w| w.place.generation == id, |worker| worker.ask_by(by));
            effects.push(Effect::Announce(Announcement::ExtendTimeout(spec.soak + MANAGER_MARGIN)));
            self.set_step(Step::Soaking { until: now + spec.soak });
            self.note_proof(|proof| proof.workers = spec.workers);
            if spec.soak.is_zero() {
                self.complete_rollout(now, id, effects);
            }
        }
    }

    /// Starts the next successors in the first so many slots. Whether all are there and proven.
    fn fill_with_successors(
        &mut self,
        now: Time,
        id: GenerationId,
        spec: &Spec,
        slots: u32,
        effects: &mut Effects,
    ) -> bool {
        let wanted = spec.workers as usize;
        self.make_slots(wanted);
        // One after the other, gentle to the visitors who are being served; a large pool in batches.
        let batch = if self.generations[&id].proven { (wanted / 16).max(1) } else { 1 };
        let mut starting = self.workers.starting_count(id);
        // Half a batch at a time: who looks through a thousand slots whenever one worker is ready looks a million times.
        if starting > batch / 2 {
            return false;
        }
        let held = self.slots_of(id);
        for (index, _) in (0..slots as usize).zip(held).filter(|(_, held)| !held) {
            if starting >= batch {
                return false;
            }
            if self.slots[index].current.is_some() && !self.make_room(now, spec, effects) {
                return false;
            }
            let successor = self.spawn(now, id, Some(SlotId(index as u32)), spec, effects);
            self.slots[index].successor = Some(successor);
            starting += 1;
        }
        starting == 0
    }

    /// Whether one more pair of old and new is allowed; drains the predecessor of a proven pair where that helps.
    fn make_room(&mut self, now: Time, spec: &Spec, effects: &mut Effects) -> bool {
        let pair = |slot: &&Slot| slot.current.is_some() && slot.successor.is_some();
        if self.slots.iter().filter(pair).count() < spec.surge.max(1) as usize {
            return true;
        }
        let proven = |slot: &Slot| {
            slot.current.is_some()
                && slot.successor.and_then(|id| self.workers.get(id)).is_some_and(|w| w.phase() == Phase::Ready)
        };
        let Some(index) = self.slots.iter().position(proven) else { return false };
        let predecessor = self.slots[index].promote();
        self.drain(now, predecessor, effects);
        true
    }

    /// Which slots have a worker of this generation.
    fn slots_of(&self, id: GenerationId) -> Vec<bool> {
        let mut held = vec![false; self.slots.len()];
        let stands = |worker: &&Worker| matches!(worker.phase(), Phase::Starting | Phase::Ready);
        for worker in self.workers.values().filter(|worker| worker.place.generation == id).filter(stands) {
            if let Some(held) = worker.place.slot.and_then(|slot| held.get_mut(slot.0 as usize)) {
                *held = true;
            }
        }
        held
    }

    /// The new generation is proven: it takes every slot, and the old one drains.
    fn complete_rollout(&mut self, now: Time, id: GenerationId, effects: &mut Effects) {
        let Some(mut rollout) = self.rollouts.current.take() else { return };
        for index in 0..self.slots.len() {
            if self.slots[index].successor.is_some() {
                let predecessor = self.slots[index].promote();
                self.drain(now, predecessor, effects);
            }
        }
        let old = std::mem::replace(&mut self.serving, id);
        self.generations.remove(&old);
        effects.push(Effect::Release(old));
        self.resize_pool(now, effects);
        self.rollouts.refusal = None;
        self.failing = None;
        effects.notice(Notice::RolloutDone(id));
        let (outcome, result) = match self.life.mode {
            Mode::Waiting => (Outcome::Waiting(id), RecordResult::Waiting),
            Mode::Running | Mode::Stopping | Mode::Stopped => {
                rollout.proof.soak =
                    self.generations.get(&id).and_then(|g| g.spec.as_ref()).map_or(Duration::ZERO, |s| s.soak);
                self.life.start_record.done = true;
                let outcome = if self.holds_back() { Outcome::WaitingForResume(id) } else { Outcome::Serving(id) };
                (outcome, RecordResult::Serving)
            }
        };
        effects.push(Effect::Record(rollout.record(now, result)));
        let until = now + HANDOVER;
        self.rollouts.handover = Some(Handover { generation: id, requests: rollout.requests, outcome, until });
        self.settle_handover(now, effects);
    }

    /// Tells the clients that asked once the old workers have left, or had the time to hear that they accept no more.
    fn settle_handover(&mut self, now: Time, effects: &mut Effects) {
        if self.rollouts.handover.is_none() {
            return;
        }
        let old = self.workers.values().any(|worker| worker.place.generation != self.serving);
        if let Some(handover) = self.rollouts.handover.take_if(|handover| !old || handover.until <= now) {
            end_rollout(handover.generation, handover.requests, &handover.outcome, effects);
        }
    }

    /// Something was wrong with the new generation: it goes; the old one was never stopped.
    pub(super) fn refuse_rollout(&mut self, now: Time, why: String, worker: Option<WorkerId>, effects: &mut Effects) {
        let Some(rollout) = self.rollouts.current.take() else { return };
        let id = rollout.generation;
        let result = match rollout.proof.workers {
            0 => RecordResult::Refused { why: why.clone() },
            _ => RecordResult::TakenBack { why: why.clone() },
        };
        effects.push(Effect::Record(rollout.record(now, result)));
        if let Step::Proving { canary, .. } = rollout.step {
            self.drain(now, Some(canary), effects);
        }
        let wanted = self.wanted().unwrap_or(0) as usize;
        let successors: Vec<_> = self.slots.iter_mut().filter_map(|slot| slot.successor.take()).collect();
        for id in successors {
            // Where an old worker died meanwhile, a proven new one serves on until one of the old generation is
            // proven again: backing out, too, takes nothing from anybody.
            let ready = |id: WorkerId| self.workers.get(id).is_some_and(|w| w.phase() == Phase::Ready);
            let vacant = self.slots.iter().take(wanted).position(|slot| !slot.current.is_some_and(ready));
            match vacant {
                Some(index) if ready(id) => {
                    self.workers.update(id, |worker| worker.place.slot = Some(SlotId(index as u32)));
                    let slot = &mut self.slots[index];
                    slot.successor = slot.current.replace(id);
                }
                _ => self.drain(now, Some(id), effects),
            }
        }
        let surplus: Vec<_> = self.slots.iter().skip(wanted).filter_map(|slot| slot.current).collect();
        for worker in surplus {
            self.drain(now, Some(worker), effects);
        }
        self.slots.truncate(wanted);
        self.generations.remove(&id);
        effects.push(Effect::Release(id));
        effects.notice(Notice::RolloutRefused { generation: id, why: why.clone() });
        self.rollouts.rebinding.refused(id, effects);
        self.rollouts.refusal =
            Some(Refusal { generation: id, why: why.clone(), at: self.clock.outside(now), awaits_successors: false });
        end_rollout(id, rollout.requests, &Outcome::Refused { generation: id, why, worker }, effects);
    }

    /// Whether this generation is complete and watched before the old one goes.
    pub(super) fn soaks(&self, generation: GenerationId) -> bool {
        let soaking = |r: &Rollout| r.generation == generation && matches!(r.step, Step::Soaking { .. });
        self.rollouts.current.as_ref().is_some_and(soaking)
    }

    /// The new code has shown more.
    pub(super) fn note_proof(&mut self, note: impl FnOnce(&mut Proof)) {
        if let Some(rollout) = &mut self.rollouts.current {
            note(&mut rollout.proof);
        }
    }

    fn set_step(&mut self, step: Step) {
        if let Some(rollout) = &mut self.rollouts.current {
            rollout.step = step;
        }
    }
}

/// Tells the service manager, the clients that asked and the operator's program how it ended.
pub(super) fn end_rollout(
    generation: GenerationId,
    requests: Vec<RequestId>,
    outcome: &Outcome,
    effects: &mut Effects,
) {
    let verdict = match outcome {
        Outcome::Serving(_) | Outcome::Waiting(_) | Outcome::WaitingForResume(_) => Some(Ok(())),
        Outcome::Refused { why, .. } => Some(Err(why.clone())),
        // Nothing came of it.
        Outcome::Stopping
        | Outcome::Promoted(_)
        | Outcome::NothingTried
        | Outcome::CalledOff(_)
        | Outcome::NothingToCallOff
        | Outcome::Replacing(_)
        | Outcome::NotReplaced { .. }
        | Outcome::Paused { .. }
        | Outcome::NotPaused(_)
        | Outcome::Maintained
        | Outcome::Resumed { .. }
        | Outcome::NotServing { .. }
        | Outcome::NothingToResume => None,
    };
    if verdict.is_some() {
        effects.push(Effect::Announce(Announcement::ReloadEnded));
    }
    for request in requests {
        effects.push(Effect::Answer(request, outcome.clone()));
    }
    if let Some(verdict) = verdict {
        effects.push(Effect::RunAfterReload { generation, verdict });
    }
}
