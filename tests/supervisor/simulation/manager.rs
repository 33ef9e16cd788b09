//! The service manager of the simulated world: what it hears of the service, and how long it waits.

use super::{World, ms};
use sockd_supervisor::{Announcement, Start, Time};
use std::time::Duration;

/// How long it waits for what it was not asked to wait longer for.
const PATIENCE: Duration = ms(1_000);

/// What the service manager knows.
#[derive(Debug)]
pub(super) struct Manager {
    start: Start,
    /// The service has said READY=1.
    ready: bool,
    pub(super) reloading: bool,
    pub(super) stopping: bool,
    /// Until when it waits, if it waits for anything.
    pub(super) waits_until: Option<Time>,
}

impl Manager {
    pub(super) fn new(now: Time, start: Start) -> Self {
        let waits_until = (start == Start::AtOnce).then(|| now + PATIENCE);
        Self { start, ready: false, reloading: false, stopping: false, waits_until }
    }

    /// sockd stood still until now; the manager's time has gone on, and it hears of us before it acts.
    pub(super) fn hears_after_standstill(&mut self, now: Time) {
        self.waits_until = self.waits_until.map(|at| at.max(now + PATIENCE));
    }
}

impl World {
    pub(super) fn announced(&mut self, announcement: Announcement) {
        let patience = Some(self.now + PATIENCE);
        match announcement {
            Announcement::Ready => {
                assert!(self.can_do_its_job(), "READY=1 too early\n{}", self.story());
                let again = std::mem::replace(&mut self.manager.ready, true);
                assert!(!again, "READY=1 twice\n{}", self.story());
                self.manager.waits_until = self.manager.waits_until.filter(|_| self.manager.reloading);
            }
            Announcement::ExtendTimeout(by) => {
                let until = self.manager.waits_until;
                assert!(until.is_some(), "asked to wait longer, it waits for nothing\n{}", self.story());
                self.manager.waits_until = until.max(Some(self.now + by));
            }
            Announcement::Reloading => {
                let twice = std::mem::replace(&mut self.manager.reloading, true);
                assert!(!self.manager.stopping && !twice, "two reloads at once");
                self.manager.waits_until = self.manager.waits_until.max(patience);
            }
            Announcement::ReloadEnded => {
                assert!(std::mem::take(&mut self.manager.reloading), "a reload ended unbegun");
                self.manager.waits_until = None;
            }
            Announcement::Stopping => {
                (self.manager.stopping, self.manager.reloading) = (true, false);
                self.manager.waits_until = patience;
            }
        }
    }

    /// Whether a service that starts has reached what it was started for: it waits for the first connection, or visitors
    /// get an answer, or somebody holds the workers back.
    fn can_do_its_job(&self) -> bool {
        let now = self.core.overview(self.now);
        self.manager.start == Start::OnConnection || now.ready > 0 || now.fallback || now.holds_back()
    }

    /// READY=1 is said as soon as it may be.
    pub(super) fn check_ready(&self) {
        let late = self.can_do_its_job() && !self.manager.ready && !self.manager.stopping;
        assert!(!late, "READY=1 is not said\n{}", self.story());
    }

    /// Whether the service manager hears that it need not wait any more before its time is over.
    pub(super) fn check_manager_waits(&self) {
        let waits = self.manager.waits_until.is_none_or(|until| self.now <= until);
        assert!(waits, "the service manager was not asked to wait so long\n{}", self.story());
    }
}
