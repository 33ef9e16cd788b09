//! The core's notices in words, with the journal's fields.

use super::path_alarm;
use crate::journal::message_id;
use crate::listener::Listener;
use crate::supervisor::{GenerationId, Notice, Progress, Retirement, SocketId, Trial, WorkerId, WorkerRef};
use rustix::process::Pid;
use std::time::Duration;

/// Writes one event with the fields that every event about a worker has.
macro_rules! tell {
    ($level:ident, $id:ident, $event:literal, $place:expr, $($text:tt)+) => {{
        let place: WorkerRef = $place;
        tracing::$level!(
            MESSAGE_ID = message_id::$id,
            SOCKD_EVENT = $event,
            SOCKD_WORKER = place.worker.0,
            SOCKD_GENERATION = place.generation.0,
            $($text)+
        )
    }};
}

/// Writes one event about a generation.
macro_rules! tell_of {
    ($level:ident, $id:ident, $event:literal, $generation:expr, $($text:tt)+) => {{
        let generation: GenerationId = $generation;
        tracing::$level!(
            MESSAGE_ID = message_id::$id,
            SOCKD_EVENT = $event,
            SOCKD_GENERATION = generation.0,
            $($text)+
        )
    }};
}

/// What the log says beside a notice.
pub(super) trait Facts {
    /// A worker's process.
    fn pid(&self, worker: WorkerId) -> Option<Pid>;
    /// What a worker serves, or served when it ended.
    fn request(&self, worker: WorkerId) -> Option<String>;
    /// The listener with this socket.
    fn listener(&self, socket: SocketId) -> Option<&Listener>;
    /// The state in one line.
    fn status_line(&self) -> String;
    /// Whether visitors are answered 503.
    fn answers_503(&self) -> bool;
    /// Whether any worker serves.
    fn somebody_serves(&self) -> bool;
}

/// Writes a notice to the log, and does nothing else: what must be done is an effect of its own.
pub(super) fn log_notice(notice: &Notice, facts: &dyn Facts) {
    match notice {
        Notice::WorkerStarted(place) => {
            let pid = facts.pid(place.worker).map_or(0, |pid| pid.as_raw_nonzero().get());
            tell!(
                info,
                WORKER_STARTED,
                "worker-started",
                *place,
                SOCKD_PID = pid,
                "{} started (pid {pid})",
                name(*place)
            );
        }
        Notice::WorkerReady { place, after } => {
            tell!(info, WORKER_READY, "worker-ready", *place, "{}", ready(*place, *after));
        }
        Notice::WorkerWithoutSocket(place) => tell!(
            warn,
            WORKER_READY,
            "worker-without-socket",
            *place,
            "{} says that it is ready but holds none of the sockets it was given: it listens elsewhere, and its \
             visitors will not find it; check its --bind, --port or listen setting",
            name(*place)
        ),
        Notice::WorkerFailed { place, was_ready, lived, why, retry_in } => {
            let request = facts.request(place.worker);
            tell_failure(*place, *was_ready, *lived, why, *retry_in, request);
        }
        Notice::WorkerHangs { place, why } => {
            let request = facts.request(place.worker);
            tell!(
                error,
                WORKER_HUNG,
                "worker-hung",
                *place,
                SOCKD_REQUEST = request,
                "{} hangs: {why}{}; sending SIGABRT, so that it writes its stack",
                name(*place),
                serves(request.as_ref())
            );
        }
        Notice::WorkerDrains(place) => {
            tell!(info, WORKER_DRAINING, "worker-draining", *place, "{} finishes its requests", name(*place));
        }
        Notice::DrainOver(place) => tell!(
            info,
            WORKER_DRAINING,
            "worker-drain-over",
            *place,
            "{} still has connections after drain-timeout; it is asked to close them",
            name(*place)
        ),
        Notice::WorkerLeft { place, why } => {
            tell!(info, WORKER_EXITED, "worker-exited", *place, "{} has left ({why})", name(*place));
        }
        Notice::WorkerKilled(place) => {
            let request = facts.request(place.worker);
            tell!(
                warn,
                WORKER_KILLED,
                "worker-killed",
                *place,
                SOCKD_REQUEST = request,
                "{} did not leave in time{}: killed with its descendants",
                name(*place),
                serves(request.as_ref())
            );
        }
        Notice::WorkerUnhealthy { place, why } => {
            let request = facts.request(place.worker);
            tell!(
                warn,
                WORKER_UNHEALTHY,
                "worker-unhealthy",
                *place,
                SOCKD_REQUEST = request,
                "{} is not well: {why}{}; its successor is started first",
                name(*place),
                serves(request.as_ref())
            );
        }
        Notice::WorkerRecovered(place) => {
            tell!(info, WORKER_RECOVERED, "worker-recovered", *place, "{} is well again", name(*place));
        }
        Notice::SlotProven(place) => tell!(
            info,
            WORKER_READY,
            "canary-proven",
            *place,
            "{} was a canary, without visitors: it has proven what is on disk, and the worker that serves with it comes \
             next",
            name(*place)
        ),
        Notice::WorkerRetires { place, why } => tell!(
            info,
            WORKER_REPLACED,
            "worker-retires",
            *place,
            "{} {}; its successor is started first",
            name(*place),
            retirement(*why)
        ),
        Notice::PreparationFailed { generation, why, retry_in } => tell_of!(
            error,
            CONFIGURATION_REFUSED,
            "preparation-failed",
            *generation,
            "generation {generation} cannot be made ready: {why}{}",
            next(*retry_in)
        ),
        Notice::StoodStill(late) => tracing::warn!(
            SOCKD_EVENT = "stood-still",
            "sockd stood still, for {} at least (stopped, frozen, or the machine was): that counts for no timeout",
            seconds(*late)
        ),
        Notice::FirstConnection => tracing::info!(SOCKD_EVENT = "first-connection", "a first connection arrived"),
        Notice::Serving(generation) => {
            let line = facts.status_line();
            tell_of!(info, SERVING, "serving", *generation, "{line}");
        }
        Notice::TurningAway { why, on_purpose: true } => tracing::info!(
            MESSAGE_ID = message_id::ANSWERING_503,
            SOCKD_EVENT = "answering-503",
            "answering 503: {why}"
        ),
        Notice::TurningAway { why, on_purpose: false } => tracing::error!(
            MESSAGE_ID = message_id::ANSWERING_503,
            SOCKD_EVENT = "answering-503",
            "no worker can serve{}: {why}",
            if facts.answers_503() { ", answering 503" } else { "" }
        ),
        Notice::ServingAgain => tracing::info!(
            MESSAGE_ID = message_id::ANSWERING_503_ENDED,
            SOCKD_EVENT = "answering-503-ended",
            "{}, no more 503",
            if facts.somebody_serves() { "a worker serves" } else { "visitors wait in the queue" }
        ),
        Notice::FallbackFailed { why } => {
            tracing::error!("cannot answer 503: {why}; visitors wait in the queue; it is tried again every second");
        }
        Notice::FallbackRestored => tracing::info!("visitors are answered 503 again"),
        Notice::SocketUnserved(socket) => {
            let Some(listener) = facts.listener(*socket) else { return };
            tracing::error!(
                MESSAGE_ID = message_id::PATH_LOST,
                SOCKD_EVENT = "path-unserved",
                SOCKD_LISTENER = %listener.name,
                "{}",
                path_alarm::unserved(listener)
            );
        }
        Notice::PoolResized { from, to } if from == to => {
            let workers = if *to == 1 { "worker: there cannot be fewer" } else { "workers: there cannot be more" };
            tracing::warn!(SOCKD_EVENT = "pool-resized", "it stays at {to} {workers}");
        }
        Notice::PoolResized { from, to } => tracing::info!(
            SOCKD_EVENT = "pool-resized",
            "{from} workers become {to}, until the next reload; the configuration is unchanged"
        ),
        Notice::Warm(generation) => tell_of!(
            info,
            TEMPLATE_WARM,
            "template-warm",
            *generation,
            "the template is warm: a copy of it has answered requests and makes the workers; those that were made before are \
             replaced one after the other"
        ),
        Notice::NotWarm { generation, why } => tell_of!(
            info,
            TEMPLATE_NOT_WARM,
            "template-not-warm",
            *generation,
            "the template is not warm, and makes the workers as it was loaded: {why}"
        ),
        Notice::Pausing { most } => tracing::info!(
            MESSAGE_ID = message_id::PAUSE_BEGUN,
            SOCKD_EVENT = "pause-begun",
            "pausing, for {} at most: the workers finish their requests and leave",
            seconds(*most)
        ),
        Notice::Paused => {
            tracing::info!(SOCKD_EVENT = "paused", "paused: no worker is left, visitors wait in the queue")
        }
        Notice::PauseEnded { by_itself: true } => tracing::warn!(
            MESSAGE_ID = message_id::PAUSE_ENDED,
            SOCKD_EVENT = "pause-ended",
            "the time of the pause is over, and nobody has resumed it: workers start"
        ),
        Notice::PauseEnded { by_itself: false } => {
            tracing::info!(MESSAGE_ID = message_id::PAUSE_ENDED, SOCKD_EVENT = "pause-ended", "resumed: workers start")
        }
        Notice::MaintenanceBegun => tracing::info!(
            MESSAGE_ID = message_id::MAINTENANCE_BEGUN,
            SOCKD_EVENT = "maintenance-begun",
            "maintenance: visitors get 503 until it is switched off (sockd maintenance UNIT off); the workers finish their requests and leave"
        ),
        Notice::MaintenanceEnded => tracing::info!(
            MESSAGE_ID = message_id::MAINTENANCE_ENDED,
            SOCKD_EVENT = "maintenance-ended",
            "the maintenance is over: workers start"
        ),
        Notice::RolloutBegun(generation) => {
            tell_of!(info, RELOAD_BEGUN, "reload-begun", *generation, "reload: preparing generation {generation}");
        }
        Notice::Checking { generation, program } => tracing::info!(
            SOCKD_EVENT = "reload-checking",
            SOCKD_GENERATION = generation.0,
            "reload: checking generation {generation}: {program}"
        ),
        Notice::ChecksLeftOut(generation) => tracing::warn!(
            SOCKD_EVENT = "checks-left-out",
            SOCKD_GENERATION = generation.0,
            "reload: generation {generation} is not checked: no worker serves, and there is no better code to keep"
        ),
        Notice::CanaryProven(generation) => {
            tell_of!(
                info,
                WORKER_READY,
                "canary-proven",
                *generation,
                "reload: generation {generation} is proven on a canary"
            );
        }
        Notice::Trying { generation, workers, trial } => {
            tell_of!(info, TRIAL_BEGUN, "trial-begun", *generation, "reload: {}", trying(*generation, *workers, *trial))
        }
        Notice::TrialDone { generation, answers, wanted } => tell_of!(
            info,
            TRIAL_FINISHED,
            "trial-finished",
            *generation,
            "reload: nothing speaks against generation {generation} after {answers} of {wanted} requests"
        ),
        Notice::Soaking { generation, soak } => tracing::debug!(
            SOCKD_GENERATION = generation.0,
            "reload: watching generation {generation} for {}",
            seconds(*soak)
        ),
        Notice::RolloutDone(generation) => tell_of!(
            info,
            RELOAD_FINISHED,
            "reload-finished",
            *generation,
            "reload: generation {generation} has taken over"
        ),
        Notice::RolloutRefused { generation, why } => tell_of!(
            error,
            RELOAD_REFUSED,
            "reload-refused",
            *generation,
            "reload to generation {generation} refused: {why}{}",
            if facts.somebody_serves() { "; the old workers serve on" } else { "" }
        ),
        Notice::Stopping => {
            tracing::info!(MESSAGE_ID = message_id::STOPPING, SOCKD_EVENT = "stopping", "stopping");
        }
        Notice::StopRepeated => tracing::info!(
            SOCKD_EVENT = "stopping",
            "asked to stop again while it stops; SIGINT or SIGQUIT from here on hurries"
        ),
        Notice::Hurrying => tracing::info!(SOCKD_EVENT = "hurrying", "interrupted while it stops: hurrying"),
    }
}

fn tell_failure(
    place: WorkerRef,
    was_ready: bool,
    lived: Duration,
    why: &str,
    retry_in: Option<Duration>,
    request: Option<String>,
) {
    let served = request.as_ref().map(|request| format!("; it served {request}"));
    if was_ready {
        tell!(
            warn,
            WORKER_DIED,
            "worker-died",
            place,
            SOCKD_REQUEST = request,
            "{} died after {}: {why}{}{}",
            name(place),
            seconds(lived),
            served.unwrap_or_default(),
            next(retry_in)
        );
    } else {
        tell!(
            error,
            WORKER_NOT_READY,
            "worker-not-ready",
            place,
            "{} could not start: {why}{}",
            name(place),
            next(retry_in)
        );
    }
}

/// A step of a reload as its clients read it.
pub(super) fn progress_line(progress: Progress) -> String {
    match progress {
        Progress::Preparing(generation) => format!("preparing generation {generation}"),
        Progress::Checking(program) => format!("checking: {program}"),
        Progress::Loading(generation) => format!("the checks have ended well; loading generation {generation}"),
        Progress::CanaryProven => "the new code is proven".to_owned(),
        Progress::Trying { generation, workers, trial } => trying(generation, workers, trial),
        Progress::Tried { answers, server_errors, wanted } => {
            format!("{answers} of {wanted} requests answered, {server_errors} of them with 500 to 599")
        }
        Progress::TrialDone { answers, wanted } => {
            format!("nothing speaks against the new code after {answers} of {wanted} requests")
        }
        Progress::WorkerReady { place, after } => ready(place, after),
        Progress::Soaking(soak) => format!("all workers are ready; watching them for {}", seconds(soak)),
    }
}

/// How visitors try a generation.
fn trying(generation: GenerationId, workers: u32, trial: Trial) -> String {
    let plural = if workers == 1 { "" } else { "s" };
    format!(
        "visitors try generation {generation} on {workers} worker{plural}: {} requests decide, within {}",
        trial.requests,
        seconds(trial.time)
    )
}

/// What it serves, behind what is said of it.
fn serves(request: Option<&String>) -> String {
    request.map(|request| format!("; it serves {request}")).unwrap_or_default()
}

fn ready(place: WorkerRef, after: Duration) -> String {
    format!("{} is ready after {}", name(place), seconds(after))
}

fn name(place: WorkerRef) -> String {
    match place.slot {
        Some(_) => format!("worker {}", place.worker),
        None => format!("canary {}", place.worker),
    }
}

fn retirement(why: Retirement) -> String {
    match why {
        Retirement::Requests => "has served its number of requests".to_owned(),
        Retirement::Age(age) => format!("has been there for {}", seconds(age)),
        Retirement::Memory { memory, limit } => {
            format!("holds {} of memory, more than {}", mebibytes(memory), mebibytes(limit))
        }
        Retirement::Request => "is to be replaced, as was asked for".to_owned(),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}M", bytes as f64 / f64::from(1 << 20))
}

fn next(retry_in: Option<Duration>) -> String {
    match retry_in {
        None => String::new(),
        Some(wait) if wait.is_zero() => "; trying again at once".to_owned(),
        Some(wait) => format!("; trying again in {}", seconds(wait)),
    }
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else if duration < Duration::from_secs(60) {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min", duration.as_secs() / 60)
    }
}
