//! What a worker says on its notification socket: who may speak there, and what it means to the core.

use super::Workers;
use crate::daemon::outbox::Outbox;
use crate::notify::{self, Datagram};
use crate::process::is_descendant_of;
use crate::supervisor::{Event, WorkerEvent, WorkerId};
use rustix::io::Errno;
use rustix::process::{Pid, Uid};
use std::time::Instant;

impl Workers {
    /// A datagram came in on a worker's notification socket.
    pub(in crate::daemon) fn hear(&mut self, id: WorkerId, datagram: Datagram, outbox: &mut Outbox) {
        let Some(worker) = self.all.get_mut(&id) else { return };
        let Some(child) = &worker.child else {
            if worker.early.len() < 8 {
                worker.early.push(datagram);
            }
            return;
        };
        let pid = child.pid();
        let Some((sender, user)) = datagram.sender else { return };
        if sender != pid
            && !is_descendant_of(sender, pid)
            // Looked at last: one that is gone by now cannot be distinguished from a child of the worker's that said its word and
            // left. Only the worker's user or ours could pretend to be that.
            && (is_alive(sender) || user != rustix::process::geteuid() && Some(user) != user_of(pid))
        {
            if worker.refusals.allows(Instant::now()) {
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
                if worker.refusals.allows(Instant::now()) {
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
                notify::Message::Status(status) => {
                    worker.status = Some(status);
                    continue;
                }
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
