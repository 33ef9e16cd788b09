//! Processor time: the application burns it, or does not get it.

use super::evidence::{busy, durations, percent, processor_time, slow_request};
use crate::control::recording::WaitsFor;
use crate::explain::explanation::Cause;
use crate::explain::situation::Situation;

/// The service wants processor time and does not get it.
pub(super) fn taken(situation: &Situation<'_>) -> Option<Cause> {
    let then = &situation.then;
    let cpus = then.cpus as f64;
    let own = then.cpu.unwrap_or(0.0);
    let others = then.machine_cpu.map(|all| (all - own).max(0.0));
    let stall = then.cpu_stall.unwrap_or(0.0);
    // Others that were as busy in the calm time have harmed nobody then.
    let others_before =
        situation.before.as_ref().and_then(|before| Some(before.machine_cpu? - before.cpu.unwrap_or(0.0)));
    let more = others_before.is_none_or(|before| others.is_some_and(|others| others >= before + 0.25 * cpus));
    let (id, likelihood, what, first, advice) = if then.throttled >= 0.1 {
        (
            "cpu-quota",
            91,
            "the service may not use more processor time",
            format!("CPUQuota= kept it from running for {} of the time", percent(then.throttled)),
            "raise CPUQuota=, or find what burns the time",
        )
    } else if then.steal >= 0.1 {
        (
            "cpu-stolen",
            90,
            "the machine's host gives the processors to others",
            format!("{} of the processor time went to other machines of the host (steal)", percent(then.steal)),
            "the host is overcommitted, or the credits of this kind of machine are used up",
        )
    } else if others.is_some_and(|others| {
        more && situation.is_slower()
            && cpus > 0.0
            && stall >= 0.2
            && others >= 0.5 * cpus
            && others > own
            && others + own >= 0.8 * cpus
    }) {
        (
            "cpu-neighbour",
            if others_before.is_some() { 87 } else { 70 },
            "other programs on this machine take the processors",
            format!(
                "others used {:.2} of {cpus:.0} processors, and {} of the time the service waited for one",
                others.unwrap_or(0.0),
                percent(stall)
            ),
            "find them; CPUWeight= in the unit gives the service a larger part",
        )
    } else {
        return None;
    };
    let evidence = [Some(first), processor_time(situation), durations(situation), busy(situation)];
    // A worker that waits for something else does not want a processor.
    let waits = situation.waits().is_some_and(|(waits_for, count, all)| match waits_for {
        WaitsFor::Answer | WaitsFor::Lock | WaitsFor::Disk | WaitsFor::Time | WaitsFor::Continuation => 2 * count > all,
        WaitsFor::Nothing | WaitsFor::Unknown => false,
    });
    Some(Cause {
        id,
        likelihood: if waits { 60 } else { likelihood },
        what: what.to_owned(),
        evidence: evidence.into_iter().flatten().collect(),
        advice: advice.to_owned(),
        next: "systemd-cgtop --iterations=2 --order=cpu".to_owned(),
    })
}

/// The application computes.
pub(super) fn application(situation: &Situation<'_>) -> Option<Cause> {
    let then = &situation.then;
    let cpus = if then.cpus > 0 { then.cpus as f64 } else { 1.0 };
    let cpu = then.cpu?;
    let wanted = then.busy.max(1.0).min(cpus);
    let runs =
        situation.waits().is_some_and(|(waits_for, count, all)| waits_for == WaitsFor::Nothing && 2 * count >= all);
    let uses = cpu >= 0.7 * wanted;
    let likelihood = match (runs, uses) {
        (true, true) => 86,
        (true, false) if cpu >= 0.3 * wanted => 75,
        (false, true) if situation.is_slower() => 66,
        (true | false, _) => return None,
    };
    let first =
        if runs { Some("the slow requests seen were running, and waited for nothing".to_owned()) } else { None };
    let rest = [slow_request(situation), processor_time(situation), durations(situation), busy(situation)];
    Some(Cause {
        id: "application-cpu",
        likelihood,
        what: "the application computes for long".to_owned(),
        evidence: first.into_iter().chain(rest.into_iter().flatten()).collect(),
        advice: "the stack of such a worker (key t in `sockd top`) names the line that burns the time".to_owned(),
        next: format!("sockd top {}", situation.unit),
    })
}
