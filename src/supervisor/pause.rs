//! A pause: the workers finish their requests and leave, visitors wait in the queue, and what must not run beside the
//! application (a migration) has its time. Then workers start, and serve who waits.
//!
//! ```text
//!   asked --> emptying: the workers leave --> paused --> over: the workers start
//!                |                              |          |
//!                +---- its time is over, or somebody resumes
//! ```
//!
//! Its time begins with the request and bounds both how long a visitor waits and how long a worker may take for its last
//! requests: with one that is still there nothing was paused. None is ended for it before the time that it has to drain.
//!
//! Meanwhile the queue is looked at each second. While half of it is full, or more, visitors get 503.
//!
//! What is reloaded during a pause is proven by a canary, which visitors do not reach, and serves when workers start again.
//!
//! Maintenance is a pause without an end, in which nobody waits: visitors get 503 until somebody ends it.

pub(super) mod state;

use super::effect::{Effect, Effects, Outcome, Role, Unpausable};
use super::id::{RequestId, WorkerId};
use super::notice::Notice;
use super::time::Time;
use super::worker::Worker;
use super::{Mode, Supervisor};
use state::Pause;
use std::time::Duration;

/// Between two looks at the queue.
const QUEUE_INTERVAL: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Whether no worker may start to serve: nobody has come yet, it is paused, or in maintenance.
    pub(super) fn holds_back(&self) -> bool {
        self.life.mode == Mode::Waiting || self.is_held_back()
    }

    /// Whether no worker may start because somebody wants so.
    pub(super) fn is_held_back(&self) -> bool {
        self.life.pause.is_some() || self.life.maintenance
    }

    /// Why visitors are answered 503 meanwhile, if they are.
    pub(super) fn turns_away_on_purpose(&self) -> Option<String> {
        let crowded = self.life.pause.as_ref().and_then(Pause::turns_away);
        if self.life.maintenance { Some("the site is in maintenance".to_owned()) } else { crowded }
    }

    /// Why the workers cannot be asked to leave now, if they cannot.
    fn unpausable(&self) -> Option<Unpausable> {
        match &self.rollouts.current {
            _ if self.life.maintenance => Some(Unpausable::Maintained),
            _ if self.life.pause.is_some() => Some(Unpausable::Paused),
            Some(rollout) => Some(Unpausable::Reloads(rollout.generation)),
            None => None,
        }
    }

    /// Somebody wants a pause that ends by itself after this time.
    pub(super) fn pause_requested(&mut self, now: Time, request: RequestId, most: Duration, effects: &mut Effects) {
        if self.life.ends() {
            effects.push(Effect::Answer(request, Outcome::Stopping));
        } else if let Some(why) = self.unpausable() {
            effects.push(Effect::Answer(request, Outcome::NotPaused(why)));
        } else {
            let look_at = Some(now + QUEUE_INTERVAL);
            self.life.pause = Some(Pause { until: now + most, request: Some(request), look_at, is_crowded: false });
            effects.notice(Notice::Pausing { most });
            self.send_workers_off(now, effects);
        }
    }

    /// Somebody wants maintenance, or its end.
    pub(super) fn maintenance_requested(&mut self, now: Time, request: RequestId, on: bool, effects: &mut Effects) {
        if self.life.ends() {
            effects.push(Effect::Answer(request, Outcome::Stopping));
        } else if !on {
            self.resume_requested(now, request, effects);
        } else {
            match self.unpausable() {
                // Only what visitors are answered may be another one.
                None | Some(Unpausable::Maintained) => effects.push(Effect::Answer(request, Outcome::Maintained)),
                Some(why) => return effects.push(Effect::Answer(request, Outcome::NotPaused(why))),
            }
            effects.push(Effect::KeepMaintenance(true));
            if !std::mem::replace(&mut self.life.maintenance, true) {
                effects.notice(Notice::MaintenanceBegun);
                self.send_workers_off(now, effects);
            }
        }
    }

    /// All workers finish their requests and leave.
    fn send_workers_off(&mut self, now: Time, effects: &mut Effects) {
        self.answer_resumed(&Outcome::NotServing { why: "it is paused again".to_owned() }, effects);
        // The 503 helper may take him meanwhile.
        self.life.visitor_waits = false;
        for slot in &mut self.slots {
            (slot.current, slot.successor) = (None, None);
        }
        let longest = |worker: &Worker| worker.drain_timeout().max(worker.stop_timeout());
        self.workers.update_each(|_| true, |worker| worker.stop(now, longest(worker), effects));
    }

    /// Somebody wants it to end.
    pub(super) fn resume_requested(&mut self, now: Time, request: RequestId, effects: &mut Effects) {
        if self.life.ends() {
            effects.push(Effect::Answer(request, Outcome::Stopping));
        } else if std::mem::take(&mut self.life.maintenance) {
            effects.push(Effect::KeepMaintenance(false));
            effects.notice(Notice::MaintenanceEnded);
            self.try_again();
            self.life.resuming.push(request);
        } else if self.life.pause.is_some() {
            self.end_pause(now, Unpausable::Resumed, effects);
            self.life.resuming.push(request);
        } else if self.life.resuming.is_empty() {
            effects.push(Effect::Answer(request, Outcome::NothingToResume));
        } else {
            self.life.resuming.push(request);
        }
    }

    /// So many wait in the fullest queue, of so many that may.
    pub(super) fn queue_measured(&mut self, now: Time, waiting: u32, limit: u32) {
        if let Some(pause) = &mut self.life.pause {
            pause.look_at = Some(now + QUEUE_INTERVAL);
            pause.is_crowded = waiting > 0 && waiting >= limit.div_ceil(2);
        }
    }

    /// Takes the pause as far as it goes at this time.
    pub(super) fn settle_pause(&mut self, now: Time, effects: &mut Effects) {
        let leaving = self.last_to_leave();
        let Some(pause) = &mut self.life.pause else { return };
        if leaving.is_none()
            && let Some(request) = pause.request.take()
        {
            effects.push(Effect::Answer(request, Outcome::Paused { left: pause.until.since(now) }));
            effects.notice(Notice::Paused);
        }
        if pause.until <= now {
            self.end_pause(now, leaving.map_or(Unpausable::Resumed, Unpausable::Serves), effects);
        } else if pause.look_at.is_some_and(|at| at <= now) {
            pause.look_at = None;
            effects.push(Effect::MeasureQueue);
        }
    }

    /// A worker that visitors have reached, and that is still there.
    fn last_to_leave(&self) -> Option<WorkerId> {
        self.life.pause.as_ref()?;
        self.workers.values().find(|worker| worker.role() == Role::Serving).map(Worker::id)
    }

    /// Workers may start. `why`: for the one who still waits for its beginning.
    fn end_pause(&mut self, now: Time, why: Unpausable, effects: &mut Effects) {
        let Some(pause) = self.life.pause.take() else { return };
        if let Some(request) = pause.request {
            effects.push(Effect::Answer(request, Outcome::NotPaused(why)));
        }
        effects.notice(Notice::PauseEnded { by_itself: pause.until <= now });
        self.try_again();
    }

    /// Whatever kept workers from starting before may be over.
    fn try_again(&mut self) {
        self.failing = None;
        self.slots.iter_mut().for_each(|slot| slot.retry_at = None);
    }

    /// Those who resumed it hear that visitors are served, or cannot be.
    pub(super) fn settle_resuming(&mut self, effects: &mut Effects) {
        if self.life.resuming.is_empty() {
            return;
        }
        if self.life.mode == Mode::Waiting {
            self.answer_resumed(&Outcome::Resumed { serves: false }, effects);
        } else if self.somebody_serves() {
            self.answer_resumed(&Outcome::Resumed { serves: true }, effects);
        } else if self.fallback.is_wanted() {
            let why = self.failing.clone().unwrap_or_else(|| "every worker ended shortly after its start".to_owned());
            self.answer_resumed(&Outcome::NotServing { why }, effects);
        }
    }

    pub(super) fn answer_resumed(&mut self, outcome: &Outcome, effects: &mut Effects) {
        for request in std::mem::take(&mut self.life.resuming) {
            effects.push(Effect::Answer(request, outcome.clone()));
        }
    }
}
