//! One arm for each effect of the core.

use super::shell::{Message, Shell};
use crate::control;
use crate::journal::message_id;
use crate::listener::wait_readable;
use crate::supervisor::{Announcement, Effect, Effects, Event, Notice, Outcome, RequestId};
use std::sync::Arc;

impl Shell {
    /// Does what the core wants done, in its order. Answers that are known at once wait in `events`.
    ///
    /// Only the telling comes last, where nobody waits for it: journald, once written to, may take the processor
    /// first, and a dead worker's successor would come half a millisecond later.
    pub(super) fn carry_out(&mut self, effects: Effects) {
        let mut untold = Vec::new();
        for effect in effects {
            if matches!(effect, Effect::Announce(_) | Effect::Answer(..) | Effect::Exit) {
                untold.drain(..).for_each(|notice| self.narrate(&notice));
            }
            match effect {
                Effect::Prepare(generation) => self.prepare(generation),
                Effect::Release(generation) => self.release(generation),
                Effect::Conclude(generation) => self.conclude(generation),
                Effect::Spawn { worker, generation, role } => self.spawn(worker, generation, role),
                Effect::Inspect(worker) => self.inspect(worker),
                Effect::Judge { worker, reference, patience } => self.judge(worker, reference, patience),
                Effect::Probe { worker, doubted } => self.probe(worker, doubted),
                Effect::Signal(worker, signal) => self.signal(worker, signal),
                Effect::WatchListeners => self.watch_listeners(),
                Effect::StartFallback => self.start_fallback(),
                Effect::StopFallback => self.fallback.stop(),
                Effect::Announce(announcement) => self.announce(announcement),
                Effect::Answer(request, outcome) => self.answer_reload(request, outcome),
                Effect::Notice(notice) => {
                    if let Notice::PoolResized { from, to } = notice
                        && from != to
                    {
                        self.workers_resized(to);
                    }
                    untold.push(notice);
                }
                Effect::Exit => self.finished = true,
            }
        }
        untold.iter().for_each(|notice| self.narrate(notice));
        self.at_rest |= untold.iter().any(|notice| matches!(notice, Notice::Serving(_)));
    }

    /// Waits for a connection; whoever accepts it, it is not us.
    pub(super) fn watch_listeners(&mut self) {
        if self.listeners.is_empty() {
            self.watch_wanted = true;
            return;
        }
        let listeners = Arc::clone(&self.listeners);
        self.later(async move {
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
