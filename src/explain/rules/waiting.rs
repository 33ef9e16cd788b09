//! Requests that wait: for an answer of a database or another service, for a lock, for a disk, for a time to pass. What a
//! worker waits for is the kernel's word, and no guess.

use super::evidence::{busy, durations, percent, processor_time, slow_request};
use crate::control::recording::WaitsFor;
use crate::explain::explanation::Cause;
use crate::explain::situation::Situation;
use std::collections::BTreeMap;

/// Requests that wait for the same thing count where they are at least this share of the slow ones.
const MOST: f64 = 0.5;

/// The share of slow requests that waited for this, where it is what most of them waited for.
fn share(situation: &Situation<'_>, wanted: WaitsFor) -> Option<f64> {
    let (waits_for, count, all) = situation.waits()?;
    let share = count as f64 / all as f64;
    (waits_for == wanted && share >= MOST).then_some(share)
}

fn evidence(situation: &Situation<'_>, first: String) -> Vec<String> {
    let rest = [slow_request(situation), durations(situation), busy(situation), processor_time(situation)];
    std::iter::once(first).chain(rest.into_iter().flatten()).collect()
}

/// For an answer over a socket.
pub(super) fn answer(situation: &Situation<'_>) -> Option<Cause> {
    let share = share(situation, WaitsFor::Answer)?;
    let mut peers: BTreeMap<&str, usize> = BTreeMap::new();
    situation.slow().filter_map(|slow| slow.peer.as_deref()).for_each(|peer| *peers.entry(peer).or_default() += 1);
    let peer = peers.into_iter().max_by_key(|(_, count)| *count).map(|(peer, _)| peer);
    let name = peer.and_then(|peer| peer.split_once(" (")).map(|(name, _)| name);
    let database = name.filter(|name| *name != "a web service");
    let of = peer.map_or_else(|| "another process or machine".to_owned(), str::to_owned);
    let next = match database {
        Some("PostgreSQL") => "sudo -u postgres psql -xc 'TABLE pg_stat_activity'".to_owned(),
        Some("MySQL") => "sudo mysql -e 'SHOW FULL PROCESSLIST'".to_owned(),
        Some(_) | None => format!("sockd top {}", situation.unit),
    };
    Some(Cause {
        id: if database.is_some() { "slow-database" } else { "slow-service" },
        likelihood: if peer.is_some() { 89 } else { 76 },
        what: match database {
            Some(name) => format!("requests wait for {name}"),
            None => "requests wait for the answer of another service".to_owned(),
        },
        evidence: evidence(
            situation,
            format!("{} of the slow requests seen waited for an answer of {of}", percent(share)),
        ),
        advice: "a query or call there is slow, or waits for a lock; the application itself does not compute"
            .to_owned(),
        next,
    })
}

/// For a lock.
pub(super) fn lock(situation: &Situation<'_>) -> Option<Cause> {
    let share = share(situation, WaitsFor::Lock)?;
    let longest = situation.slow().map(|slow| slow.for_ms).max().unwrap_or(0);
    Some(Cause {
        id: "stuck-lock",
        likelihood: if longest >= 5000 { 90 } else { 82 },
        what: "requests wait for a lock that is not released".to_owned(),
        evidence: evidence(situation, format!("{} of the slow requests seen waited for a lock", percent(share))),
        advice:
            "the stack of such a worker (key t in `sockd top`) names the lock; another one, or a dead one, holds it"
                .to_owned(),
        next: format!("sockd top {}", situation.unit),
    })
}

/// For a disk.
pub(super) fn disk(situation: &Situation<'_>) -> Option<Cause> {
    let by_kernel = share(situation, WaitsFor::Disk);
    let before = situation.before.as_ref().and_then(|before| before.io_stall).unwrap_or(0.0);
    let stall = situation.then.io_stall.filter(|stall| *stall >= 0.2 && *stall >= 2.0 * before);
    let (likelihood, first) = match (by_kernel, stall) {
        (Some(share), _) => (88, format!("{} of the slow requests seen waited for a disk", percent(share))),
        (None, Some(stall)) if situation.is_slower() => {
            (74, format!("{} of the time some process waited for a disk, {} before", percent(stall), percent(before)))
        }
        (None, Some(_) | None) => return None,
    };
    let mut evidence = evidence(situation, first);
    if let (Some(_), Some(stall)) = (by_kernel, stall) {
        evidence.insert(
            1,
            format!("{} of the time some process waited for a disk, {} before", percent(stall), percent(before)),
        );
    }
    Some(Cause {
        id: "slow-disk",
        likelihood,
        what: "a disk is slow".to_owned(),
        evidence,
        advice: "somebody writes much (a backup, a log, swap), or the disk fails".to_owned(),
        next: "cat /proc/pressure/io /proc/diskstats".to_owned(),
    })
}

/// For a time to pass.
pub(super) fn time(situation: &Situation<'_>) -> Option<Cause> {
    let share = share(situation, WaitsFor::Time)?;
    Some(Cause {
        id: "sleeping",
        likelihood: 80,
        what: "requests sleep: the application waits for a time to pass".to_owned(),
        evidence: evidence(situation, format!("{} of the slow requests seen slept", percent(share))),
        advice: "a retry with pauses, a poll, or a sleep in the code: the stack (key t in `sockd top`) names the line"
            .to_owned(),
        next: format!("sockd top {}", situation.unit),
    })
}
