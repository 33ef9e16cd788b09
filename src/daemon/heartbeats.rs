//! What workers show on their scoreboards, for the core: when they last beat, and how many requests they have finished. A
//! page is read when something depends on it, and not before.

use super::event_loop::EventLoop;
use super::workers::Worker;
use crate::scoreboard::{Reading, Scoreboard};
use crate::supervisor::{Event, Time, WorkerEvent, WorkerId};

impl EventLoop {
    /// Effect::ReadHeartbeat: when a worker last beat, as far as it shows that.
    pub(super) fn read_heartbeat(&mut self, id: WorkerId) {
        let since_beginning = self.began.elapsed();
        let last = self
            .scoreboard_of(id)
            .and_then(|reading| reading.heartbeat)
            .map(|ago| Time::default() + since_beginning.saturating_sub(ago));
        self.outbox.event(Event::Worker(id, WorkerEvent::HeartbeatRead { last }));
    }

    /// Before an answer to a question is judged: a worker that has finished requests since the last one is busy.
    pub(super) fn read_requests(&mut self, id: WorkerId) {
        if let Some(requests) = self.scoreboard_of(id).and_then(|reading| reading.requests) {
            self.outbox.event(Event::Worker(id, WorkerEvent::Served { requests }));
        }
    }

    fn scoreboard_of(&self, id: WorkerId) -> Option<Reading> {
        self.workers.get(&id).and_then(Worker::scoreboard).map(Scoreboard::read)
    }
}
