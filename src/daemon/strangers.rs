//! Exits of processes that nobody knew when they were reaped: a template may report a worker after its death.
//! Owns what is remembered of them, for a short while: the kernel gives a process number out again, and the end of its
//! former bearer must never be taken for that of a live worker. It acts on nothing and never asks the time.

use crate::process::Ended;
use rustix::process::Pid;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many are remembered, the youngest.
const MANY: usize = 256;
/// A template reports a worker as soon as it has forked it. Of one that takes longer, pidfd_open(2) says that it is gone.
const LONG: Duration = Duration::from_secs(10);

/// The unknown dead, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Strangers(VecDeque<(Instant, Ended)>);

impl Strangers {
    /// Remembers an end that was seen at `now`.
    pub(super) fn remember(&mut self, now: Instant, ended: Ended) {
        self.forget_the_old(now);
        if self.0.len() == MANY {
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
        while self.0.front().is_some_and(|(seen, _)| now.duration_since(*seen) > LONG) {
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
    fn an_end_is_told_once_and_the_youngest_first() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        strangers.remember(now, ended(7, 1));
        strangers.remember(now, ended(7, 2));
        strangers.remember(now, ended(8, 3));
        assert_eq!(strangers.take(now, pid(9)), None);
        assert_eq!(strangers.take(now, pid(7)), Some(ended(7, 2)));
        assert_eq!(strangers.take(now, pid(8)), Some(ended(8, 3)));
        assert_eq!(strangers.take(now, pid(8)), None);
    }

    #[test]
    fn an_old_end_says_nothing_of_a_new_process_with_its_number() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        strangers.remember(now, ended(7, 1));
        let later = now + LONG + Duration::from_millis(1);
        strangers.remember(now + LONG, ended(8, 2));
        assert_eq!(strangers.take(later, pid(7)), None);
        assert_eq!(strangers.take(later, pid(8)), Some(ended(8, 2)));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        let many = i32::try_from(MANY).unwrap();
        (1..=many + 1).for_each(|number| strangers.remember(now, ended(number, 0)));
        assert_eq!(strangers.take(now, pid(1)), None);
        assert_eq!(strangers.take(now, pid(2)), Some(ended(2, 0)));
        assert_eq!(strangers.take(now, pid(many + 1)), Some(ended(many + 1, 0)));
    }
}
