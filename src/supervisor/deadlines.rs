//! Deadlines: when the core is to be called next, and what a call that comes much later means.

use super::effect::{Announcement, Effect, Effects};
use super::generation::Generation;
use super::id::SlotId;
use super::notice::Notice;
use super::rollout::comparison::Run;
use super::rollout::state::Rollout;
use super::spec::MANAGER_MARGIN;
use super::time::Time;
use super::worker::Worker;
use super::{Mode, Reason, Supervisor};
use std::time::Duration;

impl Supervisor {
    /// When [`Self::handle_timeout`] must be called at the latest, and why. If no call comes until much later, sockd stood
    /// still, and that time counts for nobody.
    pub fn poll_timeout(&self) -> Option<(Time, Reason)> {
        debug_assert!(self.workers.is_consistent(), "the summary is not that of the workers");
        let due = self.workers.next_deadline().map(|(at, id)| (at, Reason::Worker(id)));
        let limit = self.limits_of_others().chain(self.workers.next_limit()).min();
        let look = limit.map(|at| self.clock.look_before(at));
        let soon = self.workers.is_any_asked().then(|| self.clock.look_soon());
        let looks = look.into_iter().chain(soon).map(|at| (at, Reason::Clock));
        let (at, reason) = due.into_iter().chain(self.other_deadlines()).chain(looks).min_by_key(|(at, _)| *at)?;
        Some((self.clock.outside(at), reason))
    }

    /// When the time runs out of what is waited for beside workers: preparations, and the stages of a rollout and of the
    /// end.
    fn limits_of_others(&self) -> impl Iterator<Item = Time> {
        let generations = self.generations.values().filter_map(Generation::runs_until);
        let rollout = self.rollouts.current.as_ref();
        let (check, soak) = (rollout.and_then(Rollout::check_until), rollout.and_then(Rollout::soak_until));
        let handover = self.rollouts.handover.as_ref().map(|handover| handover.until);
        let trial = rollout.and_then(Rollout::trial_run).and_then(Run::until);
        generations.chain([check, soak, trial, handover, self.life.conclusion].into_iter().flatten())
    }

    /// The time that counts at this call.
    pub(super) fn advance_clock(&mut self, now: Time, effects: &mut Effects) -> Time {
        // It was here a moment ago at nearly every call.
        let due = if self.clock.is_behind(now) { self.poll_timeout().map(|(at, _)| at) } else { None };
        if let Some(late) = self.clock.advance(now, due) {
            self.stood_still(self.clock.read(now), late, effects);
        }
        self.clock.read(now)
    }

    /// What was asked before a standstill proves nothing, and the service manager, whose time has gone on, learns how long it may
    /// still take.
    fn stood_still(&mut self, now: Time, late: Duration, effects: &mut Effects) {
        effects.notice(Notice::StoodStill(late));
        self.workers.update_each(|_| true, Worker::doubt_answer);
        let rolls = self.rollouts.current.is_some() || self.rollouts.handover.is_some();
        let manager_waits = !self.life.announced_ready || rolls || self.life.mode == Mode::Stopping;
        if let Some(last) = self.limits_of_others().chain(self.workers.last_limit()).max().filter(|_| manager_waits) {
            effects.push(Effect::Announce(Announcement::ExtendTimeout(last.since(now) + MANAGER_MARGIN)));
        }
    }

    /// When something is to be done beside what the workers' own deadlines ask for, in the time that counts.
    fn other_deadlines(&self) -> impl Iterator<Item = (Time, Reason)> {
        let ends = self.life.ends();
        let conclusion =
            self.life.conclusion.filter(|_| self.life.mode == Mode::Stopping).map(|at| (at, Reason::Conclusion));
        let slots = (0..).zip(&self.slots).filter_map(|(i, slot)| Some((slot.retry_at?, Reason::Slot(SlotId(i)))));
        let generations = self.generations.values().filter_map(|g| Some((g.deadline()?, Reason::Generation(g.id))));
        let rollout = self.rollouts.current.as_ref();
        let check = rollout.and_then(Rollout::check_until).map(|at| (at, Reason::Check));
        let soak = rollout.and_then(Rollout::soak_until).map(|at| (at, Reason::Soak));
        let trial = rollout.and_then(Rollout::trial_run).and_then(Run::deadline).map(|at| (at, Reason::Trial));
        let handover = self.rollouts.handover.as_ref().map(|handover| (handover.until, Reason::Handover));
        let fallback = self.fallback.deadline().map(|at| (at, Reason::Fallback));
        let pause = self.life.pause.as_ref().map(|pause| (pause.deadline(), Reason::Pause));
        let rollout = check.into_iter().chain(trial).chain(soak).chain(handover);
        let rebinding = self.rollouts.rebinding.retry_at().filter(|_| self.may_bring_socket());
        let rebinding = rebinding.map(|at| (at, Reason::Rebinding));
        let others = slots
            .chain(generations)
            .chain(rollout)
            .chain(pause)
            .chain(fallback)
            .chain(rebinding)
            .filter(move |_| !ends);
        conclusion.into_iter().chain(others)
    }
}
