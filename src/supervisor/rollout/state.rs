//! The steps of a rollout, as data: where it stands, who waits for its outcome.

use super::super::effect::Outcome;
use super::super::id::{GenerationId, RequestId, WorkerId};
use super::super::rebinding::Rebinding;
use super::super::record::{Proof, Record, RecordResult, Source};
use super::super::snapshot::{Refusal, RolloutStep};
use super::super::spec::Trial;
use super::super::time::Time;
use super::comparison::Run;

/// The reloads of an instance.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Rollouts {
    pub(in super::super) current: Option<Rollout>,
    pub(in super::super) handover: Option<Handover>,
    /// Who asked for a reload that has not begun: one rollout will serve all who want the same.
    pub(in super::super) waiting: Vec<Wanted>,
    /// What one is to bring to the workers.
    pub(in super::super) rebinding: Rebinding,
    /// The last one, if it was refused.
    pub(in super::super) refusal: Option<Refusal>,
}

/// A reload that was asked for.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Wanted {
    pub(in super::super) request: RequestId,
    /// What is to be read.
    pub(in super::super) source: Source,
    /// How it is to be tried by visitors first, whatever the specification says.
    pub(in super::super) trial: Option<Trial>,
}

/// A rollout under way.
#[derive(Clone, Debug)]
pub(in super::super) struct Rollout {
    pub(in super::super) generation: GenerationId,
    pub(in super::super) requests: Vec<RequestId>,
    /// How one of those who asked wants it to be tried.
    pub(in super::super) trial: Option<Trial>,
    pub(in super::super) step: Step,
    pub(in super::super) source: Source,
    pub(in super::super) begun: Time,
    /// What has shown until now that the new code works.
    pub(in super::super) proof: Proof,
}

#[derive(Clone, Debug)]
pub(in super::super) enum Step {
    Preparing,
    /// The programs that check what was read run one after the other; this one of them, until then. None: its time is over,
    /// and its answer is under way.
    Checking {
        number: usize,
        until: Option<Time>,
    },
    /// Once it is proven the canary is watched for a moment.
    Proving {
        canary: WorkerId,
        watch_until: Option<Time>,
    },
    /// Visitors try it on a few workers.
    Trying(Box<Run>),
    Replacing,
    Soaking {
        until: Time,
    },
}

/// The new generation serves, and the old one has just been asked to leave. A worker may accept once more before it
/// hears that; a client that waits for the outcome shall not meet the old code after it.
#[derive(Clone, Debug)]
pub(in super::super) struct Handover {
    pub(in super::super) generation: GenerationId,
    pub(in super::super) requests: Vec<RequestId>,
    pub(in super::super) outcome: Outcome,
    pub(in super::super) until: Time,
}

impl Rollouts {
    /// Takes those who have waited longest and want the same, and what they want: tried as the last of them wants it who says
    /// how.
    pub(in super::super) fn take_waiting(&mut self) -> Option<(Source, Option<Trial>, Vec<RequestId>)> {
        let source = self.waiting.first()?.source;
        let same = self.waiting.iter().take_while(|wanted| wanted.source == source).count();
        let taken: Vec<Wanted> = self.waiting.drain(..same).collect();
        let trial = taken.iter().rev().find_map(|wanted| wanted.trial);
        Some((source, trial, taken.iter().map(|wanted| wanted.request).collect()))
    }
}

impl Rollout {
    /// How it ended, for the history.
    pub(in super::super) fn record(&self, now: Time, result: RecordResult) -> Record {
        Record {
            generation: self.generation,
            requests: self.requests.clone(),
            source: self.source,
            result,
            proof: self.proof,
            took: now.since(self.begun),
        }
    }

    pub(in super::super) fn soak_until(&self) -> Option<Time> {
        match self.step {
            Step::Soaking { until } => Some(until),
            Step::Proving { watch_until, .. } => watch_until,
            Step::Preparing | Step::Checking { .. } | Step::Trying(_) | Step::Replacing => None,
        }
    }

    /// The trial, if it is under way.
    pub(in super::super) fn trial_run(&self) -> Option<&Run> {
        match &self.step {
            Step::Trying(run) => Some(run),
            Step::Preparing | Step::Checking { .. } | Step::Proving { .. } | Step::Replacing | Step::Soaking { .. } => {
                None
            }
        }
    }

    pub(in super::super) fn check_until(&self) -> Option<Time> {
        match self.step {
            Step::Checking { until, .. } => until,
            Step::Preparing | Step::Proving { .. } | Step::Trying(_) | Step::Replacing | Step::Soaking { .. } => None,
        }
    }

    pub(in super::super) fn step(&self) -> RolloutStep {
        match &self.step {
            Step::Preparing => RolloutStep::Preparing,
            Step::Checking { .. } => RolloutStep::Checking,
            Step::Proving { .. } => RolloutStep::Proving,
            Step::Trying(run) => {
                let (answers, wanted) = run.counted();
                RolloutStep::Trying { answers, wanted }
            }
            Step::Replacing => RolloutStep::Replacing,
            Step::Soaking { .. } => RolloutStep::Soaking,
        }
    }
}
