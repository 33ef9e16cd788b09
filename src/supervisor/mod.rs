//! The decision core: what to do about every worker, at every event. Synchronous, deterministic, std only.
//!
//! The daemon calls [`Supervisor::handle_event`] with what happened and carries out the [`Effects`] in their order;
//! when [`Supervisor::poll_timeout`]'s time has come it calls [`Supervisor::handle_timeout`]. The core never asks for
//! the time, randomness or the system: `now` and a seed come in, one deadline goes out.
//!
//! ```text
//!   event --> its handler updates workers, slots, generations
//!                                 |
//!                                 v
//!   settle: begin, check or advance a rollout (rollout.rs) -> resize the pool -> prepare the serving generation
//!           -> end a pause (pause.rs) -> fill slots -> 503 or not -> what the service manager is notified of   (or finish a stop: shutdown.rs)
//! ```
//!
//! A handler never starts anything: it only notes what is the case, and `settle` compares that with what is wanted.
//!
//! # Invariants
//!
//! `tests/supervisor` checks these after every step of a simulated world: through our own action there are never
//! fewer ready workers than before or than wanted; at most one rollout; a failed rollout leaves the old generation
//! untouched; nothing of a new generation is loaded before its checks have ended well, one check runs at a time, and none
//! outlives its reload; of each reload's end the operator's program hears once; KILL comes after a gentler signal;
//! during a pause or maintenance no worker starts that visitors reach, and each ends; RELOADING is followed by its end or by STOPPING; each request gets one answer; once faults stop, the wanted state is
//! reached in bounded time; same seed, same effects.

#![forbid(unsafe_code)]

mod acceptance;
mod backoff;
mod clock;
mod deadlines;
mod effect;
mod event;
mod fallback;
mod generation;
mod health;
mod heartbeat;
mod id;
mod notice;
mod pause;
mod pool;
mod random;
mod rebinding;
mod record;
mod report;
mod rollout;
mod shutdown;
mod slot;
mod snapshot;
mod spec;
mod start;
mod time;
mod warm;
mod worker;
mod workers;

pub use acceptance::{
    Answer, Answers, Expectation, ProbeOutcome, Protocol, find, judge, may_improve, speaks_for_itself, usual,
};
pub use effect::{Announcement, Effect, Effects, Irreplaceable, Outcome, Progress, Role, Signal, Unpausable};
pub use event::{Accepts, Answered, Event, Holds, WorkerEvent};
pub use fallback::FALLBACK_RETRY_INTERVAL;
pub use id::{GenerationId, ReleaseId, RequestId, SlotId, SocketId, WorkerId, WorkerRef};
pub use notice::{Notice, Retirement};
pub use rebinding::MAX_REBINDS;
pub use record::{Proof, Record, RecordResult, Source};
pub use rollout::comparison::{FALSE_ALARMS, SLOW, SLOWER};
pub use snapshot::{Overview, Paused, Refusal, RolloutStep, SlotSnapshot, Snapshot, WorkerSnapshot};
pub use spec::{Checks, MANAGER_MARGIN, MAX_WORKERS, ORDER_TIMEOUT, PREPARE_TIMEOUT, Probe, Share, Spec, Start, Trial};
pub use time::Time;
pub use warm::state::Warmth;
pub use worker::Phase;

use clock::Clock;
use fallback::Fallback;
use generation::{Generation, Preparation};
use pause::state::Pause;
use random::Random;
use record::StartRecord;
use rollout::state::{Rollouts, Wanted};
use slot::Slot;
use spec::VISITOR_RETRY_INTERVAL;
use std::collections::BTreeMap;
use std::time::Duration;
use worker::Worker;
use workers::Workers;

/// No worker has more deadlines than these at a time.
const MAX_DUE: usize = 8;

/// The state of one instance: its generations, slots and workers.
#[derive(Clone, Debug)]
pub struct Supervisor {
    clock: Clock,
    life: Life,
    ids: Ids,
    generations: BTreeMap<GenerationId, Generation>,
    /// Empty slots are filled from this generation.
    serving: GenerationId,
    slots: Vec<Slot>,
    workers: Workers,
    rollouts: Rollouts,
    /// So many workers more, or fewer, were asked for and the pool has not been resized yet.
    worker_steps: i32,
    /// Why the last attempt to start failed, if no worker has been ready since.
    failing: Option<String>,
    last_attempt_ended: Time,
    /// Whether a worker that might have stayed silent has said READY=1: then silence proves nothing any more.
    speaks: bool,
    fallback: Fallback,
    random: Random,
    revision: u64,
}

/// Where the instance stands between its start and its end.
#[derive(Clone, Debug)]
struct Life {
    start: Start,
    mode: Mode,
    /// Whether the first connection still waits for the workers: none was ready since.
    visitor_waits: bool,
    announced_ready: bool,
    complete: bool,
    /// The pause under way.
    pause: Option<Pause>,
    /// Whether the site is in maintenance.
    maintenance: bool,
    /// Who has resumed it and waits for a worker that serves.
    resuming: Vec<RequestId>,
    /// Whether it was asked to stop again while it stops.
    stop_repeated: bool,
    /// Until when what makes the workers may conclude: see [`Effect::Conclude`].
    conclusion: Option<Time>,
    /// How many workers were started because the one before had died, in whichever slot.
    restarts: u64,
    /// Since when workers are wanted.
    begun: Time,
    start_record: StartRecord,
}

impl Life {
    /// Whether the service stops, or has.
    fn ends(&self) -> bool {
        matches!(self.mode, Mode::Stopping | Mode::Stopped)
    }
}

/// The numbers that are given next.
#[derive(Clone, Debug)]
struct Ids {
    next_worker: u64,
    next_generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// For the first connection.
    Waiting,
    Running,
    Stopping,
    Stopped,
}

/// Why [`Supervisor::poll_timeout`] wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A worker's start, heartbeat, drain or end is overdue.
    Worker(WorkerId),
    /// The back-off of a slot is over.
    Slot(SlotId),
    /// A generation takes too long to prepare or to make a worker, or is to be prepared again, or warmed.
    Generation(GenerationId),
    /// Whether sockd stands still is to be found out.
    Clock,
    /// A check of a rollout takes too long.
    Check,
    /// What visitors make of a new generation is to be counted.
    Trial,
    /// A rollout's soak is over.
    Soak,
    /// The pause is over, or the queue is to be looked at.
    Pause,
    /// The old workers have had the time to hear that they accept no more.
    Handover,
    /// What makes the workers has had its time to conclude.
    Conclusion,
    /// The 503 helper is to be started again, or has stayed.
    Fallback,
    /// A socket that was bound again is to be brought to the workers once more.
    Rebinding,
}

impl Supervisor {
    /// A supervisor and its first effects. `seed` feeds the jitter of back-offs.
    pub fn new(now: Time, start: Start, seed: u64) -> (Self, Effects) {
        let mut effects = Effects::default();
        let serving = GenerationId(1);
        let mut supervisor = Self {
            clock: Clock::new(now),
            life: Life {
                start,
                mode: match start {
                    Start::AtOnce => Mode::Running,
                    Start::OnConnection => Mode::Waiting,
                },
                visitor_waits: false,
                announced_ready: false,
                complete: false,
                pause: None,
                maintenance: false,
                resuming: Vec::new(),
                stop_repeated: false,
                conclusion: None,
                restarts: 0,
                begun: now,
                start_record: StartRecord::default(),
            },
            ids: Ids { next_worker: 1, next_generation: 2 },
            generations: BTreeMap::new(),
            serving,
            slots: Vec::new(),
            workers: Workers::default(),
            rollouts: Rollouts::default(),
            worker_steps: 0,
            failing: None,
            last_attempt_ended: now,
            speaks: false,
            fallback: Fallback::default(),
            random: Random::new(seed),
            revision: 0,
        };
        if start == Start::OnConnection {
            effects.push(Effect::WatchListeners);
        } else {
            effects.push(Effect::Announce(Announcement::ExtendTimeout(PREPARE_TIMEOUT + MANAGER_MARGIN)));
        }
        supervisor.generations.insert(serving, Generation::begin(now, serving, Source::Configured, &mut effects));
        supervisor.settle(now, &mut effects);
        (supervisor, effects)
    }

    /// Takes note of what happened and decides what follows.
    pub fn handle_event(&mut self, now: Time, event: Event) -> Effects {
        let mut effects = Effects::default();
        let now = self.advance_clock(now, &mut effects);
        match event {
            Event::ConnectionWaiting => self.connection_waiting(now, &mut effects),
            Event::PathLost { socket, is_taken } => {
                self.rollouts.rebinding.path_lost(now, socket, is_taken, &mut effects);
            }
            Event::Rebound { from, to } => {
                self.rollouts.rebinding.rebound(now, from, to, GenerationId(self.ids.next_generation));
            }
            Event::VisitorTurnedAway => self.visitor_turned_away(now),
            Event::FallbackLost { why } => self.fallback.lost(now, why, &mut effects),
            Event::Read { generation, checks } => self.was_read(generation, checks),
            Event::Checked { generation, verdict } => self.checked(now, generation, verdict, &mut effects),
            Event::Preparing { generation, limit } => self.preparing(generation, limit, &mut effects),
            Event::Prepared { generation, spec } => self.prepared(now, generation, spec),
            Event::PrepareFailed { generation, why } => {
                self.preparation_failed(now, generation, why, &mut effects);
            }
            Event::PreparationLost { generation, why } => {
                self.preparation_lost(now, generation, why, &mut effects);
            }
            Event::Warmed(generation) => self.warmed(generation, &mut effects),
            Event::NotWarm { generation, why } => self.not_warm(generation, why, &mut effects),
            // Most are heartbeats: nothing follows from them for the others, however many those are.
            Event::Worker(id, event) => {
                if !self.worker_event(now, id, event, &mut effects) {
                    return effects;
                }
            }
            Event::ReloadRequested(request) => {
                let wanted = Wanted { request, source: Source::Configured, trial: None };
                self.reload_requested(wanted, &mut effects);
            }
            Event::RollbackRequested { request, release } => {
                let wanted = Wanted { request, source: Source::Release(release), trial: None };
                self.reload_requested(wanted, &mut effects);
            }
            Event::TrialRequested { request, trial } => {
                let wanted = Wanted { request, source: Source::Configured, trial: Some(trial) };
                self.reload_requested(wanted, &mut effects);
            }
            Event::PromoteRequested(request) => self.promote_requested(request, &mut effects),
            Event::AbortRequested(request) => self.abort_requested(now, request, &mut effects),
            Event::PauseRequested { request, most } => self.pause_requested(now, request, most, &mut effects),
            Event::ResumeRequested(request) => self.resume_requested(now, request, &mut effects),
            Event::MaintenanceRequested { request, on } => {
                self.maintenance_requested(now, request, on, &mut effects);
            }
            Event::QueueMeasured { waiting, limit } => self.queue_measured(now, waiting, limit),
            Event::AnswersCounted { generation, new, old } => {
                self.answers_counted(now, generation, new, old, &mut effects);
            }
            Event::ReplacementRequested { request, worker } => {
                self.replacement_requested(now, request, worker, &mut effects);
            }
            Event::OneMoreWorker => self.step_workers(1),
            Event::OneFewerWorker => self.step_workers(-1),
            Event::StopRequested => self.stop(now, &mut effects),
            Event::Interrupted { at_terminal } => self.interrupt(now, at_terminal, &mut effects),
        }
        self.settle(now, &mut effects);
        effects
    }

    /// The time has come that [`Self::poll_timeout`] named; calling early is harmless.
    pub fn handle_timeout(&mut self, now: Time) -> Effects {
        let mut effects = Effects::default();
        let now = self.advance_clock(now, &mut effects);
        // Before the workers that it has not made: they are not to blame.
        let stuck: Vec<GenerationId> =
            self.generations.values().filter(|g| g.ignores_orders(now)).map(|g| g.id).collect();
        for id in stuck {
            self.orders_ignored(now, id, &mut effects);
        }
        for id in self.workers.due(now) {
            // What an earlier one of them brought about may have moved this one's deadline, and it may have several.
            let is_due = |worker: &Worker| worker.deadline().is_some_and(|at| at <= now);
            for _ in 0..MAX_DUE {
                if !self.workers.get(id).is_some_and(is_due) {
                    break;
                }
                if let Some(change) = self.workers.update(id, |worker| worker.handle_deadline(now, &mut effects)) {
                    self.apply(now, id, change, &mut effects);
                }
            }
        }
        let late: Vec<(GenerationId, Duration)> =
            self.generations.values().filter_map(|g| Some((g.id, g.overdue(now)?))).collect();
        for (id, limit) in late {
            effects.push(Effect::Release(id));
            let why = format!("the application server did not load within {limit:?}");
            self.preparation_failed(now, id, why, &mut effects);
        }
        self.end_late_check(now, &mut effects);
        self.fallback.handle_timeout(now, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    fn connection_waiting(&mut self, now: Time, effects: &mut Effects) {
        match self.life.mode {
            Mode::Waiting => {
                self.life.mode = Mode::Running;
                self.life.begun = now;
                // Not for them alone where somebody holds them back: the 503 helper may take him.
                self.life.visitor_waits = !self.is_held_back();
                effects.notice(Notice::FirstConnection);
            }
            // The watch that saw it belongs to a time before.
            Mode::Running | Mode::Stopping | Mode::Stopped => {}
        }
    }

    /// Somebody wants to be served: that may call the next attempt early, but not more often than is healthy.
    fn visitor_turned_away(&mut self, now: Time) {
        let starting = self.workers.values().any(|w| w.phase() == Phase::Starting);
        if !self.fallback.is_wanted() || starting || now.since(self.last_attempt_ended) < VISITOR_RETRY_INTERVAL {
            return;
        }
        if let Some(generation) = self.generations.get_mut(&self.serving)
            && let Preparation::Missing { retry_at } = &mut generation.preparation
        {
            *retry_at = now;
        } else if let Some(slot) = self.slots.iter_mut().find(|slot| slot.current.is_none()) {
            slot.retry_at = None;
        }
    }

    fn was_read(&mut self, id: GenerationId, checks: Result<Checks, String>) {
        // One that is not known was released meanwhile.
        if let Some(generation) = self.generations.get_mut(&id) {
            generation.was_read(checks);
        }
    }

    fn preparing(&mut self, id: GenerationId, limit: Duration, effects: &mut Effects) {
        let begun = self.generations.get_mut(&id).is_some_and(|generation| generation.may_take(limit));
        // The service manager waits for READY=1: that of a start that is at once, or of a reload.
        if begun && (!self.life.announced_ready || self.rollouts.current.is_some()) {
            effects.push(Effect::Announce(Announcement::ExtendTimeout(limit + MANAGER_MARGIN)));
        }
    }

    fn prepared(&mut self, now: Time, id: GenerationId, spec: Spec) {
        let before = self.generations.get(&self.serving).map(|serving| serving.baseline.of_successor());
        // A generation that is not known was released meanwhile.
        if let Some(generation) = self.generations.get_mut(&id)
            && matches!(generation.preparation, Preparation::Loading { .. })
        {
            generation.prepared(now, spec);
            // Prepared again, its code is what is on the disk now.
            generation.baseline = before.unwrap_or_default();
        }
    }

    fn preparation_failed(&mut self, now: Time, id: GenerationId, why: String, effects: &mut Effects) {
        if self.rollouts.current.as_ref().is_some_and(|rollout| rollout.generation == id) {
            effects.notice(Notice::PreparationFailed { generation: id, why: why.clone(), retry_in: None });
            self.refuse_rollout(now, why, None, effects);
            return;
        }
        let Some(generation) = self.generations.get_mut(&id) else { return };
        let wait = generation.failed(now, &mut self.random);
        effects.notice(Notice::PreparationFailed { generation: id, why: why.clone(), retry_in: Some(wait) });
        self.last_attempt_ended = now;
        if !self.somebody_serves() {
            self.failing = Some(why);
        }
    }

    fn preparation_lost(&mut self, now: Time, id: GenerationId, why: String, effects: &mut Effects) {
        let done = |g: &Generation| matches!(g.preparation, Preparation::Done { .. });
        if !self.generations.get(&id).is_some_and(done) {
            return;
        }
        // It has concluded, or cannot any more; nobody needs it.
        if self.life.mode == Mode::Stopping {
            self.generations.remove(&id);
            return;
        }
        if self.rollouts.current.as_ref().is_some_and(|rollout| rollout.generation == id) {
            self.refuse_rollout(now, why, None, effects);
        } else if let Some(generation) = self.generations.get_mut(&id) {
            let wait = generation.failed(now, &mut self.random);
            effects.notice(Notice::PreparationFailed { generation: id, why, retry_in: Some(wait) });
        }
    }

    /// The process that forks the workers is stuck, or makes useless ones: it is given up and replaced.
    fn give_up_preparation(&mut self, now: Time, id: GenerationId, why: &str, effects: &mut Effects) {
        if self.generations.contains_key(&id) {
            effects.push(Effect::Release(id));
            self.preparation_lost(now, id, why.to_owned(), effects);
        }
    }

    /// Nothing has come of the orders that what makes the workers of this generation has got.
    fn orders_ignored(&mut self, now: Time, id: GenerationId, effects: &mut Effects) {
        let spec = self.generations.get(&id).and_then(|generation| generation.spec.as_ref());
        let Some(limit) = spec.map(|spec| spec.order_timeout) else { return };
        let why = format!("the template has not made a worker within {limit:?}");
        self.give_up_preparation(now, id, &why, effects);
        self.last_attempt_ended = now;
        // We answer those who wait for the worker until there is one.
        if id == self.serving && !self.somebody_serves() {
            self.failing = Some(why);
        }
    }

    /// Somebody wants another worker in the place of this one: it is replaced as one is that has grown too old.
    fn replacement_requested(&mut self, now: Time, request: RequestId, id: WorkerId, effects: &mut Effects) {
        let asked = match self.life.mode {
            Mode::Waiting | Mode::Running => self.workers.update(id, Worker::retire_on_request),
            Mode::Stopping | Mode::Stopped => return effects.push(Effect::Answer(request, Outcome::Stopping)),
        };
        let outcome = match asked.unwrap_or(Err(Irreplaceable::Unknown)) {
            Ok(change) => {
                self.apply(now, id, change, effects);
                Outcome::Replacing(id)
            }
            Err(why) => Outcome::NotReplaced { worker: id, why },
        };
        effects.push(Effect::Answer(request, outcome));
    }

    /// Somebody wants more workers, or fewer. What is asked for while a rollout runs holds for the generation that serves
    /// after it.
    fn step_workers(&mut self, step: i32) {
        match self.life.mode {
            Mode::Waiting | Mode::Running => {
                let most = i32::try_from(MAX_WORKERS).unwrap_or(i32::MAX);
                self.worker_steps = (self.worker_steps + step).clamp(-most, most);
            }
            Mode::Stopping | Mode::Stopped => {}
        }
    }

    /// Compares what is with what is wanted, and starts what is missing.
    fn settle(&mut self, now: Time, effects: &mut Effects) {
        self.revision += 1;
        match self.life.mode {
            Mode::Waiting | Mode::Running => {
                // Written only where something changes: after a fork each page that is written to is copied.
                for slot in self.slots.iter_mut().filter(|slot| slot.retry_at.is_some_and(|at| at <= now)) {
                    slot.retry_at = None;
                }
                self.settle_rollout(now, effects);
                self.resize_pool(now, effects);
                if let Some(generation) = self.generations.get_mut(&self.serving) {
                    generation.prepare_if_due(now, effects);
                }
                self.settle_warmth(now, effects);
                self.settle_pause(now, effects);
                if !self.holds_back() {
                    self.fill_slots(now, effects);
                }
                self.settle_fallback(now, effects);
                self.settle_resuming(effects);
                self.announce(now, effects);
            }
            Mode::Stopping => self.settle_stop(now, effects),
            Mode::Stopped => {}
        }
    }

    fn announce(&mut self, now: Time, effects: &mut Effects) {
        let ready = self.workers.serving_count();
        // Where somebody holds the workers back, that is its job.
        let answers = ready > 0 || self.fallback.is_wanted() || self.holds_back();
        let can_serve = self.life.start == Start::OnConnection || answers;
        if can_serve && !self.life.announced_ready {
            self.life.announced_ready = true;
            effects.push(Effect::Announce(Announcement::Ready));
        }
        let complete = self.wanted().is_some_and(|wanted| ready >= wanted as usize);
        if complete && !self.life.complete {
            effects.notice(Notice::Serving(self.serving));
            self.record_start(now, effects);
            effects.push(Effect::ReleaseMemory);
        }
        self.life.complete = complete;
    }

    /// How many workers the serving generation wants, once it is known.
    fn wanted(&self) -> Option<u32> {
        self.generations.get(&self.serving)?.spec.as_ref().map(|spec| spec.workers)
    }

    /// Whether any worker is ready and holds the public sockets.
    pub fn somebody_serves(&self) -> bool {
        self.workers.serving_count() > 0
    }
}
