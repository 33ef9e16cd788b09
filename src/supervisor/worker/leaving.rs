//! Drain, stop and kill: how a worker leaves. Neither its health nor its wishes matter then; only the one request that a
//! draining worker may still be at is bounded by its heartbeats, where it can do nothing else meanwhile.

use super::super::effect::{Effect, Effects, Signal};
use super::super::event::WorkerEvent;
use super::super::health::Unhealthy;
use super::super::notice::Notice;
use super::super::spec::{CLOSE_GRACE, SILENT_DRAIN, UNHEARD_GRACE};
use super::super::time::Time;
use super::{Change, Stage, State, Worker};
use std::time::Duration;

impl Worker {
    /// You are replaced: finish what you have begun and leave, within `timeout`; what is connected after that is asked
    /// to go. One that is already leaving gets no more time than it had.
    pub(in super::super) fn drain(&mut self, now: Time, timeout: Duration, effects: &mut Effects) {
        self.send_off(now, timeout, Signal::Drain, effects);
    }

    /// The service ends: finish your requests and leave, within `timeout`; nobody waits for long-lived connections.
    pub(in super::super) fn stop(&mut self, now: Time, timeout: Duration, effects: &mut Effects) {
        self.send_off(now, timeout, Signal::Stop, effects);
    }

    fn send_off(&mut self, now: Time, timeout: Duration, signal: Signal, effects: &mut Effects) {
        match self.state.clone() {
            State::Starting { .. } => self.terminate(now, effects),
            State::Ready(service) => {
                effects.notice(Notice::WorkerDrains(self.place));
                let silent = service.health.unhealthy() == Some(Unhealthy::NoAnswer);
                let limit = if silent { timeout.min(SILENT_DRAIN) } else { timeout };
                let heartbeats = service.health.heartbeats().filter(|_| self.spec.silent_when_busy).cloned();
                let state = State::Draining { deadline: now + limit, sent: signal, silent, heartbeats };
                self.enter(state, signal, effects);
            }
            State::Draining { deadline, sent, silent, heartbeats } => {
                let deadline = deadline.min(now + timeout);
                if signal == Signal::Stop {
                    self.enter(State::Draining { deadline, sent: signal, silent, heartbeats }, signal, effects);
                } else {
                    self.state = State::Draining { deadline, sent, silent, heartbeats };
                }
            }
            State::Terminating { deadline, signal } => {
                self.state = State::Terminating { deadline: deadline.min(now + timeout), signal };
            }
            State::Killing => {}
        }
    }

    pub(super) fn terminate(&mut self, now: Time, effects: &mut Effects) {
        // Before its first word it has no request that it could finish. One that says nothing ever may serve already.
        let unheard = matches!(self.state, State::Starting { stage: Stage::Booting { ask_at: None, .. }, .. });
        let grace = if unheard { self.spec.stop_timeout.min(UNHEARD_GRACE) } else { self.spec.stop_timeout };
        self.enter(State::Terminating { deadline: now + grace, signal: Signal::Terminate }, Signal::Terminate, effects);
    }

    pub(super) fn while_draining(&mut self, now: Time, event: WorkerEvent, effects: &mut Effects) -> Change {
        match event {
            WorkerEvent::Exited { why } | WorkerEvent::SpawnFailed { why } => Change::Left { why },
            WorkerEvent::Spawned => self.late_birth(Signal::Drain, effects),
            WorkerEvent::HeartbeatRead { last } => {
                if let State::Draining { heartbeats: Some(heartbeats), .. } = &mut self.state
                    && heartbeats.read(now, last).is_some()
                {
                    self.does_not_leave(now, effects);
                }
                Change::None
            }
            // It is leaving: neither its health nor its wishes matter, and the deadline bounds the rest.
            WorkerEvent::Heartbeat
            | WorkerEvent::Probed(_)
            | WorkerEvent::Measured { .. }
            | WorkerEvent::Served { .. }
            | WorkerEvent::WantsRetirement
            | WorkerEvent::FoundSick { .. }
            | WorkerEvent::SaidReady
            | WorkerEvent::Inspected { .. }
            | WorkerEvent::Judged { .. } => Change::None,
        }
    }

    pub(super) fn while_terminating(&mut self, event: WorkerEvent, signal: Signal, effects: &mut Effects) -> Change {
        match event {
            WorkerEvent::Exited { why } | WorkerEvent::SpawnFailed { why } => Change::Left { why },
            WorkerEvent::Spawned => self.late_birth(signal, effects),
            // It was given up; nothing it says brings it back.
            WorkerEvent::Heartbeat
            | WorkerEvent::HeartbeatRead { .. }
            | WorkerEvent::Probed(_)
            | WorkerEvent::Measured { .. }
            | WorkerEvent::Served { .. }
            | WorkerEvent::WantsRetirement
            | WorkerEvent::FoundSick { .. }
            | WorkerEvent::SaidReady
            | WorkerEvent::Inspected { .. }
            | WorkerEvent::Judged { .. } => Change::None,
        }
    }

    pub(super) fn while_killing(&mut self, event: WorkerEvent, effects: &mut Effects) -> Change {
        match event {
            WorkerEvent::Exited { why } | WorkerEvent::SpawnFailed { why } => Change::Left { why },
            WorkerEvent::Spawned => self.late_birth(Signal::Kill, effects),
            // It is killed: nothing it said before changes that.
            WorkerEvent::Heartbeat
            | WorkerEvent::HeartbeatRead { .. }
            | WorkerEvent::Probed(_)
            | WorkerEvent::Measured { .. }
            | WorkerEvent::Served { .. }
            | WorkerEvent::WantsRetirement
            | WorkerEvent::FoundSick { .. }
            | WorkerEvent::SaidReady
            | WorkerEvent::Inspected { .. }
            | WorkerEvent::Judged { .. } => Change::None,
        }
    }

    /// Has its last heartbeat read, if that is due while it drains.
    pub(super) fn read_while_draining(&mut self, now: Time, effects: &mut Effects) -> Change {
        if let State::Draining { heartbeats: Some(heartbeats), .. } = &mut self.state
            && heartbeats.is_due(now)
        {
            effects.push(Effect::ReadHeartbeat(self.place.worker));
        }
        Change::None
    }

    /// Its time to drain is over.
    pub(super) fn drain_over(&mut self, now: Time, silent: bool, effects: &mut Effects) -> Change {
        if silent {
            self.does_not_leave(now, effects);
        } else {
            // Clients that are still connected are notified before the connection ends.
            effects.notice(Notice::DrainOver(self.place));
            let deadline = now + CLOSE_GRACE;
            let state = State::Draining { deadline, sent: Signal::Stop, silent: false, heartbeats: None };
            self.enter(state, Signal::Stop, effects);
        }
        Change::None
    }

    /// Its successor has its place; it shall only tell where it hangs.
    fn does_not_leave(&mut self, now: Time, effects: &mut Effects) {
        self.dump(now, "it does not leave".to_owned(), effects);
    }

    fn late_birth(&mut self, signal: Signal, effects: &mut Effects) -> Change {
        self.exists = true;
        effects.push(Effect::Signal(self.place.worker, signal));
        Change::None
    }
}
