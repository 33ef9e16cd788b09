//! The situation that is to be explained: the time of the trouble, the calm time before it, and what happened.
//!
//! Owns: what counts as trouble. Never: says why.

use super::figures::Figures;
use crate::control::recording::{Entry, Event, EventKind, Sample, SlowRequest, WaitsFor};
use std::collections::BTreeMap;

/// Troubles that are not further apart are one.
const GAP: u64 = 20_000;
/// No trouble is looked at for longer: what began it and what ended it may be far apart.
const LONGEST: u64 = 300_000;
/// So much before and after a trouble belongs to it, and to a moment that was asked for.
const MARGIN: u64 = 5_000;
/// A moment that was asked for means a trouble that is not further away.
const NEAR: u64 = 60_000;
/// The calm time before: so much of it at most.
const CALM: u64 = 600_000;
/// A sockd that has just started may lack workers for so long.
const STARTING: u64 = 20_000;
/// Where requests are always slow, those that take longer than three times this are trouble, in milliseconds.
const SLOWEST_USUAL: f64 = 1000.0;

/// What is to be explained. Times are milliseconds since 1970.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The unit, as it is typed.
    pub unit: &'a str,
    /// Every sample, the oldest first.
    pub all: Vec<&'a Sample>,
    /// Every event, the oldest first.
    pub all_events: Vec<&'a Event>,
    /// Whether something was wrong.
    pub is_trouble: bool,
    /// When it began.
    pub from: u64,
    /// When it ended.
    pub to: u64,
    /// The moment that was asked for, or that of the question.
    pub moment: u64,
    /// The samples of that time.
    pub samples: Vec<&'a Sample>,
    /// What happened then.
    pub events: Vec<&'a Event>,
    /// What was so then.
    pub then: Figures,
    /// What was so in the calm time before. `None`: there was none.
    pub before: Option<Figures>,
}

impl<'a> Situation<'a> {
    /// Finds the trouble nearest to the moment `asked`, or the last one.
    pub fn find(entries: &'a [Entry], unit: &'a str, asked: Option<u64>, now: u64) -> Self {
        let mut all: Vec<&Sample> = Vec::new();
        let mut all_events: Vec<&Event> = Vec::new();
        for entry in entries {
            match entry {
                Entry::Sample(sample) => all.push(sample),
                Entry::Event(event) => all_events.push(event),
            }
        }
        // A clock may have been set back.
        all.sort_by_key(|sample| sample.at_unix_ms);
        all_events.sort_by_key(|event| event.at_unix_ms);
        let usual = usual(&all);
        let is_troubled = |sample: &Sample| {
            // Workers are missing where sockd has just started.
            let started = |event: &&Event| {
                event.kind == EventKind::Started
                    && event.at_unix_ms <= sample.at_unix_ms
                    && event.at_unix_ms + STARTING >= sample.at_unix_ms
            };
            let lacks_workers =
                sample.ready < sample.wanted && !all_events.iter().copied().any(|event| started(&event));
            lacks_workers || is_troubled(sample, usual)
        };
        let (calm, troubled): (Vec<&Sample>, Vec<&Sample>) = all.iter().partition(|sample| !is_troubled(sample));
        let bad =
            all_events.iter().filter(|event| is_bad(event.kind)).map(|event| (event.at_unix_ms, event.at_unix_ms));
        let spans = troubled.iter().map(|sample| (sample.at_unix_ms.saturating_sub(sample.span_ms), sample.at_unix_ms));
        let troubles = merged(spans.chain(bad).chain(unasked_ends(entries)).collect());
        let distance =
            |asked: u64| move |(from, to): &(u64, u64)| from.saturating_sub(asked).max(asked.saturating_sub(*to));
        let found = match asked {
            None => troubles.last().copied(),
            Some(asked) => {
                let near = troubles.iter().filter(|trouble| distance(asked)(trouble) <= NEAR);
                near.min_by_key(|trouble| distance(asked)(trouble)).copied()
            }
        };
        let around = |moment: u64| (moment.saturating_sub(NEAR), moment);
        let (from, to) = match (found, asked) {
            // Of a long one, the time around the moment.
            (Some((from, to)), Some(asked)) if to - from > LONGEST => {
                (from.max(asked.saturating_sub(LONGEST / 2)), to.min(asked + LONGEST / 2).max(from))
            }
            (Some((from, to)), _) => (from.max(to.saturating_sub(LONGEST)), to),
            (None, Some(asked)) => (asked.saturating_sub(NEAR / 2), asked + NEAR / 2),
            (None, None) => around(all.last().map_or(now, |sample| sample.at_unix_ms)),
        };
        let margin = if found.is_some() { MARGIN } else { 0 };
        let is_within = |at: u64| at >= from.saturating_sub(margin) && at <= to.saturating_add(margin);
        let of_trouble = |sample: &&&Sample| match found {
            Some(_) => sample.at_unix_ms > from && sample.at_unix_ms <= to,
            None => is_within(sample.at_unix_ms),
        };
        let mut samples: Vec<&Sample> = all.iter().filter(of_trouble).copied().collect();
        if samples.is_empty() {
            samples = all.iter().filter(|sample| is_within(sample.at_unix_ms)).copied().collect();
        }
        let is_before = |sample: &&&Sample| sample.at_unix_ms <= from && sample.at_unix_ms + CALM >= from;
        let before: Vec<&Sample> = calm.iter().filter(is_before).copied().collect();
        let events = all_events.iter().filter(|event| is_within(event.at_unix_ms)).copied().collect();
        Self {
            unit,
            is_trouble: found.is_some(),
            from,
            to,
            moment: asked.unwrap_or(now).min(now),
            then: Figures::of(&samples),
            before: (!before.is_empty()).then(|| Figures::of(&before)),
            samples,
            events,
            all,
            all_events,
        }
    }

    /// The events of these kinds in the time of the trouble.
    pub fn events_of(&self, kinds: &[EventKind]) -> Vec<&'a Event> {
        self.events.iter().filter(|event| kinds.contains(&event.kind)).copied().collect()
    }

    /// Each slow request as it was seen in each sample.
    pub fn slow(&self) -> impl Iterator<Item = &'a SlowRequest> {
        self.samples.iter().flat_map(|sample| &sample.slow)
    }

    /// What slow requests waited for most often, how often, and how often they were seen.
    pub fn waits(&self) -> Option<(WaitsFor, usize, usize)> {
        let mut counts: BTreeMap<WaitsFor, usize> = BTreeMap::new();
        self.slow().for_each(|slow| *counts.entry(slow.waits_for).or_default() += 1);
        let all = counts.values().sum();
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(waits_for, count)| (waits_for, count, all))
    }

    /// Whether requests took clearly longer than before, or too long where there was nothing before.
    pub fn is_slower(&self) -> bool {
        let longest = self.slow().map(|slow| slow.for_ms).max().unwrap_or(0) as f64;
        let then = self.then.percentile_95_ms.unwrap_or(0.0).max(longest);
        let before = self.before.as_ref().and_then(|before| before.percentile_95_ms);
        then >= 250.0 && then >= 2.0 * before.unwrap_or(SLOWEST_USUAL / 2.0)
    }
}

/// How long requests usually take, in milliseconds: of three of four requests there were samples with longer ones. Slow times
/// have few requests, and are not usual however long they last. `None`: there were none.
fn usual(samples: &[&Sample]) -> Option<f64> {
    let mut durations: Vec<(u64, u64)> = samples
        .iter()
        .filter_map(|sample| Some((sample.percentile_95_us?, sample.finished.unwrap_or(0).max(1))))
        .collect();
    durations.sort_unstable();
    let quarter = durations.iter().map(|(_, requests)| requests).sum::<u64>() / 4;
    let mut seen = 0;
    let found = durations.iter().find(|(_, requests)| {
        seen += requests;
        seen > quarter
    });
    found.map(|(duration, _)| (*duration as f64 / 1000.0).min(SLOWEST_USUAL))
}

/// Whether visitors noticed something, or were about to; that workers are missing is the caller's.
fn is_troubled(sample: &Sample, usual: Option<f64>) -> bool {
    let finished = sample.finished.unwrap_or(0);
    let share =
        |part: u64, of_hundred: u64| finished > 0 && part.saturating_mul(100) >= finished.saturating_mul(of_hundred);
    let usual = usual.unwrap_or(SLOWEST_USUAL);
    let slow = (3.0 * usual).max(2000.0);
    let stalls = |stall: Option<u64>, of_hundred: u64| {
        sample.in_flight > 0
            && stall.is_some_and(|stall| stall.saturating_mul(100) >= sample.span_ms.saturating_mul(of_hundred))
    };
    let fills = |memory: Option<u64>, limit: Option<u64>| {
        memory.zip(limit).is_some_and(|(memory, limit)| memory.saturating_mul(100) >= limit.saturating_mul(92))
    };
    let largest = sample.largest.unwrap_or_default();
    sample.turned_away > 0
        || sample.alarm.is_some()
        || sample.server_errors > 0 && share(sample.server_errors, 5)
        || sample.aborted > 1 && share(sample.aborted, 10)
        || sample.waiting.is_some_and(|waiting| waiting > 1) && sample.busy >= sample.ready
        || sample.slow.iter().any(|request| request.for_ms as f64 >= slow)
        || sample.percentile_95_us.is_some_and(|duration| duration as f64 / 1000.0 >= (3.0 * usual).max(250.0))
        || stalls(sample.io_stall_ms, 40)
        || stalls(sample.memory_stall_ms, 20)
        || fills(Some(largest.memory_bytes), largest.limit_bytes)
        || fills(sample.memory_bytes, sample.memory_limit_bytes)
}

fn is_bad(kind: EventKind) -> bool {
    match kind {
        EventKind::StoodStill
        | EventKind::WorkerDied
        | EventKind::OutOfMemory
        | EventKind::WorkerNotReady
        | EventKind::WorkerHangs
        | EventKind::WorkerUnhealthy
        | EventKind::WorkerTooBig
        | EventKind::PreparationFailed
        | EventKind::Answering503
        | EventKind::ReloadRefused
        | EventKind::Paused
        | EventKind::MaintenanceBegun => true,
        EventKind::Started
        | EventKind::Stopping
        | EventKind::WorkerKilled
        | EventKind::ServingAgain
        | EventKind::ReloadBegun
        | EventKind::ReloadDone
        | EventKind::PauseEnded
        | EventKind::MaintenanceEnded
        | EventKind::PoolResized
        | EventKind::Unknown => false,
    }
}

/// From the last sign of a sockd that nobody has stopped to the start of the next one.
pub(super) fn unasked_ends(entries: &[Entry]) -> Vec<(u64, u64)> {
    let (mut ends, mut last, mut was_stopped) = (Vec::new(), None, false);
    for entry in entries {
        let kind = match entry {
            Entry::Sample(_) => None,
            Entry::Event(event) => Some(event.kind),
        };
        let at = entry.at_unix_ms();
        if kind == Some(EventKind::Started) {
            ends.extend(last.filter(|last| !was_stopped && *last <= at).map(|last| (last, at)));
            was_stopped = false;
        }
        was_stopped |= kind == Some(EventKind::Stopping);
        last = Some(at);
    }
    ends
}

/// Spans of trouble, those close to each other as one.
fn merged(mut spans: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    spans.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some((_, end)) if from <= end.saturating_add(GAP) => *end = to.max(*end),
            _ => merged.push((from, to)),
        }
    }
    merged
}
