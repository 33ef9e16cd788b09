//! The pool: what a worker's event means for its slot, and how slots are filled.

use super::acceptance::{Answers, Baseline, ProbeOutcome};
use super::effect::{Announcement, Effect, Effects, Progress, Role};
use super::event::{Accepts, WorkerEvent};
use super::generation::Generation;
use super::health::{Health, Unhealthy};
use super::id::{GenerationId, SlotId, WorkerId, WorkerRef};
use super::notice::Notice;
use super::slot::Slot;
use super::spec::{MANAGER_MARGIN, MAX_WORKERS, Spec};
use super::time::Time;
use super::worker::{Change, Phase, Worker};
use super::{Mode, Supervisor};
use std::time::Duration;

/// A worker that cannot be asked is given so much more time than another of its code took.
const ANSWER_TIME_MARGIN: f64 = 1.25;

impl Supervisor {
    /// With nobody who serves and nobody about to, visitors get an answer from us.
    pub(super) fn settle_fallback(&mut self, now: Time, effects: &mut Effects) {
        let starting = || self.workers.values().any(|w| w.phase() == Phase::Starting);
        let backing_off = || self.slots.iter().any(|slot| slot.retry_at.is_some());
        // Workers are looked at last: this runs at each event of each of them.
        if self.is_held_back() {
            return self.fallback.settle(self.turns_away_on_purpose(), true, effects);
        }
        let wanted = self.life.mode == Mode::Running
            && (self.failing.is_some() || backing_off() && !starting())
            && !self.somebody_serves();
        let why = || self.failing.clone().unwrap_or_else(|| "every worker ended shortly after its start".to_owned());
        let why = wanted.then(why);
        why.iter().for_each(|why| self.record_failed_start(now, why, effects));
        self.fallback.settle(why, false, effects);
    }

    /// Whether anything follows for others than this worker.
    pub(super) fn worker_event(
        &mut self,
        now: Time,
        id: WorkerId,
        mut event: WorkerEvent,
        effects: &mut Effects,
    ) -> bool {
        // Where others serve, what waits may wait for them, and they may have accepted what waits no longer. The 503
        // helper does the second.
        if let WorkerEvent::Inspected { accepts, .. } = &mut event {
            let others = match accepts {
                Accepts::NotYet => self.somebody_serves(),
                Accepts::NobodyWaits => self.somebody_serves() || self.fallback.is_wanted(),
                Accepts::Yes | Accepts::Unknown => false,
            };
            if others {
                *accepts = Accepts::Unknown;
            }
        }
        if let WorkerEvent::HeartbeatRead { last: Some(at) } = &mut event {
            *at = self.clock.counted(*at);
        }
        if let WorkerEvent::Judged { verdict, answers } = &mut event
            && let Some(worker) = self.workers.get(id)
        {
            self.remember_answers(worker.place.generation, verdict.is_ok(), std::mem::take(answers));
        }
        // One that is not known was reaped: the event was on its way when it died.
        let Some(asks_again) = self.workers.update(id, |worker| worker.asks_again(now, &event)) else { return false };
        if let Some(change) = asks_again {
            self.apply(now, id, change, effects);
            return true;
        }
        let worker = &self.workers[id];
        let may_be_silent = |g: &Generation| g.spec.as_ref().is_some_and(|spec| spec.ready_after.is_some());
        if event == WorkerEvent::SaidReady && self.generations.get(&worker.place.generation).is_some_and(may_be_silent)
        {
            self.speaks = true;
        }
        let complaint = if let WorkerEvent::Judged { verdict: Err(why), .. }
        | WorkerEvent::Probed(ProbeOutcome::BadAnswer(why)) = &event
        {
            Some(why.clone())
        } else {
            None
        };
        let was_ready = worker.phase() == Phase::Ready;
        let place = worker.place;
        if matches!(event, WorkerEvent::Spawned | WorkerEvent::SpawnFailed { .. })
            && let Some(generation) = self.generations.get_mut(&place.generation)
        {
            generation.order_answered(now);
            // It is the turn of the next one, which could not be made before.
            let waits = |worker: &Worker| worker.place.generation == place.generation && worker.waits_for_its_turn();
            self.workers.update_each(waits, |worker| worker.turn_comes(now));
        }
        let Some(change) = self.workers.update(id, |worker| worker.handle(now, event, effects)) else { return false };
        // Beside the old code, the new must not be ill even once.
        if let Some(why) = complaint
            && was_ready
            && self.rollouts.current.as_ref().is_some_and(|rollout| rollout.generation == place.generation)
        {
            effects.notice(Notice::WorkerUnhealthy { place, why: why.clone() });
            self.refuse_rollout(now, why, Some(id), effects);
            return true;
        }
        // Who is asked stays what it was until the answer comes.
        let follows = !matches!(change, Change::None | Change::Judge | Change::Ask);
        self.apply(now, id, change, effects);
        follows
    }

    pub(super) fn apply(&mut self, now: Time, id: WorkerId, change: Change, effects: &mut Effects) {
        match change {
            Change::None => {}
            Change::Judge => self.judge(now, id, effects),
            Change::Proven => self.worker_proven(now, id, effects),
            Change::Ask if self.soaks(self.workers[id].place.generation) => self.judge(now, id, effects),
            Change::Ask => {
                let worker = &self.workers[id];
                // One that failed when it was last asked is asked in earnest.
                let failed = |health: &Health| health.last().is_some_and(|(_, verdict)| verdict.is_err());
                let spec =
                    self.generations.get(&worker.place.generation).and_then(|generation| generation.spec.as_ref());
                let may_skip = spec.and_then(|spec| spec.probe).is_some_and(|probe| probe.skip_when_idle);
                let skip_when_idle = may_skip && !worker.health().is_some_and(failed);
                effects.push(Effect::Probe { worker: id, skip_when_idle });
            }
            Change::Unhealthy { why } => effects.notice(Notice::WorkerUnhealthy { place: self.workers[id].place, why }),
            Change::Recovered => self.worker_recovered(now, id, effects),
            Change::Retires(why) => effects.notice(Notice::WorkerRetires { place: self.workers[id].place, why }),
            Change::Failed { why, ready_for, gone } => self.worker_failed(now, id, why, ready_for, gone, effects),
            Change::NeverSpawned => {
                let generation = self.workers[id].place.generation;
                self.give_up_preparation(now, generation, "it does not answer", effects);
            }
            Change::Left { why } => {
                if let Some(worker) = self.workers.remove(id) {
                    effects.notice(Notice::WorkerLeft { place: worker.place, why });
                }
            }
        }
    }

    pub(super) fn worker_proven(&mut self, now: Time, id: WorkerId, effects: &mut Effects) {
        let worker = &self.workers[id];
        let place = worker.place;
        let after = now.since(worker.born());
        effects.push(Effect::RestoreBacklogs);
        effects.push(Effect::PassStderr(id));
        if self.rollouts.current.is_some() {
            effects.push(Effect::ReportProgress(Progress::WorkerReady { place, after }));
        }
        effects.notice(Notice::WorkerReady { place, after });
        self.life.visitor_waits = false;
        if let Some(generation) = self.generations.get_mut(&place.generation) {
            generation.works(worker.born());
            worker.answered_after(now).into_iter().for_each(|took| generation.answered_after(took));
        }
        self.worker_allows_warming(now, place.generation);
        let worker = &self.workers[id];
        if place.slot.is_some()
            && let Some(rollout) = self.rollouts.current.as_mut().filter(|r| r.generation == place.generation)
        {
            rollout.proof.workers += 1;
        }
        let Some(slot_id) = place.slot else {
            self.canary_proven(now, id, effects);
            return;
        };
        if worker.role() == Role::Canary {
            let born = worker.born();
            let slot = &mut self.slots[slot_id.0 as usize];
            slot.forget(id);
            slot.trusted = Some(born);
            effects.notice(Notice::SlotProven(place));
            self.drain(now, Some(id), effects);
            return;
        }
        self.failing = None;
        // What made the others wait is over: the code works.
        if place.generation == self.serving {
            self.slots.iter_mut().filter(|slot| slot.retry_at.is_some()).for_each(|slot| slot.retry_at = None);
        }
        let held = self.rollouts.current.as_ref().is_some_and(|rollout| rollout.generation == place.generation);
        let slot = &mut self.slots[slot_id.0 as usize];
        if slot.successor == Some(id) && !held {
            let predecessor = slot.promote();
            self.drain(now, predecessor, effects);
        }
    }

    pub(super) fn judge(&self, now: Time, id: WorkerId, effects: &mut Effects) {
        // Of the same generation only where a replacement is doubted: it was made from what is on disk since.
        let generation = self.workers[id].place.generation;
        let reference = self
            .workers
            .serving()
            .find(|w| w.place.generation != generation)
            .or_else(|| self.workers.serving().find(|w| w.id() != id))
            .map(Worker::id);
        let (worker, baseline) = (&self.workers[id], self.generations.get(&generation).map(|g| &g.baseline));
        // What is usual need not be asked again for each worker of a generation.
        let known = baseline.is_some_and(Baseline::is_own);
        effects.push(Effect::Judge {
            worker: id,
            reference: reference.filter(|_| !known),
            remembered: baseline.and_then(Baseline::usual),
            may_be_busy: known && worker.role() == Role::Serving,
            patience: worker.patience(now),
        });
    }

    /// Takes note of what is usual: how a worker answered whose code may serve, and how one that serves does.
    fn remember_answers(&mut self, generation: GenerationId, may_serve: bool, answers: Answers) {
        for (generation, answer) in [(generation, answers.new.filter(|_| may_serve)), (self.serving, answers.old)] {
            if let (Some(generation), Some(answer)) = (self.generations.get_mut(&generation), answer) {
                generation.baseline.remember(answer);
            }
        }
    }

    /// It answers again: nobody needs to take its place, unless for another reason.
    pub(super) fn worker_recovered(&mut self, now: Time, id: WorkerId, effects: &mut Effects) {
        let worker = &self.workers[id];
        effects.notice(Notice::WorkerRecovered(worker.place));
        if self.rollouts.current.is_some() || worker.wants_successor() || worker.place.generation != self.serving {
            return;
        }
        let slot = self.slots.iter_mut().find(|slot| slot.current == Some(id));
        let successor = slot.and_then(|slot| slot.successor.take());
        self.drain(now, successor, effects);
    }

    pub(super) fn worker_failed(
        &mut self,
        now: Time,
        id: WorkerId,
        why: String,
        ready_for: Option<Duration>,
        gone: bool,
        effects: &mut Effects,
    ) {
        let worker = &self.workers[id];
        let (place, exists, lived) = (worker.place, worker.exists(), now.since(worker.born()));
        if gone {
            self.workers.remove(id);
        }
        self.last_attempt_ended = now;
        if let Some(slot) = place.slot {
            effects.push(Effect::RecordExit { worker: id, slot, lived, why: why.clone() });
        }
        let failed = |retry_in, why: &str| Notice::WorkerFailed {
            place,
            was_ready: ready_for.is_some(),
            lived,
            why: why.to_owned(),
            retry_in,
        };
        // A worker that was never ready says nothing of the code, if others were that something else has made.
        let blamed = ready_for.is_none() && self.blame_warm_template(place.generation, id, effects);
        if self.rollouts.current.as_ref().is_some_and(|rollout| rollout.generation == place.generation) {
            self.slots.iter_mut().for_each(|slot| slot.forget(id));
            effects.notice(failed(None, &why));
            if blamed && place.slot.is_some() {
                return;
            }
            self.refuse_rollout(now, why, Some(id), effects);
            return;
        }
        if !gone && !exists {
            self.give_up_preparation(now, place.generation, "it does not answer", effects);
        } else if self.generations.get(&place.generation).is_some_and(Generation::holds_useless_code) {
            self.give_up_preparation(now, place.generation, "none of its workers could start", effects);
        }
        let Some(slot) = self.slots.iter_mut().find(|s| s.current == Some(id) || s.successor == Some(id)) else {
            effects.notice(failed(None, &why));
            return;
        };
        slot.forget(id);
        let start = lived.saturating_sub(ready_for.unwrap_or_default());
        let wait = slot.failed(now, start, ready_for, &mut self.random);
        effects.notice(failed(Some(wait), &why));
        if ready_for.is_none() {
            if let Some(generation) = self.generations.get_mut(&place.generation) {
                generation.proven = false;
            }
            if !self.somebody_serves() {
                self.failing = Some(why);
            }
        }
    }

    /// Removes slots that the serving generation does not want, with the number of workers that was asked for beside the
    /// configuration. The next generation has its own, so what is asked for after a reload holds for what that brings, also
    /// while the reload before it still ends.
    pub(super) fn resize_pool(&mut self, now: Time, effects: &mut Effects) {
        if self.rollouts.current.is_some() {
            return;
        }
        let Some(spec) = self.generations.get_mut(&self.serving).and_then(|g| g.spec.as_mut()) else { return };
        if self.worker_steps != 0 && self.rollouts.waiting.is_empty() {
            let from = spec.workers;
            let to = from.saturating_add_signed(std::mem::take(&mut self.worker_steps)).clamp(1, MAX_WORKERS);
            spec.workers = to;
            if from != to {
                effects.push(Effect::ReportPoolSize(to));
            }
            effects.notice(Notice::PoolResized { from, to });
        }
        let wanted = spec.workers as usize;
        for _ in wanted..self.slots.len() {
            self.remove_slot(now, effects);
        }
    }

    /// Removes the slot that serves least: an empty one, one whose worker is not ready, one whose worker is to be replaced,
    /// or else the last one. The last slot takes its number.
    fn remove_slot(&mut self, now: Time, effects: &mut Effects) {
        let worth = |slot: &Slot| match slot.current.and_then(|id| self.workers.get(id)) {
            None => 0,
            Some(worker) if worker.phase() != Phase::Ready => 1,
            Some(worker) if worker.place.generation != self.serving || worker.wants_successor() => 2,
            Some(_) => 3,
        };
        let least = (0..self.slots.len()).rev().min_by_key(|index| worth(&self.slots[*index]));
        let Some(index) = least else { return };
        let removed = self.slots.swap_remove(index);
        if let Some(moved) = self.slots.get(index) {
            for id in [moved.current, moved.successor].into_iter().flatten() {
                self.workers.update(id, |worker| worker.place.slot = Some(SlotId(index as u32)));
            }
        }
        for id in [removed.successor, removed.current] {
            self.drain(now, id, effects);
        }
    }

    /// Starts a worker for each empty slot whose time has come, and successors for those that shall be replaced.
    ///
    /// A generation without a proven worker is tried with one worker alone, in the first empty slot: a small machine
    /// answers its first visitor as early as it can, and broken code is not started many times over.
    pub(super) fn fill_slots(&mut self, now: Time, effects: &mut Effects) {
        let Some(generation) = self.generations.get(&self.serving) else { return };
        let Some(spec) = generation.spawnable().cloned() else { return };
        let (alone, warm_from) = (!generation.proven, generation.warm_from());
        let wanted = spec.workers as usize;
        self.make_slots(wanted);
        let serving = self.serving;
        let starting = |w: &Worker| w.phase() == Phase::Starting && w.place.generation == serving;
        if alone && self.workers.values().any(starting) {
            return;
        }
        // Never all at once: a worker that is replaced while well can wait.
        let mut replacements = (wanted / 8).max(1);
        replacements = replacements.saturating_sub(self.slots.iter().filter(|s| s.successor.is_some()).count());
        // Where one worker alone is tried, an empty place comes before one that is only to be taken over.
        let empty = |slot: &Slot| slot.current.is_none() && slot.successor.is_none();
        if alone && self.slots.iter().take(wanted).any(empty) {
            replacements = 0;
        }
        // Looked up for each slot only where somebody is to be replaced: this runs at each event of each worker. Those who
        // were asked to leave have no slot any more.
        let replaceable = |w: &Worker| {
            let stands = matches!(w.phase(), Phase::Starting | Phase::Ready);
            let unwarmed = w.phase() == Phase::Ready && warm_from.is_some_and(|first| w.id() < first);
            stands && (w.place.generation != serving || w.wants_successor() || unwarmed)
        };
        if self.rollouts.current.is_some() || !self.workers.values().any(replaceable) {
            replacements = 0;
        }
        for index in 0..wanted {
            let slot = &self.slots[index];
            if slot.successor.is_some() {
                continue;
            }
            let replace = match slot.current {
                None => false,
                Some(current) => {
                    if replacements == 0 || !self.workers.get(current).is_some_and(replaceable) {
                        continue;
                    }
                    true
                }
            };
            if slot.may_try(now) {
                let id = self.spawn(now, serving, Some(SlotId(index as u32)), &spec, effects);
                let slot = &mut self.slots[index];
                if replace {
                    slot.successor = Some(id);
                    replacements -= 1;
                } else {
                    slot.current = Some(id);
                }
            }
            if alone {
                return;
            }
        }
    }

    /// Adds slots until there are so many.
    pub(super) fn make_slots(&mut self, wanted: usize) {
        self.slots.resize_with(self.slots.len().max(wanted), Slot::default);
    }

    /// Makes a worker of `generation`; one without a slot, or for a slot whose next worker is doubted, is a canary.
    pub(super) fn spawn(
        &mut self,
        now: Time,
        generation: GenerationId,
        slot: Option<SlotId>,
        spec: &Spec,
        effects: &mut Effects,
    ) -> WorkerId {
        let id = WorkerId(self.ids.next_worker);
        self.ids.next_worker += 1;
        let trusted = |slot: SlotId| generation != self.serving || !self.doubted(slot);
        let role = if slot.is_some_and(trusted) { Role::Serving } else { Role::Canary };
        if let (Some(slot), Role::Serving) = (slot, role) {
            let slot = &mut self.slots[slot.0 as usize];
            slot.trusted = None;
            let restarts = slot.used && slot.current.is_none();
            slot.restarts += u32::from(restarts);
            self.life.restarts += u64::from(restarts);
            slot.used = true;
        }
        let mut spec = spec.clone();
        if self.speaks {
            spec.ready_after = None;
        }
        // Workers that started together do not grow old together.
        spec.max_age = spec.max_age.map(|age| age.mul_f64(1.0 - self.random.fraction() / 10.0));
        if !self.life.announced_ready || self.rollouts.current.is_some() {
            let most = spec.start_timeout + MANAGER_MARGIN;
            effects.push(Effect::Announce(Announcement::ExtendTimeout(most)));
        }
        // One that is ill is followed by one that answers better, or by none.
        let ill = |slot: SlotId| {
            let current = self.slots[slot.0 as usize].current.and_then(|id| self.workers.get(id));
            current.and_then(Worker::health).is_some_and(|health| health.unhealthy() == Some(Unhealthy::BadAnswer))
        };
        let judged = generation != self.serving || role == Role::Canary || slot.is_some_and(ill);
        let place = WorkerRef { worker: id, slot, generation };
        let mut worker = Worker::spawn(now, place, role, judged, &spec, effects);
        if let Some(others) = self.generations.get(&generation).and_then(|generation| generation.answers_after) {
            worker.takes_as_long_as(others.mul_f64(ANSWER_TIME_MARGIN));
        }
        worker.is_awaited(self.life.visitor_waits && role == Role::Serving);
        self.workers.insert(worker);
        self.generations.entry(generation).and_modify(|generation| generation.ordered(now));
        id
    }

    /// Whether a canary must prove the replacement in a slot first: while a refusal stands or a rollout runs, what is on
    /// disk is not what serves, and a server that says READY takes visitors before anybody can judge it. The same where
    /// somebody serves in the slot and nobody knows how long its successor will take to do so. With nobody who serves
    /// there is nothing to protect, and a preloaded generation does not ask the disk.
    pub(super) fn doubted(&self, slot: SlotId) -> bool {
        let generation = self.generations.get(&self.serving);
        let other_code = !self.keeps_its_code() && (self.rollouts.refusal.is_some() || self.rollouts.current.is_some());
        let slot = &self.slots[slot.0 as usize];
        let unknown = |spec: &Spec| spec.canary && !spec.says_ready && !spec.own_socket;
        let never_seen = generation.is_some_and(|g| g.spec.as_ref().is_some_and(unknown) && g.answers_after.is_none());
        let trusted = slot.trusted.is_some_and(|born| generation.is_some_and(|g| g.made(born)));
        (other_code || never_seen && slot.current.is_some()) && self.somebody_serves() && !trusted
    }

    /// Whether the next worker has the code that serves, whatever lies on disk.
    pub(super) fn keeps_its_code(&self) -> bool {
        self.generations.get(&self.serving).is_some_and(Generation::keeps_its_code)
    }

    pub(super) fn drain(&mut self, now: Time, id: Option<WorkerId>, effects: &mut Effects) {
        if let Some(id) = id {
            self.workers.update(id, |worker| worker.drain(now, worker.drain_timeout(), effects));
        }
    }
}
