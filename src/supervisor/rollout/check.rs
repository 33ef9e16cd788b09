//! The checks of a rollout: the operator's programs that a reload runs, one after the other, between reading a generation
//! and loading it. All must end well, each within its time; until then nothing of the new generation exists.
//!
//! Only a rollout checks: at a start, where the serving generation is prepared again, and while visitors are answered 503,
//! there is no better code to keep.
//! Whatever ends the rollout, a stop too, releases the generation, and that ends the check.

use super::super::Supervisor;
use super::super::effect::{Announcement, Effect, Effects, Progress};
use super::super::generation::Generation;
use super::super::id::GenerationId;
use super::super::notice::Notice;
use super::super::spec::{Checks, MANAGER_MARGIN, PREPARE_TIMEOUT};
use super::super::time::Time;
use super::state::Step;

impl Supervisor {
    /// The generation of a rollout was read: its checks begin, or it is loaded where there are none.
    pub(super) fn advance_checks(&mut self, now: Time, effects: &mut Effects) {
        let Some(rollout) = self.rollouts.current.as_ref().filter(|r| matches!(r.step, Step::Preparing)) else {
            return;
        };
        let id = rollout.generation;
        match self.generations.get(&id).and_then(Generation::checkable).cloned() {
            None => {}
            Some(Ok(checks)) if checks.programs.is_empty() => self.load(id, effects),
            Some(_) if self.fallback.is_wanted() && !self.somebody_serves() && !self.holds_back() => {
                effects.notice(Notice::ChecksLeftOut(id));
                self.load(id, effects);
            }
            Some(Ok(checks)) => self.check(now, id, &checks, 0, effects),
            Some(Err(why)) => self.refuse_rollout(now, why, None, effects),
        }
    }

    /// A check has ended.
    pub(in super::super) fn checked(
        &mut self,
        now: Time,
        id: GenerationId,
        verdict: Result<(), String>,
        effects: &mut Effects,
    ) {
        let rollout = self.rollouts.current.as_ref().filter(|rollout| rollout.generation == id);
        let Some(Step::Checking { number, .. }) = rollout.map(|rollout| &rollout.step) else { return };
        let next = *number + 1;
        let Some(Ok(checks)) = self.generations.get(&id).and_then(Generation::checkable).cloned() else { return };
        match verdict {
            Ok(()) if next < checks.programs.len() => {
                self.note_proof(|proof| proof.checks += 1);
                self.check(now, id, &checks, next, effects);
            }
            Ok(()) => {
                self.set_step(Step::Preparing);
                self.note_proof(|proof| proof.checks += 1);
                effects.push(Effect::Announce(Announcement::ExtendTimeout(PREPARE_TIMEOUT + MANAGER_MARGIN)));
                effects.push(Effect::ReportProgress(Progress::Loading(id)));
                if let Some(generation) = self.generations.get_mut(&id) {
                    generation.load_checked(now, effects);
                }
            }
            Err(why) => self.refuse_rollout(now, why, None, effects),
        }
    }

    /// Ends the check whose time is over.
    pub(in super::super) fn end_late_check(&mut self, now: Time, effects: &mut Effects) {
        if let Some(rollout) = &mut self.rollouts.current
            && let Step::Checking { until, .. } = &mut rollout.step
            && until.take_if(|until| *until <= now).is_some()
        {
            effects.push(Effect::EndCheck(rollout.generation));
        }
    }

    fn check(&mut self, now: Time, id: GenerationId, checks: &Checks, number: usize, effects: &mut Effects) {
        let program = checks.programs[number].clone();
        effects.push(Effect::Announce(Announcement::ExtendTimeout(checks.timeout + MANAGER_MARGIN)));
        effects.push(Effect::ReportProgress(Progress::Checking(program.clone())));
        effects.notice(Notice::Checking { generation: id, program });
        effects.push(Effect::Check { generation: id, number });
        self.set_step(Step::Checking { number, until: Some(now + checks.timeout) });
    }

    fn load(&mut self, id: GenerationId, effects: &mut Effects) {
        if let Some(generation) = self.generations.get_mut(&id) {
            generation.load(effects);
        }
    }
}
