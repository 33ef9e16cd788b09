//! Back-off: how long to wait before a retry, which comes at once the first time, then later and later.

use super::random::Random;
use std::time::Duration;

/// The second attempt waits about this long.
const FIRST: Duration = Duration::from_millis(500);
/// No attempt waits longer than about this.
const CEILING: Duration = Duration::from_secs(30);
/// What has been well for this long, and for as long as its start took, starts with a clean sheet. It need not be long:
/// visitors are better served by workers that end now and then than by nobody, and one that serves longer than it
/// starts cannot keep the machine busy with starting.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After a failure of something that had been well for `healthy_for` after a start of `start`: the wait before the
    /// next attempt, zero for the first, then doubling from half a second to half a minute, each up to a quarter more
    /// or less.
    pub(super) fn after_failure(&mut self, start: Duration, healthy_for: Duration, random: &mut Random) -> Duration {
        if healthy_for >= HEALTHY_AFTER.max(start) {
            self.failures = 0;
        }
        let failures = self.failures;
        self.failures = failures.saturating_add(1);
        if failures == 0 {
            return Duration::ZERO;
        }
        let doubled = FIRST.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(CEILING).mul_f64(0.75 + random.fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_and_forgets_after_health() {
        let (mut backoff, mut random) = (Backoff::default(), Random::new(7));
        let start = 3 * HEALTHY_AFTER;
        assert_eq!(backoff.after_failure(start, Duration::ZERO, &mut random), Duration::ZERO);
        for expected in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let wait = backoff.after_failure(start, 2 * HEALTHY_AFTER, &mut random).as_secs_f64();
            assert!((expected * 0.75..=expected * 1.25).contains(&wait), "{wait} is not about {expected}");
        }
        assert_eq!(backoff.after_failure(start, start, &mut random), Duration::ZERO);
        assert!(backoff.after_failure(Duration::ZERO, HEALTHY_AFTER / 2, &mut random) > Duration::ZERO);
        assert_eq!(backoff.after_failure(Duration::ZERO, HEALTHY_AFTER, &mut random), Duration::ZERO);
    }
}
