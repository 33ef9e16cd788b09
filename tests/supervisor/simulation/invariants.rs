//! What must hold after every step of the simulated world.

use super::processes::STOOD_STILL;
use super::{Process, World, ms};
use sockd_supervisor::{
    Effect, Effects, Event, GenerationId, Notice, Overview, Paused, Phase, ProbeOutcome, Role, RolloutStep, Signal,
    Snapshot, Spec, WorkerEvent, WorkerId, WorkerSnapshot,
};
use std::collections::BTreeSet;

/// What may happen in a second of virtual time, at the most, and so much more for each worker.
const MAX_STEPS: u64 = 500;
const MAX_STEPS_PER_WORKER: u64 = 10;

impl World {
    /// Time goes on: a core that calls for itself again and again would keep sockd's processor busy.
    pub(super) fn check_pace(&mut self) {
        let (since, steps) = self.pace;
        let begins = self.now.since(since) >= ms(1_000);
        self.pace = if begins { (self.now, 1) } else { (since, steps + 1) };
        let most = MAX_STEPS + MAX_STEPS_PER_WORKER * u64::from(self.spec.workers);
        assert!(self.pace.1 <= most, "{most} steps, and time does not go on\n{}", self.story());
    }

    /// Who keeps an overview asks for another one when the revision has grown, and only then.
    pub(super) fn check_revision(&mut self, before: &Snapshot) {
        let revision = std::mem::replace(&mut self.revision, self.core.revision());
        // What is left of a wait is the only thing that changes by itself.
        let still = |overview: &Overview| {
            let pause = overview.pause.map(|pause| Paused { left: ms(0), ..pause });
            Overview { next_attempt_in: None, pause, ..overview.clone() }
        };
        let same = still(before) == still(&self.core.overview(self.now));
        assert!(same || self.revision > revision, "something changed, and no revision says so\n{}", self.story());
    }

    /// Nobody is said to take its sockets before one of its generation accepts.
    fn check_evidence(&self, after: &Snapshot) {
        for worker in after.workers.iter().filter(|worker| worker.takes_its_sockets) {
            let serves =
                |p: &Process| p.generation == worker.generation && p.serves_at.is_some_and(|at| at <= self.now);
            let seen = self.processes.values().any(serves);
            assert!(seen, "worker {} is said to take its sockets\n{}", worker.worker, self.story());
        }
    }

    /// A visitor calls an attempt to start only where none is under way and the last one failed a second ago.
    fn check_visitors_call(&self, before: &Snapshot, effects: &Effects, event: Option<&Event>) {
        let attempt = |effect: &Effect| matches!(effect, Effect::Spawn { .. } | Effect::Read { .. });
        if event == Some(&Event::VisitorTurnedAway) && effects.iter().any(attempt) {
            let starting = before.workers.iter().any(|worker| worker.phase == Phase::Starting);
            let soon = self.attempt_failed.is_some_and(|at| self.now.since(at) < ms(1_000));
            assert!(before.fallback && !starting && !soon, "a visitor called an attempt too early\n{}", self.story());
        }
    }

    /// Who is ready is compared with others while its generation soaks, and asked by itself otherwise. Who is compared is so
    /// with one that serves: of other code, if there is one.
    fn check_questions(&self, before: &Snapshot, after: &Snapshot, effects: &Effects) {
        let serves = |w: &&WorkerSnapshot| w.phase == Phase::Ready && w.slot.is_some();
        let others = |of: &WorkerSnapshot| {
            let (worker, generation) = (of.worker, of.generation);
            let others = after.workers.iter().filter(serves).filter(move |w| w.worker != worker);
            others.map(move |other| (other.worker, other.generation != generation))
        };
        for effect in effects {
            let (id, compared) = if let Effect::Judge { worker, .. } = effect {
                (worker, true)
            } else if let Effect::Probe { worker, .. } = effect {
                (worker, false)
            } else {
                continue;
            };
            let soaks = |of: &Snapshot, generation| of.rollout == Some((generation, RolloutStep::Soaking));
            if let Some(worker) = before.workers.iter().find(|w| w.worker == *id && w.phase == Phase::Ready) {
                let soaks = soaks(before, worker.generation) || soaks(after, worker.generation);
                assert_eq!(soaks, compared, "worker {id} is asked in the other way\n{}", self.story());
            }
            let Effect::Judge { reference, may_be_busy, .. } = effect else { continue };
            let Some(worker) = after.workers.iter().find(|w| w.worker == *id) else { continue };
            let public = self.processes[id].role == Role::Serving;
            if let Some(reference) = reference {
                let is_other = others(worker).find(|(other, _)| other == reference).map(|(_, is_other)| is_other);
                let right = is_other == Some(others(worker).any(|(_, is_other)| is_other));
                assert!(right && !may_be_busy, "worker {id} is compared with {reference}\n{}", self.story());
            } else if others(worker).next().is_some() {
                // What is usual is known of its own generation.
                assert_eq!(*may_be_busy, public, "worker {id} may be busy or not\n{}", self.story());
            }
            assert!(public || !may_be_busy, "nobody but us asks canary {id}\n{}", self.story());
        }
    }

    /// Visitors are answered 503 while nobody serves, and nobody is about to or what was about to has failed: no earlier, no
    /// later. Other rules hold where somebody holds the workers back.
    fn check_fallback(&self, after: &Snapshot) {
        let starts = after.workers.iter().any(|worker| worker.phase == Phase::Starting);
        let backs_off = after.slots.iter().any(|slot| slot.retry_in.is_some());
        let wanted = after.ready == 0 && (after.failing.is_some() || backs_off && !starts);
        assert!(after.fallback == wanted || after.holds_back(), "503: wanted is {wanted}\n{}", self.story());
    }

    /// An answer that was lost in a standstill proves nothing.
    fn check_lost_answer(&self, before: &Snapshot, after: &Snapshot, effects: &Effects, event: Option<&Event>) {
        let Some(Event::Worker(id, event)) = event else { return };
        let (WorkerEvent::Probed(ProbeOutcome::NoAnswer(why)) | WorkerEvent::Judged { verdict: Err(why), .. }) = event
        else {
            return;
        };
        if why != STOOD_STILL {
            return;
        }
        let shown = |of: &Snapshot| {
            let worker = of.workers.iter().find(|worker| worker.worker == *id);
            worker.map(|w| (w.phase, w.wants_successor, w.last_probe.clone().map(|(_, verdict)| verdict)))
        };
        assert_eq!(shown(before), shown(after), "what was lost counts against worker {id}\n{}", self.story());
        let judged_again = effects.iter().any(|effect| matches!(effect, Effect::Judge { worker, .. } if worker == id));
        let starts = shown(after).is_some_and(|(phase, ..)| phase == Phase::Starting);
        assert_eq!(starts, judged_again, "worker {id} is not asked again\n{}", self.story());
    }

    /// Nobody takes longer to start than it may, also where others are made meanwhile.
    fn check_starts(&self, after: &Snapshot) {
        for worker in after.workers.iter().filter(|worker| worker.phase == Phase::Starting) {
            let Some(made) = self.processes.get(&worker.worker).and_then(|process| process.made) else { continue };
            let took = self.now.since(made.max(self.last_standstill));
            // What a standstill was may be known to a second.
            let slack = if self.last_standstill > made { ms(1_000) } else { ms(0) };
            let most = self.records.spec(worker.generation).start_timeout + slack;
            assert!(took <= most, "worker {} starts since {took:?}\n{}", worker.worker, self.story());
        }
    }

    /// Who is well again keeps its place, unless for another reason, and nobody else's successor goes.
    fn check_recovery(&self, before: &Snapshot, after: &Snapshot, effects: &Effects) {
        let recovered = effects.iter().find_map(|effect| {
            if let Effect::Notice(Notice::WorkerRecovered(place)) = effect { Some(place.worker) } else { None }
        });
        let Some(id) = recovered.filter(|_| before.rollout == after.rollout) else { return };
        let worker = after.workers.iter().find(|worker| worker.worker == id).expect("it is well");
        let keeps = before.rollout.is_none() && !worker.wants_successor && worker.generation == after.generation;
        for (slot, now) in before.slots.iter().zip(&after.slots) {
            let its = slot.current == Some(id);
            let right = match slot.successor {
                successor if its && keeps => {
                    now.successor.is_none() && (successor.is_none() || now.current == Some(id))
                }
                Some(_) => now.successor == slot.successor,
                None => true,
            };
            assert!(right, "worker {id} is well again, and {slot:?} became {now:?}\n{}", self.story());
        }
    }

    /// A canary takes the place of a worker that serves only where what it is made from is doubted: a reload runs or was
    /// refused, or nobody knows how long the next one takes to accept.
    fn check_doubt(&self, before: &Snapshot, after: &Snapshot, effects: &Effects) {
        let mut spawned = effects.iter().filter_map(|effect| {
            if let Effect::Spawn { worker, generation, role: Role::Canary } = effect {
                (*generation == after.generation).then_some(worker)
            } else {
                None
            }
        });
        let spec = |id| self.records.spec(id);
        let unknown = |spec: &Spec| spec.canary && !spec.says_ready && !spec.own_socket;
        let seen = after.workers.iter().any(|w| w.generation == after.generation && w.takes_its_sockets);
        let differs = [before, after].iter().any(|now| now.rollout.is_some() || now.refusal.is_some());
        if let Some(id) = spawned.next() {
            let doubted = differs || unknown(spec(after.generation)) && !seen;
            assert!(doubted && after.ready > 0, "canary {id} proves what nobody doubts\n{}", self.story());
        }
    }

    /// What is new goes through a canary where there is something to protect, comes a few at a time, and goes whole where it
    /// is refused.
    fn check_rollout(&self, before: &Snapshot, after: &Snapshot, effects: &Effects) {
        for effect in effects {
            if let Effect::Spawn { generation, role: Role::Canary, .. } = effect
                && *generation != after.generation
            {
                let protects = [before, after].iter().any(|now| now.ready > 0 || now.holds_back());
                let needed = protects && self.records.spec(*generation).canary;
                assert!(needed, "a canary for nothing\n{}", self.story());
            }
            if let Effect::Notice(Notice::RolloutRefused { generation, .. }) = effect {
                let starts = |w: &&WorkerSnapshot| w.generation == *generation && w.phase == Phase::Starting;
                let left = after.workers.iter().find(starts);
                assert!(left.is_none(), "what was refused starts on: {left:?}\n{}", self.story());
            }
        }
        if let Some((generation, RolloutStep::Trying { .. } | RolloutStep::Replacing)) = after.rollout {
            let starts =
                |w: &&WorkerSnapshot| w.generation == generation && w.slot.is_some() && w.phase == Phase::Starting;
            let starting = after.workers.iter().filter(starts).count() as u32;
            let most = (self.records.spec(generation).workers / 16).max(1);
            assert!(starting <= most, "{starting} new workers start at once\n{}", self.story());
        }
    }

    /// Who starts or is ready stands in one of the places.
    fn check_places(&self, after: &Snapshot) {
        let stands = |w: &&WorkerSnapshot| matches!(w.phase, Phase::Starting | Phase::Ready);
        for worker in after.workers.iter().filter(stands) {
            let Some(slot) = worker.slot else { continue };
            let slot = after.slots.get(slot.0 as usize);
            let its = slot.is_some_and(|slot| [slot.current, slot.successor].contains(&Some(worker.worker)));
            assert!(its, "worker {} stands in no place\n{}", worker.worker, self.story());
        }
    }

    /// The invariants of one step.
    pub(super) fn check(&self, before: &Snapshot, effects: &Effects, event: Option<&Event>) {
        self.check_manager_waits();
        self.check_standstills(before, effects, event);
        let after = self.core.snapshot(self.now);
        self.check_evidence(&after);
        assert_eq!(after.living, after.workers.len(), "{}", self.story());
        let spawned =
            effects.iter().filter_map(|e| if let Effect::Spawn { worker, .. } = e { Some(worker.0) } else { None });
        for (id, expected) in spawned.zip(before.next_worker.0..) {
            assert_eq!(id, expected, "the next worker is another one than was said\n{}", self.story());
        }
        assert!(!(after.fallback && after.ready > 0), "503 although workers serve\n{}", self.story());
        assert!(after.failing.is_none() || after.ready == 0, "it fails to start and serves\n{}", self.story());
        self.check_visitors_call(before, effects, event);
        self.check_questions(before, &after, effects);
        self.check_lost_answer(before, &after, effects, event);
        if after.stopping {
            return;
        }
        self.check_health(before, &after, effects);
        if after.pause.is_some() || after.maintenance {
            assert!(after.fallback || !after.maintenance, "maintenance, and nobody says so\n{}", self.story());
            let public = |effect: &Effect| matches!(effect, Effect::Spawn { role: Role::Serving, .. });
            assert!(!effects.iter().any(public), "one starts to serve during a pause\n{}", self.story());
            return;
        }
        self.check_fallback(&after);
        self.check_doubt(before, &after, effects);
        if self.looks_closely() {
            self.check_starts(&after);
            self.check_places(&after);
        }
        self.check_recovery(before, &after, effects);
        self.check_rollout(before, &after, effects);
        self.check_records(before, &after, effects, event);
        // Whom did this step take away that nobody else did?
        let lost = match event {
            Some(Event::Worker(id, WorkerEvent::Exited { .. } | WorkerEvent::FoundSick { .. })) => vec![*id],
            _ => effects
                .iter()
                .filter_map(|effect| if let Effect::Signal(id, Signal::Abort) = effect { Some(*id) } else { None })
                .collect(),
        };
        let was_ready = |id: &WorkerId| before.workers.iter().any(|w| w.worker == *id && w.ready_for.is_some());
        // A canary that is watched is ready and serves nobody.
        let served = |id: &WorkerId| before.workers.iter().any(|w| w.worker == *id && w.slot.is_some());
        let lost = lost.iter().filter(|id| was_ready(id) && served(id)).count() as u32;
        // What is asked for beside the configuration counts from this step on.
        let resized_from = effects.iter().find_map(|effect| {
            if let Effect::Notice(Notice::PoolResized { from, .. }) = effect { Some(*from) } else { None }
        });
        let resized = resized_from.is_some();
        let wanted = if resized { before.wanted.min(after.wanted).min(resized_from) } else { after.wanted };
        // Those that visitors try come on top of the others; once it is over, they are among them.
        let tries = before.rollout.filter(|(_, step)| matches!(step, RolloutStep::Trying { .. }));
        let tried = |w: &&WorkerSnapshot| w.phase == Phase::Ready && w.slot.is_some();
        let on_top =
            tries.map_or(0, |(id, _)| before.workers.iter().filter(tried).filter(|w| w.generation == id).count());
        let floor = (before.ready - lost).saturating_sub(on_top as u32).min(wanted.unwrap_or(0));
        assert!(
            after.ready >= floor,
            "our own action left {} ready workers where {floor} could be\n{}",
            after.ready,
            self.story()
        );
        // A refused rollout leaves the old generation untouched.
        let refused = effects.iter().any(|e| matches!(e, Effect::Notice(Notice::RolloutRefused { .. })));
        if refused && !resized {
            for worker in before.workers.iter().filter(|w| w.generation == before.generation && w.ready_for.is_some()) {
                let gone = matches!(event, Some(Event::Worker(id, _)) if *id == worker.worker);
                let hung = effects.iter().any(|e| *e == Effect::Signal(worker.worker, Signal::Abort));
                let there = after.workers.iter().any(|w| w.worker == worker.worker && w.phase == Phase::Ready);
                assert!(there || gone || hung, "a refused rollout touched worker {}\n{}", worker.worker, self.story());
            }
        }
        // A worker that is drained while it is ready leaves another ready in its place, or its place is gone.
        for effect in effects {
            if let Effect::Signal(id, Signal::Drain) = effect
                && was_ready(id)
                && let Some(slot) = before.slots.iter().find(|slot| slot.current == Some(*id))
                && let Some(slot) = after.slots.get(slot.slot.0 as usize)
            {
                let current = slot.current.unwrap_or_else(|| panic!("a drained slot is empty\n{}", self.story()));
                let ready = after.workers.iter().any(|w| w.worker == current && w.phase == Phase::Ready);
                assert!(ready, "worker {id} drains before its successor {current} is ready\n{}", self.story());
            }
        }
    }

    /// What must follow from a worker's becoming ready, from its unasked end and from another number of workers does, and
    /// is in no notice alone.
    fn check_records(&self, before: &Snapshot, after: &Snapshot, effects: &Effects, event: Option<&Event>) {
        let has = |wanted: Effect| effects.iter().any(|effect| *effect == wanted);
        let is_ready = |worker: &&WorkerSnapshot| worker.phase == Phase::Ready;
        let were_ready: BTreeSet<WorkerId> = before.workers.iter().filter(is_ready).map(|w| w.worker).collect();
        for worker in after.workers.iter().filter(is_ready).filter(|w| !were_ready.contains(&w.worker)) {
            let restored = has(Effect::RestoreBacklogs) && has(Effect::PassStderr(worker.worker));
            assert!(restored, "worker {} is ready, and nothing follows\n{}", worker.worker, self.story());
        }
        if let Some(Event::Worker(id, WorkerEvent::Exited { .. })) = event
            && self.processes[id].signals.is_empty()
            && let Some(slot) = before.workers.iter().find(|w| w.worker == *id).and_then(|w| w.slot)
        {
            let is_its = |effect: &Effect| matches!(effect, Effect::RecordExit { worker, slot: of, .. } if (worker, *of) == (id, slot));
            assert!(effects.iter().any(is_its), "the end of worker {id} is not recorded\n{}", self.story());
        }
        if before.generation == after.generation && before.wanted != after.wanted && before.wanted.is_some() {
            let reported = after.wanted.is_some_and(|wanted| has(Effect::ReportPoolSize(wanted)));
            assert!(reported, "{:?} workers are wanted, and no hook hears of it\n{}", after.wanted, self.story());
        }
        if has(Effect::ReleaseMemory) {
            assert_eq!(Some(after.ready), after.wanted, "at rest before all are there\n{}", self.story());
        }
    }

    /// Whether each worker is looked at after this step: with a thousand of them that is for now and then.
    fn looks_closely(&self) -> bool {
        self.spec.workers <= 16 || self.steps.is_multiple_of(64)
    }

    /// All that follows from a step is done in it: of an event that means nothing, at the same moment, nothing comes. What
    /// the core left undone would wait for an event that may never come.
    pub(super) fn check_settled(&self) {
        if !self.looks_closely() {
            return;
        }
        // A deadline that has come will call by itself.
        if self.core.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
            return;
        }
        let nothing = Event::Preparing { generation: GenerationId(u32::MAX), limit: ms(0) };
        let more = self.core.clone().handle_event(self.now, nothing);
        assert!(more.iter().next().is_none(), "left undone: {more:?}\n{}", self.story());
    }

    /// Nobody who is well is aborted, and nobody killed who leaves soon when asked to: not even after a standstill.
    pub(super) fn check_standstills(&self, before: &Snapshot, effects: &Effects, event: Option<&Event>) {
        for effect in effects {
            let Effect::Signal(id, signal) = effect else { continue };
            let process = &self.processes[id];
            // One that nobody asked for a word may count as ready and never beat.
            let sick = process.stopped || process.serves_at.is_none() || self.was_silent(*id);
            let said_so = matches!(event, Some(Event::Worker(said, WorkerEvent::FoundSick { .. })) if said == id);
            let was_ready = before.workers.iter().any(|w| w.worker == *id && w.ready_for.is_some());
            if *signal == Signal::Abort && was_ready {
                assert!(sick || said_so, "worker {id} is well and was aborted\n{}", self.story());
            }
            let soon = process.leaves_after.is_some_and(|after| after < ms(1_000)) && !process.has_lasting_connection;
            if *signal == Signal::Kill && soon {
                assert!(sick, "worker {id} leaves and was killed\n{}", self.story());
            }
        }
    }
}
