//! Deploys: new code that was refused, that fails since it took over, or that cannot start.

use super::evidence::{counted, duration, percent};
use crate::control::recording::{EventKind, Sample};
use crate::explain::explanation::Cause;
use crate::explain::figures::Figures;
use crate::explain::situation::Situation;

/// New code is blamed for what begins so long after it took over at most, in milliseconds.
const BLAMED: u64 = 120_000;

/// A reload was refused: visitors noticed nothing.
pub(super) fn refused(situation: &Situation<'_>) -> Option<Cause> {
    let refused = situation.events_of(&[EventKind::ReloadRefused]);
    let last = refused.last()?;
    Some(Cause {
        id: "broken-deploy",
        likelihood: 92,
        what: "a deploy was refused: the new code does not work, and the old code serves on".to_owned(),
        evidence: vec![last.text.clone()],
        advice: "fix the new code and reload again; until then a restart would load what was refused".to_owned(),
        next: format!("sockd history {}", situation.unit),
    })
}

/// New code fails, or is slow, since it took over.
pub(super) fn broken(situation: &Situation<'_>) -> Option<Cause> {
    let took_over = |event: &&&crate::control::recording::Event| {
        event.kind == EventKind::ReloadDone
            && event.at_unix_ms <= situation.to
            && event.at_unix_ms + BLAMED >= situation.from
    };
    let reload = situation.all_events.iter().rev().find(took_over)?;
    let generation = reload.generation?;
    // Workers of both serve while they are replaced.
    let begun = situation
        .all_events
        .iter()
        .rev()
        .find(|event| event.kind == EventKind::ReloadBegun && event.generation == Some(generation));
    let begun = begun.map_or(reload.at_unix_ms, |begun| begun.at_unix_ms);
    let is_old = |sample: &&&Sample| sample.at_unix_ms <= begun;
    let is_new = |sample: &&&Sample| sample.at_unix_ms > begun && sample.at_unix_ms <= situation.to;
    let old = Figures::of(&situation.all.iter().filter(is_old).copied().collect::<Vec<_>>());
    let new = Figures::of(&situation.all.iter().filter(is_new).copied().collect::<Vec<_>>());
    if old.finished == 0 || new.finished == 0 {
        return None;
    }
    let mut evidence = Vec::new();
    if new.server_errors > 1 && new.error_share() >= 0.05 && new.error_share() >= 3.0 * old.error_share() {
        let (new, old) = (percent(new.error_share()), percent(old.error_share()));
        evidence.push(format!("{new} of its answers are server errors, {old} before it"));
    }
    if let (Some(new), Some(old)) = (new.percentile_95_ms, old.percentile_95_ms)
        && new >= 250.0
        && new >= 3.0 * old
    {
        evidence.push(format!("95 of 100 requests take up to {}, {} before it", duration(new), duration(old)));
    }
    if evidence.is_empty() {
        return None;
    }
    let seconds = situation.from.saturating_sub(reload.at_unix_ms) / 1000;
    evidence.insert(0, format!("generation {generation} took over, and the trouble began within {} s", seconds + 1));
    Some(Cause {
        id: "broken-deploy",
        likelihood: 94,
        what: "the new code does not work as the old one did".to_owned(),
        evidence,
        advice: format!("`sockd rollback {}` goes back, and proves that before it does", situation.unit),
        next: format!("sockd history {}", situation.unit),
    })
}

/// No worker can start.
pub(super) fn cannot_start(situation: &Situation<'_>) -> Option<Cause> {
    let failed = situation.events_of(&[EventKind::WorkerNotReady, EventKind::PreparationFailed]);
    let nobody = situation.events_of(&[EventKind::Answering503]);
    let is_refused = !situation.events_of(&[EventKind::ReloadRefused]).is_empty();
    let last = failed.last().or(nobody.last())?;
    let died = situation.events_of(&[EventKind::WorkerDied, EventKind::OutOfMemory, EventKind::WorkerHangs]);
    if is_refused && nobody.is_empty() || failed.len() <= died.len() && !died.is_empty() {
        return None;
    }
    let mut evidence = vec![last.text.clone()];
    if failed.len() > 1 {
        evidence.push(format!("{} failed", counted(failed.len(), "start")));
    }
    if situation.then.turned_away > 0 {
        evidence.push(format!("sockd answered 503 to {}", counted(situation.then.turned_away as usize, "visitor")));
    }
    Some(Cause {
        id: "cannot-start",
        likelihood: if nobody.is_empty() { 85 } else { 93 },
        what: "the application cannot start".to_owned(),
        evidence,
        advice: "its last lines name the error".to_owned(),
        next: format!("sockd logs {}", situation.unit),
    })
}
