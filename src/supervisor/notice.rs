//! What is worth a line in the log: facts, the words are the daemon's.

use super::id::{GenerationId, SocketId, WorkerRef};
use super::spec::Trial;
use std::time::Duration;

/// Why a worker that is well is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// It has served as many requests as it should.
    Requests,
    /// It is so old.
    Age(Duration),
    /// It holds so much memory, in bytes, where `limit` is allowed.
    Memory {
        /// What it holds.
        memory: u64,
        /// What it may.
        limit: u64,
    },
    /// Somebody asked for it.
    Request,
}

/// Something a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A worker's process exists.
    WorkerStarted(WorkerRef),
    /// A worker is proven.
    WorkerReady {
        /// Who.
        place: WorkerRef,
        /// How long it took from the decision to start it.
        after: Duration,
    },
    /// A worker is ready by its own word but holds none of our sockets.
    WorkerWithoutSocket(WorkerRef),
    /// A worker did not get ready, or ended unasked.
    WorkerFailed {
        /// Who.
        place: WorkerRef,
        /// Whether it had been ready.
        was_ready: bool,
        /// How long it lived.
        lived: Duration,
        /// The verdict.
        why: String,
        /// When its slot is tried again; None if nobody waits for it.
        retry_in: Option<Duration>,
    },
    /// A worker hangs and is aborted.
    WorkerHangs {
        /// Who.
        place: WorkerRef,
        /// How that was found.
        why: String,
    },
    /// A worker is asked to drain.
    WorkerDrains(WorkerRef),
    /// A worker that is replaced has not left within its time to drain; it is asked to close what is still connected.
    DrainOver(WorkerRef),
    /// A worker that was asked to end has ended.
    WorkerLeft {
        /// Who.
        place: WorkerRef,
        /// How.
        why: String,
    },
    /// A worker did not end in time and is killed.
    WorkerKilled(WorkerRef),
    /// A worker fails its probes: it gets a successor before it goes.
    WorkerUnhealthy {
        /// Who.
        place: WorkerRef,
        /// What it fails at.
        why: String,
    },
    /// A worker that failed its probes answers them again.
    WorkerRecovered(WorkerRef),
    /// A canary in a slot, in place of a worker whose code is in doubt, is proven: it goes, and that worker comes.
    SlotProven(WorkerRef),
    /// A worker that is well shall be replaced.
    WorkerRetires {
        /// Who.
        place: WorkerRef,
        /// Why.
        why: Retirement,
    },
    /// A generation could not be prepared, or what was prepared is lost.
    PreparationFailed {
        /// Which.
        generation: GenerationId,
        /// Why.
        why: String,
        /// When it is tried again; None if it is not.
        retry_in: Option<Duration>,
    },
    /// Workers are made by a template that has answered requests.
    Warm(GenerationId),
    /// A generation has no template that has answered requests, or no more: workers are made as before.
    NotWarm {
        /// Which.
        generation: GenerationId,
        /// Why.
        why: String,
    },
    /// sockd stood still, at least for so long: nobody's time has run out meanwhile.
    StoodStill(Duration),
    /// The first connection arrived.
    FirstConnection,
    /// Every slot has a ready worker.
    Serving(GenerationId),
    /// No worker can serve, or none shall; visitors get 503.
    TurningAway {
        /// Why.
        why: String,
        /// Whether somebody holds the workers back.
        on_purpose: bool,
    },
    /// Workers serve again; no more 503.
    ServingAgain,
    /// Visitors are not answered 503: the helper cannot be started, or ended. It is tried again each second.
    FallbackFailed {
        /// Why.
        why: String,
    },
    /// The helper that was lost answers again.
    FallbackRestored,
    /// Workers lack a socket that was bound again: the reload that was to bring it to them was refused.
    SocketUnserved(SocketId),
    /// Somebody asked for another number of workers: so many are wanted until the next reload.
    PoolResized {
        /// The number before.
        from: u32,
        /// The number from here on. The same if there can be no more, or no fewer.
        to: u32,
    },
    /// A pause was asked for: the workers finish their requests and leave.
    Pausing {
        /// It ends by itself after so long.
        most: Duration,
    },
    /// The last worker has left; visitors wait.
    Paused,
    /// Workers may start again.
    PauseEnded {
        /// Whether its time was over, and nobody has resumed it.
        by_itself: bool,
    },
    /// Visitors are answered 503 until somebody ends that, and the workers leave.
    MaintenanceBegun,
    /// Workers may start again.
    MaintenanceEnded,
    /// A rollout began.
    RolloutBegun(GenerationId),
    /// A program checks the new generation before it is loaded.
    Checking {
        /// The new generation.
        generation: GenerationId,
        /// The program, as people know it.
        program: String,
    },
    /// Its checks are left out: nobody serves, and there is no better code to keep.
    ChecksLeftOut(GenerationId),
    /// The canary is proven.
    CanaryProven(GenerationId),
    /// Visitors try the new generation on a few workers.
    Trying {
        /// The new generation.
        generation: GenerationId,
        /// On how many.
        workers: u32,
        /// How it is decided.
        trial: Trial,
    },
    /// The trial has ended well, or somebody has ended it.
    TrialDone {
        /// The new generation.
        generation: GenerationId,
        /// So many of its requests were answered.
        answers: u64,
        /// Of so many that were wanted.
        wanted: u64,
    },
    /// Every slot has a proven worker of the new generation; the old ones are still there.
    Soaking {
        /// The new generation.
        generation: GenerationId,
        /// For how long.
        soak: Duration,
    },
    /// A rollout ended well.
    RolloutDone(GenerationId),
    /// A rollout ended badly; the old generation was never stopped.
    RolloutRefused {
        /// The generation that goes.
        generation: GenerationId,
        /// Why.
        why: String,
    },
    /// The service stops.
    Stopping,
    /// It was asked to stop again; nothing follows from that.
    StopRepeated,
    /// The service shall stop faster.
    Hurrying,
}
