//! The simulated world around the core: virtual time, processes that behave well and badly, visitors, faults.
//!
//! It plays the daemon by the letter of the effects' contracts, and checks the invariants after every step. The same
//! seed gives the same world; the trace of a failing seed is printed.

pub mod generations;
mod invariants;
mod manager;
mod processes;
mod requests;
pub mod sockets;
mod traffic;
pub mod warming;

use self::generations::Checking;
use self::manager::Manager;
use self::sockets::Socket;
use self::traffic::Traffic;
use self::warming::Warming;
use super::faults::Code;
use super::health::Records;
use sockd_supervisor::{
    Effect, Effects, Event, FALLBACK_RETRY_INTERVAL, GenerationId, Holds, Notice, Outcome, Probe, RequestId, Role,
    Signal, Spec, Start, Supervisor, Time, WorkerEvent, WorkerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) generation: GenerationId,
    role: Role,
    code: Code,
    /// The kernel knows it: from Spawned to Exited.
    alive: bool,
    /// When it came into being.
    made: Option<Time>,
    /// From when on it accepts and answers.
    serves_at: Option<Time>,
    /// It shows its heartbeats, and does not say them.
    pub(super) shows_heartbeats: bool,
    /// When the last one was that it shows.
    shown: Option<Time>,
    /// Neither heartbeats nor signals but KILL reach it.
    pub(super) stopped: bool,
    /// How long it takes to leave when asked to; None: it ignores everything but KILL.
    leaves_after: Option<Duration>,
    /// A visitor stays connected until the worker is asked to stop: draining does not end.
    has_lasting_connection: bool,
    signals: Vec<Signal>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a few of them wait at a time")]
pub(super) enum Happening {
    Event(Event),
    Heartbeat(WorkerId),
    Die(WorkerId, &'static str),
    Visitor,
    HelperEnds,
    LookAtPath,
}

pub struct World {
    pub now: Time,
    pub core: Supervisor,
    pub code: Code,
    pub spec: Spec,
    /// How many visitors knock while nobody serves.
    pub visitors: bool,
    /// Whether the kernel tells nothing of the queues.
    pub blind: bool,
    /// Whether every worker has a visitor who stays connected.
    pub lasting_connections: bool,
    /// Whether every worker ignores all signals but KILL.
    pub stubborn: bool,
    /// How long the code takes to import, give or take a tenth, in a program that says READY=1 long before, or never.
    pub import: Option<Duration>,
    speaks_early: bool,
    /// How long a fork takes, one after the other; None: they take no time to speak of.
    pub fork_time: Option<Duration>,
    forked_until: Time,
    /// Whether spawning itself fails from time to time and preparations get lost.
    pub shaky: bool,
    /// Whether what makes the workers hangs in its own work at the end of the service.
    pub hangs_in_conclusion: bool,
    /// Who was to do such work.
    pub concluded: Vec<GenerationId>,
    pub spawns: u64,
    pub steps: u64,
    pub exited: bool,
    /// When sockd last went on after a standstill.
    pub last_standstill: Time,
    pub answers: BTreeMap<RequestId, Outcome>,
    pub notices: Vec<Notice>,
    pub records: Records,
    pub checking: Checking,
    pub traffic: Traffic,
    pub socket: Socket,
    pub warming: Warming,
    /// How many wait in the queue, of 100 that may, while nobody serves.
    pub queue: u32,
    keeps_maintenance: bool,
    agenda: BTreeMap<(Time, u64), Happening>,
    pub(super) processes: BTreeMap<WorkerId, Process>,
    pub(super) prepared: BTreeSet<GenerationId>,
    /// The code that preloaded generations hold in memory.
    loaded: BTreeMap<GenerationId, Code>,
    preparing: BTreeSet<GenerationId>,
    asked: BTreeSet<RequestId>,
    manager: Manager,
    /// When an attempt to start last failed.
    attempt_failed: Option<Time>,
    /// The core's revision when it was last looked at.
    revision: u64,
    /// Whether the core wants visitors to be answered 503.
    turns_away: bool,
    /// Whether the helper that does so runs, and when it was started last.
    fallback: bool,
    fallback_began: Option<Time>,
    sequence: u64,
    /// Since when steps are counted, and how many there were.
    pace: (Time, u64),
    random: u64,
    trace: Vec<String>,
}

pub const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn spec() -> Spec {
    Spec {
        workers: 3,
        ready_after: None,
        says_ready: true,
        own_socket: true,
        start_timeout: ms(60_000),
        order_timeout: ms(10_000),
        drain_timeout: ms(30_000),
        stop_timeout: ms(30_000),
        watchdog: Some(ms(30_000)),
        silent_when_busy: false,
        probe: Some(Probe { interval: ms(10_000), failures: 2, grace: ms(0), skip_when_idle: true }),
        preloaded: false,
        warms: false,
        concludes: false,
        max_age: None,
        max_memory: Some(1 << 30),
        canary: true,
        surge: 3,
        trial: None,
        soak: ms(2_000),
    }
}

/// With SOCKD_TEST_FAIL_FAST set, the first failure ends all tests: who asks of a mutant whether any test fails need not
/// wait for the others.
fn heed_fail_fast() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("SOCKD_TEST_FAIL_FAST").is_some() {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                report(panic);
                #[expect(clippy::disallowed_methods, reason = "no guard is waited for")]
                std::process::exit(101);
            }));
        }
    });
}

impl World {
    pub fn new(seed: u64, start: Start, spec: Spec) -> Self {
        heed_fail_fast();
        let now = Time::from_nanos(1_000_000_000);
        let (core, effects) = Supervisor::new(now, start, seed);
        let mut world = Self {
            now,
            core,
            code: Code::Good,
            spec,
            visitors: true,
            blind: false,
            lasting_connections: false,
            stubborn: false,
            import: None,
            speaks_early: seed.is_multiple_of(2),
            fork_time: None,
            forked_until: now,
            shaky: false,
            hangs_in_conclusion: false,
            concluded: Vec::new(),
            spawns: 0,
            steps: 0,
            exited: false,
            last_standstill: Time::default(),
            answers: BTreeMap::new(),
            notices: Vec::new(),
            records: Records::default(),
            checking: Checking::default(),
            traffic: Traffic::default(),
            socket: Socket::default(),
            warming: Warming::default(),
            queue: 0,
            keeps_maintenance: false,
            agenda: BTreeMap::new(),
            processes: BTreeMap::new(),
            prepared: BTreeSet::new(),
            loaded: BTreeMap::new(),
            preparing: BTreeSet::new(),
            asked: BTreeSet::new(),
            manager: Manager::new(now, start),
            attempt_failed: None,
            revision: 0,
            turns_away: false,
            fallback: false,
            fallback_began: None,
            sequence: 0,
            pace: (now, 0),
            random: seed ^ 0x5eed,
            trace: Vec::new(),
        };
        world.act(effects);
        world
    }

    /// A number from 0 up to, but not including, `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % sides
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.sequence += 1;
        self.agenda.insert((self.now + after, self.sequence), happening);
    }

    fn later_worker(&mut self, after: Duration, id: WorkerId, event: WorkerEvent) {
        self.later(after, Happening::Event(Event::Worker(id, event)));
    }

    /// The next thing happens: a happening of the agenda or a deadline of the core, whichever comes first.
    pub fn step(&mut self) -> bool {
        self.check_pace();
        let deadline = self.core.poll_timeout().map(|(at, _)| at);
        let next = self.agenda.first_key_value().map(|(key, _)| *key);
        match (next, deadline) {
            (None, None) => return false,
            (Some((at, _)), Some(deadline)) if deadline < at => self.timeout(deadline),
            (None, Some(deadline)) => self.timeout(deadline),
            (Some(key), _) => {
                let happening = self.agenda.remove(&key).expect("it was there");
                if let Happening::Heartbeat(id) = &happening {
                    self.show_heartbeat(*id, key.0);
                }
                self.now = self.now.max(key.0);
                self.happen(happening);
            }
        }
        true
    }

    /// Lets `duration` pass.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadline = self.core.poll_timeout().map(|(at, _)| at);
            let next = self.agenda.first_key_value().map(|(key, _)| key.0);
            if [deadline, next].into_iter().flatten().min().is_none_or(|at| at > end) || self.exited {
                break;
            }
            self.step();
        }
        self.now = end;
    }

    /// Lets time pass until `done`; panics when that takes longer than `most`.
    pub fn run_until(&mut self, most: Duration, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + most;
        while !done(self) {
            assert!(self.now <= end && self.step(), "{what}: not within {most:?}\n{}", self.story());
        }
    }

    fn timeout(&mut self, deadline: Time) {
        self.now = self.now.max(deadline);
        self.trace.push(format!("{:?} timeout", self.now));
        let before = self.core.snapshot(self.now);
        let effects = self.core.handle_timeout(self.now);
        self.check(&before, &effects, None);
        self.check_revision(&before);
        self.check_settled();
        self.act(effects);
        if let Some((at, reason)) = self.core.poll_timeout() {
            assert!(at > self.now, "the core would spin: {reason:?} is due at once\n{}", self.story());
        }
    }

    pub(super) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Event(event) => self.event(event),
            Happening::Heartbeat(id) => {
                if self.processes.get(&id).is_some_and(|p| p.alive) {
                    self.later(ms(7_000), Happening::Heartbeat(id));
                    if !self.processes[&id].stopped && !self.processes[&id].shows_heartbeats {
                        self.event(Event::Worker(id, WorkerEvent::Heartbeat));
                    }
                }
            }
            Happening::Die(id, why) => {
                if let Some(process) = self.processes.get_mut(&id)
                    && std::mem::take(&mut process.alive)
                {
                    self.event(Event::Worker(id, WorkerEvent::Exited { why: why.to_owned() }));
                }
            }
            Happening::Visitor => {
                if self.fallback && self.visitors {
                    self.later(ms(400), Happening::Visitor);
                    self.event(Event::VisitorTurnedAway);
                }
            }
            Happening::LookAtPath => self.look_at_path(),
            Happening::HelperEnds => {
                if std::mem::take(&mut self.fallback) {
                    self.event(Event::FallbackLost { why: "the helper ended (killed by SIGKILL)".to_owned() });
                }
            }
        }
    }

    fn show_heartbeat(&mut self, id: WorkerId, at: Time) {
        if let Some(process) = self.processes.get_mut(&id)
            && process.shows_heartbeats
            && process.alive
            && !process.stopped
        {
            process.shown = Some(at);
        }
    }

    /// Feeds one event in, checks, acts.
    pub fn event(&mut self, event: Event) {
        if let Event::Worker(id, _) = &event
            && matches!(event, Event::Worker(_, WorkerEvent::Spawned))
            && let Some(process) = self.processes.get_mut(id)
        {
            (process.alive, process.made) = (true, Some(self.now));
            self.boot(*id);
        }
        if !self.is_heard(&event) {
            return;
        }
        if let Event::PreparationLost { generation, .. } = &event {
            self.prepared.remove(generation);
            self.forget_copy(*generation);
            self.fail_pending_spawns(*generation);
        }
        // A process that has gone says nothing more.
        if let Event::Worker(id, WorkerEvent::SaidReady | WorkerEvent::Inspected { .. } | WorkerEvent::Judged { .. }) =
            &event
            && !self.processes.get(id).is_some_and(|p| p.alive)
        {
            return;
        }
        if let Event::Worker(id, WorkerEvent::SpawnFailed { .. }) = &event {
            self.processes.remove(id);
        }
        self.record(&event);
        self.steps += 1;
        self.trace.push(format!("{:?} {event:?}", self.now));
        let before = self.core.snapshot(self.now);
        let effects = self.core.handle_event(self.now, event.clone());
        self.check(&before, &effects, Some(&event));
        self.check_revision(&before);
        self.check_settled();
        self.act(effects);
        if matches!(event, Event::PrepareFailed { generation, .. } if generation == before.generation) {
            self.attempt_failed = Some(self.now);
        }
    }

    /// sockd stands still, alone or with everybody; the core is called late.
    pub fn stand_still(&mut self, duration: Duration, everybody: bool) {
        self.trace.push(format!("{:?} a standstill of {duration:?}, everybody: {everybody}", self.now));
        self.now = self.now + duration;
        self.last_standstill = self.now;
        self.manager.hears_after_standstill(self.now);
        if duration >= ms(10_000) {
            self.lose_answers();
        }
        if everybody {
            let agenda = std::mem::take(&mut self.agenda);
            self.agenda = agenda.into_iter().map(|((at, n), happening)| ((at + duration, n), happening)).collect();
        } else {
            // The others go on meanwhile.
            let shown: Vec<_> = self.processes.iter().filter(|(_, p)| p.shown.is_some()).map(|(id, _)| *id).collect();
            shown.into_iter().for_each(|id| self.show_heartbeat(id, self.now));
        }
    }

    fn act(&mut self, effects: Effects) {
        for effect in effects {
            self.trace.push(format!("    {effect:?}"));
            match effect {
                Effect::Read { generation, source } => self.read(generation, source),
                Effect::Record(record) => self.keep_record(record),
                Effect::Check { generation, number } => self.run_check(generation, number),
                Effect::EndCheck(generation) => self.end_check(generation),
                Effect::Load(generation) => self.load(generation),
                Effect::Release(generation) => self.release(generation),
                Effect::Warm(generation) => self.warm(generation),
                Effect::UseWarm(generation) => self.use_warm(generation, true),
                Effect::UseUnwarmed(generation) => self.use_warm(generation, false),
                Effect::RunAfterReload { generation, verdict } => self.run_after_reload(generation, &verdict),
                Effect::Conclude(generation) => {
                    assert!(self.processes.values().all(|p| !p.alive), "concluded too early\n{}", self.story());
                    assert!(self.prepared.contains(&generation), "concludes from nothing\n{}", self.story());
                    self.concluded.push(generation);
                    if !self.hangs_in_conclusion {
                        let why = "the template ended: exit 0".to_owned();
                        let delay = ms(self.roll(500));
                        self.later(delay, Happening::Event(Event::PreparationLost { generation, why }));
                    }
                }
                Effect::Spawn { worker, generation, role } => self.spawn(worker, generation, role),
                Effect::Inspect(id) => {
                    let holds = match self.processes.get(&id).map(|p| p.code) {
                        Some(Code::BindsElsewhere) => Holds::No,
                        _ if self.roll(20) == 0 => Holds::Unknown,
                        _ => Holds::Yes,
                    };
                    let accepts = self.accepts(id);
                    self.later_worker(ms(0), id, WorkerEvent::Inspected { holds, accepts });
                }
                Effect::Judge { worker, reference, remembered, patience, .. } => {
                    let (delay, judged) = self.judged(worker, reference, remembered.as_ref(), patience);
                    self.later_worker(delay, worker, judged);
                }
                Effect::Probe { worker, skip_when_idle } => {
                    let process = &self.processes[&worker];
                    let (dead, ill) = (process.stopped || !process.alive, process.code == Code::IsIll);
                    let (after, finding) = self.probed(worker, skip_when_idle, dead, ill);
                    self.later_worker(after, worker, WorkerEvent::Probed(finding));
                }
                Effect::ReadHeartbeat(worker) => {
                    let last = self.processes[&worker].shown;
                    self.later_worker(ms(0), worker, WorkerEvent::HeartbeatRead { last });
                }
                Effect::Signal(id, signal) => self.signal(id, signal),
                Effect::WatchListeners => {
                    if self.visitors {
                        let delay = ms(self.roll(3_000));
                        self.later(delay, Happening::Event(Event::ConnectionWaiting));
                    }
                }
                Effect::Rebind(socket) => self.rebind(socket),
                Effect::LeaveUnbound(socket) => self.leave_unbound(socket),
                Effect::RequestReload => self.request_reload(),
                Effect::RestoreBacklogs | Effect::PassStderr(_) | Effect::RecordExit { .. } => {}
                Effect::ReportPoolSize(_) | Effect::ReleaseMemory => {}
                Effect::KeepMaintenance(on) => self.keeps_maintenance = on,
                Effect::ReportProgress(_) => {
                    assert!(self.manager.reloading, "a step of a reload that nobody made\n{}", self.story());
                }
                Effect::StartFallback => {
                    assert!(!std::mem::replace(&mut self.fallback, true), "503 begun twice");
                    let again = std::mem::replace(&mut self.turns_away, true);
                    let last = self.fallback_began.replace(self.now).filter(|_| again);
                    let soon = last.is_some_and(|last| self.now.since(last) < FALLBACK_RETRY_INTERVAL);
                    assert!(!soon, "the helper is started more often than each second\n{}", self.story());
                    self.later(ms(100), Happening::Visitor);
                    if self.shaky && self.roll(2) == 0 {
                        let after = ms(self.roll(3_000));
                        self.later(after, Happening::HelperEnds);
                    }
                }
                Effect::StopFallback => {
                    assert!(std::mem::take(&mut self.turns_away), "503 ended twice");
                    self.fallback = false;
                }
                Effect::CountAnswers(generation) => self.count_answers(generation),
                Effect::MeasureQueue => self.measure_queue(),
                Effect::Announce(announcement) => self.announced(announcement),
                Effect::Answer(request, outcome) => {
                    assert!(self.asked.remove(&request), "answered twice or unasked\n{}", self.story());
                    self.check_answer(&outcome);
                    self.answers.insert(request, outcome);
                }
                Effect::Notice(notice) => {
                    self.note_reload(&notice);
                    if let Notice::WorkerFailed { .. } = &notice {
                        self.attempt_failed = Some(self.now);
                    }
                    self.notices.push(notice);
                }
                Effect::Exit => {
                    assert!(self.processes.values().all(|p| !p.alive), "left processes behind\n{}", self.story());
                    assert!(self.asked.is_empty(), "left requests unanswered\n{}", self.story());
                    assert!(self.prepared.is_empty(), "left what makes workers behind\n{}", self.story());
                    self.check_ends_of_reloads();
                    self.exited = true;
                    self.manager.waits_until = None;
                    self.agenda.clear();
                }
            }
        }
        self.check_checks();
        self.check_kept();
        self.check_ready();
    }

    fn spawn(&mut self, worker: WorkerId, generation: GenerationId, role: Role) {
        assert!(self.prepared.contains(&generation), "spawned from nothing\n{}", self.story());
        assert!(!self.processes.contains_key(&worker), "an id was used again\n{}", self.story());
        self.spawns += 1;
        let leaves_after = match self.roll(12) {
            _ if self.stubborn => None,
            0 => None,
            1 => Some(ms(40_000)),
            n => Some(ms(n * 40)),
        };
        let has_lasting_connection = role == Role::Serving && (self.lasting_connections || self.roll(8) == 0);
        let code = self.loaded.get(&generation).copied().unwrap_or(self.code);
        let code = self.made_from(worker, generation, code);
        let code = if role == Role::Canary && code == Code::BindsElsewhere { Code::Good } else { code };
        self.processes.insert(
            worker,
            Process {
                generation,
                role,
                code,
                alive: false,
                made: None,
                serves_at: None,
                shows_heartbeats: worker.0.is_multiple_of(2),
                shown: None,
                stopped: false,
                leaves_after,
                has_lasting_connection,
                signals: Vec::new(),
            },
        );
        let mut delay = ms(self.roll(15));
        if let Some(time) = self.fork_time {
            self.forked_until = self.forked_until.max(self.now) + time;
            delay = self.forked_until.since(self.now);
        }
        if code == Code::NeverForks {
            // No answer at all: the process that forks the workers is stuck.
        } else if self.shaky && self.roll(15) == 0 {
            self.later_worker(delay, worker, WorkerEvent::SpawnFailed { why: "fork: EAGAIN".to_owned() });
        } else if self.shaky && self.roll(40) == 0 {
            // No answer at all: the process that forks the workers is stuck.
        } else {
            self.later_worker(delay, worker, WorkerEvent::Spawned);
        }
    }

    pub fn ready(&self) -> u32 {
        self.core.overview(self.now).ready
    }

    /// The helper that answers 503 ends by itself.
    pub fn lose_helper(&mut self) {
        self.happen(Happening::HelperEnds);
    }

    /// Whether the helper that answers 503 runs.
    pub fn fallback(&self) -> bool {
        self.fallback
    }

    pub fn all_answered(&self) -> bool {
        self.asked.is_empty()
    }

    /// The last steps, for the message of a failure.
    pub fn story(&self) -> String {
        let from = self.trace.len().saturating_sub(80);
        format!("{}\n{:#?}", self.trace[from..].join("\n"), self.core.snapshot(self.now))
    }

    pub fn trace(&self) -> &[String] {
        &self.trace
    }
}
