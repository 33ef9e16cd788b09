//! What is said over the control socket: requests, replies and the status document.
//!
//! Owns: the shape of every message, and its version. Both ends build from these types: the supervisor fills a
//! [`Status`], the command line shows it.
//! Never: reads or writes a socket, asks the time or the system.
//!
//! One message is one line of JSON. Readers ignore fields they do not know and give missing ones their empty value, so
//! that a new `sockd status` understands a supervisor started by an older package and the other way round. A change
//! that is more than a new field raises [`VERSION`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::{HistoryEntry, Origin};
use super::recording::Recording;
use super::requests::{Requests, WorkerRequests};

/// The version of the messages in this file: [`Status::version`].
pub const VERSION: u32 = 1;

/// No pause lasts longer: visitors, and the proxies before them, give up long before.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What a client asks: `{"command":"status"}`, `{"command":"reload","wait":true}`, `{"command":"replace","worker":3}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// Describe yourself: answered by one [`Reply::Status`].
    Status,
    /// Where do the threads of a worker stand? Answered by one [`Reply::Stacks`].
    Stacks {
        /// The worker's id.
        worker: u64,
    },
    /// What did a worker write last? Answered by one [`Reply::LastLines`].
    LastLines {
        /// The worker's id.
        worker: u64,
    },
    /// Begin a reload: answered by any number of [`Reply::Progress`] and one [`Reply::Outcome`].
    Reload {
        /// `true`: the outcome is that of the whole reload. `false`: it only says whether the reload has begun.
        #[serde(default)]
        wait: bool,
        /// What the client says of who asks.
        #[serde(default)]
        origin: Origin,
    },
    /// Begin a reload that visitors try on a few workers first: answered as [`Request::Reload`].
    Trial {
        /// As in [`Request::Reload`].
        #[serde(default)]
        wait: bool,
        /// What the client says of who asks.
        #[serde(default)]
        origin: Origin,
        /// How.
        #[serde(flatten)]
        trial: Trial,
    },
    /// Have the new generation that visitors try take every slot now: answered by one [`Reply::Outcome`].
    Promote,
    /// Call off the reload that is under way: answered by one [`Reply::Outcome`].
    Abort,
    /// Begin a reload back to the release that served before: answered as [`Request::Reload`].
    Rollback {
        /// As of [`Request::Reload`].
        #[serde(default)]
        wait: bool,
        /// What the client says of who asks.
        #[serde(default)]
        origin: Origin,
    },
    /// Have the workers finish their requests and leave, and none start until [`Request::Resume`]: answered by one
    /// [`Reply::Outcome`] when the last one has left.
    Pause {
        /// It ends by itself after so long, 1 ms to [`LONGEST_PAUSE`].
        max_ms: u64,
    },
    /// Have balancers hear that the instance takes no visitors, or that it does again: answered by one [`Reply::Outcome`].
    Drain {
        /// Whether it takes none.
        is_drained: bool,
    },
    /// End the pause: answered by one [`Reply::Outcome`] when a worker serves, or none can.
    Resume,
    /// Have visitors answered 503 until that is ended, or end it: answered by one [`Reply::Outcome`].
    Maintenance {
        /// Whether it begins.
        on: bool,
        /// What visitors read in place of the usual words.
        #[serde(default)]
        message: Option<String>,
        /// When they may come again, in seconds; `None`: as usual.
        #[serde(default)]
        retry_after_s: Option<u32>,
    },
    /// Which reloads and starts were there? Answered by one [`Reply::History`].
    History,
    /// What was so in the last minutes? Answered by one [`Reply::Recording`].
    Recording,
    /// Put another worker in the place of this one: answered by one [`Reply::Outcome`], whether this has begun.
    Replace {
        /// The worker's id: [`Worker::id`].
        worker: u64,
    },
}

/// How visitors try a new generation. What is missing is as the configuration of the generation that serves has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trial {
    /// On so many workers, 1 to 4096.
    pub workers: Option<u32>,
    /// On so many of a hundred, 1 to 100, in place of `workers`.
    pub percent: Option<u32>,
    /// So many requests decide, 1 to 1,000,000.
    pub requests: Option<u32>,
    /// How long it takes at most, up to a day.
    pub time_ms: Option<u64>,
}

/// One line of an answer: an object with one key, `{"status":{…}}`, `{"progress":{…}}`, `{"outcome":{…}}` or
/// `{"error":{…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The whole answer to [`Request::Status`].
    Status(Box<Status>),
    /// The whole answer to [`Request::Stacks`].
    Stacks(Stacks),
    /// The whole answer to [`Request::LastLines`]: the last lines of its stderr, oldest first, 50 at most; none where there
    /// is no such worker.
    LastLines(Vec<String>),
    /// The whole answer to [`Request::History`]: the oldest first.
    History(Vec<HistoryEntry>),
    /// The whole answer to [`Request::Recording`].
    Recording(Recording),
    /// A step of a reload; more lines follow.
    Progress(Progress),
    /// What came of the request; the last line.
    Outcome(Outcome),
    /// The request was not understood or is not allowed; the last line.
    Error(Refusal),
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which kind of refusal, for programs.
    pub kind: RefusalKind,
    /// One line for people.
    pub message: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// The client is neither root nor the user sockd runs as.
    NotPermitted,
    /// No valid request came, or it came too late or was too long.
    BadRequest,
    /// Too many clients at once, or the supervisor is stopping.
    Busy,
    /// It is allowed, and cannot be done: there is no such worker, for example.
    NotPossible,
    /// A kind this program does not know.
    #[serde(other)]
    Unknown,
}

/// Where the threads of a worker stood at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stacks {
    /// Each thread, 64 at most. Empty: the worker has ended.
    pub threads: Vec<ThreadStack>,
}

/// Where a thread stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadStack {
    /// Its number, as [`InFlight::thread`](super::requests::InFlight::thread) has it; `None` where it is not known.
    pub thread: Option<u64>,
    /// Its lines: the first one names it, the innermost call comes next. 41 at most.
    pub lines: Vec<String>,
}

/// A step of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// One line for people: `generation 5: worker 12 is ready`.
    pub message: String,
}

/// What came of a request: how a reload ended, or whether a worker is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the new generation serves, or the worker gets a successor. When `false`, nobody who served stopped.
    pub ok: bool,
    /// One line for people.
    pub message: String,
    /// More lines: the diagnostics of a configuration, the last lines of a traceback.
    #[serde(default)]
    pub details: Vec<String>,
    /// Whether it failed because the supervisor is stopping.
    #[serde(default)]
    pub stopping: bool,
}

/// A whole instance, as `sockd status` shows it.
///
/// Times of day are milliseconds since 1970 (UTC), spans are milliseconds, memory is bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// [`VERSION`] of the program that wrote it.
    pub version: u32,
    /// The supervisor's process id.
    pub pid: u32,
    /// The systemd unit the supervisor runs in, from its control group; `None` outside systemd.
    pub unit: Option<String>,
    /// When the supervisor started.
    pub started_unix_ms: u64,
    /// The state in one line. STATUS= puts the alarms of the listeners before it.
    pub status_line: String,
    /// The number of the generation that serves; 0 before the first.
    pub generation: u64,
    /// Whether it stops.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_stopping: bool,
    /// What balancers hear, and when they have asked.
    #[serde(skip_serializing_if = "Balancers::is_nothing")]
    pub balancers: Balancers,
    /// The pause under way.
    pub pause: Option<Pause>,
    /// The maintenance that is on.
    pub maintenance: Option<Maintenance>,
    /// Whether a reload is under way, and why the last one was refused.
    pub reload: Reload,
    /// The sockets, in the order they were received.
    pub listeners: Vec<Listener>,
    /// Every living worker, by id.
    pub workers: Vec<Worker>,
    /// The processes that have the application loaded and make the workers of it, where the application is preloaded.
    pub templates: Vec<Template>,
    /// Why workers have no control groups of their own; `None` where they have, and outside of a unit.
    pub groups_missing: Option<String>,
    /// Every slot, by number.
    pub slots: Vec<Slot>,
    /// How many workers are wanted at this moment; 0 while waiting for the first connection, during a pause and in
    /// maintenance.
    pub wanted_workers: u32,
    /// What became of the visitors' requests; `None` where no worker shows that.
    pub requests: Option<Requests>,
    /// Whether sockd itself answers 503 because no worker can.
    pub fallback: bool,
    /// What happened since the supervisor started; `None` where it does not count that.
    pub counts: Option<Counts>,
    /// What the supervisor itself costs.
    pub supervisor: Cost,
}

impl Status {
    /// Whether no visitor gets a page: sockd answers 503 itself, or there are sockets and none can be reached.
    pub fn serves_nobody(&self) -> bool {
        let unreachable = !self.listeners.is_empty() && self.listeners.iter().all(|listener| listener.alarm.is_some());
        self.fallback || unreachable
    }
}

/// Balancers that ask on the status socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balancers {
    /// Whether they hear that the instance takes no visitors, because somebody wants so.
    pub is_drained: bool,
    /// Whether one has asked since.
    pub have_heard: bool,
    /// How long ago one asked; `None` where none ever has.
    pub asked_ago_ms: Option<u64>,
}

impl Balancers {
    /// Whether there are none, as far as is known.
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// A pause: workers leave, none starts, and visitors wait in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pause {
    /// When it ends by itself, from here.
    pub left_ms: u64,
    /// Whether the last worker has left.
    pub is_empty: bool,
}

/// Maintenance: visitors are answered 503 until somebody ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Maintenance {
    /// When it began.
    pub since_unix_ms: u64,
    /// What visitors read in place of the usual words.
    pub message: Option<String>,
    /// When they may come again, in seconds.
    pub retry_after_s: u32,
}

/// Reloads: the one under way, the last refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// What is being done.
    pub state: ReloadState,
    /// The generation being brought up; `None` when idle.
    pub generation: Option<u64>,
    /// What visitors have made of it so far; `None` where they do not try it.
    pub tried: Option<Tried>,
    /// The last refused reload; `None` once a later one has succeeded.
    pub last_refused: Option<Refused>,
}

/// How far the trial of a new generation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tried {
    /// How many requests it has answered.
    pub answers: u64,
    /// How many decide.
    pub wanted: u64,
}

/// What a reload is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadState {
    /// No reload is under way.
    #[default]
    Idle,
    /// The configuration is being read.
    Reading,
    /// The operator's programs check the new generation.
    Checking,
    /// The canary is being proven.
    Canary,
    /// Visitors try the new generation on a few workers.
    Trying,
    /// Slot by slot, workers are being replaced.
    RollingOut,
    /// Something went wrong; the new workers are being taken away.
    Abandoning,
    /// A state this program does not know.
    #[serde(other)]
    Unknown,
}

/// A refused reload: the old generation went on serving.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// The generation that was not to be.
    pub generation: u64,
    /// Why, in one line.
    pub reason: String,
    /// When.
    pub at_unix_ms: u64,
    /// Whether the next worker of the serving generation would load what was refused: it lies on the disk, and the code
    /// that serves is in no template. A restart loads it in any case. `None`: it is not known.
    pub awaits_successors: Option<bool>,
}

/// A listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Its name: FileDescriptorName= of the socket unit.
    pub name: String,
    /// Its address: `unix:/run/gunicorn.sock`, `127.0.0.1:8000`.
    pub address: String,
    /// Connections in the queue, not yet accepted; `None` when the kernel does not tell (another network namespace).
    pub waiting: Option<u32>,
    /// How many connections the queue holds.
    pub backlog: Option<u32>,
    /// Connections accepted and not yet closed.
    pub in_flight: Option<u32>,
    /// Why the numbers are missing, in one line.
    pub error: Option<String>,
    /// What is wrong with its path and the command that fixes it, in one line; `None` when nothing is.
    pub alarm: Option<String>,
}

/// A living worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its id: counts from 1 and is never used again.
    pub id: u64,
    /// Its slot; `None` for a canary.
    pub slot: Option<u32>,
    /// Its process id; `None` before it is started.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// Its generation.
    pub generation: u64,
    /// How long ago it was started.
    pub age_ms: u64,
    /// How often its slot was restarted after a death.
    pub restarts: u64,
    /// What its control group is charged with (cgroups(7), memory.current), in bytes; without a group that accounts
    /// memory, the proportional set size of its process. `None` when neither can be read.
    pub memory_bytes: Option<u64>,
    /// The most that its control group was ever charged with, in bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The limit above which the kernel kills it, in bytes: `memory-max`; `None` without one of its own.
    pub memory_max_bytes: Option<u64>,
    /// For how long some process of its control group had to wait for memory (memory.pressure, `some`).
    pub memory_stall_ms: Option<u64>,
    /// Processor time, user and system, of all that ever ran in its control group; without a group, of its process.
    pub cpu_ms: Option<u64>,
    /// What came of it when it was last asked whether it is well; `None` when it was not.
    pub last_probe: Option<Probe>,
    /// Its requests, by its own word; `None` where it does not show them, or has not answered when it was asked.
    pub requests: Option<WorkerRequests>,
}

/// What happened since the supervisor started. No number ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// How many workers were started, canaries among them.
    pub worker_starts: u64,
    /// How many of them because the one before had died.
    pub worker_restarts: u64,
    /// How many workers ended, by the reason.
    pub worker_exits: WorkerExits,
    /// How many of them had to be killed, because they did not leave in time.
    pub worker_kills: u64,
    /// How many reloads ended.
    pub reloads: Reloads,
    /// How many visitors sockd itself has answered with 503.
    pub fallback_responses: u64,
}

/// How many workers ended, by the reason; each is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerExits {
    /// They were asked to, by a reload, a smaller pool or the end of the service.
    pub asked: u64,
    /// They were well and replaced for their age, their size or the number of requests they had served.
    pub retired: u64,
    /// They had failed their probes and were replaced.
    pub unhealthy: u64,
    /// They gave no sign of life and were aborted.
    pub hang: u64,
    /// The kernel killed them, because memory ran out.
    pub oom: u64,
    /// A signal that sockd had not sent killed them.
    pub signal: u64,
    /// They exited by themselves.
    pub exit: u64,
    /// They never got ready.
    pub start: u64,
}

/// How many reloads ended; one that several clients wait for is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloads {
    /// The new generation took over.
    pub ok: u64,
    /// The old one served on.
    pub refused: u64,
}

/// A process that has the application loaded and makes workers of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// Its generation.
    pub generation: u64,
    /// Its process id.
    pub pid: u32,
    /// The process that it has made beforehand and that becomes the next worker; `None` when there is none.
    pub spare_pid: Option<u32>,
    /// Whether a copy of it that has answered requests makes the workers.
    pub warm: bool,
    /// Why it does not, if one was made.
    pub not_warm: Option<String>,
    /// The proportional set size of all of them, in bytes. `None` when it cannot be read.
    pub memory_bytes: Option<u64>,
    /// Processor time, user and system, of all of them.
    pub cpu_ms: Option<u64>,
}

/// What came of asking a worker whether it is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// How long ago.
    pub ago_ms: u64,
    /// What it failed at; `None` when it is well.
    pub failure: Option<String>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// Started, not yet proven.
    #[default]
    Starting,
    /// Proven; it accepts connections.
    Ready,
    /// It finishes its requests and accepts no more.
    Draining,
    /// It was asked to end.
    Terminating,
    /// It was sent SIGKILL.
    Killing,
    /// A state this program does not know.
    #[serde(other)]
    Unknown,
}

/// A place in the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slot {
    /// Its number, counted from 0.
    pub slot: u32,
    /// The id of the worker that holds it.
    pub worker: Option<u64>,
    /// The id of the worker that is to replace it, until that one is proven.
    pub successor: Option<u64>,
    /// How often it was restarted after a death.
    pub restarts: u64,
    /// In back-off: the time until the next attempt.
    pub retry_in_ms: Option<u64>,
    /// How its last worker died; `None` when none did.
    pub last_death: Option<Death>,
}

/// The death of a worker that nobody asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Death {
    /// Why, in one line: `killed by SIGSEGV`, `exit code 3: the application could not be loaded`.
    pub reason: String,
    /// When.
    pub at_unix_ms: u64,
    /// How long it had lived.
    pub lived_ms: u64,
    /// The last lines it wrote to stderr, oldest first.
    pub last_lines: Vec<String>,
}

/// What a process costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Proportional set size in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time, user and system.
    pub cpu_ms: Option<u64>,
}
