//! A pause, as data.

use super::super::id::RequestId;
use super::super::snapshot::Paused;
use super::super::time::Time;

/// A pause under way.
#[derive(Clone, Debug)]
pub(in super::super) struct Pause {
    /// When it ends by itself.
    pub(in super::super) until: Time,
    /// Who asked for it, until the last worker has left.
    pub(super) request: Option<RequestId>,
    /// When the queue is looked at next. None: its answer is under way.
    pub(super) look_at: Option<Time>,
    /// Whether half of the queue is full.
    pub(super) is_crowded: bool,
}

impl Pause {
    /// When the core is to be called for it.
    pub(in super::super) fn deadline(&self) -> Time {
        self.look_at.map_or(self.until, |at| at.min(self.until))
    }

    /// Why visitors are answered 503, if they are.
    pub(in super::super) fn turns_away(&self) -> Option<String> {
        self.is_crowded.then(|| "the site is paused, and half of the queue is full".to_owned())
    }

    /// Who still waits for its beginning.
    pub(in super::super) fn into_request(self) -> Option<RequestId> {
        self.request
    }

    pub(in super::super) fn snapshot(&self, now: Time) -> Paused {
        Paused { left: self.until.since(now), is_empty: self.request.is_none() }
    }
}
