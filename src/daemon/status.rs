//! Status: the one line of `STATUS=`, and the document behind `sockd status`.

use super::event_loop::EventLoop;
use crate::cgroup::Group;
use crate::control::message;
use crate::supervisor::{Overview, Phase, RolloutStep, SlotId, Snapshot};
use std::time::{Duration, SystemTime};

impl EventLoop {
    /// Shows the service manager and the 503 helper what has changed, if anything has.
    pub(super) fn show(&mut self) {
        let revision = self.core.revision();
        if self.shown.replace(revision) == Some(revision) {
            return;
        }
        let overview = self.core.overview(self.now());
        self.listener_monitor.plan(&overview);
        self.notifier.status(&self.status_line_of(&overview));
        if !overview.stopping {
            self.place_next(overview.generation, overview.next_worker);
        }
        if overview.fallback {
            self.fallback.set_retry_after(overview.next_attempt_in);
        }
    }

    pub(super) fn status_line(&self) -> String {
        self.status_line_of(&self.core.overview(self.now()))
    }

    fn status_line_of(&self, overview: &Overview) -> String {
        self.listener_monitor.status_line(status_line(overview))
    }

    /// The whole state, for `sockd status`, without what must be measured.
    pub(super) fn report(&self) -> message::Status {
        let snapshot = self.core.snapshot(self.now());
        message::Status {
            version: message::VERSION,
            pid: std::process::id(),
            unit: self.setup.unit.clone(),
            started_unix_ms: unix_ms(self.began_at),
            status_line: status_line(&snapshot),
            generation: snapshot.generation.0.into(),
            reload: message::Reload {
                state: match snapshot.rollout {
                    None => message::ReloadState::Idle,
                    Some((_, RolloutStep::Preparing)) => message::ReloadState::Reading,
                    Some((_, RolloutStep::Proving)) => message::ReloadState::Canary,
                    Some((_, RolloutStep::Replacing | RolloutStep::Soaking)) => message::ReloadState::RollingOut,
                },
                generation: snapshot.rollout.map(|(generation, _)| generation.0.into()),
                last_refused: snapshot.refusal.as_ref().map(|refusal| message::Refused {
                    generation: refusal.generation.0.into(),
                    reason: refusal.why.clone(),
                    at_unix_ms: unix_ms(self.wall_clock(refusal.at)),
                    awaits_successors: Some(refusal.awaits_successors),
                }),
            },
            listeners: self.report_listeners(),
            workers: self.report_workers(&snapshot),
            slots: self.report_slots(&snapshot),
            wanted_workers: if snapshot.waiting { 0 } else { snapshot.wanted.unwrap_or(0) },
            fallback: snapshot.fallback,
            supervisor: message::Cost::default(),
        }
    }

    fn report_listeners(&self) -> Vec<message::Listener> {
        let report = |listener: &crate::listener::Listener| message::Listener {
            name: listener.name.clone(),
            address: listener.address.to_string(),
            ..message::Listener::default()
        };
        self.listeners.iter().map(report).collect()
    }

    fn report_workers(&self, snapshot: &Snapshot) -> Vec<message::Worker> {
        // A slot's number is its place in the list.
        let restarts =
            |slot: Option<SlotId>| slot.and_then(|slot| snapshot.slots.get(slot.0 as usize)).map_or(0, |s| s.restarts);
        snapshot
            .workers
            .iter()
            .map(|worker| {
                let made = self.workers.get(&worker.worker);
                let pid = made.and_then(super::workers::Worker::pid);
                let limits = made.and_then(super::workers::Worker::group).map(Group::limits).unwrap_or_default();
                message::Worker {
                    id: worker.worker.0,
                    slot: worker.slot.map(|slot| slot.0),
                    pid: pid.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
                    state: match worker.phase {
                        Phase::Starting => message::WorkerState::Starting,
                        Phase::Ready => message::WorkerState::Ready,
                        Phase::Draining => message::WorkerState::Draining,
                        Phase::Terminating => message::WorkerState::Terminating,
                        Phase::Killing => message::WorkerState::Killing,
                    },
                    generation: worker.generation.0.into(),
                    age_ms: ms(worker.age),
                    restarts: restarts(worker.slot).into(),
                    memory_max_bytes: limits.memory_max,
                    last_probe: worker
                        .last_probe
                        .as_ref()
                        .map(|(ago, verdict)| message::Probe { ago_ms: ms(*ago), failure: verdict.clone().err() }),
                    ..message::Worker::default()
                }
            })
            .collect()
    }

    fn report_slots(&self, snapshot: &Snapshot) -> Vec<message::Slot> {
        snapshot
            .slots
            .iter()
            .map(|slot| message::Slot {
                slot: slot.slot.0,
                worker: slot.current.map(|id| id.0),
                successor: slot.successor.map(|id| id.0),
                restarts: slot.restarts.into(),
                retry_in_ms: slot.retry_in.map(ms),
                last_death: self.last_exits.get(&slot.slot).map(|death| message::Death {
                    reason: death.reason.clone(),
                    at_unix_ms: unix_ms(death.at),
                    lived_ms: ms(death.lived),
                    last_lines: death.last_lines.clone(),
                }),
            })
            .collect()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms)
}

/// The state in one line that a person understands.
fn status_line(snapshot: &Overview) -> String {
    let workers = |count: u32| if count == 1 { "worker" } else { "workers" };
    let wanted = snapshot.wanted.unwrap_or(0);
    let base = if snapshot.stopping {
        match snapshot.living {
            0 => "stopping".to_owned(),
            left => format!("stopping, {left} {} to finish", workers(left as u32)),
        }
    } else if snapshot.waiting {
        "waiting for the first connection".to_owned()
    } else if snapshot.fallback {
        let why = snapshot.failing.as_deref().unwrap_or("every worker ended shortly after its start");
        return match &snapshot.fallback_failure {
            None => format!("answering 503: no worker could start: {why}"),
            Some(failure) => format!("cannot answer 503: {failure}; no worker could start: {why}"),
        };
    } else if snapshot.ready == 0 {
        "starting the first worker".to_owned()
    } else {
        format!(
            "serving, {} of {wanted} {}, generation {}",
            snapshot.ready.min(wanted),
            workers(wanted),
            snapshot.generation
        )
    };
    match (&snapshot.rollout, &snapshot.refusal) {
        (Some((generation, step)), _) => {
            let step = match step {
                RolloutStep::Preparing => "preparing",
                RolloutStep::Proving => "proving",
                RolloutStep::Replacing => "replacing workers with",
                RolloutStep::Soaking => "watching",
            };
            format!("{base} (reload: {step} generation {generation})")
        }
        (None, Some(refusal)) if !snapshot.stopping => {
            format!("{base} (reload to {} refused: {})", refusal.generation, refusal.why)
        }
        (None, _) => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{GenerationId, Refusal, Time, WorkerId};

    fn serving() -> Overview {
        Overview {
            generation: GenerationId(2),
            wanted: Some(3),
            ready: 3,
            living: 3,
            next_worker: WorkerId(7),
            waiting: false,
            stopping: false,
            fallback: false,
            fallback_failure: None,
            failing: None,
            next_attempt_in: None,
            rollout: None,
            refusal: None,
        }
    }

    #[test]
    fn one_line_says_what_is_going_on() {
        let refusal = Refusal {
            generation: GenerationId(3),
            why: "exit 3".to_owned(),
            at: Time::default(),
            awaits_successors: true,
        };
        for (snapshot, line) in [
            (serving(), "serving, 3 of 3 workers, generation 2"),
            (Overview { wanted: Some(1), ready: 1, ..serving() }, "serving, 1 of 1 worker, generation 2"),
            (Overview { waiting: true, ready: 0, ..serving() }, "waiting for the first connection"),
            (Overview { ready: 0, ..serving() }, "starting the first worker"),
            (
                Overview {
                    ready: 0,
                    fallback: true,
                    failing: Some("ModuleNotFoundError: No module named 'myproject'".to_owned()),
                    ..serving()
                },
                "answering 503: no worker could start: ModuleNotFoundError: No module named 'myproject'",
            ),
            (
                Overview { refusal: Some(refusal), ..serving() },
                "serving, 3 of 3 workers, generation 2 (reload to 3 refused: exit 3)",
            ),
            (
                Overview { rollout: Some((GenerationId(3), RolloutStep::Replacing)), ready: 5, ..serving() },
                "serving, 3 of 3 workers, generation 2 (reload: replacing workers with generation 3)",
            ),
            (Overview { stopping: true, living: 0, ..serving() }, "stopping"),
            (Overview { stopping: true, ..serving() }, "stopping, 3 workers to finish"),
        ] {
            assert_eq!(status_line(&snapshot), line);
        }
    }

    #[test]
    fn nobody_is_said_to_answer_who_cannot() {
        let fallback = Overview {
            ready: 0,
            fallback: true,
            fallback_failure: Some("cannot make a pipe: Too many open files".to_owned()),
            failing: Some("exit 3".to_owned()),
            ..serving()
        };
        let line = status_line(&fallback);
        assert_eq!(line, "cannot answer 503: cannot make a pipe: Too many open files; no worker could start: exit 3");
    }
}
