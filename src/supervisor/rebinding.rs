//! A listener of ours whose path was lost: whether it is bound again, and the reload that brings the new socket to the
//! workers.
//!
//! ```text
//!   PathLost -> Rebind -> Rebound -> RequestReload -> a generation that was loaded with it serves
//!           \                            ^  |
//!            LeaveUnbound                +--+ refused: an alarm, and again a minute later
//! ```
//!
//! Some servers remove the socket's file whenever they end. With one of those this would go on for ever: it is done three
//! times within ten minutes.

use super::effect::{Effect, Effects};
use super::id::{GenerationId, SocketId};
use super::notice::Notice;
use super::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two attempts to bind where the same stands at the path, and between two reloads that bring the workers a new
/// socket.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// So often within ten minutes sockets are bound again.
pub const MAX_REBINDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(600);

/// What is known of lost paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Rebinding {
    /// When sockets were bound again, within [`WINDOW`].
    rebound_at: Vec<Time>,
    /// The last attempt at each socket, and whether another file stood at its path.
    attempts: BTreeMap<SocketId, (Time, bool)>,
    /// The socket that was bound again last, until every worker has it.
    missing: Option<Missing>,
}

/// A socket that workers lack.
#[derive(Clone, Copy, Debug)]
struct Missing {
    socket: SocketId,
    /// The first generation that is loaded with it.
    since: GenerationId,
    /// When a reload was asked for.
    asked_at: Option<Time>,
    /// Whether one that would have brought it was refused.
    is_refused: bool,
}

impl Rebinding {
    /// The socket that workers lack because a reload was refused.
    pub(super) fn unserved(&self) -> Option<SocketId> {
        self.missing.filter(|missing| missing.is_refused).map(|missing| missing.socket)
    }

    /// A reload to this generation was refused.
    pub(super) fn refused(&mut self, generation: GenerationId, effects: &mut Effects) {
        if let Some(missing) = self.missing.as_mut().filter(|missing| missing.since <= generation)
            && !std::mem::replace(&mut missing.is_refused, true)
        {
            effects.notice(Notice::SocketUnserved(missing.socket));
        }
    }

    /// Nobody can connect by the path of this socket, which we have bound. `is_taken`: another file stands there.
    pub(super) fn path_lost(&mut self, now: Time, socket: SocketId, is_taken: bool, effects: &mut Effects) {
        // To find out who listens there takes a connection, which that one must deal with.
        let last = self.attempts.get(&socket);
        if last.is_some_and(|(at, was_taken)| *was_taken == is_taken && now.since(*at) < RETRY_INTERVAL) {
            return;
        }
        self.attempts.insert(socket, (now, is_taken));
        self.rebound_at.retain(|at| now.since(*at) < WINDOW);
        let may_rebind = self.rebound_at.len() < MAX_REBINDS;
        effects.push(if may_rebind { Effect::Rebind(socket) } else { Effect::LeaveUnbound(socket) });
    }

    /// A socket was bound again, and is another one. `since`: the next generation.
    pub(super) fn rebound(&mut self, now: Time, from: SocketId, to: SocketId, since: GenerationId) {
        self.attempts.remove(&from);
        self.rebound_at.push(now);
        self.missing = Some(Missing { socket: to, since, asked_at: None, is_refused: false });
    }

    /// When a reload is to be asked for again.
    pub(super) fn retry_at(&self) -> Option<Time> {
        self.missing.and_then(|missing| missing.asked_at).map(|at| at + RETRY_INTERVAL)
    }

    /// Has a reload bring the socket to the workers, as long as some serve that lack it. `may_reload`: workers serve, and none
    /// are being replaced.
    pub(super) fn settle(&mut self, now: Time, serving: GenerationId, may_reload: bool, effects: &mut Effects) {
        let is_due = self.retry_at().is_none_or(|at| at <= now);
        let Some(missing) = &mut self.missing else { return };
        if missing.since <= serving {
            self.missing = None;
        } else if is_due && may_reload {
            missing.asked_at = Some(now);
            effects.push(Effect::RequestReload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::default() + Duration::from_millis(ms)
    }

    fn lost(rebinding: &mut Rebinding, ms: u64, socket: u64, is_taken: bool) -> Vec<Effect> {
        let mut effects = Effects::default();
        rebinding.path_lost(at(ms), SocketId(socket), is_taken, &mut effects);
        effects.into_iter().collect()
    }

    #[test]
    fn the_same_is_tried_once_a_minute() {
        let mut rebinding = Rebinding::default();
        let tries = [Effect::Rebind(SocketId(1))];
        assert_eq!(lost(&mut rebinding, 0, 1, false), tries);
        assert_eq!(lost(&mut rebinding, 59_999, 1, false), []);
        assert_eq!(lost(&mut rebinding, 60_000, 1, false), tries);
        assert_eq!(lost(&mut rebinding, 60_001, 1, true), tries, "something else stands there");
        assert_eq!(lost(&mut rebinding, 60_002, 2, true), [Effect::Rebind(SocketId(2))], "another socket");
    }

    #[test]
    fn three_times_within_ten_minutes_it_is_bound_again() {
        let mut rebinding = Rebinding::default();
        for number in 0..3 {
            assert_eq!(lost(&mut rebinding, number, number, false), [Effect::Rebind(SocketId(number))]);
            rebinding.rebound(at(number), SocketId(number), SocketId(number + 1), GenerationId(2));
        }
        assert_eq!(lost(&mut rebinding, 599_999, 3, false), [Effect::LeaveUnbound(SocketId(3))]);
        assert_eq!(lost(&mut rebinding, 600_000, 3, true), [Effect::Rebind(SocketId(3))]);
    }
}
