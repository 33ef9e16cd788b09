//! Why an instance was slow, or failed: from its recording to a few causes with their evidence and the next step.
//!
//! ```text
//!   situation.rs   the recording -> the time of the trouble, the calm time before it
//!   figures.rs     samples -> numbers
//!   rules/         situation -> causes: one file for each kind, pure functions
//! ```
//!
//! Owns: what is said of a recording, and in which order; ids of causes stay.
//! Never: does IO, asks the time, or knows how it is shown. The same recording gives the same explanation
//! (tests/cli/explain).
#![forbid(unsafe_code)]

mod explanation;
mod figures;
mod rules;
mod situation;
#[cfg(test)]
mod tests;

pub use explanation::{Cause, Explanation, Slowest};
pub use figures::Figures;

use crate::control::recording::Entry;
use situation::Situation;

/// So many causes are named: the most likely first.
const MAX_CAUSES: usize = 3;
/// A cause that is less likely than the first by more is left out.
const MAX_BEHIND: u32 = 30;
/// So many slow requests, and so many events, are shown.
const MAX_SHOWN: usize = 5;

/// Explains what was wrong at the moment `asked`, or last; `now` is the moment of the question and `unit` the unit's name, as
/// it is typed.
pub fn explain(entries: &[Entry], unit: &str, asked: Option<u64>, now: u64) -> Explanation {
    let situation = Situation::find(entries, unit, asked, now);
    let mut causes = rules::causes(&situation, entries);
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.likelihood));
    let most = causes.first().map_or(0, |first| first.likelihood);
    causes.retain(|cause| cause.likelihood + MAX_BEHIND >= most);
    causes.truncate(MAX_CAUSES);
    let skip = situation.events.len().saturating_sub(MAX_SHOWN);
    Explanation {
        unit: unit.to_owned(),
        is_trouble: situation.is_trouble || !causes.is_empty(),
        from_unix_ms: situation.from,
        to_unix_ms: situation.to,
        is_recorded: !situation.samples.is_empty() || !situation.events.is_empty(),
        slowest: slowest(&situation),
        events: situation.events.iter().skip(skip).map(|event| (*event).clone()).collect(),
        then: situation.then,
        before: situation.before,
        causes,
    }
}

fn slowest(situation: &Situation<'_>) -> Vec<Slowest> {
    let mut slowest: Vec<Slowest> = Vec::new();
    for slow in situation.slow() {
        match slowest.iter_mut().find(|known| known.request == slow.request) {
            Some(known) => {
                known.for_ms = known.for_ms.max(slow.for_ms);
                if !known.workers.contains(&slow.worker) {
                    known.workers.push(slow.worker);
                }
            }
            None => {
                slowest.push(Slowest { request: slow.request.clone(), for_ms: slow.for_ms, workers: vec![slow.worker] })
            }
        }
    }
    slowest.sort_by_key(|slow| std::cmp::Reverse(slow.for_ms));
    slowest.truncate(MAX_SHOWN);
    slowest.iter_mut().for_each(|slow| slow.workers.sort_unstable());
    slowest
}
