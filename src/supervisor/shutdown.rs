//! The end: drain everybody, kill who does not leave in time, and exit when all are reaped.

use super::effect::{Announcement, Effect, Effects, Outcome};
use super::notice::Notice;
use super::rollout::end_rollout;
use super::spec::{HURRIED_DRAIN, MANAGER_MARGIN};
use super::time::Time;
use super::{Mode, Supervisor};

impl Supervisor {
    /// Begins to stop; asked again, it shortens what is left of the drain.
    pub(super) fn stop(&mut self, now: Time, effects: &mut Effects) {
        match self.mode {
            Mode::Waiting | Mode::Running => self.begin_stop(now, effects),
            Mode::Stopping => {
                effects.notice(Notice::Hurrying);
                self.workers.values_mut().for_each(|worker| worker.stop(now, HURRIED_DRAIN, effects));
            }
            Mode::Stopped => {}
        }
    }

    fn begin_stop(&mut self, now: Time, effects: &mut Effects) {
        self.mode = Mode::Stopping;
        if let Some(handover) = self.handover.take() {
            end_rollout(handover.requests, &handover.outcome, effects);
        }
        effects.push(Effect::Announce(Announcement::Stopping));
        effects.notice(Notice::Stopping);
        if std::mem::take(&mut self.fallback) {
            effects.push(Effect::StopFallback);
        }
        if let Some(rollout) = self.rollout.take() {
            end_rollout(rollout.requests, &Outcome::Stopping, effects);
        }
        for request in std::mem::take(&mut self.waiting_requests) {
            effects.push(Effect::Answer(request, Outcome::Stopping));
        }
        if let Some(longest) = self.workers.values().map(|worker| worker.stop_timeout()).max() {
            effects.push(Effect::Announce(Announcement::ExtendTimeout(longest + MANAGER_MARGIN)));
        }
        for worker in self.workers.values_mut() {
            worker.stop(now, worker.stop_timeout(), effects);
        }
        self.slots.clear();
        for (id, _) in std::mem::take(&mut self.generations) {
            effects.push(Effect::Release(id));
        }
    }

    pub(super) fn settle_stop(&mut self, effects: &mut Effects) {
        if self.workers.is_empty() {
            self.mode = Mode::Stopped;
            effects.push(Effect::Exit);
        }
    }
}
