//! Visitors: they are too many, one URL fails them, they cannot come in, or they have stopped coming.

use super::evidence::{busy, durations, percent};
use crate::explain::explanation::Cause;
use crate::explain::situation::Situation;
use std::collections::BTreeMap;

/// No request for so long is silence where there were some, in milliseconds.
const SILENCE: u64 = 30_000;
/// What came in so long before it counts.
const BEFORE_SILENCE: u64 = 300_000;

/// Requests fail, at one URL or at many.
pub(super) fn failing(situation: &Situation<'_>) -> Option<Cause> {
    let then = &situation.then;
    if then.server_errors == 0 || then.error_share() < 0.05 {
        return None;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let failures = || situation.samples.iter().flat_map(|sample| &sample.failed);
    failures().for_each(|failed| *counts.entry(failed).or_default() += 1);
    let seen = failures().count();
    let most = counts.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| 10 * **count >= 6 * seen);
    let before = situation.before.as_ref().map(|before| format!(", {} before", percent(before.error_share())));
    let share = percent(then.error_share());
    let mut evidence = vec![format!("{share} of the answers were server errors{}", before.unwrap_or_default())];
    let (id, likelihood, what) = match most {
        Some((request, count)) => {
            evidence.push(format!("{count} of {seen} failures seen were at {request}"));
            ("failing-url", 79, format!("{request} fails"))
        }
        None => {
            let urls: Vec<&str> = counts.keys().take(3).copied().collect();
            evidence.extend((!urls.is_empty()).then(|| format!("seen at {}", urls.join(", "))));
            ("failing", 70, "requests fail, at several URLs".to_owned())
        }
    };
    evidence.extend(durations(situation));
    Some(Cause {
        id,
        likelihood,
        what,
        evidence,
        advice: "the application's log has the traceback".to_owned(),
        next: format!("sockd logs {}", situation.unit),
    })
}

/// All workers are busy, and requests take no longer than before.
pub(super) fn too_many(situation: &Situation<'_>) -> Option<Cause> {
    let then = &situation.then;
    if then.all_busy < 0.5 || then.waiting_max == 0 || situation.is_slower() {
        return None;
    }
    let before = situation.before.as_ref();
    let rate = then.rate.unwrap_or(0.0);
    let rate_before = before.and_then(|before| before.rate);
    let more = rate_before.is_some_and(|before| before > 0.0 && rate >= 2.0 * before);
    let times = rate_before.map(|before| format!(", {before:.1} before")).unwrap_or_default();
    let evidence = [Some(format!("{rate:.1} requests per second{times}")), busy(situation), durations(situation)];
    let (id, what) = match more {
        true => ("traffic-spike", "many more visitors came than before, and all workers are busy"),
        false => ("too-few-workers", "more visitors come than the workers can serve"),
    };
    Some(Cause {
        id,
        likelihood: 77,
        what: what.to_owned(),
        evidence: evidence.into_iter().flatten().collect(),
        advice:
            "requests take no longer than usual: more workers serve more (workers.count), as long as processors and \
                 memory are left"
                .to_owned(),
        next: format!("sockd top {}", situation.unit),
    })
}

/// The path of a socket leads elsewhere.
pub(super) fn unreachable(situation: &Situation<'_>) -> Option<Cause> {
    let alarm = situation.samples.iter().rev().find_map(|sample| sample.alarm.clone())?;
    Some(Cause {
        id: "unreachable",
        likelihood: 95,
        what: "visitors cannot reach the socket".to_owned(),
        evidence: vec![alarm],
        advice: String::new(),
        next: format!("sockd doctor {}", situation.unit),
    })
}

/// Nobody comes any more, although the workers are there.
pub(super) fn nobody(situation: &Situation<'_>) -> Option<Cause> {
    let until = situation.moment;
    let with_visitors = |sample: &&&crate::control::recording::Sample| {
        sample.at_unix_ms <= until && sample.finished.is_some_and(|finished| finished > 0)
    };
    let last = situation.all.iter().rev().find(with_visitors)?;
    let silence = until.saturating_sub(last.at_unix_ms);
    let latest = situation.all.iter().rev().find(|sample| sample.at_unix_ms <= until)?;
    if situation.is_trouble || silence < SILENCE || latest.ready == 0 || latest.in_flight > 0 {
        return None;
    }
    let recent = situation
        .all
        .iter()
        .filter(with_visitors)
        .filter(|sample| sample.at_unix_ms + BEFORE_SILENCE >= last.at_unix_ms);
    let begun = recent.clone().map(|sample| sample.at_unix_ms.saturating_sub(sample.span_ms)).min()?;
    let finished: u64 = recent.filter_map(|sample| sample.finished).sum();
    let seconds = last.at_unix_ms.saturating_sub(begun).max(1000) as f64 / 1000.0;
    let rate = finished as f64 / seconds;
    if rate < 0.5 || finished < 10 {
        return None;
    }
    Some(Cause {
        id: "traffic-stopped",
        likelihood: 65,
        what: "nobody has come for a while: the cause is outside, or there is none".to_owned(),
        evidence: vec![
            format!("no request for {} s, {rate:.1} per second before", silence / 1000),
            format!("{} workers are ready and idle", latest.ready),
        ],
        advice: "look at the proxy, the firewall and the name: what is before the socket".to_owned(),
        next: format!("sockd doctor {}", situation.unit),
    })
}
