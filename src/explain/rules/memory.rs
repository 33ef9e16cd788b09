//! Memory: it ran out, by a leak or at once, or is scarce.

use super::evidence::{mebibytes, percent};
use crate::control::recording::{EventKind, Sample};
use crate::explain::explanation::Cause;
use crate::explain::situation::Situation;

/// A worker that has grown so much, and for so long, leaks: in bytes and milliseconds.
const LEAK: u64 = 8 << 20;
const LEAK_PERIOD: u64 = 3_000;

/// Memory has run out, or is about to.
pub(super) fn exhausted(situation: &Situation<'_>) -> Option<Cause> {
    let killed = situation.events_of(&[EventKind::OutOfMemory]);
    let too_big = situation.events_of(&[EventKind::WorkerTooBig]);
    let full = situation.samples.iter().rev().find(|sample| is_full(sample));
    let (likelihood, what) = match (killed.last(), too_big.last(), full) {
        (Some(_), _, _) => (98, "memory ran out, and the kernel killed workers".to_owned()),
        (None, Some(_), _) => (90, "workers held too much memory and were replaced".to_owned()),
        (None, None, Some(_)) => (80, "memory is nearly used up".to_owned()),
        (None, None, None) => return None,
    };
    let worker = killed.last().or(too_big.last()).and_then(|event| event.worker);
    let mut evidence: Vec<String> =
        killed.iter().rev().take(2).chain(too_big.last()).map(|event| event.text.clone()).collect();
    let growth = growth(situation, worker);
    evidence.extend(growth.clone());
    if let (Some(memory), Some(limit)) = (situation.then.memory_bytes, situation.then.memory_limit_bytes) {
        evidence.push(format!("the service held up to {} of MemoryMax={}", mebibytes(memory), mebibytes(limit)));
    }
    let advice = match (&growth, too_big.is_empty()) {
        (Some(_), true) => {
            "look for what the application keeps from request to request; workers.max-memory replaces workers before the \
             kernel kills them"
        }
        (Some(_), false) => "look for what the application keeps from request to request",
        (None, _) => "one request needed that much, or the limit is too small: look at the request that it served",
    };
    Some(Cause {
        id: if growth.is_some() { "memory-leak" } else { "out-of-memory" },
        likelihood,
        what: if growth.is_some() { format!("{what}: one grew all the time") } else { what },
        evidence,
        advice: advice.to_owned(),
        next: format!("sockd status {}", situation.unit),
    })
}

fn is_full(sample: &Sample) -> bool {
    let fills = |memory: Option<u64>, limit: Option<u64>| {
        memory.zip(limit).is_some_and(|(memory, limit)| memory.saturating_mul(100) >= limit.saturating_mul(92))
    };
    let largest = sample.largest.unwrap_or_default();
    fills(sample.memory_bytes, sample.memory_limit_bytes) || fills(Some(largest.memory_bytes), largest.limit_bytes)
}

/// How a worker grew: over some time, and in more than one step.
fn growth(situation: &Situation<'_>, worker: Option<u64>) -> Option<String> {
    let until = situation.to;
    let sizes: Vec<(u64, u64, u64)> = situation
        .all
        .iter()
        .filter(|sample| sample.at_unix_ms <= until)
        .filter_map(|sample| sample.largest.map(|largest| (sample.at_unix_ms, largest.worker, largest.memory_bytes)))
        .collect();
    let worker = worker.or_else(|| sizes.last().map(|(_, worker, _)| *worker))?;
    let own: Vec<(u64, u64)> =
        sizes.iter().filter(|(_, of, _)| *of == worker).map(|(at, _, size)| (*at, *size)).collect();
    let ((begun, first), (ended, last)) = (*own.first()?, *own.last()?);
    let steps = own.windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
    let grew = last.saturating_sub(first);
    if grew < LEAK || ended.saturating_sub(begun) < LEAK_PERIOD || steps < 3 {
        return None;
    }
    let seconds = ended.saturating_sub(begun) / 1000;
    Some(format!("worker {worker} grew from {} to {} within {seconds} s", mebibytes(first), mebibytes(last)))
}

/// Processes waited for memory, although nobody was killed.
pub(super) fn scarce(situation: &Situation<'_>) -> Option<Cause> {
    let stall = situation.then.memory_stall.filter(|stall| *stall >= 0.2)?;
    Some(Cause {
        id: "memory-pressure",
        likelihood: 72,
        what: "memory was scarce: processes waited for it".to_owned(),
        evidence: vec![format!("{} of the time some process waited for memory", percent(stall))],
        advice: "a limit is close (MemoryHigh=, workers.memory-high), or the machine swaps".to_owned(),
        next: "free -m".to_owned(),
    })
}
