//! The trial: the canary by real traffic. A few workers of the new generation accept visitors beside all old ones, and what
//! became of their requests is compared with what became of those of the old workers in the same time.
//!
//! ```text
//!   Proving -> Trying: its workers start -> counting, again and again -> Replacing
//!                 |                             |
//!                 +-----------> refused <-------+
//! ```
//!
//! Taken back at once: a worker that fails, by itself or by a limit, as in every step of a rollout. Taken back by a test:
//! more server errors than the old code has, or answers that take `SLOWER` times as long. Each test may be wrong; all
//! tests of errors of one trial together take back code that fails as often as the old in at most one of a hundred
//! (`FALSE_ALARMS` in comparison.rs), however often they look: the last test has half of that, those before it share the
//! rest. They come at 10 answers of the new workers, 20, 40 and so on, so that code that always fails meets few visitors.
//!
//! It ends with the number of answers that was asked for, or with its time, with as many as there are by then: a site
//! without visitors is not kept from its new code.
//! Where nobody serves there is nothing to compare with, and nothing is tried.

use super::super::Supervisor;
use super::super::effect::{Announcement, Effect, Effects, Outcome, Progress};
use super::super::event::Answered;
use super::super::id::{GenerationId, RequestId};
use super::super::notice::Notice;
use super::super::spec::{MANAGER_MARGIN, Spec};
use super::super::time::Time;
use super::super::worker::Worker;
use super::comparison::{Finding, Run};
use super::state::{Rollout, Step};

impl Supervisor {
    /// The trial that follows the proof of a generation, if one is wanted and there is something to compare with.
    pub(super) fn trial(&self, spec: &Spec) -> Option<Step> {
        let trial = self.rollouts.current.as_ref()?.trial.or(spec.trial)?;
        if !self.somebody_serves() {
            return None;
        }
        // No old worker leaves for it.
        let workers = trial.share.of(spec.workers).min(spec.surge.max(1));
        Some(Step::Trying(Box::new(Run::new(trial, workers))))
    }

    /// Starts the workers that take part, then counts.
    pub(super) fn advance_trial(&mut self, now: Time, id: GenerationId, spec: &Spec, effects: &mut Effects) {
        let Some(run) = self.run() else { return };
        let (workers, trial) = (run.workers(), run.trial());
        let counts = if run.has_begun() {
            run.takes_count(now)
        } else if self.fill_with_successors(now, id, spec, workers, effects) {
            effects.push(Effect::ReportProgress(Progress::Trying { generation: id, workers, trial }));
            effects.push(Effect::Announce(Announcement::ExtendTimeout(trial.time + MANAGER_MARGIN)));
            effects.notice(Notice::Trying { generation: id, workers, trial });
            self.run().into_iter().for_each(|run| run.begin(now));
            true
        } else {
            false
        };
        if counts {
            effects.push(Effect::CountAnswers(id));
        }
    }

    /// Both generations have answered so many requests by now.
    pub(in super::super) fn answers_counted(
        &mut self,
        now: Time,
        id: GenerationId,
        new: Answered,
        old: Answered,
        effects: &mut Effects,
    ) {
        if self.rollouts.current.as_ref().is_none_or(|rollout| rollout.generation != id) {
            return;
        }
        let Some(run) = self.run() else { return };
        let (tested, finding) = run.count(now, new, old);
        let ((answers, wanted), server_errors) = (run.counted(), run.server_errors());
        self.note_proof(|proof| proof.tried = answers);
        if tested {
            effects.push(Effect::ReportProgress(Progress::Tried { answers, server_errors, wanted }));
        }
        match finding {
            Finding::GoOn => {}
            Finding::Worse(why) => {
                let worker = self.workers.values().find(|worker| worker.place.generation == id).map(Worker::id);
                self.refuse_rollout(now, why, worker, effects);
            }
            Finding::Done => self.end_trial(id, effects),
        }
    }

    /// Somebody decides before the counts do: the new generation takes every slot.
    pub(in super::super) fn promote_requested(&mut self, request: RequestId, effects: &mut Effects) {
        let generation = self.rollouts.current.as_ref().map(|rollout| rollout.generation);
        match (generation, self.run()) {
            (Some(id), Some(run)) if run.has_begun() => {
                // Before the steps that follow, which are for those who wait for the reload.
                effects.push(Effect::Answer(request, Outcome::Promoted(id)));
                self.end_trial(id, effects);
            }
            _ => effects.push(Effect::Answer(request, Outcome::NothingTried)),
        }
    }

    /// Somebody calls the reload off that is under way, at whatever step.
    pub(in super::super) fn abort_requested(&mut self, now: Time, request: RequestId, effects: &mut Effects) {
        let generation = self.rollouts.current.as_ref().map(|rollout| rollout.generation);
        let outcome = match generation {
            Some(id) => {
                self.refuse_rollout(now, "somebody has called it off".to_owned(), None, effects);
                Outcome::CalledOff(id)
            }
            None => Outcome::NothingToCallOff,
        };
        effects.push(Effect::Answer(request, outcome));
    }

    fn end_trial(&mut self, id: GenerationId, effects: &mut Effects) {
        let (answers, wanted) = self.run().map_or((0, 0), |run| run.counted());
        effects.notice(Notice::TrialDone { generation: id, answers, wanted });
        effects.push(Effect::ReportProgress(Progress::TrialDone { answers, wanted }));
        self.set_step(Step::Replacing);
    }

    fn run(&mut self) -> Option<&mut Run> {
        match &mut self.rollouts.current {
            Some(Rollout { step: Step::Trying(run), .. }) => Some(run),
            _ => None,
        }
    }
}
