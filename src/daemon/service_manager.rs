//! The service manager: READY, RELOADING, STOPPING, STATUS= and WATCHDOG, as systemd wants them (sd_notify(3)).
//!
//! Owns: the notification socket, the reload that was announced and is not over, and the watchdog's timer. Never: decides
//! when what is announced.

use super::timerfd::Timerfd;
use crate::supervisor::Announcement;
use crate::systemd::{Notifier, ReloadGuard, environment};
use std::io;

#[derive(Debug)]
pub(super) struct ServiceManager {
    notifier: Notifier,
    reload_guard: Option<ReloadGuard>,
    /// When it is to hear that the loop turns.
    pub(super) watchdog: Timerfd,
}

impl ServiceManager {
    /// Must be called within a tokio runtime.
    pub(super) fn from_environment() -> io::Result<Self> {
        Ok(Self { notifier: Notifier::from_environment(), reload_guard: None, watchdog: Timerfd::new()? })
    }

    /// Tells it from here on that the loop turns, if it wants to know.
    pub(super) fn begin(&mut self) {
        let period = environment::watchdog_period();
        if period.is_some() {
            self.feed_watchdog();
        }
        self.watchdog.every(period);
    }

    /// Tells it that the loop turns.
    pub(super) fn feed_watchdog(&self) {
        self.notifier.watchdog();
    }

    /// Effect::Announce, with the state in one line.
    pub(super) fn announce(&mut self, announcement: Announcement, status_line: &str) {
        match announcement {
            Announcement::Ready => self.notifier.ready(status_line),
            Announcement::Reloading => self.reload_guard = Some(self.notifier.reloading(status_line)),
            Announcement::ReloadEnded => {
                if let Some(guard) = self.reload_guard.take() {
                    guard.finish(status_line);
                }
            }
            Announcement::Stopping => self.notifier.stopping(status_line),
            Announcement::ExtendTimeout(time) => self.notifier.extend_timeout(time),
        }
    }

    /// Shows it the state in one line.
    pub(super) fn show(&self, status_line: &str) {
        self.notifier.status(status_line);
    }

    /// Whether something waits for it to read.
    pub(super) fn is_waiting(&self) -> bool {
        self.notifier.is_waiting()
    }

    /// Sends what waits, as far as it reads.
    pub(super) fn flush(&self) {
        self.notifier.flush();
    }
}
