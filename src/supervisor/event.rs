//! What the daemon tells the core.

use super::acceptance::{Answers, ProbeOutcome};
use super::id::{GenerationId, ReleaseId, RequestId, SocketId, WorkerId};
use super::spec::{Checks, Spec, Trial};
use super::time::Time;
use std::time::Duration;

/// Something that happened outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection waits on one of the listeners. Sent once for each [`Effect::WatchListeners`](super::Effect).
    ConnectionWaiting,
    /// Nobody can connect by the path of a socket that sockd has bound: its file is gone, or another one stands there. Sent
    /// at each look.
    PathLost {
        /// Whose path.
        socket: SocketId,
        /// Whether another file stands there.
        is_taken: bool,
    },
    /// Answers [`Effect::Rebind`](super::Effect) where that could be done.
    Rebound {
        /// Which one it was.
        from: SocketId,
        /// The new one in its place.
        to: SocketId,
    },
    /// Somebody was answered 503.
    VisitorTurnedAway,
    /// What [`Effect::StartFallback`](super::Effect) asked for could not be started, or has ended by itself.
    FallbackLost {
        /// Why, for people.
        why: String,
    },
    /// Answers [`Effect::Read`](super::Effect): the configuration was read, and the command resolved.
    Read {
        /// The generation.
        generation: GenerationId,
        /// What a reload checks before it loads the generation, or why that cannot be run.
        checks: Result<Checks, String>,
    },
    /// Answers [`Effect::Check`](super::Effect), once, unless the generation is released.
    Checked {
        /// The generation.
        generation: GenerationId,
        /// Whether the program has ended well, or what it said.
        verdict: Result<(), String>,
    },
    /// Follows [`Effect::Load`](super::Effect) where it may take another time than
    /// [`PREPARE_TIMEOUT`](super::PREPARE_TIMEOUT), before its answer.
    Preparing {
        /// The generation.
        generation: GenerationId,
        /// Since it was begun, at most.
        limit: Duration,
    },
    /// Answers [`Effect::Load`](super::Effect): workers of this generation can be spawned.
    Prepared {
        /// The generation.
        generation: GenerationId,
        /// What holds for it.
        spec: Spec,
    },
    /// Answers [`Effect::Read`](super::Effect) or [`Effect::Load`](super::Effect): configuration or template are broken.
    PrepareFailed {
        /// The generation.
        generation: GenerationId,
        /// Why, for people.
        why: String,
    },
    /// What `Load` had made is gone (the template died): it must be made again before the next spawn.
    PreparationLost {
        /// The generation.
        generation: GenerationId,
        /// Why, for people.
        why: String,
    },
    /// Answers [`Effect::Warm`](super::Effect): the copy has answered, and waits to be used.
    Warmed(GenerationId),
    /// Answers [`Effect::Warm`](super::Effect): there is no copy that can be used; or it has ended since.
    NotWarm {
        /// The generation.
        generation: GenerationId,
        /// Why, for people.
        why: String,
    },
    /// Something about one worker.
    Worker(WorkerId, WorkerEvent),
    /// Somebody wants a reload.
    ReloadRequested(RequestId),
    /// Somebody wants a reload to a release that served before: it is proven and refused like any other.
    RollbackRequested {
        /// Who is answered.
        request: RequestId,
        /// Which one.
        release: ReleaseId,
    },
    /// Somebody wants a reload that visitors try like this, whatever the specification says.
    TrialRequested {
        /// Who is answered.
        request: RequestId,
        /// How.
        trial: Trial,
    },
    /// Somebody wants the new generation to take every slot before the trial has ended. Answered, at once, by
    /// [`Effect::Answer`](super::Effect).
    PromoteRequested(RequestId),
    /// Somebody calls the reload off that is under way. Answered, at once, by [`Effect::Answer`](super::Effect).
    AbortRequested(RequestId),
    /// Somebody wants the workers to leave and none to start, for so long at most. Answered by
    /// [`Effect::Answer`](super::Effect) when the last worker has left, within that time.
    PauseRequested {
        /// Who is answered.
        request: RequestId,
        /// When it ends by itself, from here.
        most: Duration,
    },
    /// Somebody wants the pause to end. Answered by [`Effect::Answer`](super::Effect) once a worker serves, or none can.
    ResumeRequested(RequestId),
    /// Somebody wants visitors to be answered 503 in place of the workers, or wants that to end. Its begin is answered at
    /// once, its end as that of a pause.
    MaintenanceRequested {
        /// Who is answered.
        request: RequestId,
        /// Whether it begins.
        on: bool,
    },
    /// Answers [`Effect::MeasureQueue`](super::Effect), with the fullest queue; zeros where the kernel tells of none.
    QueueMeasured {
        /// How many connections wait.
        waiting: u32,
        /// How many may.
        limit: u32,
    },
    /// Answers [`Effect::CountAnswers`](super::Effect), at once: what has become of requests so far.
    AnswersCounted {
        /// The new generation.
        generation: GenerationId,
        /// Of its requests.
        new: Answered,
        /// Of those of the generation that serves.
        old: Answered,
    },
    /// Somebody wants another worker in the place of this one. Answered, at once, by [`Effect::Answer`](super::Effect).
    ReplacementRequested {
        /// Who is answered.
        request: RequestId,
        /// Who shall be replaced.
        worker: WorkerId,
    },
    /// Somebody wants one worker more, until the next reload.
    OneMoreWorker,
    /// Somebody wants one worker fewer, until the next reload.
    OneFewerWorker,
    /// The service is to stop.
    StopRequested,
    /// The service is to stop; where it stops already, it is to hurry, unless this may belong to that stop.
    Interrupted {
        /// Whether a person did it at a terminal. Otherwise one stop may be two signals: that of a unit's ExecStop=, and
        /// systemd's own after it (KillSignal=).
        at_terminal: bool,
    },
}

/// What became of the requests of one generation since its beginning, by its workers' word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// How many were answered.
    pub answers: u64,
    /// How many of them with a status from 500 to 599.
    pub server_errors: u64,
    /// The last of those, as far as it is known: its method and its path.
    pub last_failure: Option<String>,
    /// How many took no longer than each bound, and longer than the bound before it; the bounds are always the same, the
    /// shortest first.
    pub durations: Vec<(Duration, u64)>,
}

/// Something that happened to one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerEvent {
    /// Answers [`Effect::Spawn`](super::Effect): the process exists.
    Spawned,
    /// Answers [`Effect::Spawn`](super::Effect): there is no process and will be none.
    SpawnFailed {
        /// Why, for people.
        why: String,
    },
    /// The worker said READY=1.
    SaidReady,
    /// Answers [`Effect::Inspect`](super::Effect).
    Inspected {
        /// Whether the worker holds a socket it was given.
        holds: Holds,
        /// Whether it accepts what waits there.
        accepts: Accepts,
    },
    /// Answers [`Effect::Judge`](super::Effect).
    Judged {
        /// Whether the new code may serve, or why it may not.
        verdict: Result<(), String>,
        /// What was heard for it.
        answers: Answers,
    },
    /// Answers [`Effect::Probe`](super::Effect), whatever happens to the worker meanwhile.
    Probed(ProbeOutcome),
    /// The worker said WATCHDOG=1.
    Heartbeat,
    /// Answers [`Effect::ReadHeartbeat`](super::Effect).
    HeartbeatRead {
        /// The daemon's time of the last one. None: it shows none.
        last: Option<Time>,
    },
    /// How many requests the worker has finished since it was born; not every kind of worker counts them.
    Served {
        /// The number, which only grows.
        requests: u64,
    },
    /// The worker has served as many requests as it should and asks for a successor.
    WantsRetirement,
    /// How much memory the worker holds, in bytes.
    Measured {
        /// Its proportional set size, or its control group's.
        memory: u64,
    },
    /// The worker says itself that it is not well (WATCHDOG=trigger).
    FoundSick {
        /// How, for people.
        why: String,
    },
    /// The process ended and was reaped.
    Exited {
        /// The verdict, for people: `exit 3: worker failed to boot`, `killed by SIGKILL`.
        why: String,
    },
}

/// Whether a worker has one of our sockets among its descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It has.
    Yes,
    /// It has closed all of them.
    No,
    /// Its descriptors cannot be read.
    Unknown,
}

/// Whether a worker accepts connections from the public sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepts {
    /// It holds a connection that it has accepted.
    Yes,
    /// Connections wait, and it holds none.
    NotYet,
    /// Nobody waits in any of the queues.
    NobodyWaits,
    /// The kernel does not tell, or others serve whom connections may wait for.
    Unknown,
}
