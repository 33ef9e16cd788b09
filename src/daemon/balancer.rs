//! What balancers hear of this instance: whether it takes visitors, and how many compared with others.
//!
//! Owns: that somebody has taken the instance out of its balancers (`sockd drain`), and when they have asked last.
//! Never: keeps a visitor away who comes all the same.

use crate::control::Status;
use crate::control::message::{self, WorkerState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The share of idle workers is a mean of so long, so that the weight does not swing with each request.
const SMOOTHING: Duration = Duration::from_secs(10);

/// What balancers hear; shared by the loop and by those who answer them.
#[derive(Debug, Default)]
pub(super) struct Balancers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_drained: bool,
    /// When one asked last.
    asked_at: Option<Instant>,
    /// Whether one has asked since it was drained.
    has_heard: bool,
    /// The share of idle workers, smoothed, at the last question of an agent-check.
    idle: Option<(Instant, f64)>,
}

impl Balancers {
    /// Somebody wants them to send no visitors any more, or again. Whether that is new.
    pub(super) fn drain(&self, is_drained: bool) -> bool {
        let mut state = self.state();
        state.has_heard = false;
        std::mem::replace(&mut state.is_drained, is_drained) != is_drained
    }

    /// For `sockd status`.
    pub(super) fn document(&self) -> message::Balancers {
        let state = self.state();
        message::Balancers {
            is_drained: state.is_drained,
            have_heard: state.is_drained && state.has_heard,
            asked_ago_ms: state.asked_at.map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// One asks whether the instance takes visitors: why not, if it does not.
    pub(super) fn ask(&self, status: &Status) -> Option<&'static str> {
        let mut state = self.state();
        state.asked_at = Some(Instant::now());
        state.has_heard |= state.is_drained;
        if state.is_drained { Some("drained") } else { unready(status) }
    }

    /// The line of an agent-check (HAProxy's configuration manual, "agent-check").
    pub(super) fn agent_line(&self, status: &Status) -> String {
        let line = match self.ask(status) {
            Some("drained" | "stopping") => "drain".to_owned(),
            Some("in maintenance") => "maint".to_owned(),
            Some(why) => format!("down#{why}"),
            // `ready` ends a drain or a maintenance of before.
            None => format!("ready up {}%", self.weight(status, Instant::now())),
        };
        format!("{line}\n")
    }

    /// How much of its share the instance can take, in percent, 1 to 100: by the workers that are ready, and half of it by
    /// those of them that serve nothing.
    fn weight(&self, status: &Status, now: Instant) -> u32 {
        let ready: Vec<_> =
            status.workers.iter().filter(|w| w.state == WorkerState::Ready && w.slot.is_some()).collect();
        // None is wanted while it waits for its first visitor, or during a pause.
        let wanted = f64::from(status.wanted_workers);
        let there = if wanted > 0.0 { (ready.len() as f64 / wanted).min(1.0) } else { 1.0 };
        let is_idle = |worker: &&&message::Worker| worker.requests.as_ref().is_none_or(|requests| requests.busy == 0);
        let idle = match ready.len() {
            0 => 1.0,
            all => ready.iter().filter(is_idle).count() as f64 / all as f64,
        };
        let mut state = self.state();
        let idle = match state.idle {
            Some((then, mean)) => {
                let age = now.saturating_duration_since(then).as_secs_f64();
                mean + (idle - mean) * (1.0 - (-age / SMOOTHING.as_secs_f64()).exp())
            }
            None => idle,
        };
        state.idle = Some((now, idle));
        ((100.0 * there * (0.5 + 0.5 * idle)).round() as u32).clamp(1, 100)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the instance takes no visitors, if it does not. One that waits for its first visitor, or lets visitors wait for a
/// moment, does.
fn unready(status: &Status) -> Option<&'static str> {
    let is_ready = |worker: &message::Worker| worker.state == WorkerState::Ready && worker.slot.is_some();
    if status.is_stopping {
        Some("stopping")
    } else if status.maintenance.is_some() {
        Some("in maintenance")
    } else if status.serves_nobody() {
        Some("no worker serves")
    } else if status.wanted_workers > 0 && !status.workers.iter().any(is_ready) {
        Some("starting")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Maintenance, Worker};
    use crate::control::requests::WorkerRequests;

    fn worker(state: WorkerState, busy: u64) -> Worker {
        let requests = Some(WorkerRequests { busy, ..WorkerRequests::default() });
        Worker { slot: Some(0), state, requests, ..Worker::default() }
    }

    fn serving(busy: [u64; 4]) -> Status {
        let workers = busy.map(|busy| worker(WorkerState::Ready, busy)).into();
        Status { wanted_workers: 4, workers, ..Status::default() }
    }

    #[test]
    fn each_state_has_its_line() {
        let line = |status: &Status| Balancers::default().agent_line(status);
        assert_eq!(line(&serving([0; 4])), "ready up 100%\n");
        assert_eq!(line(&serving([1, 1, 0, 0])), "ready up 75%\n");
        assert_eq!(line(&serving([9; 4])), "ready up 50%\n");
        let half = |mut status: Status| {
            status.workers.truncate(2);
            status
        };
        assert_eq!(line(&half(serving([0; 4]))), "ready up 50%\n");
        assert_eq!(line(&Status::default()), "ready up 100%\n", "it waits for its first visitor");
        assert_eq!(line(&Status { is_stopping: true, ..serving([0; 4]) }), "drain\n");
        assert_eq!(line(&Status { maintenance: Some(Maintenance::default()), ..Status::default() }), "maint\n");
        assert_eq!(line(&Status { fallback: true, ..Status::default() }), "down#no worker serves\n");
        let starting =
            Status { wanted_workers: 1, workers: vec![worker(WorkerState::Starting, 0)], ..Status::default() };
        assert_eq!(line(&starting), "down#starting\n");
    }

    #[test]
    fn drained_is_heard_by_one_who_asks_afterwards_and_ends() {
        let balancers = Balancers::default();
        assert_eq!(balancers.ask(&serving([0; 4])), None);
        assert!(balancers.drain(true) && !balancers.drain(true));
        assert!(balancers.document().is_drained && !balancers.document().have_heard);
        assert_eq!(balancers.agent_line(&serving([0; 4])), "drain\n");
        assert!(balancers.document().have_heard);
        assert!(balancers.drain(false));
        assert_eq!(balancers.agent_line(&serving([0; 4])), "ready up 100%\n");
        assert!(!balancers.document().have_heard);
    }

    #[test]
    fn the_weight_follows_the_load_slowly() {
        let balancers = Balancers::default();
        let begin = Instant::now();
        let weight = |busy, second| balancers.weight(&serving([busy; 4]), begin + Duration::from_secs(second));
        assert_eq!(weight(0, 0), 100);
        let after: Vec<u32> = (1..=5).map(|at| weight(1, at * 2)).collect();
        assert!(after.windows(2).all(|pair| pair[1] < pair[0] && pair[0] - pair[1] < 10), "{after:?}");
        assert_eq!(weight(1, 200), 50);
        // A single question between two requests changes little.
        assert_eq!(weight(0, 201), 55);
    }
}
