//! The recording of an instance, as it is said over the control socket and kept in a file: what was so at each second in which
//! something happened, and what happened.
//!
//! Owns: the shape of an entry. Spans are milliseconds and memory is bytes, unless a name says otherwise.
//! Never: reads or writes anything.

use serde::{Deserialize, Serialize};

/// What was recorded, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recording {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether it lives as long as this supervisor: there is no StateDirectory= to keep it in.
    pub in_memory: bool,
    /// What of it is lost, in one line.
    pub problem: Option<String>,
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// What was so.
    Sample(Box<Sample>),
    /// What happened.
    Event(Event),
}

impl Entry {
    /// When it was: milliseconds since 1970 (UTC).
    pub fn at_unix_ms(&self) -> u64 {
        match self {
            Self::Sample(sample) => sample.at_unix_ms,
            Self::Event(event) => event.at_unix_ms,
        }
    }
}

/// What was so in the time before a moment, and at that moment. A number that is `None` is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The moment: milliseconds since 1970 (UTC).
    pub at_unix_ms: u64,
    /// What is counted came in so long before it.
    pub span_ms: u64,
    /// The generation that served.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Requests that were finished; `None` where workers do not show them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<u64>,
    /// How many of them had an answer from 500 to 599.
    #[serde(skip_serializing_if = "is_zero")]
    pub server_errors: u64,
    /// How many of them had no answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub aborted: u64,
    /// Half of them took no longer, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub median_us: Option<u64>,
    /// 95 of 100 took no longer, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile_95_us: Option<u64>,
    /// Visitors that sockd itself answered 503.
    #[serde(skip_serializing_if = "is_zero")]
    pub turned_away: u64,
    /// Workers that were wanted.
    #[serde(skip_serializing_if = "is_zero")]
    pub wanted: u64,
    /// Workers that served.
    #[serde(skip_serializing_if = "is_zero")]
    pub ready: u64,
    /// Workers that had a request.
    #[serde(skip_serializing_if = "is_zero")]
    pub busy: u64,
    /// Requests that were being served.
    #[serde(skip_serializing_if = "is_zero")]
    pub in_flight: u64,
    /// Connections in the fullest queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// How many it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_limit: Option<u64>,
    /// Memory of the service; without a control group, of its workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// MemoryMax= of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// The worker that holds the most memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest: Option<Largest>,
    /// Processor time of the service; without a control group, of its workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// For how long CPUQuota= kept processes of the service from running.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_ms: u64,
    /// For how long some process of the service had to wait for a processor (PSI; without a control group, of the machine).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_stall_ms: Option<u64>,
    /// The same for a disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_stall_ms: Option<u64>,
    /// The same for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_stall_ms: Option<u64>,
    /// Processor time of all that runs on the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_cpu_ms: Option<u64>,
    /// Processor time that the hypervisor gave to others (steal).
    #[serde(skip_serializing_if = "is_zero")]
    pub steal_ms: u64,
    /// How many processors there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpus: u64,
    /// Requests that were served for half a second or longer, the oldest first, five at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slow: Vec<SlowRequest>,
    /// The last failure of each worker that failed, three at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// What is wrong with a listener, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}

/// A worker and its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Largest {
    /// Its id.
    pub worker: u64,
    /// What it holds.
    pub memory_bytes: u64,
    /// What it may: workers.memory-max.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// A request that took long, while it did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlowRequest {
    /// The worker that served it.
    pub worker: u64,
    /// Its method and its path without the query.
    pub request: String,
    /// For how long it was served by then.
    pub for_ms: u64,
    /// What the worker waited for, as the kernel tells it.
    pub waits_for: WaitsFor,
    /// The service on the other end, where it waited for one: `PostgreSQL (127.0.0.1:5432)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// What a process waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// For nothing: it runs, or could if a processor were free.
    Nothing,
    /// For an answer over a socket or a pipe.
    Answer,
    /// For a lock.
    Lock,
    /// For a disk.
    Disk,
    /// For a time to pass.
    Time,
    /// For SIGCONT: it is stopped.
    Continuation,
    /// It is not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// When: milliseconds since 1970 (UTC).
    pub at_unix_ms: u64,
    /// What.
    pub kind: EventKind,
    /// The worker that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u64>,
    /// The generation that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The same for people, in one line: what the log says of it.
    pub text: String,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// The supervisor started.
    Started,
    /// It was asked to stop.
    Stopping,
    /// It stood still: stopped, frozen, or the machine was.
    StoodStill,
    /// A worker that served ended unasked.
    WorkerDied,
    /// The kernel killed a worker, because memory ran out.
    OutOfMemory,
    /// A worker could not start.
    WorkerNotReady,
    /// A worker gave no sign of life.
    WorkerHangs,
    /// A worker failed its probes.
    WorkerUnhealthy,
    /// A worker was replaced because it held too much memory.
    WorkerTooBig,
    /// A worker did not leave in time and was killed.
    WorkerKilled,
    /// A generation could not be made ready.
    PreparationFailed,
    /// No worker can serve.
    Answering503,
    /// Workers serve again.
    ServingAgain,
    /// A reload began.
    ReloadBegun,
    /// New code took over.
    ReloadDone,
    /// New code was refused.
    ReloadRefused,
    /// Visitors wait in the queue, on purpose.
    Paused,
    /// They do no longer.
    PauseEnded,
    /// Visitors are answered 503, on purpose.
    MaintenanceBegun,
    /// They are no longer.
    MaintenanceEnded,
    /// Somebody wants another number of workers.
    PoolResized,
    /// A kind this program does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
