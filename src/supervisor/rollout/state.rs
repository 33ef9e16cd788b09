//! The steps of a rollout, as data: where it stands, who waits for its outcome.

use super::super::effect::Outcome;
use super::super::id::{GenerationId, RequestId, WorkerId};
use super::super::snapshot::RolloutStep;
use super::super::time::Time;

#[derive(Clone, Debug)]
pub(in super::super) struct Rollout {
    pub(in super::super) generation: GenerationId,
    pub(in super::super) requests: Vec<RequestId>,
    pub(in super::super) step: Step,
}

#[derive(Clone, Debug)]
pub(in super::super) enum Step {
    Preparing,
    /// Once it is proven the canary is watched for a moment.
    Proving {
        canary: WorkerId,
        watch_until: Option<Time>,
    },
    Replacing,
    Soaking {
        until: Time,
    },
}

/// The new generation serves, and the old one has just been asked to leave. A worker may accept once more before it
/// hears that; a client that waits for the outcome shall not meet the old code after it.
#[derive(Clone, Debug)]
pub(in super::super) struct Handover {
    pub(in super::super) requests: Vec<RequestId>,
    pub(in super::super) outcome: Outcome,
    pub(in super::super) until: Time,
}

impl Rollout {
    pub(in super::super) fn soak_until(&self) -> Option<Time> {
        match self.step {
            Step::Soaking { until } => Some(until),
            Step::Proving { watch_until, .. } => watch_until,
            Step::Preparing | Step::Replacing => None,
        }
    }

    pub(in super::super) fn step(&self) -> RolloutStep {
        match self.step {
            Step::Preparing => RolloutStep::Preparing,
            Step::Proving { .. } => RolloutStep::Proving,
            Step::Replacing => RolloutStep::Replacing,
            Step::Soaking { .. } => RolloutStep::Soaking,
        }
    }
}
