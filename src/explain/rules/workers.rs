//! Workers and sockd itself: they hang, crash, are held back on purpose, or stood still.

use super::evidence::{counted, slow_request};
use crate::control::recording::{Entry, Event, EventKind, WaitsFor};
use crate::explain::explanation::Cause;
use crate::explain::situation::{Situation, unasked_ends};
use std::collections::BTreeSet;

/// Visitors wait, or are answered 503, because somebody wants that.
pub(super) fn on_purpose(situation: &Situation<'_>) -> Option<Cause> {
    let event = *situation.events_of(&[EventKind::Paused, EventKind::MaintenanceBegun]).last()?;
    let command = if event.kind == EventKind::Paused { "resume" } else { "maintenance" };
    Some(Cause {
        id: "on-purpose",
        likelihood: 97,
        what: "somebody holds the workers back".to_owned(),
        evidence: vec![event.text.clone()],
        advice: format!("`sockd {command} {}` ends it where it is still on", situation.unit),
        next: format!("sockd status {}", situation.unit),
    })
}

/// sockd ended, and nobody had stopped it.
pub(super) fn supervisor_ended(situation: &Situation<'_>, entries: &[Entry]) -> Option<Cause> {
    let ends = unasked_ends(entries);
    let (last, started) =
        ends.into_iter().rev().find(|(last, started)| *last <= situation.to && *started >= situation.from)?;
    Some(Cause {
        id: "sockd-ended",
        likelihood: 91,
        what: "sockd itself ended, and systemd started it again".to_owned(),
        evidence: vec![format!(
            "its recording breaks off without a stop, and goes on {} s later",
            started.saturating_sub(last).div_ceil(1000)
        )],
        advice: "it was killed (by hand, for want of memory, by a watchdog), or crashed: the journal says which"
            .to_owned(),
        next: format!("systemctl status {}", situation.unit),
    })
}

/// The machine, or sockd, was stopped for a while.
pub(super) fn stood_still(situation: &Situation<'_>) -> Option<Cause> {
    let event = *situation.events_of(&[EventKind::StoodStill]).last()?;
    Some(Cause {
        id: "stood-still",
        likelihood: 88,
        what: "the machine, or sockd on it, stood still".to_owned(),
        evidence: vec![event.text.clone()],
        advice: "it was suspended, frozen, migrated, or had no processor for that long".to_owned(),
        next: "journalctl -k --since -1h".to_owned(),
    })
}

/// Workers give no sign of life.
pub(super) fn hung(situation: &Situation<'_>) -> Option<Cause> {
    let events = situation.events_of(&[EventKind::WorkerHangs, EventKind::WorkerUnhealthy]);
    let mut workers: BTreeSet<u64> = events.iter().filter_map(|event| event.worker).collect();
    let stopped: BTreeSet<u64> =
        situation.slow().filter(|slow| slow.waits_for == WaitsFor::Continuation).map(|slow| slow.worker).collect();
    workers.extend(&stopped);
    if workers.is_empty() {
        return None;
    }
    let mut evidence: Vec<String> = events.iter().take(2).map(|event| event.text.clone()).collect();
    if !stopped.is_empty() {
        evidence.push(format!("{} stopped by a signal (SIGSTOP, a debugger)", are(stopped.len())));
    }
    evidence.extend(slow_request(situation));
    // What they wait for says more, where it is known.
    let waits = situation.waits().map(|(waits_for, _, _)| waits_for);
    let is_explained = match waits {
        Some(WaitsFor::Lock | WaitsFor::Answer | WaitsFor::Disk | WaitsFor::Nothing | WaitsFor::Time) => {
            stopped.is_empty()
        }
        Some(WaitsFor::Continuation | WaitsFor::Unknown) | None => false,
    };
    let of = situation.then.ready.max(workers.len() as f64);
    Some(Cause {
        id: "workers-hang",
        likelihood: if is_explained { 78 } else { 93 },
        what: format!("{} of {of:.0} workers hung", workers.len()),
        evidence,
        advice: "sockd replaces a worker that hangs, and its stack at that moment is in the journal".to_owned(),
        next: format!("sockd logs {}", situation.unit),
    })
}

fn are(number: usize) -> String {
    format!("{} {}", counted(number, "worker"), if number == 1 { "is" } else { "are" })
}

/// Workers end unasked.
pub(super) fn crashing(situation: &Situation<'_>) -> Option<Cause> {
    let died: Vec<&Event> = situation.events_of(&[EventKind::WorkerDied]);
    let hung: BTreeSet<Option<u64>> =
        situation.events_of(&[EventKind::WorkerHangs]).iter().map(|event| event.worker).collect();
    let crashed: Vec<&&Event> = died.iter().filter(|event| !hung.contains(&event.worker)).collect();
    let last = crashed.last()?;
    let mut evidence = vec![last.text.clone()];
    if crashed.len() > 1 {
        evidence.push(format!("{} died so", counted(crashed.len(), "worker")));
    }
    let next = match last.worker {
        Some(worker) => format!("sockd logs {} --worker {worker}", situation.unit),
        None => format!("sockd logs {}", situation.unit),
    };
    Some(Cause {
        id: "workers-crash",
        likelihood: if crashed.len() > 1 { 92 } else { 86 },
        what: "workers crash".to_owned(),
        evidence,
        advice: "the request that it served, and its last lines, lead to the code".to_owned(),
        next,
    })
}
