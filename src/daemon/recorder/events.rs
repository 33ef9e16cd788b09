//! The core's notices as events of the recording. What only tells that all goes on as it should is none.

use crate::control::recording::EventKind;
use crate::supervisor::{GenerationId, Notice, Retirement, WorkerId};

/// What is recorded of a notice.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) kind: EventKind,
    pub(super) worker: Option<WorkerId>,
    pub(super) generation: Option<GenerationId>,
    pub(super) text: String,
}

/// `request`: what a worker serves, or served when it ended.
pub(super) fn noted(notice: &Notice, request: impl Fn(WorkerId) -> Option<String>) -> Option<Noted> {
    let of_instance = |kind, text: String| Some(Noted { kind, worker: None, generation: None, text });
    let of_generation =
        |kind, generation, text: String| Some(Noted { kind, worker: None, generation: Some(generation), text });
    let of_worker = |kind, id: WorkerId, text: String| {
        let serving = request(id).map(|request| format!("; it served {request}")).unwrap_or_default();
        Some(Noted { kind, worker: Some(id), generation: None, text: format!("worker {id} {text}{serving}") })
    };
    match notice {
        Notice::WorkerFailed { place, was_ready: true, why, .. } => {
            of_worker(EventKind::WorkerDied, place.worker, format!("died: {why}"))
        }
        // Some servers accept before they are ready.
        Notice::WorkerFailed { place, was_ready: false, why, .. } if request(place.worker).is_some() => {
            of_worker(EventKind::WorkerDied, place.worker, format!("died: {why}"))
        }
        Notice::WorkerFailed { place, was_ready: false, why, .. } => {
            of_worker(EventKind::WorkerNotReady, place.worker, format!("could not start: {why}"))
        }
        Notice::WorkerHangs { place, why } => of_worker(EventKind::WorkerHangs, place.worker, format!("hangs: {why}")),
        Notice::WorkerUnhealthy { place, why } => {
            of_worker(EventKind::WorkerUnhealthy, place.worker, format!("is not well: {why}"))
        }
        Notice::WorkerKilled(place) => {
            of_worker(EventKind::WorkerKilled, place.worker, "did not leave in time and was killed".to_owned())
        }
        Notice::WorkerRetires { place, why: Retirement::Memory { memory, limit } } => {
            let mebibytes = |bytes: u64| bytes >> 20;
            let text = format!("holds {}M of memory, more than {}M", mebibytes(*memory), mebibytes(*limit));
            of_worker(EventKind::WorkerTooBig, place.worker, text)
        }
        Notice::PreparationFailed { generation, why, .. } => {
            of_generation(EventKind::PreparationFailed, *generation, why.clone())
        }
        Notice::StoodStill(late) => {
            of_instance(EventKind::StoodStill, format!("sockd stood still for {} s at least", late.as_secs()))
        }
        Notice::TurningAway { why, on_purpose: false } => of_instance(EventKind::Answering503, why.clone()),
        Notice::ServingAgain => of_instance(EventKind::ServingAgain, "workers serve again".to_owned()),
        Notice::FallbackFailed { why } => of_instance(EventKind::Answering503, format!("cannot answer 503: {why}")),
        Notice::PoolResized { from, to } => {
            of_instance(EventKind::PoolResized, format!("{from} workers become {to}, as somebody asked for"))
        }
        Notice::Pausing { .. } => of_instance(EventKind::Paused, "paused: visitors wait in the queue".to_owned()),
        Notice::PauseEnded { .. } => of_instance(EventKind::PauseEnded, "the pause is over".to_owned()),
        Notice::MaintenanceBegun => {
            of_instance(EventKind::MaintenanceBegun, "maintenance: visitors are answered 503".to_owned())
        }
        Notice::MaintenanceEnded => of_instance(EventKind::MaintenanceEnded, "the maintenance is over".to_owned()),
        Notice::RolloutBegun(generation) => {
            of_generation(EventKind::ReloadBegun, *generation, format!("reload to generation {generation}"))
        }
        Notice::RolloutDone(generation) => {
            of_generation(EventKind::ReloadDone, *generation, format!("generation {generation} has taken over"))
        }
        Notice::RolloutRefused { generation, why } => {
            of_generation(EventKind::ReloadRefused, *generation, format!("reload refused: {why}"))
        }
        Notice::Stopping => of_instance(EventKind::Stopping, "the service stops".to_owned()),
        Notice::WorkerStarted(_)
        | Notice::WorkerReady { .. }
        | Notice::WorkerWithoutSocket(_)
        | Notice::WorkerDrains(_)
        | Notice::DrainOver(_)
        | Notice::WorkerLeft { .. }
        | Notice::WorkerRecovered(_)
        | Notice::SlotProven(_)
        | Notice::WorkerRetires { why: Retirement::Requests | Retirement::Age(_) | Retirement::Request, .. }
        | Notice::FirstConnection
        | Notice::Serving(_)
        | Notice::TurningAway { on_purpose: true, .. }
        | Notice::FallbackRestored
        | Notice::SocketUnserved(_)
        | Notice::Warm(_)
        | Notice::NotWarm { .. }
        | Notice::Paused
        | Notice::Checking { .. }
        | Notice::ChecksLeftOut(_)
        | Notice::CanaryProven(_)
        | Notice::Trying { .. }
        | Notice::TrialDone { .. }
        | Notice::Soaking { .. }
        | Notice::StopRepeated
        | Notice::Hurrying => None,
    }
}
