//! Samples for the flight recorder: what the parts know at one moment.

use super::EventLoop;
use crate::daemon::recorder::Look;
use crate::daemon::recorder::counted::Looked;
use std::time::Instant;

impl EventLoop {
    /// Takes a sample, unless one has just been taken.
    pub(super) fn record(&mut self) {
        if !self.observers.recorder.may_look(Instant::now()) {
            return;
        }
        let overview = self.overview();
        let (ended, workers) = self.children.workers.recorded();
        let listeners = self.listeners.listeners();
        let look = Look {
            generation: overview.generation.0.into(),
            wanted: if overview.holds_back() { 0 } else { overview.wanted.unwrap_or(0).into() },
            ready: overview.ready.into(),
            turned_away: self.counts.document(0).fallback_responses,
            alarm: self.listeners.alarm(&overview),
            listeners: listeners.iter().map(|listener| (listener.address.clone(), listener.inode)).collect(),
            waiting: self.listeners.fullest_queue().waiting,
            ended,
            workers,
        };
        self.observers.recorder.look(look, &self.outbox);
    }

    /// It was taken.
    pub(super) fn sampled(&mut self, looked: Option<Box<Looked>>) {
        let rollout = self.overview().rollout.is_some();
        self.observers.recorder.looked(looked, rollout, &self.outbox);
    }
}
