//! A rate limit for log lines that somebody else can bring about, as journald has one for a service (RateLimitBurst= and
//! RateLimitIntervalSec= in journald.conf(5)): a few are written, then how many there were.
//!
//! Owns: the count. It writes nothing and never asks the time.

use std::time::{Duration, Instant};

/// So many lines are written in each interval.
const BURST: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(30);

/// The lines of one kind, about one worker or signal.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    /// When the interval began.
    since: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether one more line may be written. If not, it is counted.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if self.suppressed == 0 && self.since.is_none_or(|since| now.duration_since(since) >= INTERVAL) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written < BURST {
            self.written += 1;
            return true;
        }
        self.suppressed += 1;
        false
    }

    /// How many lines were not written, once the interval is over, or at the end. They are forgotten then.
    pub(super) fn suppressed(&mut self, now: Instant, end: bool) -> Option<u64> {
        let over = self.since.is_some_and(|since| now.duration_since(since) >= INTERVAL);
        if self.suppressed == 0 || !over && !end {
            return None;
        }
        (self.since, self.written) = (Some(now), 0);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_written_and_the_others_counted_once() {
        let (mut limit, begin) = (LogLimit::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| limit.allows(begin)).count(), 5);
        assert_eq!(limit.suppressed(begin, false), None, "the interval is not over");
        let later = begin + INTERVAL;
        assert!(!limit.allows(later), "the count comes first");
        assert_eq!(limit.suppressed(later, false), Some(996));
        assert_eq!(limit.suppressed(later, false), None);
        assert!(limit.allows(later));
        assert_eq!((0..10).filter(|_| limit.allows(later)).count(), 4);
        assert_eq!(limit.suppressed(later, true), Some(6), "nothing is kept at the end");
    }

    #[test]
    fn what_happens_now_and_then_is_always_written() {
        let (mut limit, begin) = (LogLimit::default(), Instant::now());
        for minute in 0..10 {
            assert!(limit.allows(begin + Duration::from_secs(60 * minute)));
        }
        assert_eq!(limit.suppressed(begin + Duration::from_secs(600), true), None);
    }
}
