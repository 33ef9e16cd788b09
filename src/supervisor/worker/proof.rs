//! How a starting worker proves that it serves: it holds the socket, it accepts or has taken as long as others of its
//! code, and, where it is judged, it answers as it must.

use super::super::effect::{Effect, Effects, Role};
use super::super::event::{Accepts, Holds};
use super::super::health::Health;
use super::super::notice::Notice;
use super::super::spec::{INSPECT_INTERVAL, VERDICT_MARGIN};
use super::super::time::Time;
use super::{Change, Service, Stage, State, Worker};
use std::time::Duration;

impl Worker {
    /// An order for a worker has been answered: if this one is not made yet, its time counts from here.
    pub(in super::super) fn turn_comes(&mut self, now: Time) {
        if let State::Starting { deadline, .. } = &mut self.state {
            *deadline = now + self.spec.start_timeout;
        }
    }

    /// Whether it is ordered and not made yet.
    pub(in super::super) fn waits_for_its_turn(&self) -> bool {
        matches!(self.state, State::Starting { .. }) && !self.exists
    }

    pub(super) fn inspect(&mut self, deadline: Time, spoke: bool, effects: &mut Effects) -> Change {
        self.state = State::Starting { stage: Stage::Inspecting { spoke }, deadline };
        effects.push(Effect::Inspect(self.place.worker));
        Change::None
    }

    pub(super) fn inspected(
        &mut self,
        now: Time,
        holds: Holds,
        accepts: Accepts,
        spoke: bool,
        deadline: Time,
        effects: &mut Effects,
    ) -> Change {
        match (holds, spoke) {
            (Holds::Yes | Holds::Unknown, _) => {}
            // Silent and without a socket: it may still be on its way, so it is asked again later.
            (Holds::No, false) => {
                let again = self.spec.ready_after.map_or(INSPECT_INTERVAL, |after| after.max(INSPECT_INTERVAL));
                return self.look_again(now + again, spoke, deadline);
            }
            // In a rollout it would take the place of one that does serve the socket.
            (Holds::No, true) if self.judged => {
                self.terminate(now, effects);
                let why = "it is ready but holds none of the sockets it was given: it listens elsewhere".to_owned();
                return Change::Failed { why, ready_for: None, gone: false };
            }
            (Holds::No, true) => effects.notice(Notice::WorkerWithoutSocket(self.place)),
        }
        // A program of which nothing is known may hold its socket and be far from serving it, whatever it says.
        match accepts {
            Accepts::Yes => self.answers = true,
            Accepts::NotYet if holds != Holds::No && !self.can_be_asked() && !self.spec.says_ready => {
                self.awaited = true;
                return self.look_again(now + INSPECT_INTERVAL, spoke, deadline);
            }
            Accepts::NotYet | Accepts::NobodyWaits | Accepts::Unknown
                if now < self.not_before && !self.can_be_asked() =>
            {
                return self.look_again(self.not_before, spoke, deadline);
            }
            // What waited before has been accepted.
            Accepts::NobodyWaits => self.answers = self.awaited,
            Accepts::NotYet | Accepts::Unknown => {}
        }
        if self.judged {
            self.state = State::Starting { stage: Stage::Judging, deadline };
            return Change::Judge;
        }
        self.proven(now)
    }

    fn look_again(&mut self, at: Time, spoke: bool, deadline: Time) -> Change {
        self.state = State::Starting { stage: Stage::Booting { ask_at: Some(at), spoke }, deadline };
        Change::None
    }

    pub(super) fn proven(&mut self, now: Time) -> Change {
        self.state = State::Ready(Service {
            since: now,
            health: Health::new(now, &self.spec),
            retire_at: self.spec.max_age.map(|age| now + age),
            retires: false,
        });
        Change::Proven
    }

    /// Whether it alone can be asked something.
    pub(super) fn can_be_asked(&self) -> bool {
        self.spec.own_socket || self.role == Role::Canary
    }

    /// Others of its code took so long to be ready: without a socket of its own it cannot be so sooner.
    pub(in super::super) fn takes_as_long_as(&mut self, others: Duration) {
        // Never too late for its own deadline.
        self.not_before = self.born + others.min(self.spec.start_timeout.mul_f64(0.9));
    }

    /// Whether a connection waits that only it and others like it can accept.
    pub(in super::super) fn is_awaited(&mut self, awaited: bool) {
        self.awaited = awaited;
    }

    /// How long it took until it was seen to accept or to answer, if that is why it is ready at this time.
    pub(in super::super) fn answered_after(&self, now: Time) -> Option<Duration> {
        self.answers.then(|| now.since(self.born))
    }

    /// Until when it may be asked, while it starts.
    pub(in super::super) fn patience(&self, now: Time) -> Option<Duration> {
        match self.state {
            State::Starting { deadline, .. } => {
                let rest = deadline.since(now);
                Some(rest.saturating_sub(VERDICT_MARGIN).max(rest / 2))
            }
            State::Ready(_) | State::Draining { .. } | State::Terminating { .. } | State::Killing => None,
        }
    }
}
