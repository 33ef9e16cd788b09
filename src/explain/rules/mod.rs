//! The rules: each is a pure function from a situation to a cause, with its evidence in numbers.
//!
//! How likely a cause is: 90 and more where the kernel or the core said so, 70 to 89 where numbers and what workers waited
//! for agree, less where numbers alone speak for it.

mod deploy;
mod memory;
mod processor;
mod traffic;
mod waiting;
mod workers;

use super::Cause;
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

/// `37 %`.
fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `3 workers`, `1 worker`.
fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `340 ms`, `4.2 s`, `3 min`.
fn duration(milliseconds: f64) -> String {
    match milliseconds {
        short if short < 10.0 => format!("{short:.1} ms"),
        short if short < 1000.0 => format!("{short:.0} ms"),
        medium if medium < 120_000.0 => format!("{:.1} s", medium / 1000.0),
        long => format!("{:.0} min", long / 60_000.0),
    }
}

/// `37M`.
fn mebibytes(bytes: u64) -> String {
    format!("{}M", bytes >> 20)
}

/// How long requests took, with the time before.
fn durations(situation: &Situation<'_>) -> Option<String> {
    let then = situation.then.percentile_95_ms?;
    let before = situation.before.as_ref().and_then(|before| before.percentile_95_ms);
    let before = before.map(|before| format!(", {} before", duration(before))).unwrap_or_default();
    Some(format!("95 of 100 requests that ended took up to {}{before}", duration(then)))
}

/// How busy the workers were.
fn busy(situation: &Situation<'_>) -> Option<String> {
    let then = &situation.then;
    if then.ready < 0.5 {
        return None;
    }
    let queue = match (then.waiting_max, then.queue_limit) {
        (0, _) => String::new(),
        (waiting, Some(limit)) => format!(", up to {waiting} visitors waited (the queue holds {limit})"),
        (waiting, None) => format!(", up to {waiting} visitors waited"),
    };
    Some(format!("{:.1} of {:.0} workers were busy{queue}", then.busy, then.ready))
}

/// How much processor time the service used.
fn processor_time(situation: &Situation<'_>) -> Option<String> {
    let (cpu, cpus) = (situation.then.cpu?, situation.then.cpus);
    let of = if cpus > 0 { format!(" of {cpus}") } else { String::new() };
    Some(format!("the service used {cpu:.2}{of} processors"))
}

/// The slow request that was seen most often.
fn slow_request(situation: &Situation<'_>) -> Option<String> {
    let slow: Vec<_> = situation.slow().collect();
    let count = |request: &str| slow.iter().filter(|slow| slow.request == request).count();
    let most = slow.iter().max_by_key(|one| (count(&one.request), one.for_ms))?;
    let of_it = slow.iter().filter(|slow| slow.request == most.request);
    let longest = of_it.clone().map(|slow| slow.for_ms).max().unwrap_or(0);
    let mut workers: Vec<u64> = of_it.map(|slow| slow.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    let on = counted(workers.len(), "worker");
    Some(format!("{}: seen on {on}, served for up to {}", most.request, duration(longest as f64)))
}
