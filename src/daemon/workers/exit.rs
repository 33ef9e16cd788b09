//! How a worker ended, and what is left of it: the verdict, its control group, its last lines.

use super::{Recent, Workers, quoted};
use crate::app::{Conventions, ExitMeaning};
use crate::daemon::counts::Ending;
use crate::daemon::outbox::Outbox;
use crate::daemon::repeats::Repeats;
use crate::journal::message_id;
use crate::process::{End, Ended, Tail, WorkerProcess};
use crate::supervisor::{Event, Role, WorkerEvent, WorkerId};
use rustix::process::Pid;
use std::time::Instant;

/// SIGKILL (signal(7)).
const KILL: i32 = rustix::process::Signal::KILL.as_raw();

/// A worker that has ended, for those who care beside the core.
#[derive(Debug)]
pub(in crate::daemon) struct Gone {
    /// The worker as hooks see it, where a template had forked it: by which one, and for what.
    pub(in crate::daemon) forked: Option<(u64, Role, WorkerProcess)>,
    /// Its process, where it had no control group: somebody must look for what it left behind.
    pub(in crate::daemon) leader: Option<Pid>,
    pub(in crate::daemon) ending: Ending,
}

impl Workers {
    /// Whose process it was that was reaped, if it was a worker's.
    pub(in crate::daemon) fn claim(&mut self, ended: Ended) -> Option<WorkerId> {
        self.by_pid.remove(&ended.pid)
    }

    /// A worker has ended.
    pub(in crate::daemon) fn finish_exit(
        &mut self,
        id: WorkerId,
        Ended { pid, end }: Ended,
        repeats: &mut Repeats,
        outbox: &mut Outbox,
    ) -> Option<Gone> {
        let mut worker = self.all.remove(&id)?;
        let forked = worker.template.map(|template| (template, worker.role, worker.as_process(id, pid)));
        worker.tell_suppressed(id, true);
        let tail = worker.output.tail();
        repeats.worker_ended(id, worker.generation, worker.output.lines());
        let mut why = verdict(end, Some(worker.conventions), &tail);
        let mut leader = None;
        let mut ending = match end {
            End::Code(_) => Ending::Exit,
            End::Signal(_) => Ending::Signal,
        };
        if let Some(group) = worker.cgroup.group.take() {
            if group.oom_kills().is_some_and(|kills| kills > worker.cgroup.oom_kills_reported) {
                let cause = self.cgroups.out_of_memory(&group);
                why = match end {
                    End::Signal(KILL) => {
                        ending = Ending::OutOfMemory;
                        format!("killed by the kernel: {cause}")
                    }
                    End::Signal(_) | End::Code(_) => {
                        format!("{why}; the kernel had killed a process that it had started: {cause}")
                    }
                };
            }
            // What it leaves behind would keep its sockets and serve nobody.
            self.cgroups.remove_when_empty(group);
        } else {
            leader = Some(pid);
        }
        self.requests_ended(&worker);
        self.remember(Recent { worker: id, pid, stderr: quoted(&tail), request: worker.request() });
        outbox.event(Event::Worker(id, WorkerEvent::Exited { why }));
        Some(Gone { forked, leader, ending })
    }

    /// The kernel has killed processes of this worker for want of memory.
    pub(in crate::daemon) fn process_killed(&mut self, id: WorkerId, killed: u64) {
        // One that has ended has had its verdict.
        let Some(worker) = self.all.get_mut(&id) else { return };
        let Some(group) = worker.cgroup.group.as_ref().filter(|_| killed > worker.cgroup.oom_kills_reported) else {
            return;
        };
        worker.cgroup.oom_kills_reported = killed;
        let cause = self.cgroups.out_of_memory(group);
        if !worker.cgroup.kills.allows(Instant::now()) {
            return;
        }
        tracing::warn!(
            MESSAGE_ID = message_id::OUT_OF_MEMORY,
            SOCKD_EVENT = "out-of-memory",
            SOCKD_WORKER = id.0,
            "the kernel killed a process that worker {id} had started: {cause}; the worker lives on"
        );
    }
}

/// How a process ended, in the words of its server, with the line of its stderr that says most.
pub(in crate::daemon) fn verdict(end: End, conventions: Option<&Conventions>, tail: &Tail) -> String {
    let meaning = match end {
        End::Code(code) => conventions.and_then(|c| c.exits.iter().find(|(known, _)| *known == code)),
        End::Signal(_) => None,
    };
    let how = match meaning {
        Some((_, ExitMeaning::FailedToStart(text))) => format!("{end}, {text}"),
        Some((_, ExitMeaning::Clean)) | None => end.to_string(),
    };
    match (end, tail.reason()) {
        (End::Code(code), Some(reason)) if code != 0 => format!("{how}: {reason}"),
        (End::Signal(_) | End::Code(_), _) => how,
    }
}
