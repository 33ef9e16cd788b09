//! The listener of the simulated world, which sockd has bound: its file may be removed, and another server may take its
//! place.

use super::{Happening, World, ms};
use sockd_supervisor::{Event, GenerationId, MAX_REBINDS, Phase, RequestId, SocketId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two looks at the path.
const LOOK_INTERVAL: Duration = ms(5_000);
/// Between two attempts, and the time in which there are [`MAX_REBINDS`].
const RETRY_INTERVAL: Duration = ms(60_000);
const WINDOW: Duration = ms(600_000);

/// What clients that go by the path find there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtPath {
    #[default]
    Ours,
    Nothing,
    Another,
}

/// The socket, and what was done with it.
#[derive(Debug, Default)]
pub struct Socket {
    pub at_path: AtPath,
    /// How often it was bound again: its number.
    number: u64,
    is_looked_at: bool,
    /// When it was bound again.
    pub rebound_at: Vec<Time>,
    /// The last attempt, and what stood there.
    attempt: Option<(Time, AtPath)>,
    /// When it was said that it is left so.
    pub left_at: Vec<Time>,
    /// When a reload was asked for by the core.
    pub reloads: Vec<(Time, RequestId)>,
    /// The number of the socket that each generation was loaded with.
    loaded_with: BTreeMap<GenerationId, u64>,
}

impl World {
    /// Somebody removes its file, or puts another one there.
    pub fn lose_path(&mut self, to: AtPath) {
        self.socket.at_path = to;
        if !std::mem::replace(&mut self.socket.is_looked_at, true) {
            let delay = ms(self.roll(5_000));
            self.later(delay, Happening::LookAtPath);
        }
    }

    pub(super) fn look_at_path(&mut self) {
        if self.socket.at_path == AtPath::Ours {
            self.socket.is_looked_at = false;
            return;
        }
        self.later(LOOK_INTERVAL, Happening::LookAtPath);
        let now = self.core.overview(self.now);
        if (now.living > 0 || now.fallback) && !now.waiting && !now.stopping && now.pause.is_none() {
            let is_taken = self.socket.at_path == AtPath::Another;
            self.event(Event::PathLost { socket: SocketId(self.socket.number), is_taken });
        }
    }

    /// It is bound again, unless another server listens there.
    pub(super) fn rebind(&mut self, socket: SocketId) {
        self.check_attempt(socket);
        let recent = self.socket.rebound_at.iter().filter(|at| self.now.since(**at) < WINDOW).count();
        assert!(recent < MAX_REBINDS, "bound again too often\n{}", self.story());
        if self.socket.at_path == AtPath::Another {
            return;
        }
        self.socket.at_path = AtPath::Ours;
        self.socket.number += 1;
        self.socket.attempt = None;
        self.socket.rebound_at.push(self.now);
        let to = SocketId(self.socket.number);
        self.later(ms(0), Happening::Event(Event::Rebound { from: socket, to }));
    }

    pub(super) fn leave_unbound(&mut self, socket: SocketId) {
        self.check_attempt(socket);
        // A standstill does not count: the ten minutes may be longer here.
        let all = self.socket.rebound_at.len();
        assert!(all >= MAX_REBINDS, "left although it may be bound again\n{}", self.story());
        self.socket.left_at.push(self.now);
    }

    /// Another server that listens there meets one connection a minute of ours at the most.
    fn check_attempt(&mut self, socket: SocketId) {
        assert_eq!(socket.0, self.socket.number, "another socket\n{}", self.story());
        assert_ne!(self.socket.at_path, AtPath::Ours, "nothing is wrong with it\n{}", self.story());
        let (now, at_path) = (self.now, self.socket.at_path);
        let last = self.socket.attempt.replace((now, at_path)).filter(|(_, then)| *then == at_path);
        let soon = last.is_some_and(|(at, _)| now.since(at) < RETRY_INTERVAL);
        assert!(!soon, "the same was tried less than a minute ago\n{}", self.story());
    }

    /// The core asks for a reload.
    pub(super) fn request_reload(&mut self) {
        let last = self.socket.reloads.last().map(|(at, _)| *at);
        let rebound = self.socket.rebound_at.last().copied();
        let again = last.filter(|last| rebound.is_some_and(|rebound| rebound <= *last));
        let soon = again.is_some_and(|at| self.now.since(at) < RETRY_INTERVAL);
        assert!(rebound.is_some() && !soon, "a reload that nothing calls for\n{}", self.story());
        let request = self.request();
        self.socket.reloads.push((self.now, request));
        self.later(ms(0), Happening::Event(Event::ReloadRequested(request)));
    }

    pub(super) fn load_with_socket(&mut self, generation: GenerationId) {
        self.socket.loaded_with.insert(generation, self.socket.number);
    }

    /// Whether every worker that serves has the socket that is there.
    pub fn accept_from_socket(&self) -> bool {
        let snapshot = self.core.snapshot(self.now);
        let serving = snapshot.workers.iter().filter(|w| w.phase == Phase::Ready && w.slot.is_some());
        serving.map(|w| w.generation).all(|id| self.socket.loaded_with.get(&id) == Some(&self.socket.number))
    }
}
