//! Whether a ready worker is healthy or unhealthy: its heartbeats, and its answers to probes.
//!
//! Two different things are found out here. A worker without heartbeats serves nobody: it is aborted. One that beats and
//! does not answer, or answers badly, may still serve others: it gets a successor first, and only then leaves. Its own
//! later good answer takes that back.

use super::acceptance::ProbeOutcome;
use super::heartbeat::Heartbeats;
use super::spec::{Probe, Spec};
use super::time::Time;
use std::time::Duration;

/// The deadlines of all workers that are asked fall on whole seconds, so that many workers are one wake-up.
const GRID: Duration = Duration::from_secs(1);

/// One ready worker's health.
#[derive(Clone, Debug)]
pub(super) struct Health {
    probe: Option<Probe>,
    /// None: it need not beat.
    heartbeats: Option<Heartbeats>,
    start_timeout: Duration,
    /// Failures before this time do not count.
    grace_until: Time,
    /// When it is asked next. None: never.
    ask_at: Option<Time>,
    asked_at: Time,
    /// It is being asked, and not asked again meanwhile.
    asking: bool,
    /// What it fails at, and how often in a row.
    failing: Option<(Unhealthy, u32)>,
    /// How many requests it has finished, if it counts them.
    served: Option<u64>,
    /// Whether it has said since its first failure that it finished none.
    standing: bool,
    last: Option<(Time, Result<(), String>)>,
    unhealthy: Option<Unhealthy>,
    /// When nobody waits for a successor of a silent worker any more.
    give_up_at: Option<Time>,
}

/// What a worker suffers from that failed too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unhealthy {
    /// It answers, but not what is wanted: its successor must answer better.
    BadAnswer,
    /// It does not answer.
    NoAnswer,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// What it shows of its heartbeats is to be read.
    Heartbeat,
    /// It is silent, in this way, and no successor could be proven in time.
    GivenUp(String),
    /// It is to be asked.
    Ask,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing new.
    None,
    /// It failed once too often.
    Unhealthy(String),
    /// It had failed too often and is well again.
    Recovered,
}

impl Health {
    /// Of a worker that is ready from `now` on.
    pub(super) fn new(now: Time, spec: &Spec) -> Self {
        let probe = spec.probe;
        Self {
            probe,
            heartbeats: spec.watchdog.map(|limit| Heartbeats::new(now, limit)),
            start_timeout: spec.start_timeout,
            grace_until: probe.map_or(now, |probe| now + probe.grace),
            ask_at: probe.map(|probe| (now + probe.interval).round_up(GRID)),
            asked_at: now,
            asking: false,
            failing: None,
            served: None,
            standing: false,
            last: None,
            unhealthy: None,
            give_up_at: None,
        }
    }

    pub(super) fn beat(&mut self, now: Time) {
        self.heartbeats.iter_mut().for_each(|heartbeats| heartbeats.beat(now));
    }

    /// What it shows of its heartbeats was read. Returns for how long it has hung, if it does.
    pub(super) fn heartbeat_read(&mut self, now: Time, last: Option<Time>) -> Option<Duration> {
        self.heartbeats.as_mut()?.read(now, last)
    }

    pub(super) fn heartbeats(&self) -> Option<&Heartbeats> {
        self.heartbeats.as_ref()
    }

    /// Have it asked at this time at the latest, whether it is otherwise asked or not.
    pub(super) fn ask_by(&mut self, at: Time) {
        self.ask_at = Some(self.ask_at.map_or(at, |next| next.min(at)));
    }

    /// When it hangs, unless a heartbeat comes before.
    fn heartbeat_due(&self) -> Option<Time> {
        self.heartbeats.as_ref().and_then(Heartbeats::deadline)
    }

    /// What is due at this time; a question that is due counts as asked.
    pub(super) fn due(&mut self, now: Time) -> Option<Due> {
        if self.heartbeats.as_mut().is_some_and(|heartbeats| heartbeats.is_due(now)) {
            return Some(Due::Heartbeat);
        }
        if self.give_up_at.is_some_and(|at| at <= now) {
            let why = self.last.as_ref().and_then(|(_, verdict)| verdict.as_ref().err());
            return Some(Due::GivenUp(why.cloned().unwrap_or_default()));
        }
        if self.asking {
            return None;
        }
        self.ask_at.take_if(|at| *at <= now)?;
        (self.asked_at, self.asking) = (now, true);
        Some(Due::Ask)
    }

    /// When its time runs out, unless it is heard before.
    pub(super) fn runs_until(&self) -> Option<Time> {
        [self.heartbeat_due(), self.give_up_at].into_iter().flatten().min()
    }

    /// Whether it is being asked.
    pub(super) fn is_asked(&self) -> bool {
        self.asking
    }

    /// What came of asking it does not count: it is asked again at once.
    pub(super) fn ask_again(&mut self, now: Time) {
        (self.asking, self.ask_at) = (false, Some(now));
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let ask_at = self.ask_at.filter(|_| !self.asking);
        [self.heartbeat_due(), self.give_up_at, ask_at].into_iter().flatten().min()
    }

    /// It was asked, and this came of it.
    pub(super) fn found(&mut self, now: Time, finding: ProbeOutcome) -> Turn {
        self.asking = false;
        if let Some(probe) = self.probe {
            // An interval lies between two questions, however long the answer took.
            self.ask_by((self.asked_at + probe.interval).max(now).round_up(GRID));
        }
        let (unhealthy, why) = match finding {
            ProbeOutcome::Healthy | ProbeOutcome::Idle => {
                self.last = Some((now, Ok(())));
                return self.recover();
            }
            ProbeOutcome::BadAnswer(why) => (Unhealthy::BadAnswer, why),
            ProbeOutcome::NoAnswer(why) => (Unhealthy::NoAnswer, why),
        };
        self.last = Some((now, Err(why.clone())));
        if now < self.grace_until {
            return Turn::None;
        }
        let failures = match self.failing {
            Some((same, before)) if same == unhealthy => before.saturating_add(1),
            Some(_) | None => {
                self.standing = false;
                1
            }
        };
        self.failing = Some((unhealthy, failures));
        let most = self.probe.map_or(1, |probe| probe.failures);
        // One that counts its requests has a say in whether it is stuck.
        let perhaps_busy = unhealthy == Unhealthy::NoAnswer && self.served.is_some() && !self.standing;
        if failures < most || perhaps_busy || self.unhealthy == Some(unhealthy) {
            return Turn::None;
        }
        self.unhealthy = Some(unhealthy);
        self.give_up_at = (unhealthy == Unhealthy::NoAnswer).then(|| now + self.start_timeout);
        Turn::Unhealthy(if failures == 1 { why } else { format!("{why} ({failures} times in a row)") })
    }

    /// It has finished so many requests since it was born. One that finishes some is busy and not silent: it would
    /// answer us, too, if others did not come first.
    pub(super) fn served(&mut self, requests: u64) -> Turn {
        let progress = self.served.replace(requests).is_none_or(|before| requests > before);
        match self.failing {
            Some((Unhealthy::NoAnswer, _)) if progress => self.recover(),
            Some((Unhealthy::NoAnswer | Unhealthy::BadAnswer, _)) | None => {
                self.standing = true;
                Turn::None
            }
        }
    }

    fn recover(&mut self) -> Turn {
        self.failing = None;
        self.give_up_at = None;
        if self.unhealthy.take().is_some() { Turn::Recovered } else { Turn::None }
    }

    pub(super) fn unhealthy(&self) -> Option<Unhealthy> {
        self.unhealthy
    }

    /// When it was last asked successfully or in vain, and what came of it.
    pub(super) fn last(&self) -> Option<&(Time, Result<(), String>)> {
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::default() + Duration::from_millis(milliseconds)
    }

    /// Of a worker that is ready at the beginning.
    fn health(failures: u32, grace: u64) -> Health {
        let interval = Duration::from_secs(10);
        let probe = Probe { interval, failures, grace: Duration::from_millis(grace), skip_when_idle: false };
        Health {
            probe: Some(probe),
            heartbeats: None,
            start_timeout: Duration::from_secs(60),
            grace_until: at(grace),
            ask_at: None,
            asked_at: at(0),
            asking: false,
            failing: None,
            served: None,
            standing: false,
            last: None,
            unhealthy: None,
            give_up_at: None,
        }
    }

    fn bad() -> ProbeOutcome {
        ProbeOutcome::BadAnswer("500".to_owned())
    }

    fn silent() -> ProbeOutcome {
        ProbeOutcome::NoAnswer("silence".to_owned())
    }

    #[test]
    fn failures_count_from_the_end_of_the_grace_on() {
        let mut health = health(1, 5_000);
        assert_eq!(health.found(at(4_999), bad()), Turn::None);
        assert_eq!(health.found(at(5_000), bad()), Turn::Unhealthy("500".to_owned()));
    }

    #[test]
    fn failures_of_one_kind_count_in_a_row() {
        let mut health = health(2, 0);
        assert_eq!(health.found(at(1), bad()), Turn::None);
        assert_eq!(health.found(at(2), silent()), Turn::None, "of another kind");
        assert_eq!(health.found(at(3), silent()), Turn::Unhealthy("silence (2 times in a row)".to_owned()));
        assert_eq!(health.found(at(4), silent()), Turn::None, "it is known");
        assert_eq!(health.found(at(5), ProbeOutcome::Healthy), Turn::Recovered);
    }

    #[test]
    fn nobody_waits_for_ever_for_the_successor_of_a_silent_one() {
        let mut health = health(1, 0);
        assert!(matches!(health.found(at(1), bad()), Turn::Unhealthy(_)));
        assert_eq!(health.runs_until(), None, "it serves");
        assert!(matches!(health.found(at(2), silent()), Turn::Unhealthy(_)));
        assert_eq!(health.runs_until(), Some(at(60_002)));
        assert_ne!(health.due(at(60_001)), Some(Due::GivenUp("silence".to_owned())));
        assert_eq!(health.due(at(60_002)), Some(Due::GivenUp("silence".to_owned())));
    }

    #[test]
    fn one_that_counts_its_requests_is_stuck_only_while_it_finishes_none() {
        let mut health = health(1, 0);
        assert_eq!(health.served(7), Turn::None);
        assert_eq!(health.found(at(1), silent()), Turn::None, "perhaps it is busy");
        assert_eq!(health.served(7), Turn::None);
        assert_eq!(health.found(at(2), silent()), Turn::Unhealthy("silence (2 times in a row)".to_owned()));
        assert_eq!(health.served(8), Turn::Recovered);
        assert_eq!(health.found(at(3), bad()), Turn::Unhealthy("500".to_owned()), "busy or not, it answers");
    }
}
