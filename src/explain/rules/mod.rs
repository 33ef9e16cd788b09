//! The rules: each is a pure function from a situation to a cause, with its evidence in numbers.
//!
//! How likely a cause is: 90 and more where the kernel or the core said so, 70 to 89 where numbers and what workers waited
//! for agree, less where numbers alone speak for it.

mod deploy;
mod evidence;
mod memory;
mod processor;
mod traffic;
mod waiting;
mod workers;

use super::explanation::Cause;
use super::situation::Situation;
use crate::control::recording::Entry;

/// Every cause that something speaks for.
pub(super) fn causes(situation: &Situation<'_>, entries: &[Entry]) -> Vec<Cause> {
    let mut found: Vec<Cause> = Vec::new();
    if situation.is_trouble {
        found.extend(workers::on_purpose(situation));
        found.extend(workers::supervisor_ended(situation, entries));
        found.extend(workers::stood_still(situation));
        found.extend(memory::exhausted(situation));
        found.extend(memory::scarce(situation));
        found.extend(deploy::refused(situation));
        found.extend(deploy::broken(situation));
        found.extend(deploy::cannot_start(situation));
        found.extend(workers::hung(situation));
        found.extend(workers::crashing(situation));
        found.extend(waiting::answer(situation));
        found.extend(waiting::lock(situation));
        found.extend(waiting::disk(situation));
        found.extend(waiting::time(situation));
        found.extend(processor::taken(situation));
        found.extend(processor::application(situation));
        found.extend(traffic::failing(situation));
        found.extend(traffic::too_many(situation));
        found.extend(traffic::unreachable(situation));
    }
    found.extend(traffic::nobody(situation));
    found
}
