//! What the core wants done.

use super::id::{GenerationId, RequestId, SlotId, WorkerId};
use super::notice::Notice;
use std::time::Duration;

/// One thing the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the configuration, resolve the command, boot a template. Answered by `Prepared` or `PrepareFailed`.
    Prepare(GenerationId),
    /// Drop all that `Prepare` made or is making; nothing is heard of it afterwards. Spawns that were asked of it and
    /// not yet answered are answered by `SpawnFailed`.
    Release(GenerationId),
    /// The service ends and no worker is left: what `Prepare` made may do its own last work. Answered by
    /// `PreparationLost`.
    Conclude(GenerationId),
    /// Make a process. Answered by `Spawned` or `SpawnFailed`.
    Spawn {
        /// Who it will be.
        worker: WorkerId,
        /// Of which generation.
        generation: GenerationId,
        /// What it may hold.
        role: Role,
    },
    /// Find out whether the worker holds one of our sockets and accepts from it. Answered by `Inspected`.
    Inspect(WorkerId),
    /// Ask the worker, on its private socket, and compare with `reference`, a worker that serves, where the answer does
    /// not speak for itself. Answered by `Judged`.
    Judge {
        /// Who is asked.
        worker: WorkerId,
        /// Who shows what is normal.
        reference: Option<WorkerId>,
        /// How long it is asked at most, again where it closes the connection. None: it has been ready, so that one
        /// question that takes no longer than any other must do.
        patience: Option<Duration>,
    },
    /// Ask a ready worker whether it is well. Answered, once, by `Probed`; a worker is never asked twice at a time.
    Probe {
        /// Who is asked.
        worker: WorkerId,
        /// Whether it failed when it was last asked: then it must be asked in earnest.
        doubted: bool,
    },
    /// Send a signal. The process exists.
    Signal(WorkerId, Signal),
    /// Wait for a connection without accepting it. Answered, once, by `ConnectionWaiting`.
    WatchListeners,
    /// Answer visitors with 503 from here on; each answer is reported as `VisitorTurnedAway`.
    StartFallback,
    /// Stop answering.
    StopFallback,
    /// Tell the service manager.
    Announce(Announcement),
    /// Answer a request to reload.
    Answer(RequestId, Outcome),
    /// Write it to the log.
    Notice(Notice),
    /// Everything has ended: leave.
    Exit,
}

/// What a worker may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The public sockets.
    Serving,
    /// Only a private probe socket.
    Canary,
}

/// A signal by its purpose; the adapter knows the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// You are replaced: stop accepting, finish what is in flight, long-lived connections included, and leave.
    Drain,
    /// The service ends: stop accepting, finish the requests in flight, leave.
    Stop,
    /// Leave: you have not served yet.
    Terminate,
    /// Write your stack and leave.
    Abort,
    /// The end, for the worker and all its descendants.
    Kill,
}

/// What the service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The service can do its job. Sent once.
    Ready,
    /// A reload began. `ReloadEnded` or `Stopping` follows.
    Reloading,
    /// The reload ended, one way or the other.
    ReloadEnded,
    /// The service is about to end.
    Stopping,
    /// What goes on may take this long from here.
    ExtendTimeout(Duration),
}

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every slot runs this generation.
    Serving(GenerationId),
    /// The new generation is proven and waits, like the old one did, for the first connection.
    Waiting(GenerationId),
    /// The old one serves on.
    Refused {
        /// The generation that goes.
        generation: GenerationId,
        /// Why, for people.
        why: String,
        /// The worker that failed, if it was one: its last lines tell more.
        worker: Option<WorkerId>,
    },
    /// The service stops.
    Stopping,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the core has decided; somebody must act"]
pub struct Effects(Vec<Effect>);

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.push(Effect::Notice(notice));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks at them without acting.
    pub fn iter(&self) -> std::slice::Iter<'_, Effect> {
        self.0.iter()
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Effects {
    type Item = &'a Effect;
    type IntoIter = std::slice::Iter<'a, Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Where a worker belongs, as notices and snapshots say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The process.
    pub worker: WorkerId,
    /// Its slot; a canary has none, unless it proves what a dead worker's successor is made from.
    pub slot: Option<SlotId>,
    /// Its generation.
    pub generation: GenerationId,
}
