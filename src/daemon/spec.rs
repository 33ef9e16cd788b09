//! From settings to [`Spec`]: what the core must know, in our own words or, where they are silent, in the server's.

use crate::adapter::exec::LaunchPlan;
use crate::adapter::server_settings::ServerSettings;
use crate::config::share::Share;
use crate::config::{Health, Reload, Settings};
use crate::control;
use crate::process::Warming;
use crate::supervisor::{self, ORDER_TIMEOUT, Probe, Spec, Trial};
use std::time::Duration;

/// Beyond its own graceful timeout a worker gets this long to end by itself.
const GRACE: Duration = Duration::from_secs(1);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A worker that answers nobody is found within this time, unless its server has a timeout of its own.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two questions, where nobody says otherwise.
const INTERVAL: Duration = Duration::from_secs(10);

/// A worker that shows its heartbeats beats once in a second at least, while it is well: the last one before it hangs may
/// be nearly that old.
const BEAT_MARGIN: Duration = Duration::from_millis(900);

/// What the server's own options say, and what its workers can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    workers: Option<u32>,
    graceful_timeout: Option<Duration>,
    watchdog: Option<Duration>,
    /// Whether its workers show their heartbeats, and do not say them.
    shows_heartbeats: bool,
    /// Whether only a worker's own word makes it ready.
    says_ready: bool,
    /// Whether each worker has a socket of its own, on which it can be asked over HTTP while it serves.
    own_socket: bool,
    silent_when_busy: bool,
    preloaded: bool,
    /// Whether a copy of its template can answer requests.
    can_warm: bool,
    concludes: bool,
    /// Whether what makes the workers runs code of the user's, which may take its time.
    runs_hooks: bool,
    /// How long a worker may be silent; zero means for ever. `None`: the server says nothing about it.
    timeout: Option<Duration>,
}

impl From<&ServerSettings> for Asked {
    fn from(report: &ServerSettings) -> Self {
        Self {
            workers: Some(report.workers),
            graceful_timeout: report.graceful_timeout.map(|limit| Duration::from_secs(limit.into())),
            watchdog: report.watchdog(),
            shows_heartbeats: true,
            says_ready: true,
            // Nor do we speak TLS.
            own_socket: !report.speaks_tls,
            silent_when_busy: report.silent_when_busy,
            preloaded: report.preload,
            can_warm: report.preload && report.unfit_to_warm.is_none(),
            concludes: report.follows_workers || report.follows_service,
            runs_hooks: report.runs_hooks,
            timeout: Some(Duration::from_secs(report.timeout.into())),
        }
    }
}

impl From<&LaunchPlan> for Asked {
    fn from(plan: &LaunchPlan) -> Self {
        Self {
            workers: plan.workers,
            graceful_timeout: plan.graceful_timeout,
            watchdog: None,
            shows_heartbeats: false,
            says_ready: plan.says_ready,
            own_socket: plan.private_socket,
            silent_when_busy: plan.silent_when_busy,
            preloaded: false,
            can_warm: false,
            concludes: false,
            runs_hooks: false,
            timeout: plan.timeout,
        }
    }
}

/// What holds for the workers of a generation.
pub(super) fn spec(settings: &Settings, asked: &Asked) -> Spec {
    let workers = &settings.workers;
    let count = workers.count.or(asked.workers).unwrap_or(1).clamp(1, 4096);
    let graceful = asked.graceful_timeout.map(|limit| limit + GRACE);
    let watchdog = workers.watchdog.or(asked.watchdog);
    let stop_timeout = workers.stop_timeout.or(graceful).unwrap_or(DEFAULT_STOP_TIMEOUT);
    Spec {
        workers: count,
        ready_after: (!asked.says_ready).then_some(workers.ready_after),
        says_ready: asked.says_ready,
        own_socket: asked.own_socket,
        start_timeout: workers.start_timeout,
        order_timeout: if asked.runs_hooks { workers.start_timeout } else { ORDER_TIMEOUT },
        drain_timeout: workers.drain_timeout.unwrap_or(stop_timeout),
        stop_timeout,
        watchdog: watchdog.map(|limit| if asked.shows_heartbeats { limit + BEAT_MARGIN } else { limit }),
        silent_when_busy: asked.silent_when_busy,
        probe: probe(&settings.health, asked),
        preloaded: asked.preloaded,
        warms: asked.can_warm && !workers.warm.is_empty(),
        concludes: asked.concludes,
        max_age: workers.max_age,
        max_memory: workers.max_memory,
        canary: settings.reload.canary,
        surge: settings.reload.surge.unwrap_or(count),
        trial: settings.reload.canary_workers.map(|share| trial(share, &settings.reload)),
        soak: settings.reload.soak,
    }
}

/// What a copy of the template is asked, as the probe asks.
pub(super) fn warming(settings: &Settings) -> Warming {
    let Settings { workers, health, .. } = settings;
    Warming {
        paths: workers.warm.clone(),
        requests: workers.warm_requests,
        host: health.host.clone().unwrap_or_else(|| "localhost".to_owned()),
        headers: health.headers.clone(),
    }
}

/// How visitors try new code on so many workers.
pub(super) fn trial(share: Share, reload: &Reload) -> Trial {
    Trial {
        share: match share {
            Share::Workers(count) => supervisor::Share::Workers(count),
            Share::Percent(percent) => supervisor::Share::Percent(percent),
        },
        requests: reload.canary_requests.into(),
        time: reload.canary_time,
    }
}

/// How visitors try new code, as somebody asks for it.
///
/// # Errors
/// What is out of its range, or missing.
pub(super) fn asked_trial(asked: control::Trial, configured: Option<&Reload>) -> Result<Trial, String> {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    let default = Reload::default();
    let configured = configured.unwrap_or(&default);
    let share = match (asked.workers, asked.percent) {
        (Some(count @ 1..=4096), None) => Some(Share::Workers(count)),
        (None, Some(percent @ 1..=100)) => Some(Share::Percent(percent)),
        (None, None) => configured.canary_workers,
        _ => return Err("it takes 1 to 4096 workers, or 1 to 100 % of them".to_owned()),
    };
    let share = share.ok_or("on how many workers is not said, and canary-workers is not set")?;
    let trial = trial(share, configured);
    Ok(Trial {
        requests: match asked.requests {
            None => trial.requests,
            Some(requests @ 1..=1_000_000) => requests.into(),
            Some(_) => return Err("1 to 1,000,000 requests decide".to_owned()),
        },
        time: match asked.time_ms {
            None => trial.time,
            Some(ms @ 1..=DAY) => Duration::from_millis(ms),
            Some(_) => return Err("the time is a day at most".to_owned()),
        },
        ..trial
    })
}

/// How ready workers are asked. Only a worker with a socket of its own can be asked over HTTP.
fn probe(health: &Health, asked: &Asked) -> Option<Probe> {
    let timeout = asked.timeout.unwrap_or(SILENCE);
    // Where nobody says what is right, only silence counts; from some it says nothing, and some are not watched.
    let answers = asked.own_socket && (health.path.is_some() || !asked.silent_when_busy && !timeout.is_zero());
    if !health.probe || health.command.is_empty() && !answers {
        return None;
    }
    let patience = if timeout.is_zero() { SILENCE } else { timeout };
    let interval = health.interval.unwrap_or_else(|| INTERVAL.min(Duration::from_secs(patience.as_secs() / 3)));
    let interval = interval.max(Duration::from_secs(1));
    // At worst it fell silent right after an answer; a second goes to the common grid of all questions.
    let rest = patience.saturating_sub(health.timeout + Duration::from_secs(1));
    let fitting = u32::try_from(rest.as_secs() / interval.as_secs().max(1)).unwrap_or(u32::MAX);
    Some(Probe {
        interval,
        failures: health.failures.unwrap_or(fitting.max(2)),
        grace: health.grace,
        // A question without a path of its own is the application's start page.
        skip_when_idle: health.command.is_empty() && health.path.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn asked(silent_when_busy: bool, timeout: u32) -> Asked {
        Asked::from(&ServerSettings {
            workers: 1,
            timeout,
            graceful_timeout: Some(30),
            chdir: PathBuf::from("/"),
            bind: Vec::new(),
            umask: 0,
            backlog: 2048,
            preload: false,
            unfit_to_warm: None,
            silent_when_busy,
            speaks_tls: false,
            speaks_uwsgi: false,
            owner: None,
            follows_workers: false,
            follows_service: false,
            runs_hooks: false,
        })
    }

    /// From the last good answer to the verdict, at worst.
    fn found_within(probe: Probe, timeout: Duration) -> Duration {
        probe.interval * probe.failures + Duration::from_secs(1) + timeout
    }

    #[test]
    fn silence_is_found_within_the_servers_own_timeout() {
        let health = Health::default();
        for timeout in [18, 30, 45, 120, 600] {
            let probe = probe(&health, &asked(false, timeout)).expect("it is asked");
            let found = found_within(probe, health.timeout);
            assert!(found <= Duration::from_secs(timeout.into()), "{timeout}: {probe:?} takes {found:?}");
        }
        let impatient = probe(&health, &asked(false, 2)).expect("it is asked");
        assert_eq!((impatient.interval, impatient.failures), (Duration::from_secs(1), 2));
    }

    #[test]
    fn nobody_is_asked_whose_silence_says_nothing() {
        let generic = Asked::from(&LaunchPlan::default());
        let (plain, path) = (Health::default(), Health { path: Some("/healthz".to_owned()), ..Health::default() });
        assert_eq!(probe(&plain, &asked(true, 30)), None);
        assert_eq!(probe(&plain, &asked(false, 0)), None);
        assert_eq!(probe(&plain, &generic), None, "it has no socket of its own");
        assert!(probe(&path, &asked(true, 30)).is_some());
        assert!(probe(&path, &asked(false, 0)).is_some());
        let command = Health { command: vec!["bin/check".into()], ..Health::default() };
        assert!(probe(&command, &generic).is_some());
        for health in [plain, path, command] {
            assert_eq!(probe(&Health { probe: false, ..health }, &asked(false, 30)), None);
        }
    }
}
