//! Warm templates: a copy of what makes a generation's workers answers requests of the daemon's own, and makes the workers
//! from then on, which need not learn what it has learned.
//!
//! ```text
//!   Unwarmed -> Due -> Asked -> Warm -> Refused
//!                        |                 |
//!                        +-----------------+
//! ```
//!
//! It is an improvement and nothing else: nobody waits for it, and whatever comes of it, there is what made the workers
//! before. It is asked for when a worker of the generation is ready: during a rollout at once, since others serve, at a
//! start a little later, since the first visitors are answered. Workers that were made before are replaced one after the
//! other, as any that are well and have had their time. When a worker that it has made does not get ready, the generation
//! goes back to what made the workers before, for good: such a failure refuses no rollout.

pub(super) mod state;

use super::Supervisor;
use super::effect::{Effect, Effects};
use super::generation::Preparation;
use super::id::{GenerationId, WorkerId};
use super::notice::Notice;
use super::time::Time;
use state::Warmth;
use std::time::Duration;

/// After the first worker of a start is ready: its visitors come first.
pub(super) const WARM_DELAY: Duration = Duration::from_secs(1);

impl Supervisor {
    /// A worker of this generation is ready: its template may be warmed.
    pub(super) fn worker_allows_warming(&mut self, now: Time, id: GenerationId) {
        let delay = if self.rollouts.current.is_some() { Duration::ZERO } else { WARM_DELAY };
        if let Some(generation) = self.generations.get_mut(&id)
            && generation.warmth == Warmth::Unwarmed
            && generation.spawnable().is_some_and(|spec| spec.warms)
        {
            generation.warmth = Warmth::Due(now + delay);
        }
    }

    pub(super) fn settle_warmth(&mut self, now: Time, effects: &mut Effects) {
        for generation in self.generations.values_mut() {
            if matches!(generation.warmth, Warmth::Due(at) if at <= now) {
                generation.warmth = Warmth::Asked;
                effects.push(Effect::Warm(generation.id));
            }
        }
    }

    /// The copy has answered, and can be used.
    pub(super) fn warmed(&mut self, id: GenerationId, effects: &mut Effects) {
        let next = WorkerId(self.ids.next_worker);
        if let Some(generation) = self.generations.get_mut(&id)
            && generation.warmth == Warmth::Asked
        {
            generation.warmth = Warmth::Warm(next);
            effects.push(Effect::UseWarm(id));
            effects.notice(Notice::Warm(id));
        }
    }

    /// There is no copy that can be used, or it has ended.
    pub(super) fn not_warm(&mut self, id: GenerationId, why: String, effects: &mut Effects) {
        if let Some(generation) = self.generations.get_mut(&id)
            && matches!(generation.warmth, Warmth::Asked | Warmth::Warm(_))
        {
            generation.warmth = Warmth::Refused(why.clone());
            effects.notice(Notice::NotWarm { generation: id, why });
        }
    }

    /// A worker did not get ready: if the warm template has made it, that makes no more. Whether it had.
    pub(super) fn blame_warm_template(&mut self, id: GenerationId, worker: WorkerId, effects: &mut Effects) -> bool {
        let Some(generation) = self.generations.get_mut(&id) else { return false };
        let is_its = generation.warm_from().is_some_and(|first| first <= worker);
        // What has made it is gone otherwise.
        if !is_its || !matches!(generation.preparation, Preparation::Done { .. }) {
            return false;
        }
        let why = format!("worker {worker}, which it had made, did not get ready");
        effects.push(Effect::UseUnwarmed(id));
        self.not_warm(id, why, effects);
        true
    }
}
