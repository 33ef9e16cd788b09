//! One arm for each effect of the core.

use super::event_loop::{EventLoop, LastExit};
use super::health::Baseline;
use super::message::Message;
use super::notice_log::progress_line;
use crate::control;
use crate::journal::message_id;
use crate::listener::wait_readable;
use crate::supervisor::{Announcement, Effect, Effects, Event, Outcome, Progress, RequestId, SlotId, WorkerId};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl EventLoop {
    /// Does what the core wants done, in its order. Answers that are known at once wait in the outbox.
    pub(super) fn carry_out(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Prepare(generation) => self.prepare(generation),
                Effect::Release(generation) => self.release(generation),
                Effect::Conclude(generation) => self.conclude(generation),
                Effect::Spawn { worker, generation, role } => self.spawn(worker, generation, role),
                Effect::Inspect(worker) => self.inspect(worker),
                Effect::Judge { worker, reference, remembered, may_be_busy, patience } => {
                    self.judge(worker, Baseline { reference, remembered, may_be_busy }, patience);
                }
                Effect::Probe { worker, doubted } => self.probe(worker, doubted),
                Effect::ReadHeartbeat(worker) => self.read_heartbeat(worker),
                Effect::Signal(worker, signal) => self.signal(worker, signal),
                Effect::WatchListeners => self.watch_listeners(),
                Effect::RestoreBacklogs => self.restore_backlogs(),
                Effect::PassStderr(worker) => self.pass_stderr(worker),
                Effect::RecordExit { worker, slot, lived, why } => self.record_exit(worker, slot, lived, why),
                Effect::ReportPoolSize(workers) => self.workers_resized(workers),
                Effect::ReleaseMemory => self.at_rest = true,
                Effect::StartFallback => self.fallback.start(&self.listeners, &mut self.outbox),
                Effect::StopFallback => self.fallback.stop(),
                Effect::Announce(announcement) => self.announce(announcement),
                Effect::ReportProgress(progress) => self.report_progress(progress),
                Effect::Answer(request, outcome) => self.answer_reload(request, outcome),
                Effect::Notice(notice) => self.log_notice(&notice),
                Effect::Exit => self.finished = true,
            }
        }
    }

    /// Waits for a connection without accepting it.
    pub(super) fn watch_listeners(&mut self) {
        if self.listeners.is_empty() {
            self.watch_wanted = true;
            return;
        }
        let listeners = Arc::clone(&self.listeners);
        self.outbox.later(async move {
            if let Err(error) = wait_readable(&listeners).await {
                tracing::error!("cannot wait for connections: {error}; starting the workers at once");
            }
            Some(Message::Core(Event::ConnectionWaiting))
        });
    }

    fn announce(&mut self, announcement: Announcement) {
        match announcement {
            Announcement::Ready => self.notifier.ready(&self.status_line()),
            Announcement::Reloading => self.reload_guard = Some(self.notifier.reloading(&self.status_line())),
            Announcement::ReloadEnded => {
                if let Some(guard) = self.reload_guard.take() {
                    guard.finish(&self.status_line());
                }
            }
            Announcement::Stopping => self.notifier.stopping(&self.status_line()),
            Announcement::ExtendTimeout(time) => self.notifier.extend_timeout(time),
        }
    }

    fn pass_stderr(&self, id: WorkerId) {
        self.workers.get(&id).iter().for_each(|worker| worker.lines.give_up());
    }

    fn record_exit(&mut self, id: WorkerId, slot: SlotId, lived: Duration, reason: String) {
        let last_lines = self.last_lines(id);
        self.last_exits.insert(slot, LastExit { reason, at: SystemTime::now(), lived, last_lines });
    }

    fn report_progress(&self, progress: Progress) {
        let step = progress_line(progress);
        self.clients.values().for_each(|client| client.progress(&*step));
    }

    fn answer_reload(&mut self, request: RequestId, outcome: Outcome) {
        let Some(client) = self.clients.remove(&request) else { return };
        client.outcome(match outcome {
            Outcome::Serving(generation) => {
                control::Outcome { ok: true, message: format!("generation {generation} serves"), details: Vec::new() }
            }
            Outcome::Waiting(generation) => control::Outcome {
                ok: true,
                message: format!("generation {generation} is proven and waits for the first connection"),
                details: Vec::new(),
            },
            Outcome::Refused { generation, why, worker } => control::Outcome {
                ok: false,
                message: format!("reload to generation {generation} refused: {why}"),
                details: worker.map(|id| self.last_lines(id)).unwrap_or_default(),
            },
            Outcome::Stopping => {
                control::Outcome { ok: false, message: "sockd is stopping".to_owned(), details: Vec::new() }
            }
        });
    }

    /// Sets the backlog of the shared sockets again: each server that starts sets its own; daphne
    /// 4.2 cuts it to 50 (measured).
    pub(super) fn restore_backlogs(&self) {
        for listener in self.listeners.iter() {
            if let Err(error) = listener.restore_backlog() {
                tracing::warn!(
                    MESSAGE_ID = message_id::INTERNAL_ERROR,
                    "cannot restore the backlog of {listener}: {error}, ignoring"
                );
            }
        }
    }
}
