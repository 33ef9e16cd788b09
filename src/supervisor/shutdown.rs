//! Graceful shutdown: drain all workers, kill those that do not leave in time, and exit when all are reaped.

use super::effect::{Announcement, Effect, Effects, Outcome};
use super::generation::Generation;
use super::notice::Notice;
use super::pause::state::Pause;
use super::record::RecordResult;
use super::rollout::end_rollout;
use super::spec::{CONCLUSION, HURRIED_DRAIN, MANAGER_MARGIN};
use super::time::Time;
use super::{Mode, Supervisor};

impl Supervisor {
    /// Begins to stop; while it stops, it shortens what is left of the drain, unless this may be the second signal of that
    /// stop.
    pub(super) fn interrupt(&mut self, now: Time, at_terminal: bool, effects: &mut Effects) {
        if self.life.mode == Mode::Stopping && (at_terminal || self.life.stop_repeated) {
            effects.notice(Notice::Hurrying);
            self.workers.update_each(|_| true, |worker| worker.stop(now, HURRIED_DRAIN, effects));
        } else {
            self.stop(now, effects);
        }
    }

    /// Begins to stop; asked again, it does nothing: a unit's ExecStop= and systemd after it both ask.
    pub(super) fn stop(&mut self, now: Time, effects: &mut Effects) {
        if matches!(self.life.mode, Mode::Stopping | Mode::Stopped) {
            if !std::mem::replace(&mut self.life.stop_repeated, true) {
                effects.notice(Notice::StopRepeated);
            }
            return;
        }
        self.life.mode = Mode::Stopping;
        if let Some(handover) = self.rollouts.handover.take() {
            end_rollout(handover.generation, handover.requests, &handover.outcome, effects);
        }
        effects.push(Effect::Announce(Announcement::Stopping));
        effects.notice(Notice::Stopping);
        if std::mem::take(&mut self.fallback).is_wanted() {
            effects.push(Effect::StopFallback);
        }
        if let Some(rollout) = self.rollouts.current.take() {
            effects.push(Effect::Record(rollout.record(now, RecordResult::CutShort)));
            end_rollout(rollout.generation, rollout.requests, &Outcome::Stopping, effects);
        }
        if let Some(request) = self.life.pause.take().and_then(Pause::into_request) {
            effects.push(Effect::Answer(request, Outcome::Stopping));
        }
        self.answer_resumed(&Outcome::Stopping, effects);
        for wanted in std::mem::take(&mut self.rollouts.waiting) {
            effects.push(Effect::Answer(wanted.request, Outcome::Stopping));
        }
        if let Some(longest) = self.workers.values().map(|worker| worker.stop_timeout()).max() {
            effects.push(Effect::Announce(Announcement::ExtendTimeout(longest + MANAGER_MARGIN)));
        }
        self.workers.update_each(|_| true, |worker| worker.stop(now, worker.stop_timeout(), effects));
        self.slots.clear();
        // What a rollout has made goes with it: the end of the service is for what served.
        let serving = self.serving;
        self.release_all(|generation| generation.id != serving || !generation.concludes(), effects);
    }

    fn release_all(&mut self, which: impl Fn(&Generation) -> bool, effects: &mut Effects) {
        self.generations.retain(|id, generation| {
            let released = which(generation);
            if released {
                effects.push(Effect::Release(*id));
            }
            !released
        });
    }

    /// When the last worker is gone, what made the serving generation's concludes; then all is over.
    pub(super) fn settle_stop(&mut self, now: Time, effects: &mut Effects) {
        if !self.workers.is_empty() {
            return;
        }
        if self.life.conclusion.is_none() && self.generations.contains_key(&self.serving) {
            self.life.conclusion = Some(now + CONCLUSION);
            effects.push(Effect::Announce(Announcement::ExtendTimeout(CONCLUSION + MANAGER_MARGIN)));
            effects.push(Effect::Conclude(self.serving));
        }
        let over = self.life.conclusion.is_none_or(|until| until <= now);
        if over || !self.generations.contains_key(&self.serving) {
            self.release_all(|_| true, effects);
            self.life.mode = Mode::Stopped;
            effects.push(Effect::Exit);
        }
    }
}
