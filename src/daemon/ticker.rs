//! A timer of seconds that costs one wake-up at each of its ticks.
//!
//! tokio's own wakes the thread up to three times for a timer of seconds: it is sorted into finer and finer wheels
//! (measured: 16 wake-ups in 20 s for one tick every 5 s). The kernel's timerfd_create(2) wakes it once.
//!
//! Owns: the descriptor. Never: ticks while it is stopped.

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(super) struct Ticker {
    timer: AsyncFd<OwnedFd>,
    period: Timespec,
    running: bool,
}

impl Ticker {
    /// A stopped one. Must be called within a tokio runtime.
    #[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, OwnedFd ensures")]
    pub(super) fn new(period: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = Timespec::try_from(period).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, period, running: false })
    }

    /// Starts or stops it; the first tick comes a period after the start. One that runs already goes on.
    pub(super) fn run(&mut self, run: bool) {
        if run == self.running {
            return;
        }
        let value = if run { self.period } else { Timespec::default() };
        let set = rustix::time::timerfd_settime(
            self.timer.get_ref(),
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: value, it_value: value },
        );
        // It can be set unless its times make no sense, which these do.
        self.running = run && set.is_ok();
    }

    /// Waits for the next tick. Cancel-safe.
    pub(super) async fn tick(&self) {
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            if matches!(read, Ok(Ok(_))) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ticks_while_it_runs() {
        let mut ticker = Ticker::new(Duration::from_millis(1)).expect("a timer");
        for _ in 0..2 {
            ticker.run(true);
            ticker.tick().await;
            ticker.tick().await;
            ticker.run(false);
        }
    }

    #[tokio::test]
    async fn a_tick_that_nobody_waited_for_is_gone_once_it_is_stopped() {
        let mut ticker = Ticker::new(Duration::from_millis(1)).expect("a timer");
        ticker.run(true);
        ticker.timer.readable().await.expect("readable").retain_ready();
        ticker.run(false);
        let read = rustix::io::read(ticker.timer.get_ref(), &mut [0; 8]);
        assert_eq!(read, Err(rustix::io::Errno::AGAIN));
    }
}
