//! A timer that costs one wake-up at each of its ticks: of the core's deadline, of the watchdog, of the looks at listeners.
//!
//! tokio's own wakes the thread up to three times for a timer of seconds: it is sorted into finer and finer wheels
//! (measured: 16 wake-ups in 20 s for one tick every 5 s). The kernel's timerfd_create(2) wakes it once.
//!
//! Owns: the descriptor. Never: ticks while it is stopped.

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(super) struct Timerfd {
    timer: AsyncFd<OwnedFd>,
    setting: Setting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Stopped,
    Every(Duration),
    At(Instant),
}

impl Timerfd {
    /// A stopped one. Must be called within a tokio runtime.
    #[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, OwnedFd ensures")]
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, setting: Setting::Stopped })
    }

    /// Ticks at this period from here on, or (None) never. One that does already goes on.
    pub(super) fn every(&mut self, period: Option<Duration>) {
        self.set(period.map_or(Setting::Stopped, Setting::Every));
    }

    /// Waits for the next tick. Cancel-safe.
    pub(super) async fn tick(&mut self) {
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0; 8])?));
            if matches!(read, Ok(Ok(_))) {
                if matches!(self.setting, Setting::At(_)) {
                    self.setting = Setting::Stopped;
                }
                return;
            }
        }
    }

    /// Waits for that moment, which may be over, or (None) for ever. Cancel-safe.
    pub(super) async fn until(&mut self, at: Option<Instant>) {
        if at.is_some_and(|at| at <= Instant::now()) {
            return;
        }
        self.set(at.map_or(Setting::Stopped, Setting::At));
        self.tick().await;
    }

    fn set(&mut self, setting: Setting) {
        if setting == self.setting {
            return;
        }
        let (first, period) = match setting {
            Setting::Stopped => (Duration::ZERO, Duration::ZERO),
            Setting::Every(period) => (period, period),
            // Zero would stop it.
            Setting::At(at) => {
                (at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)), Duration::ZERO)
            }
        };
        let timespec = |duration| Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let value = Itimerspec { it_interval: timespec(period), it_value: timespec(first) };
        let set = rustix::time::timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &value);
        // It can be set unless its times make no sense, which these do.
        self.setting = if set.is_ok() { setting } else { Setting::Stopped };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Option<Duration> = Some(Duration::from_millis(1));

    #[tokio::test]
    async fn it_ticks_while_it_runs() {
        let mut ticker = Timerfd::new().expect("a timer");
        for _ in 0..2 {
            ticker.every(PERIOD);
            ticker.tick().await;
            ticker.tick().await;
            ticker.every(None);
        }
    }

    #[tokio::test]
    async fn a_tick_that_nobody_waited_for_is_gone_once_it_is_stopped() {
        let mut ticker = Timerfd::new().expect("a timer");
        ticker.every(PERIOD);
        ticker.timer.readable().await.expect("readable").retain_ready();
        ticker.every(None);
        let read = rustix::io::read(ticker.timer.get_ref(), &mut [0; 8]);
        assert_eq!(read, Err(rustix::io::Errno::AGAIN));
    }

    #[tokio::test]
    async fn a_moment_is_waited_for_once_and_again_when_it_is_asked_for_again() {
        let mut timer = Timerfd::new().expect("a timer");
        let begun = Instant::now();
        let after = |milliseconds| Some(begun + Duration::from_millis(milliseconds));
        timer.until(after(20)).await;
        assert!(begun.elapsed() >= Duration::from_millis(20));
        // The same moment, which is over, and one that another one takes the place of.
        timer.until(after(20)).await;
        tokio::select! {
            biased;
            () = timer.until(after(60_000)) => panic!("a minute is not over"),
            () = std::future::ready(()) => {}
        }
        timer.until(after(40)).await;
        assert!(begun.elapsed() >= Duration::from_millis(40));
    }
}
