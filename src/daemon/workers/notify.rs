//! What a worker says on its notification socket: who may speak there, and what it means to the core.

use crate::daemon::log_limit::LogLimit;
use crate::daemon::message::Message;
use crate::daemon::outbox::Outbox;
use crate::notify::{self, Datagram};
use crate::process::is_descendant_of;
use crate::supervisor::{Event, WorkerEvent, WorkerId};
use rustix::io::Errno;
use rustix::process::{Pid, Uid};
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// So much is kept of a worker that its template has not reported.
const MAX_EARLY: usize = 8;

/// A worker's notification socket.
#[derive(Debug)]
pub(super) struct Notifications {
    listening: AbortHandle,
    /// What it said before its template reported it.
    early: Vec<Datagram>,
    /// The lines about those that are refused.
    refusals: LogLimit,
}

impl Drop for Notifications {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Notifications {
    /// Listens on it.
    pub(super) fn listen(id: WorkerId, socket: notify::Socket, outbox: &Outbox) -> Self {
        let sender = outbox.sender();
        let listening = tokio::spawn(async move {
            while let Ok((datagram, packet)) = socket.receive().await {
                // One of each worker at a time: one that sends more waits, and the others' turn comes.
                let (done, is_done) = oneshot::channel();
                if sender.send(Message::Notify(id, datagram, done)).await.is_err() {
                    return;
                }
                let _ = is_done.await;
                socket.done(packet).await;
            }
        });
        Self { listening: listening.abort_handle(), early: Vec::new(), refusals: LogLimit::default() }
    }

    /// What it said before its process was known.
    pub(super) fn take_early(&mut self) -> Vec<Datagram> {
        std::mem::take(&mut self.early)
    }

    /// Says how many refusals were not logged, once their time is over, or at its end.
    pub(super) fn tell_suppressed(&mut self, id: WorkerId, now: Instant, end: bool) {
        if let Some(count) = self.refusals.suppressed(now, end) {
            tracing::warn!(SOCKD_WORKER = id.0, "{count} more notifications of worker {id} were refused, ignoring");
        }
    }

    /// A datagram came in; `process` is the worker's, once that is known.
    pub(super) fn hear(&mut self, id: WorkerId, process: Option<Pid>, datagram: Datagram, outbox: &mut Outbox) {
        let Some(pid) = process else {
            if self.early.len() < MAX_EARLY {
                self.early.push(datagram);
            }
            return;
        };
        let Some((sender, user)) = datagram.sender else { return };
        if sender != pid
            && !is_descendant_of(sender, pid)
            // Looked at last: one that is gone by now cannot be distinguished from a child of the worker's that said its word and
            // left. Only the worker's user or ours could pretend to be that.
            && (is_alive(sender) || user != rustix::process::geteuid() && Some(user) != user_of(pid))
        {
            if self.refusals.allows(Instant::now()) {
                tracing::warn!(
                    SOCKD_WORKER = id.0,
                    "process {sender} spoke on the notification socket of worker {id}, which is not its own, ignoring"
                );
            }
            return;
        }
        let messages = match datagram.text.and_then(|text| notify::parse(&text)) {
            Ok(messages) => messages,
            Err(why) => {
                if self.refusals.allows(Instant::now()) {
                    tracing::warn!(
                        SOCKD_WORKER = id.0,
                        "worker {id} sent a notification that is refused: {why}, ignoring"
                    );
                }
                return;
            }
        };
        for message in messages {
            let event = match message {
                notify::Message::Ready => WorkerEvent::SaidReady,
                notify::Message::Heartbeat => WorkerEvent::Heartbeat,
                notify::Message::Sick => {
                    WorkerEvent::FoundSick { why: "it says so itself (WATCHDOG=trigger)".to_owned() }
                }
                notify::Message::Retire => WorkerEvent::WantsRetirement,
            };
            outbox.event(Event::Worker(id, event));
        }
    }
}

/// The user that a process runs as.
fn user_of(pid: Pid) -> Option<Uid> {
    Some(Uid::from_raw(rustix::fs::stat(format!("/proc/{pid}")).ok()?.st_uid))
}

fn is_alive(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH)
}
