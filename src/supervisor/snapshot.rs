//! What the core knows, for `sockd status` and the status line.

use super::id::{GenerationId, SlotId, SocketId, WorkerId};
use super::time::Time;
use super::warm::state::Warmth;
use super::worker::Phase;
use std::ops::Deref;
use std::time::Duration;

/// The state of the instance at one moment, without its workers and slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The generation that empty slots are filled from.
    pub generation: GenerationId,
    /// How many workers it wants, once known.
    pub wanted: Option<u32>,
    /// How many workers are ready and serve.
    pub ready: u32,
    /// How many workers there are, whatever they do.
    pub living: usize,
    /// Who will be the next worker, whichever generation makes it.
    pub next_worker: WorkerId,
    /// Whether sockd waits for the first connection.
    pub waiting: bool,
    /// Whether sockd is stopping.
    pub stopping: bool,
    /// Whether visitors get 503.
    pub fallback: bool,
    /// Why they do not get it although they should.
    pub fallback_failure: Option<String>,
    /// Why the last attempt to start failed, if no worker has been ready since.
    pub failing: Option<String>,
    /// The next attempt to start a worker or to prepare, if one is due.
    pub next_attempt_in: Option<Duration>,
    /// The pause under way.
    pub pause: Option<Paused>,
    /// Whether the site is in maintenance.
    pub maintenance: bool,
    /// How far its warm template is.
    pub warmth: Warmth,
    /// The rollout under way.
    pub rollout: Option<(GenerationId, RolloutStep)>,
    /// The last reload, if it was refused.
    pub refusal: Option<Refusal>,
    /// The socket that was bound again and that workers lack, because the reload that was to bring it was refused.
    pub unserved: Option<SocketId>,
}

impl Overview {
    /// Whether no worker may start to serve: nobody has come yet, it is paused, or in maintenance.
    pub fn holds_back(&self) -> bool {
        self.waiting || self.pause.is_some() || self.maintenance
    }
}

/// An overview with everybody in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The instance as a whole.
    pub overview: Overview,
    /// Everybody, oldest first.
    pub workers: Vec<WorkerSnapshot>,
    /// The pool.
    pub slots: Vec<SlotSnapshot>,
    /// How many workers were ever started because the one before had died, also in slots that are gone.
    pub restarts: u64,
}

/// A pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paused {
    /// When it ends by itself, from here.
    pub left: Duration,
    /// Whether the last worker has left.
    pub is_empty: bool,
}

/// How far a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStep {
    /// Reading the configuration, loading the server.
    Preparing,
    /// Programs check it before it is loaded.
    Checking,
    /// The canary is being asked.
    Proving,
    /// Visitors try it on a few workers.
    Trying {
        /// How many of their requests were answered.
        answers: u64,
        /// How many shall be.
        wanted: u64,
    },
    /// Slot by slot.
    Replacing,
    /// All are there; the old ones wait to see that they stay well.
    Soaking,
}

/// A reload that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The generation that would have served.
    pub generation: GenerationId,
    /// Why not.
    pub why: String,
    /// When it was decided.
    pub at: Time,
    /// Whether a new worker would load what was refused, because the serving code is not kept in memory.
    pub awaits_successors: bool,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSnapshot {
    /// Who.
    pub worker: WorkerId,
    /// Where; a canary has no slot.
    pub slot: Option<SlotId>,
    /// Of which generation.
    pub generation: GenerationId,
    /// In which state.
    pub phase: Phase,
    /// Since the decision to start it.
    pub age: Duration,
    /// Since it was proven, if it is ready.
    pub ready_for: Option<Duration>,
    /// What came of asking it, and how long ago; None while nobody has.
    pub last_probe: Option<(Duration, Result<(), String>)>,
    /// Whether a successor shall take its place, although it serves.
    pub wants_successor: bool,
    /// Whether one of its generation was seen to accept or to answer: its program takes the sockets that it is given.
    pub takes_its_sockets: bool,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSnapshot {
    /// Which.
    pub slot: SlotId,
    /// Who stands in it.
    pub current: Option<WorkerId>,
    /// Who comes next.
    pub successor: Option<WorkerId>,
    /// How many workers were started here because the one before had died.
    pub restarts: u32,
    /// Until the next attempt, if the slot backs off.
    pub retry_in: Option<Duration>,
}

impl Deref for Snapshot {
    type Target = Overview;

    fn deref(&self) -> &Overview {
        &self.overview
    }
}
