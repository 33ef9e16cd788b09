//! What workers show on their scoreboards, for the core: when they last beat, and how many requests they have finished. A
//! page is read when something depends on it, and not before.

use super::{Worker, Workers};
use crate::daemon::clock::Clock;
use crate::daemon::outbox::Outbox;
use crate::scoreboard::{Reading, Scoreboard};
use crate::supervisor::{Event, WorkerEvent, WorkerId};

impl Workers {
    /// Effect::ReadHeartbeat: when a worker last beat, as far as it shows that.
    pub(in crate::daemon) fn read_heartbeat(&self, id: WorkerId, clock: Clock, outbox: &mut Outbox) {
        let heartbeat = self.get(id).and_then(read).and_then(|reading| reading.heartbeat);
        let last = heartbeat.map(|ago| clock.before_now(ago));
        outbox.event(Event::Worker(id, WorkerEvent::HeartbeatRead { last }));
    }

    /// Before an answer to a question is judged: a worker that has finished requests since the last one is busy.
    pub(in crate::daemon) fn read_requests(&self, id: WorkerId, outbox: &mut Outbox) {
        if let Some(requests) = self.get(id).and_then(read).and_then(|reading| reading.requests) {
            outbox.event(Event::Worker(id, WorkerEvent::Served { requests: requests.finished.total() }));
        }
    }
}

fn read(worker: &Worker) -> Option<Reading> {
    worker.scoreboard.as_deref().map(Scoreboard::read)
}
