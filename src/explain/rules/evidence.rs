//! Evidence in words: numbers of the time of the trouble, compared with the time before.

use crate::explain::situation::Situation;

/// `37 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `3 workers`, `1 worker`.
pub(super) fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// `340 ms`, `4.2 s`, `3 min`.
pub(super) fn duration(milliseconds: f64) -> String {
    match milliseconds {
        short if short < 10.0 => format!("{short:.1} ms"),
        short if short < 1000.0 => format!("{short:.0} ms"),
        medium if medium < 120_000.0 => format!("{:.1} s", medium / 1000.0),
        long => format!("{:.0} min", long / 60_000.0),
    }
}

/// `37M`.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{}M", bytes >> 20)
}

/// How long requests took, with the time before.
pub(super) fn durations(situation: &Situation<'_>) -> Option<String> {
    let then = situation.then.percentile_95_ms?;
    let before = situation.before.as_ref().and_then(|before| before.percentile_95_ms);
    let before = before.map(|before| format!(", {} before", duration(before))).unwrap_or_default();
    Some(format!("95 of 100 requests that ended took up to {}{before}", duration(then)))
}

/// How busy the workers were.
pub(super) fn busy(situation: &Situation<'_>) -> Option<String> {
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
pub(super) fn processor_time(situation: &Situation<'_>) -> Option<String> {
    let (cpu, cpus) = (situation.then.cpu?, situation.then.cpus);
    let of = if cpus > 0 { format!(" of {cpus}") } else { String::new() };
    Some(format!("the service used {cpu:.2}{of} processors"))
}

/// The slow request that was seen most often.
pub(super) fn slow_request(situation: &Situation<'_>) -> Option<String> {
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
