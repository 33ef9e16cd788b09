//! The clock, without its standstills. While sockd stands still (SIGSTOP, a frozen control group, a machine that swaps or
//! was moved) nobody is heard, and perhaps nobody else runs either: no time may run out meanwhile. The core says when it
//! must be called; if it is called much later, all that passed since it last ran does not count, so every deadline moves by
//! that.
//!
//! It cannot know when within a wait the standstill began, and gives the whole wait back: at worst a worker that hangs is
//! found so much later. A standstill that ends before the core is due goes unseen; so the core asks to be called early enough while
//! anybody's time runs ([`Clock::look_before`], [`Clock::look_soon`]).

use super::time::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// A call later than this means that sockd stood still, and not that the machine is busy. Looks at the clock are at least so
/// far apart.
const STANDSTILL_THRESHOLD: Duration = Duration::from_millis(500);
/// After a standstill the time stands still for so long: what waits in sockets is read before anything is due.
const CATCH_UP: Duration = Duration::from_millis(500);
/// So many standstills are remembered one by one.
const MAX_STANDSTILLS: usize = 32;

#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// What did not count of the daemon's time.
    lost: Duration,
    /// The last time that counted.
    last: Time,
    /// The standstills, the oldest first.
    standstills: VecDeque<Standstill>,
}

#[derive(Clone, Debug)]
struct Standstill {
    /// Its end, in the daemon's time.
    end: Time,
    /// What had not counted before it.
    lost: Duration,
    /// The time that counted while it lasted.
    stood_at: Time,
}

impl Clock {
    pub(super) fn new(now: Time) -> Self {
        Self { lost: Duration::ZERO, last: now, standstills: VecDeque::new() }
    }

    /// What counts at this time of the daemon's. It never goes back.
    pub(super) fn read(&self, now: Time) -> Time {
        now.before(self.lost).max(self.last)
    }

    /// What counted at an earlier time of the daemon's. What was before the standstills that are remembered may come out
    /// late.
    pub(super) fn counted(&self, at: Time) -> Time {
        match self.standstills.iter().find(|standstill| at <= standstill.end) {
            Some(standstill) => at.before(standstill.lost).min(standstill.stood_at),
            None => {
                let stood_at = self.standstills.back().map_or(Time::default(), |standstill| standstill.stood_at);
                at.before(self.lost).max(stood_at)
            }
        }
    }

    /// The daemon's time for one that counts, as far as is known by now.
    pub(super) fn outside(&self, counted: Time) -> Time {
        counted + self.lost
    }

    /// Whether so much has passed since the last call that this one may be late.
    pub(super) fn is_behind(&self, now: Time) -> bool {
        self.read(now).since(self.last) > STANDSTILL_THRESHOLD
    }

    /// The daemon calls, and was to call at `due` of its time at the latest. Returns how late that is, if sockd stood still.
    pub(super) fn advance(&mut self, now: Time, due: Option<Time>) -> Option<Duration> {
        let counted = self.read(now);
        // What was due long before the last call was not waited for since.
        let waited_until = due.map(|due| due.max(self.outside(self.last)));
        let late = waited_until.map(|due| now.since(due)).filter(|late| *late > STANDSTILL_THRESHOLD);
        match late {
            Some(_) => {
                self.remember(Standstill { end: now, lost: self.lost, stood_at: self.last });
                self.lost += counted.since(self.last) + CATCH_UP;
            }
            None => self.last = counted,
        }
        late
    }

    fn remember(&mut self, standstill: Standstill) {
        self.standstills.push_back(standstill);
        if self.standstills.len() > MAX_STANDSTILLS
            && let Some(forgotten) = self.standstills.pop_front()
            && let Some(oldest) = self.standstills.front_mut()
        {
            oldest.lost = forgotten.lost;
        }
    }

    /// When to look whether sockd stands still while somebody's time runs until `limit`: a quarter of what is left is the
    /// most that a standstill may take from it unseen.
    pub(super) fn look_before(&self, limit: Time) -> Time {
        self.last + (limit.since(self.last) / 4).max(STANDSTILL_THRESHOLD)
    }

    /// The same while somebody has a time to answer that the core does not know.
    pub(super) fn look_soon(&self) -> Time {
        self.last + STANDSTILL_THRESHOLD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Time {
        Time::default() + Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_passes_while_sockd_stands_still_does_not_count() {
        let mut clock = Clock::new(at(1_000));
        assert_eq!(clock.advance(at(2_000), None), None, "nobody waits");
        // A busy machine is no standstill.
        assert_eq!(clock.advance(at(5_500), Some(at(5_000))), None);
        assert_eq!(clock.read(at(5_500)), at(5_500));
        // Nor is it one if that came between.
        assert_eq!(clock.advance(at(5_600), Some(at(5_000))), None);
        assert_eq!(clock.advance(at(66_000), Some(at(6_000))), Some(Duration::from_secs(60)));
        // What is due waits for what is left of it, and for what waits in sockets.
        assert_eq!(clock.outside(at(6_000)), at(66_000 + 500 + 400));
        assert_eq!(clock.read(at(66_400)), at(5_600), "it stands");
        assert_eq!(clock.advance(at(66_600), Some(at(66_900))), None);
        assert_eq!(clock.read(at(66_600)), at(5_700), "and goes on");
    }

    #[test]
    fn a_time_before_or_within_a_standstill_is_what_counted_then() {
        let mut clock = Clock::new(at(0));
        assert_eq!(clock.advance(at(10_000), None), None);
        assert_eq!(clock.advance(at(70_000), Some(at(11_000))), Some(Duration::from_secs(59)));
        assert_eq!(clock.advance(at(80_000), None), None);
        assert_eq!(clock.counted(at(9_000)), at(9_000), "nothing was lost then");
        assert_eq!(clock.counted(at(10_500)), at(10_000), "the whole wait is given back");
        assert_eq!(clock.counted(at(70_000)), at(10_000));
        assert_eq!(clock.counted(at(70_400)), at(10_000), "it still stands");
        assert_eq!(clock.counted(at(75_500)), at(15_000));
        assert_eq!(clock.counted(at(80_000)), clock.read(at(80_000)));
        // Standstills without end: no time comes out earlier than it was.
        for standstill in 2..100 {
            let _ = clock.advance(at(standstill * 80_000), Some(at(standstill * 80_000 - 70_000)));
        }
        assert_eq!(clock.standstills.len(), MAX_STANDSTILLS);
        assert!(clock.counted(at(9_000)) >= at(9_000));
        let times: Vec<Time> = (0..8_000_u64).map(|second| clock.counted(at(second * 1_000))).collect();
        assert!(times.is_sorted(), "it never goes back");
    }
}
