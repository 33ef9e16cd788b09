//! From settings to [`Spec`]: what the core must know, in our own words or, where they are silent, in the server's.

use crate::adapter::report::Report;
use crate::config::{Health, Settings};
use crate::supervisor::{Probe, Spec};
use std::time::Duration;

/// Beyond its own graceful timeout a worker gets this long to end by itself.
const GRACE: Duration = Duration::from_secs(1);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A worker that answers nobody is found within this time, unless its server has a timeout of its own.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two questions, where nobody says otherwise.
const INTERVAL: Duration = Duration::from_secs(10);

/// What holds for the workers of a generation; `report` is what its template said.
pub(super) fn spec(settings: &Settings, report: Option<&Report>) -> Spec {
    let workers = &settings.workers;
    let count = workers.count.or(report.map(|r| r.workers)).unwrap_or(1).clamp(1, 4096);
    let graceful = report.and_then(|r| r.graceful_timeout).map(|limit| Duration::from_secs(limit.into()) + GRACE);
    let stop_timeout = workers.stop_timeout.or(graceful).unwrap_or(DEFAULT_STOP_TIMEOUT);
    Spec {
        workers: count,
        ready_after: report.is_none().then_some(workers.ready_after),
        start_timeout: workers.start_timeout,
        drain_timeout: workers.drain_timeout.unwrap_or(stop_timeout),
        stop_timeout,
        watchdog: workers.watchdog.or(report.and_then(Report::watchdog)),
        probe: probe(&settings.health, report),
        max_age: workers.max_age,
        max_memory: workers.max_memory,
        canary: settings.reload.canary,
        surge: settings.reload.surge.unwrap_or(count),
        soak: settings.reload.soak,
    }
}

/// How ready workers are asked. Only a worker with a socket of its own can be asked over HTTP, and that is one which a
/// template has forked.
fn probe(health: &Health, report: Option<&Report>) -> Option<Probe> {
    let answers = report.is_some_and(|report| {
        // Where nobody says what is right, only silence counts; from some it says nothing, and some are not watched.
        health.path.is_some() || !report.silent_when_busy && report.timeout > 0
    });
    if !health.probe || health.command.is_empty() && !answers {
        return None;
    }
    let patience = report.map_or(SILENCE, |r| Duration::from_secs(r.timeout.into()));
    let patience = if patience.is_zero() { SILENCE } else { patience };
    let interval = health.interval.unwrap_or_else(|| INTERVAL.min(Duration::from_secs(patience.as_secs() / 3)));
    let interval = interval.max(Duration::from_secs(1));
    // At worst it fell silent right after an answer; a second goes to the common grid of all questions.
    let rest = patience.saturating_sub(health.timeout + Duration::from_secs(1));
    let fitting = u32::try_from(rest.as_secs() / interval.as_secs().max(1)).unwrap_or(u32::MAX);
    Some(Probe { interval, failures: health.failures.unwrap_or(fitting.max(2)), grace: health.grace })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn report(silent_when_busy: bool, timeout: u32) -> Report {
        Report {
            workers: 1,
            timeout,
            graceful_timeout: Some(30),
            chdir: PathBuf::from("/"),
            bind: Vec::new(),
            umask: 0,
            backlog: 2048,
            silent_when_busy,
        }
    }

    /// From the last good answer to the verdict, at worst.
    fn found_within(probe: Probe, timeout: Duration) -> Duration {
        probe.interval * probe.failures + Duration::from_secs(1) + timeout
    }

    #[test]
    fn silence_is_found_within_the_servers_own_timeout() {
        let health = Health::default();
        for timeout in [18, 30, 45, 120, 600] {
            let probe = probe(&health, Some(&report(false, timeout))).expect("it is asked");
            let found = found_within(probe, health.timeout);
            assert!(found <= Duration::from_secs(timeout.into()), "{timeout}: {probe:?} takes {found:?}");
        }
        let impatient = probe(&health, Some(&report(false, 2))).expect("it is asked");
        assert_eq!((impatient.interval, impatient.failures), (Duration::from_secs(1), 2));
    }

    #[test]
    fn nobody_is_asked_whose_silence_says_nothing() {
        let (plain, path) = (Health::default(), Health { path: Some("/healthz".to_owned()), ..Health::default() });
        assert_eq!(probe(&plain, Some(&report(true, 30))), None);
        assert_eq!(probe(&plain, Some(&report(false, 0))), None);
        assert_eq!(probe(&plain, None), None, "it has no socket of its own");
        assert!(probe(&path, Some(&report(true, 30))).is_some());
        assert!(probe(&path, Some(&report(false, 0))).is_some());
        let command = Health { command: vec!["bin/check".into()], ..Health::default() };
        assert!(probe(&command, None).is_some());
        for health in [plain, path, command] {
            assert_eq!(probe(&Health { probe: false, ..health }, Some(&report(false, 30))), None);
        }
    }
}
