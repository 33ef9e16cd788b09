//! One worker's life: Starting, Ready, Draining, Terminating, Killing, and then it is forgotten.
//!
//! One method per state, one `match` in it, no wildcard: every state answers every event in writing. What follows for
//! the pool is returned as a [`Change`]; signals to the process go straight into the effects. A signal to a process
//! that does not exist yet is sent when it does.

mod leaving;
mod proof;

use super::acceptance::ProbeOutcome;
use super::effect::{Effect, Effects, Irreplaceable, Role, Signal};
use super::event::WorkerEvent;
use super::health::{Due, Health, Turn};
use super::heartbeat::Heartbeats;
use super::id::{WorkerId, WorkerRef};
use super::notice::{Notice, Retirement};
use super::spec::{ABORT_GRACE, Spec, TOO_BIG_AFTER};
use super::time::Time;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) place: WorkerRef,
    role: Role,
    /// Whether it must stand a judgement before it counts as ready.
    judged: bool,
    /// Whether there is a process that can be sent a signal.
    exists: bool,
    born: Time,
    /// Nothing makes it ready before: others of its code were not, and it cannot be asked.
    not_before: Time,
    /// Whether connections wait, or were seen to wait, that only it and others like it can accept.
    awaited: bool,
    /// Whether it was seen to accept or to answer.
    answers: bool,
    /// Whether it was being asked while sockd stood still: a bad answer proves nothing.
    doubtful: bool,
    state: State,
    spec: Spec,
}

#[derive(Clone, Debug)]
enum State {
    Starting {
        stage: Stage,
        deadline: Time,
    },
    Ready(Service),
    /// It was sent `Drain` because it is replaced, or `Stop` because its time to drain or the service ends. One that is
    /// `silent` until the deadline writes its stack then; so does one that hangs before, where its heartbeats still
    /// count.
    Draining {
        deadline: Time,
        sent: Signal,
        silent: bool,
        heartbeats: Option<Heartbeats>,
    },
    Terminating {
        deadline: Time,
        signal: Signal,
    },
    Killing,
}

/// What belongs to a worker while it is ready.
#[derive(Clone, Debug)]
struct Service {
    since: Time,
    health: Health,
    /// When it is too old.
    retire_at: Option<Time>,
    /// Whether it shall be replaced although it is well.
    retires: bool,
}

/// How far the proof of a starting worker has come.
#[derive(Clone, Debug)]
enum Stage {
    /// It is looked at at this time, whether or not it `spoke`; one that must speak, as soon as it does.
    Booting { ask_at: Option<Time>, spoke: bool },
    /// The daemon looks at its descriptors.
    Inspecting { spoke: bool },
    /// The daemon asks it over HTTP.
    Judging,
}

/// A worker's state as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not proven yet.
    Starting,
    /// Proven; it serves.
    Ready,
    /// It finishes its requests.
    Draining,
    /// It was asked to leave without serving on.
    Terminating,
    /// It was killed and is not reaped yet.
    Killing,
}

/// What a worker's event means for the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It wants to be judged.
    Judge,
    /// It is ready.
    Proven,
    /// It is to be asked whether it is well.
    Ask,
    /// It failed its probes too often: it wants a successor.
    Unhealthy { why: String },
    /// It had failed its probes and is well again.
    Recovered,
    /// It is well and wants a successor.
    Retires(Retirement),
    /// It failed: it is useless from here on, and it is `gone` if there is no process (any more).
    Failed { why: String, ready_for: Option<Duration>, gone: bool },
    /// It shall be killed, and it was never made.
    NeverSpawned,
    /// It was asked to leave, and it is gone.
    Left { why: String },
}

impl Worker {
    /// A worker that shall be made: `Spawn` goes out. With `judged` it must stand a judgement to become ready.
    pub(super) fn spawn(
        now: Time,
        place: WorkerRef,
        role: Role,
        judged: bool,
        spec: &Spec,
        effects: &mut Effects,
    ) -> Self {
        effects.push(Effect::Spawn { worker: place.worker, generation: place.generation, role });
        Self {
            place,
            role,
            judged,
            exists: false,
            born: now,
            not_before: now,
            awaited: false,
            answers: false,
            doubtful: false,
            state: State::Starting {
                stage: Stage::Booting { ask_at: spec.ready_after.map(|after| now + after), spoke: false },
                deadline: now + spec.start_timeout,
            },
            spec: spec.clone(),
        }
    }

    pub(super) fn handle(&mut self, now: Time, event: WorkerEvent, effects: &mut Effects) -> Change {
        match self.state.clone() {
            State::Starting { stage, deadline } => self.while_starting(now, event, stage, deadline, effects),
            State::Ready(service) => self.while_ready(now, event, service, effects),
            State::Draining { .. } => self.while_draining(now, event, effects),
            State::Terminating { signal, .. } => self.while_terminating(event, signal, effects),
            State::Killing => self.while_killing(event, effects),
        }
    }

    fn while_starting(
        &mut self,
        now: Time,
        event: WorkerEvent,
        stage: Stage,
        deadline: Time,
        effects: &mut Effects,
    ) -> Change {
        match event {
            WorkerEvent::Spawned => {
                self.exists = true;
                effects.notice(Notice::WorkerStarted(self.place));
                Change::None
            }
            WorkerEvent::SpawnFailed { why } | WorkerEvent::Exited { why } => {
                Change::Failed { why, ready_for: None, gone: true }
            }
            WorkerEvent::SaidReady => match stage {
                Stage::Booting { spoke: false, .. } => self.inspect(deadline, true, effects),
                // It spoke while its silence was looked into: its word counts for more.
                Stage::Inspecting { .. } => {
                    self.state = State::Starting { stage: Stage::Inspecting { spoke: true }, deadline };
                    Change::None
                }
                // It says so twice.
                Stage::Judging | Stage::Booting { spoke: true, .. } => Change::None,
            },
            WorkerEvent::Inspected { holds, accepts } => match stage {
                Stage::Inspecting { spoke } => self.inspected(now, holds, accepts, spoke, deadline, effects),
                // Nobody asked for it.
                Stage::Booting { .. } | Stage::Judging => Change::None,
            },
            WorkerEvent::Judged { verdict, .. } => match (stage, verdict) {
                (Stage::Judging, Ok(())) => {
                    self.answers = self.can_be_asked();
                    self.proven(now)
                }
                (Stage::Judging, Err(why)) => {
                    self.terminate(now, effects);
                    Change::Failed { why, ready_for: None, gone: false }
                }
                // Nobody asked for it.
                (Stage::Booting { .. } | Stage::Inspecting { .. }, Ok(()) | Err(_)) => Change::None,
            },
            WorkerEvent::FoundSick { why } => self.abort(now, why, effects),
            // The start timeout is the only limit of a start.
            WorkerEvent::Heartbeat | WorkerEvent::HeartbeatRead { .. } => Change::None,
            // It has not served a single request.
            WorkerEvent::WantsRetirement => Change::None,
            // How much it needs shows once it serves.
            WorkerEvent::Measured { .. } | WorkerEvent::Served { .. } => Change::None,
            // Nobody asked for it.
            WorkerEvent::Probed(_) => Change::None,
        }
    }

    fn while_ready(&mut self, now: Time, event: WorkerEvent, mut service: Service, effects: &mut Effects) -> Change {
        match event {
            WorkerEvent::Heartbeat => {
                self.serve(service, |service| service.health.beat(now));
                Change::None
            }
            WorkerEvent::HeartbeatRead { last } => {
                let hangs = service.health.heartbeat_read(now, last);
                self.state = State::Ready(service);
                hangs.map_or(Change::None, |silence| {
                    self.abort(now, format!("no heartbeat for {:.1} s", silence.as_secs_f64()), effects)
                })
            }
            WorkerEvent::Served { requests } => {
                let turn = service.health.served(requests);
                self.turn(turn, service)
            }
            WorkerEvent::Probed(finding) => self.found(now, finding, service),
            // Asked while its generation soaks: no worse than before is well.
            WorkerEvent::Judged { verdict: Ok(()), .. } => self.found(now, ProbeOutcome::Healthy, service),
            WorkerEvent::Judged { verdict: Err(why), .. } => self.found(now, ProbeOutcome::BadAnswer(why), service),
            WorkerEvent::WantsRetirement => self.retire(Retirement::Requests, service),
            WorkerEvent::Measured { memory } => match self.spec.max_memory {
                // One that is too big at once would only be followed by its like, again and again.
                Some(limit) if memory > limit && now.since(service.since) >= TOO_BIG_AFTER => {
                    self.retire(Retirement::Memory { memory, limit }, service)
                }
                Some(_) | None => Change::None,
            },
            WorkerEvent::FoundSick { why } => self.abort(now, why, effects),
            WorkerEvent::Exited { why } => {
                Change::Failed { why, ready_for: Some(now.since(service.since)), gone: true }
            }
            // It is ready and says so again.
            WorkerEvent::SaidReady => Change::None,
            // The answer to a question that its own word has overtaken.
            WorkerEvent::Inspected { .. } => Change::None,
            // A ready worker has a process.
            WorkerEvent::Spawned | WorkerEvent::SpawnFailed { .. } => Change::None,
        }
    }

    fn serve(&mut self, mut service: Service, change: impl FnOnce(&mut Service)) {
        change(&mut service);
        self.state = State::Ready(service);
    }

    fn found(&mut self, now: Time, finding: ProbeOutcome, mut service: Service) -> Change {
        let turn = service.health.found(now, finding);
        self.turn(turn, service)
    }

    fn turn(&mut self, turn: Turn, service: Service) -> Change {
        self.state = State::Ready(service);
        match turn {
            Turn::None => Change::None,
            Turn::Unhealthy(why) => Change::Unhealthy { why },
            Turn::Recovered => Change::Recovered,
        }
    }

    fn retire(&mut self, why: Retirement, service: Service) -> Change {
        if service.retires {
            return Change::None;
        }
        self.serve(service, |service| service.retires = true);
        Change::Retires(why)
    }

    /// Somebody wants another worker in its place.
    pub(super) fn retire_on_request(&mut self) -> Result<Change, Irreplaceable> {
        match self.state.clone() {
            State::Ready(_) if self.role == Role::Canary => Err(Irreplaceable::Canary),
            State::Ready(service) => Ok(self.retire(Retirement::Request, service)),
            State::Starting { .. } => Err(Irreplaceable::Starting),
            State::Draining { .. } | State::Terminating { .. } | State::Killing => Err(Irreplaceable::Leaving),
        }
    }

    /// The time has come that [`Self::deadline`] named.
    pub(super) fn handle_deadline(&mut self, now: Time, effects: &mut Effects) -> Change {
        match self.state.clone() {
            // It was never made: nobody hangs.
            State::Starting { deadline, .. } if now >= deadline && !self.exists => {
                self.state = State::Killing;
                let why = format!("not made within {:?}", self.spec.start_timeout);
                Change::Failed { why, ready_for: None, gone: false }
            }
            State::Starting { deadline, .. } if now >= deadline => {
                let why = format!("not ready within {:?}", self.spec.start_timeout);
                self.abort(now, why, effects)
            }
            State::Starting { stage: Stage::Booting { spoke, .. } | Stage::Inspecting { spoke }, deadline } => {
                self.inspect(deadline, spoke, effects)
            }
            // Nothing is due but the deadline.
            State::Starting { stage: Stage::Judging, .. } => Change::None,
            State::Ready(service) => self.service_due(now, service, effects),
            State::Draining { deadline, .. } if now < deadline => self.read_while_draining(now, effects),
            State::Draining { sent, silent, .. } if self.exists && (silent || sent == Signal::Drain) => {
                self.drain_over(now, silent, effects)
            }
            State::Draining { .. } | State::Terminating { .. } => {
                if !self.exists {
                    self.state = State::Killing;
                    return Change::NeverSpawned;
                }
                effects.notice(Notice::WorkerKilled(self.place));
                self.enter(State::Killing, Signal::Kill, effects);
                Change::None
            }
            State::Killing => Change::None,
        }
    }

    fn service_due(&mut self, now: Time, mut service: Service, effects: &mut Effects) -> Change {
        match service.health.due(now) {
            Some(Due::Heartbeat) => {
                self.state = State::Ready(service);
                effects.push(Effect::ReadHeartbeat(self.place.worker));
                Change::None
            }
            Some(Due::GivenUp(why)) => {
                self.abort(now, format!("{why}, and no successor could be proven meanwhile"), effects)
            }
            Some(Due::Ask) => {
                self.state = State::Ready(service);
                Change::Ask
            }
            None => {
                service.retire_at = None;
                let age = now.since(service.since);
                self.state = State::Ready(service.clone());
                self.retire(Retirement::Age(age), service)
            }
        }
    }

    /// When its time runs out, unless something is heard of it before.
    pub(super) fn runs_until(&self) -> Option<Time> {
        match &self.state {
            State::Starting { deadline, .. } | State::Terminating { deadline, .. } => Some(*deadline),
            State::Draining { .. } => self.deadline(),
            State::Ready(service) => service.health.runs_until(),
            State::Killing => None,
        }
    }

    /// Whether it is being asked something over HTTP.
    pub(super) fn is_asked(&self) -> bool {
        match &self.state {
            State::Starting { stage, .. } => matches!(stage, Stage::Judging),
            State::Ready(service) => service.health.is_asked(),
            State::Draining { .. } | State::Terminating { .. } | State::Killing => false,
        }
    }

    /// There was a standstill: if it is being asked, it may not have had its time to answer.
    pub(super) fn doubt_answer(&mut self) {
        self.doubtful = self.is_asked();
    }

    /// Whether this is a bad answer that may come of a standstill; then it is to be asked again.
    pub(super) fn asks_again(&mut self, now: Time, event: &WorkerEvent) -> Option<Change> {
        let bad = match event {
            WorkerEvent::Judged { verdict, .. } => verdict.is_err(),
            WorkerEvent::Probed(finding) => !matches!(finding, ProbeOutcome::Healthy | ProbeOutcome::Idle),
            WorkerEvent::Spawned
            | WorkerEvent::SpawnFailed { .. }
            | WorkerEvent::SaidReady
            | WorkerEvent::Inspected { .. }
            | WorkerEvent::Heartbeat
            | WorkerEvent::HeartbeatRead { .. }
            | WorkerEvent::Served { .. }
            | WorkerEvent::WantsRetirement
            | WorkerEvent::Measured { .. }
            | WorkerEvent::FoundSick { .. }
            | WorkerEvent::Exited { .. } => return None,
        };
        if !std::mem::take(&mut self.doubtful) || !bad {
            return None;
        }
        match &mut self.state {
            State::Starting { stage: Stage::Judging, .. } => Some(Change::Judge),
            State::Ready(service) => {
                service.health.ask_again(now);
                Some(Change::None)
            }
            State::Starting { stage: Stage::Booting { .. } | Stage::Inspecting { .. }, .. }
            | State::Draining { .. }
            | State::Terminating { .. }
            | State::Killing => None,
        }
    }

    /// When this worker must be looked at again.
    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Starting { stage: Stage::Booting { ask_at: Some(ask_at), .. }, deadline } => {
                Some((*ask_at).min(*deadline))
            }
            State::Starting {
                stage: Stage::Booting { ask_at: None, .. } | Stage::Inspecting { .. } | Stage::Judging,
                deadline,
            } => Some(*deadline),
            State::Ready(service) => [service.health.deadline(), service.retire_at].into_iter().flatten().min(),
            State::Draining { deadline, heartbeats, .. } => {
                let hangs_at = heartbeats.as_ref().filter(|_| self.exists).and_then(Heartbeats::deadline);
                Some(hangs_at.map_or(*deadline, |at| at.min(*deadline)))
            }
            State::Terminating { deadline, .. } => Some(*deadline),
            State::Killing => None,
        }
    }

    fn abort(&mut self, now: Time, why: String, effects: &mut Effects) -> Change {
        let ready_for = self.ready_for(now);
        self.dump(now, why.clone(), effects);
        Change::Failed { why, ready_for, gone: false }
    }

    /// It hangs: it shall write its stack and end.
    fn dump(&mut self, now: Time, why: String, effects: &mut Effects) {
        effects.push(Effect::PassStderr(self.id()));
        effects.notice(Notice::WorkerHangs { place: self.place, why });
        let state = State::Terminating { deadline: now + ABORT_GRACE, signal: Signal::Abort };
        self.enter(state, Signal::Abort, effects);
    }

    fn enter(&mut self, state: State, signal: Signal, effects: &mut Effects) {
        self.state = state;
        if self.exists {
            effects.push(Effect::Signal(self.place.worker, signal));
        }
    }

    pub(super) fn id(&self) -> WorkerId {
        self.place.worker
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    pub(super) fn born(&self) -> Time {
        self.born
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.spec.drain_timeout
    }

    pub(super) fn stop_timeout(&self) -> Duration {
        self.spec.stop_timeout
    }

    /// Its health, while it is ready.
    pub(super) fn health(&self) -> Option<&Health> {
        match &self.state {
            State::Ready(service) => Some(&service.health),
            State::Starting { .. } | State::Draining { .. } | State::Terminating { .. } | State::Killing => None,
        }
    }

    /// Has it asked whether it is well at this time at the latest, if it is ready.
    pub(super) fn ask_by(&mut self, at: Time) {
        if let State::Ready(service) = &mut self.state {
            service.health.ask_by(at);
        }
    }

    /// Whether a successor shall take its place, although it serves.
    pub(super) fn wants_successor(&self) -> bool {
        match &self.state {
            State::Ready(service) => service.retires || service.health.unhealthy().is_some(),
            State::Starting { .. } | State::Draining { .. } | State::Terminating { .. } | State::Killing => false,
        }
    }

    pub(super) fn ready_for(&self, now: Time) -> Option<Duration> {
        match &self.state {
            State::Ready(service) => Some(now.since(service.since)),
            State::Starting { .. } | State::Draining { .. } | State::Terminating { .. } | State::Killing => None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.state {
            State::Starting { .. } => Phase::Starting,
            State::Ready(_) => Phase::Ready,
            State::Draining { .. } => Phase::Draining,
            State::Terminating { .. } => Phase::Terminating,
            State::Killing => Phase::Killing,
        }
    }
}
