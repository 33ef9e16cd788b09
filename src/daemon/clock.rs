//! The clock of an instance: the core's time, which begins with it, and the time of day.

use crate::supervisor::Time;
use std::time::{Duration, Instant, SystemTime};

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Instant,
    began_at: SystemTime,
}

impl Clock {
    /// One that begins now.
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), began_at: SystemTime::now() }
    }

    /// Time as the core sees it.
    pub(super) fn now(&self) -> Time {
        Time::default() + self.began.elapsed()
    }

    /// So long ago, or the beginning.
    pub(super) fn before_now(&self, ago: Duration) -> Time {
        Time::default() + self.began.elapsed().saturating_sub(ago)
    }

    /// A moment of the core's, for timers.
    pub(super) fn instant(&self, at: Time) -> Instant {
        self.began + at.since(Time::default())
    }

    /// The time of day at a moment of the core's.
    pub(super) fn wall_clock(&self, at: Time) -> SystemTime {
        self.began_at + at.since(Time::default())
    }
}
