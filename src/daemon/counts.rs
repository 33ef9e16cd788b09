//! Counts of what happened since the start, for metrics: workers that started and ended, reloads, answers of 503.
//!
//! Owns: the numbers, and of each living worker what its end will be counted as. They grow by the core's notices, which
//! are facts and no text. Never: decides anything, or counts the end of a process twice.

use crate::control::message;
use crate::supervisor::{Notice, WorkerId};
use std::collections::BTreeMap;

/// How a process ended, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exit,
    Signal,
    OutOfMemory,
}

/// What a worker's end is counted as, where sockd brings it about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Retired,
    Unhealthy,
    Hang,
    Start,
}

/// What is known of a worker whose end is not counted yet.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    cause: Option<Cause>,
    /// Its process was reaped.
    ending: Option<Ending>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    starts: u64,
    kills: u64,
    exits: message::WorkerExits,
    reloads: message::Reloads,
    fallback_responses: u64,
    workers: BTreeMap<WorkerId, Course>,
}

impl Counts {
    /// The core says that something happened.
    pub(super) fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::WorkerStarted(place) => {
                self.starts += 1;
                // It may have ended before anybody heard that it was there.
                self.workers.entry(place.worker).or_default();
            }
            Notice::WorkerHangs { place, .. } => self.set_cause(place.worker, Some(Cause::Hang)),
            Notice::WorkerUnhealthy { place, .. } => self.set_cause(place.worker, Some(Cause::Unhealthy)),
            Notice::WorkerRecovered(place) => self.set_cause(place.worker, None),
            Notice::WorkerRetires { place, .. } => self.set_cause(place.worker, Some(Cause::Retired)),
            Notice::WorkerFailed { place, was_ready, .. } => self.failed(place.worker, *was_ready),
            Notice::WorkerLeft { place, .. } => self.count_exit(place.worker, true),
            Notice::WorkerKilled(_) => self.kills += 1,
            Notice::RolloutDone(_) => self.reloads.ok += 1,
            Notice::RolloutRefused { .. } => self.reloads.refused += 1,
            Notice::WorkerReady { .. }
            | Notice::SlotProven(_)
            | Notice::WorkerWithoutSocket(_)
            | Notice::WorkerDrains(_)
            | Notice::DrainOver(_)
            | Notice::PreparationFailed { .. }
            | Notice::StoodStill(_)
            | Notice::FirstConnection
            | Notice::Serving(_)
            | Notice::TurningAway { .. }
            | Notice::ServingAgain
            | Notice::FallbackFailed { .. }
            | Notice::FallbackRestored
            | Notice::SocketUnserved(_)
            | Notice::PoolResized { .. }
            | Notice::Warm(_)
            | Notice::NotWarm { .. }
            | Notice::Pausing { .. }
            | Notice::Paused
            | Notice::PauseEnded { .. }
            | Notice::MaintenanceBegun
            | Notice::MaintenanceEnded
            | Notice::RolloutBegun(_)
            | Notice::Checking { .. }
            | Notice::ChecksLeftOut(_)
            | Notice::CanaryProven(_)
            | Notice::Trying { .. }
            | Notice::TrialDone { .. }
            | Notice::Soaking { .. }
            | Notice::Stopping
            | Notice::StopRepeated
            | Notice::Hurrying => {}
        }
    }

    /// A worker's process was reaped; the core's notice of it follows.
    pub(super) fn worker_ended(&mut self, id: WorkerId, ending: Ending) {
        self.workers.entry(id).or_default().ending = Some(ending);
    }

    /// So many visitors were answered 503.
    pub(super) fn turned_away(&mut self, visitors: u64) {
        self.fallback_responses += visitors;
    }

    /// All of it, with the restarts that the core counts.
    pub(super) fn document(&self, restarts: u64) -> message::Counts {
        message::Counts {
            worker_starts: self.starts,
            worker_restarts: restarts,
            worker_exits: self.exits,
            worker_kills: self.kills,
            reloads: self.reloads,
            fallback_responses: self.fallback_responses,
        }
    }

    fn set_cause(&mut self, id: WorkerId, cause: Option<Cause>) {
        if let Some(course) = self.workers.get_mut(&id) {
            course.cause = cause;
        }
    }

    /// A worker is useless from here on: it is gone, or was aborted or asked to leave.
    fn failed(&mut self, id: WorkerId, was_ready: bool) {
        // One that was never made has no end.
        let Some(course) = self.workers.get_mut(&id) else { return };
        if course.cause != Some(Cause::Hang) {
            course.cause = (!was_ready).then_some(Cause::Start);
        }
        if course.ending.is_some() {
            self.count_exit(id, false);
        }
    }

    /// A worker has ended, and nothing more is heard of it.
    fn count_exit(&mut self, id: WorkerId, asked: bool) {
        let Course { cause, ending: Some(ending) } = self.workers.remove(&id).unwrap_or_default() else { return };
        let exits = &mut self.exits;
        *match (ending, cause) {
            (Ending::OutOfMemory, _) => &mut exits.oom,
            (Ending::Exit | Ending::Signal, Some(Cause::Retired)) => &mut exits.retired,
            (Ending::Exit | Ending::Signal, Some(Cause::Unhealthy)) => &mut exits.unhealthy,
            (Ending::Exit | Ending::Signal, Some(Cause::Hang)) => &mut exits.hang,
            (Ending::Exit | Ending::Signal, Some(Cause::Start)) => &mut exits.start,
            (Ending::Exit | Ending::Signal, None) if asked => &mut exits.asked,
            (Ending::Signal, None) => &mut exits.signal,
            (Ending::Exit, None) => &mut exits.exit,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{GenerationId, Retirement, SlotId, WorkerRef};
    use std::time::Duration;

    fn place(worker: u64) -> WorkerRef {
        WorkerRef { worker: WorkerId(worker), slot: Some(SlotId(0)), generation: GenerationId(1) }
    }

    fn failed(worker: u64, was_ready: bool) -> Notice {
        let (lived, why) = (Duration::from_secs(1), String::new());
        Notice::WorkerFailed { place: place(worker), was_ready, lived, why, retry_in: None }
    }

    fn left(worker: u64) -> Notice {
        Notice::WorkerLeft { place: place(worker), why: String::new() }
    }

    /// What is counted of the end of one worker that was started and of which these notices came, the last of them after
    /// its process was reaped.
    fn exits(notices: &[Notice], ending: Ending) -> message::WorkerExits {
        let mut counts = Counts::default();
        counts.notice(&Notice::WorkerStarted(place(1)));
        let (last, before) = notices.split_last().expect("one at least");
        before.iter().for_each(|notice| counts.notice(notice));
        counts.worker_ended(WorkerId(1), ending);
        counts.notice(last);
        assert!(counts.workers.is_empty(), "{counts:?}");
        counts.document(0).worker_exits
    }

    #[test]
    fn each_end_has_one_reason() {
        let hangs = Notice::WorkerHangs { place: place(1), why: String::new() };
        let unhealthy = Notice::WorkerUnhealthy { place: place(1), why: String::new() };
        let retires = Notice::WorkerRetires { place: place(1), why: Retirement::Requests };
        let none = message::WorkerExits::default();
        for (notices, ending, expected) in [
            (vec![failed(1, true)], Ending::Exit, message::WorkerExits { exit: 1, ..none }),
            (vec![failed(1, true)], Ending::Signal, message::WorkerExits { signal: 1, ..none }),
            (vec![failed(1, true)], Ending::OutOfMemory, message::WorkerExits { oom: 1, ..none }),
            (vec![failed(1, false)], Ending::Exit, message::WorkerExits { start: 1, ..none }),
            // New code that answers badly is asked to leave.
            (vec![failed(1, false), left(1)], Ending::Exit, message::WorkerExits { start: 1, ..none }),
            (vec![hangs.clone(), failed(1, true), left(1)], Ending::Signal, message::WorkerExits { hang: 1, ..none }),
            (vec![hangs, failed(1, false), left(1)], Ending::Signal, message::WorkerExits { hang: 1, ..none }),
            (vec![left(1)], Ending::Exit, message::WorkerExits { asked: 1, ..none }),
            (vec![retires.clone(), left(1)], Ending::Exit, message::WorkerExits { retired: 1, ..none }),
            (vec![unhealthy.clone(), left(1)], Ending::Exit, message::WorkerExits { unhealthy: 1, ..none }),
            (vec![retires, failed(1, true)], Ending::Signal, message::WorkerExits { signal: 1, ..none }),
            (
                vec![unhealthy, Notice::WorkerRecovered(place(1)), left(1)],
                Ending::Exit,
                message::WorkerExits { asked: 1, ..none },
            ),
        ] {
            assert_eq!(exits(&notices, ending), expected, "{notices:?} {ending:?}");
        }
    }

    #[test]
    fn an_end_that_is_seen_before_the_start_is_heard_of_counts() {
        let mut counts = Counts::default();
        counts.worker_ended(WorkerId(1), Ending::Exit);
        counts.notice(&Notice::WorkerStarted(place(1)));
        counts.notice(&failed(1, false));
        let document = counts.document(0);
        assert_eq!((document.worker_starts, document.worker_exits.start), (1, 1));
        assert!(counts.workers.is_empty(), "{counts:?}");
    }

    #[test]
    fn what_was_never_made_has_no_end() {
        let mut counts = Counts::default();
        counts.notice(&failed(1, false));
        counts.notice(&left(2));
        assert_eq!(counts.document(0), message::Counts::default());
        assert!(counts.workers.is_empty());
    }

    #[test]
    fn reloads_are_counted_by_their_result() {
        let mut counts = Counts::default();
        counts.notice(&Notice::RolloutBegun(GenerationId(2)));
        counts.notice(&Notice::RolloutDone(GenerationId(2)));
        counts.notice(&Notice::RolloutRefused { generation: GenerationId(3), why: String::new() });
        counts.turned_away(7);
        let document = counts.document(4);
        assert_eq!(document.reloads, message::Reloads { ok: 1, refused: 1 });
        assert_eq!((document.fallback_responses, document.worker_restarts), (7, 4));
    }
}
