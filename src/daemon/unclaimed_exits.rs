//! Exits of unknown processes, remembered in spite of pid reuse: a template may report a worker after its death.
//! Owns what is remembered of them, for a short while: the kernel gives a process number out again, and the end of its
//! former bearer must never be taken for that of a live worker. It acts on nothing and never asks the time.

use crate::process::Ended;
use rustix::process::Pid;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many are remembered, the youngest.
const MAX_EXITS: usize = 256;
/// A template reports a worker as soon as it has forked it. Of one that takes longer, pidfd_open(2) says that it is gone.
const MAX_AGE: Duration = Duration::from_secs(10);

/// The unknown dead, the oldest first.
#[derive(Debug, Default)]
pub(super) struct UnclaimedExits(VecDeque<(Instant, Ended)>);

impl UnclaimedExits {
    /// Remembers an end that was seen at `now`.
    pub(super) fn remember(&mut self, now: Instant, ended: Ended) {
        self.forget_the_old(now);
        if self.0.len() == MAX_EXITS {
            self.0.pop_front();
        }
        self.0.push_back((now, ended));
    }

    /// Takes out the end of `pid`, if one was seen lately: the youngest, for it may have ended more than once.
    pub(super) fn take(&mut self, now: Instant, pid: Pid) -> Option<Ended> {
        self.forget_the_old(now);
        let index = self.0.iter().rposition(|(_, ended)| ended.pid == pid)?;
        self.0.remove(index).map(|(_, ended)| ended)
    }

    fn forget_the_old(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(seen, _)| now.duration_since(*seen) > MAX_AGE) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::End;

    fn ended(pid: i32, code: i32) -> Ended {
        Ended { pid: Pid::from_raw(pid).unwrap(), end: End::Code(code) }
    }

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn an_end_is_claimed_once_and_the_youngest_first() {
        let (mut unclaimed_exits, now) = (UnclaimedExits::default(), Instant::now());
        unclaimed_exits.remember(now, ended(7, 1));
        unclaimed_exits.remember(now, ended(7, 2));
        unclaimed_exits.remember(now, ended(8, 3));
        assert_eq!(unclaimed_exits.take(now, pid(9)), None);
        assert_eq!(unclaimed_exits.take(now, pid(7)), Some(ended(7, 2)));
        assert_eq!(unclaimed_exits.take(now, pid(8)), Some(ended(8, 3)));
        assert_eq!(unclaimed_exits.take(now, pid(8)), None);
    }

    #[test]
    fn an_old_end_says_nothing_of_a_new_process_with_its_number() {
        let (mut unclaimed_exits, now) = (UnclaimedExits::default(), Instant::now());
        unclaimed_exits.remember(now, ended(7, 1));
        let later = now + MAX_AGE + Duration::from_millis(1);
        unclaimed_exits.remember(now + MAX_AGE, ended(8, 2));
        assert_eq!(unclaimed_exits.take(later, pid(7)), None);
        assert_eq!(unclaimed_exits.take(later, pid(8)), Some(ended(8, 2)));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (mut unclaimed_exits, now) = (UnclaimedExits::default(), Instant::now());
        let many = i32::try_from(MAX_EXITS).unwrap();
        (1..=many + 1).for_each(|number| unclaimed_exits.remember(now, ended(number, 0)));
        assert_eq!(unclaimed_exits.take(now, pid(1)), None);
        assert_eq!(unclaimed_exits.take(now, pid(2)), Some(ended(2, 0)));
        assert_eq!(unclaimed_exits.take(now, pid(many + 1)), Some(ended(many + 1, 0)));
    }
}
