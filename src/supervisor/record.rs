//! Records of the history: how a reload ended, and how an instance started, with what proved the new code.
//!
//! The daemon adds what the core does not know: who asked, the time of day, the directory of the release.

use super::id::{GenerationId, ReleaseId, RequestId};
use std::time::Duration;

/// Where a generation is read from, however often it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The directory that the configuration names at that time.
    #[default]
    Configured,
    /// A release that served before.
    Release(ReleaseId),
}

/// One entry of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The generation that serves, that was refused, or whose reload was cut short.
    pub generation: GenerationId,
    /// Who asked for it; empty for a start.
    pub requests: Vec<RequestId>,
    /// What it was read from.
    pub source: Source,
    /// How it ended.
    pub result: RecordResult,
    /// What had shown by then that its code works.
    pub proof: Proof,
    /// From its begin to its end.
    pub took: Duration,
}

/// How a reload or a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordResult {
    /// The instance has started: all workers that are wanted are ready.
    Started,
    /// It could not start yet, and visitors are answered 503.
    NotStarted {
        /// Why, for people.
        why: String,
    },
    /// A reload: the new generation serves.
    Serving,
    /// A reload: the new generation is proven and waits for the first connection.
    Waiting,
    /// A reload was refused before a worker of it was ready for visitors.
    Refused {
        /// Why, for people.
        why: String,
    },
    /// A reload was refused when workers of it were ready for visitors already: they were taken back.
    TakenBack {
        /// Why, for people.
        why: String,
    },
    /// A reload had not ended when the service was stopped: it was neither refused nor proven.
    CutShort,
}

/// What has shown that the code of a generation works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// So many programs of the operator's checked it, and ended well.
    pub checks: u32,
    /// A canary answered, without the public sockets.
    pub canary: bool,
    /// Visitors tried it, with so many answers.
    pub tried: u64,
    /// So many workers with the public sockets were ready.
    pub workers: u32,
    /// All of them were watched for so long.
    pub soak: Duration,
}

/// What of the start is recorded already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StartRecord {
    pub(super) failed: bool,
    pub(super) done: bool,
}
