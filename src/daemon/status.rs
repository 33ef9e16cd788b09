//! Status: the one line of `STATUS=`, and the document behind `sockd status`.

use super::children::Children;
use super::clock::Clock;
use super::counts::Counts;
use super::path_alarm;
use super::setup::Setup;
use super::workers::{Worker, Workers};
use crate::cgroup::Group;
use crate::control::message;
use crate::listener::Listener;
use crate::supervisor::{
    GenerationId, Overview, Phase, RolloutStep, SlotSnapshot, Snapshot, SocketId, Time, Warmth, WorkerSnapshot,
};
use rustix::process::Pid;
use std::time::{Duration, SystemTime};

/// The whole state, for `sockd status`, without what must be measured.
pub(super) fn document(
    setup: &Setup,
    clock: Clock,
    snapshot: &Snapshot,
    listeners: &[Listener],
    children: &Children,
    counts: &Counts,
) -> message::Status {
    let Children { workers, templates, fallback, .. } = children;
    message::Status {
        version: message::VERSION,
        pid: std::process::id(),
        unit: setup.unit.clone(),
        started_unix_ms: unix_ms(clock.wall_clock(Time::default())),
        status_line: status_line(snapshot),
        generation: snapshot.generation.0.into(),
        is_stopping: snapshot.stopping,
        balancers: message::Balancers::default(),
        pause: snapshot.pause.map(|pause| message::Pause { left_ms: ms(pause.left), is_empty: pause.is_empty }),
        maintenance: fallback.maintenance.on().map(|on| message::Maintenance {
            since_unix_ms: on.since_unix_ms,
            message: on.message.clone(),
            retry_after_s: on.retry_after,
        }),
        reload: reload(snapshot, clock),
        listeners: listeners.iter().map(|served| listener(served, snapshot.unserved)).collect(),
        workers: snapshot.workers.iter().map(|seen| worker(seen, snapshot, workers.get(seen.worker))).collect(),
        templates: templates.living().map(|(generation, pid)| template(generation, pid, snapshot)).collect(),
        groups_missing: workers.cgroups.missing(),
        slots: snapshot.slots.iter().map(|seen| slot(seen, workers)).collect(),
        wanted_workers: if snapshot.holds_back() { 0 } else { snapshot.wanted.unwrap_or(0) },
        requests: workers.requests(),
        fallback: snapshot.fallback,
        counts: Some(counts.document(snapshot.restarts)),
        supervisor: message::Cost::default(),
    }
}

fn reload(snapshot: &Snapshot, clock: Clock) -> message::Reload {
    message::Reload {
        state: match snapshot.rollout {
            None => message::ReloadState::Idle,
            Some((_, RolloutStep::Preparing)) => message::ReloadState::Reading,
            Some((_, RolloutStep::Checking)) => message::ReloadState::Checking,
            Some((_, RolloutStep::Proving)) => message::ReloadState::Canary,
            Some((_, RolloutStep::Trying { .. })) => message::ReloadState::Trying,
            Some((_, RolloutStep::Replacing | RolloutStep::Soaking)) => message::ReloadState::RollingOut,
        },
        generation: snapshot.rollout.map(|(generation, _)| generation.0.into()),
        tried: match snapshot.rollout {
            Some((_, RolloutStep::Trying { answers, wanted })) => Some(message::Tried { answers, wanted }),
            _ => None,
        },
        last_refused: snapshot.refusal.as_ref().map(|refusal| message::Refused {
            generation: refusal.generation.0.into(),
            reason: refusal.why.clone(),
            at_unix_ms: unix_ms(clock.wall_clock(refusal.at)),
            awaits_successors: Some(refusal.awaits_successors),
        }),
    }
}

/// `unserved`: the socket that workers lack.
fn listener(listener: &Listener, unserved: Option<SocketId>) -> message::Listener {
    message::Listener {
        name: listener.name.clone(),
        address: listener.address.to_string(),
        alarm: (unserved == Some(SocketId(listener.inode))).then(|| path_alarm::unserved(listener)),
        ..message::Listener::default()
    }
}

fn worker(seen: &WorkerSnapshot, snapshot: &Snapshot, made: Option<&Worker>) -> message::Worker {
    // A slot's number is its place in the list.
    let slot = seen.slot.and_then(|slot| snapshot.slots.get(slot.0 as usize));
    message::Worker {
        id: seen.worker.0,
        slot: seen.slot.map(|slot| slot.0),
        pid: made.and_then(Worker::pid).map(|pid| pid.as_raw_nonzero().get().unsigned_abs()),
        state: match seen.phase {
            Phase::Starting => message::WorkerState::Starting,
            Phase::Ready => message::WorkerState::Ready,
            Phase::Draining => message::WorkerState::Draining,
            Phase::Terminating => message::WorkerState::Terminating,
            Phase::Killing => message::WorkerState::Killing,
        },
        generation: seen.generation.0.into(),
        age_ms: ms(seen.age),
        restarts: slot.map_or(0, |slot| slot.restarts).into(),
        memory_max_bytes: made.and_then(Worker::group).map(Group::limits).unwrap_or_default().memory_max,
        last_probe: seen
            .last_probe
            .as_ref()
            .map(|(ago, verdict)| message::Probe { ago_ms: ms(*ago), failure: verdict.clone().err() }),
        requests: made.and_then(Worker::requests_document),
        ..message::Worker::default()
    }
}

fn template(generation: GenerationId, pid: Pid, snapshot: &Snapshot) -> message::Template {
    let serves = generation == snapshot.generation;
    let (warm, not_warm) = match &snapshot.warmth {
        Warmth::Warm(_) => (serves, None),
        Warmth::Refused(why) => (false, serves.then(|| why.clone())),
        Warmth::Unwarmed | Warmth::Due(_) | Warmth::Asked => (false, None),
    };
    message::Template {
        warm,
        not_warm,
        generation: generation.0.into(),
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
        ..message::Template::default()
    }
}

fn slot(seen: &SlotSnapshot, workers: &Workers) -> message::Slot {
    message::Slot {
        slot: seen.slot.0,
        worker: seen.current.map(|id| id.0),
        successor: seen.successor.map(|id| id.0),
        restarts: seen.restarts.into(),
        retry_in_ms: seen.retry_in.map(ms),
        last_death: workers.last_exit(seen.slot).map(|death| message::Death {
            reason: death.reason.clone(),
            at_unix_ms: unix_ms(death.at),
            lived_ms: ms(death.lived),
            last_lines: death.last_lines.clone(),
        }),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, ms)
}

/// The state in one line that a person understands.
pub(super) fn status_line(snapshot: &Overview) -> String {
    let workers = |count: u32| if count == 1 { "worker" } else { "workers" };
    let wanted = snapshot.wanted.unwrap_or(0);
    let base = if snapshot.stopping {
        match snapshot.living {
            0 => "stopping".to_owned(),
            left => format!("stopping, {left} {} to finish", workers(left as u32)),
        }
    } else if snapshot.maintenance {
        match &snapshot.fallback_failure {
            None => "maintenance, answering 503".to_owned(),
            Some(failure) => format!("maintenance, and cannot answer 503: {failure}"),
        }
    } else if let Some(pause) = snapshot.pause {
        match (pause.is_empty, snapshot.fallback) {
            (false, _) => format!("pausing, {} {} to finish", snapshot.living, workers(snapshot.living as u32)),
            (true, false) => "paused, visitors wait".to_owned(),
            (true, true) => "paused, answering 503: half of the queue was full".to_owned(),
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
                RolloutStep::Trying { answers, wanted } => {
                    return format!(
                        "{base} (reload: visitors try generation {generation}, {answers} of {wanted} requests)"
                    );
                }
                RolloutStep::Preparing => "preparing",
                RolloutStep::Checking => "checking",
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
    use crate::supervisor::{Refusal, Time, WorkerId};

    fn serving() -> Overview {
        Overview {
            generation: GenerationId(2),
            wanted: Some(3),
            ready: 3,
            living: 3,
            next_worker: WorkerId(7),
            waiting: false,
            stopping: false,
            pause: None,
            maintenance: false,
            fallback: false,
            fallback_failure: None,
            failing: None,
            next_attempt_in: None,
            warmth: Warmth::default(),
            rollout: None,
            refusal: None,
            unserved: None,
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
