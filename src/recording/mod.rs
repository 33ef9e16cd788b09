//! The recording of an instance: what was so in the last minutes, in two files in its state directory, as a flight recorder
//! keeps it: it is readable after the end of the one who wrote it, whatever that end was.
//!
//! Owns: how long and how large it may get, how long its texts may be, and the format of the files.
//! Never: waits in the event loop: the daemon reads and writes in a thread. What stands in the files may be anybody's who is
//! the service's user: it is bounded, and only shown.
#![forbid(unsafe_code)]

mod file;

pub use file::{ASIDE, BEFORE, FILE_NAME, Writer, Written, read};

use crate::control::recording::{Entry, Event, Sample, SlowRequest};
use std::time::Duration;

/// At least so much is kept, as far as it fits into its bytes.
pub const PERIOD: Duration = Duration::from_secs(15 * 60);
/// So many entries are kept in memory where there is no directory, and read from the files.
pub const MAX_ENTRIES: usize = 4000;
/// So many slow requests are in a sample.
pub const MAX_SLOW: usize = 5;
/// So many last failures are in a sample.
pub const MAX_FAILED: usize = 3;
/// A text is cut after so many bytes.
const MAX_TEXT: usize = 300;
/// No moment is later, in milliseconds since 1970.
const END_OF_9999: u64 = 253_402_300_799_999;
/// No sample is of a longer time, in milliseconds.
const MAX_SPAN: u64 = 3_600_000;
/// There are no more workers and processors, no more connections, and no more requests in a millisecond.
const MAX_WORKERS: u64 = 9_999;
const MAX_CONNECTIONS: u64 = 999_999;
const MAX_RATE: u64 = 1_000;
/// Nothing is counted further: sums of such numbers fit.
const MAX_NUMBER: u64 = 1 << 50;

/// Cuts what is too long or too large, so that the whole recording has a bound, and can be calculated with.
pub fn bounded(entry: Entry) -> Entry {
    match entry {
        Entry::Sample(sample) => Entry::Sample(Box::new(bounded_sample(*sample))),
        Entry::Event(event) => Entry::Event(bounded_event(event)),
    }
}

fn bounded_event(mut event: Event) -> Event {
    event.at_unix_ms = event.at_unix_ms.min(END_OF_9999);
    one_line(&mut event.text);
    event
}

fn bounded_sample(mut sample: Sample) -> Sample {
    sample.at_unix_ms = sample.at_unix_ms.min(END_OF_9999);
    sample.span_ms = sample.span_ms.clamp(1, MAX_SPAN);
    sample.slow.truncate(MAX_SLOW);
    sample.failed.truncate(MAX_FAILED);
    for SlowRequest { request, for_ms, peer, .. } in &mut sample.slow {
        one_line(request);
        *for_ms = (*for_ms).min(MAX_NUMBER);
        peer.iter_mut().for_each(one_line);
    }
    sample.failed.iter_mut().chain(&mut sample.alarm).for_each(one_line);
    if let Some(largest) = &mut sample.largest {
        largest.memory_bytes = largest.memory_bytes.min(MAX_NUMBER);
        largest.limit_bytes = largest.limit_bytes.map(|limit| limit.min(MAX_NUMBER));
    }
    let (span, finished) = (sample.span_ms, sample.span_ms * MAX_RATE);
    bound([&mut sample.wanted, &mut sample.ready, &mut sample.busy, &mut sample.cpus], MAX_WORKERS);
    bound([&mut sample.in_flight], MAX_CONNECTIONS);
    bound([&mut sample.waiting, &mut sample.queue_limit].into_iter().flatten(), MAX_CONNECTIONS);
    bound([&mut sample.server_errors, &mut sample.aborted, &mut sample.turned_away], finished);
    bound(&mut sample.finished, finished);
    bound([&mut sample.throttled_ms], span);
    let stalls = [&mut sample.cpu_stall_ms, &mut sample.io_stall_ms, &mut sample.memory_stall_ms];
    bound(stalls.into_iter().flatten(), span);
    bound([&mut sample.cpu_ms, &mut sample.machine_cpu_ms].into_iter().flatten(), span * MAX_WORKERS);
    bound([&mut sample.steal_ms], span * MAX_WORKERS);
    let numbers =
        [&mut sample.median_us, &mut sample.percentile_95_us, &mut sample.memory_bytes, &mut sample.memory_limit_bytes];
    bound(numbers.into_iter().flatten(), MAX_NUMBER);
    sample
}

fn bound<'a>(numbers: impl IntoIterator<Item = &'a mut u64>, most: u64) {
    numbers.into_iter().for_each(|number| *number = (*number).min(most));
}

/// The first line of a text, cut where it is too long.
fn one_line(text: &mut String) {
    let line = text.find('\n').unwrap_or(text.len());
    if line.min(MAX_TEXT) < text.len() {
        let end = (0..=line.min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('\u{2026}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::recording::{Largest, WaitsFor};

    #[test]
    fn an_entry_has_a_bound_whatever_is_in_it() {
        let long = "\u{1}".repeat(1 << 16);
        let slow = SlowRequest {
            worker: u64::MAX,
            request: long.clone(),
            for_ms: u64::MAX,
            waits_for: WaitsFor::Answer,
            peer: Some(long.clone()),
        };
        let most = Some(u64::MAX);
        let sample = Sample {
            at_unix_ms: u64::MAX,
            span_ms: u64::MAX,
            generation: u64::MAX,
            finished: most,
            server_errors: u64::MAX,
            aborted: u64::MAX,
            median_us: most,
            percentile_95_us: most,
            turned_away: u64::MAX,
            wanted: u64::MAX,
            ready: u64::MAX,
            busy: u64::MAX,
            in_flight: u64::MAX,
            waiting: most,
            queue_limit: most,
            memory_bytes: most,
            memory_limit_bytes: most,
            largest: Some(Largest { worker: u64::MAX, memory_bytes: u64::MAX, limit_bytes: most }),
            cpu_ms: most,
            throttled_ms: u64::MAX,
            cpu_stall_ms: most,
            io_stall_ms: most,
            memory_stall_ms: most,
            machine_cpu_ms: most,
            steal_ms: u64::MAX,
            cpus: u64::MAX,
            slow: vec![slow; 100],
            failed: vec![long.clone(); 100],
            alarm: Some(long.clone()),
        };
        for entry in [Entry::Sample(Box::new(sample)), Entry::Event(Event { text: long, ..Event::default() })] {
            let line = serde_json::to_string(&bounded(entry)).expect("JSON");
            assert!(line.len() < 32_000, "{}", line.len());
        }
        let event = Event { text: "one\ntwo".to_owned(), ..Event::default() };
        let Entry::Event(event) = bounded(Entry::Event(event)) else { panic!("it is one") };
        assert_eq!(event.text, "one\u{2026}");
    }
}
