//! The processes behind the core's workers: how they are made (spawn.rs), signalled, heard (notify.rs), and how they ended
//! (exit.rs).
//!
//! Owns: each worker's process and what belongs to it, and what is remembered of those that ended. Never: decides when a
//! worker starts or ends, or reaps.

pub(super) mod cgroups;
pub(super) mod exit;
mod heartbeat;
mod notify;
pub(super) mod recorded;
mod requests;
pub(super) mod server_stats;
pub(super) mod spawn;
pub(super) mod stacks;
mod stats_questions;
mod traffic;

use self::cgroups::{WorkerCgroup, WorkerCgroups};
use self::notify::Notifications;
use self::server_stats::ServerStats;
use self::traffic::Traffic;
use super::listener_monitor::Serving;
use super::outbox::Outbox;
use super::output::Output;
use crate::app::{Conventions, Reopen};
use crate::cgroup::Group;
use crate::listener::Listener;
use crate::notify::Datagram;
use crate::private_socket::Binder;
use crate::probe;
use crate::process::{Child, Tail, WorkerProcess, held_sockets, signal_by_number};
use crate::queue;
use crate::scoreboard::Scoreboard;
use crate::supervisor::{Accepts, Event, GenerationId, Holds, Role, Signal, SlotId, WorkerEvent, WorkerId};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// How many of a dead worker's last lines are quoted.
const QUOTED_LINES: usize = 20;
/// Of so many workers that ended the last lines are kept.
const MAX_REMEMBERED: usize = 16;

/// All workers.
#[derive(Debug)]
pub(super) struct Workers {
    all: BTreeMap<WorkerId, Worker>,
    /// Whose process it is, until it is reaped.
    by_pid: HashMap<Pid, WorkerId>,
    last_exits: BTreeMap<SlotId, LastExit>,
    /// The few that ended last, in that order: a worker that lived long is among them, whatever its number.
    recent: VecDeque<Recent>,
    traffic: Traffic,
    pub(super) cgroups: WorkerCgroups,
    /// Makes their private sockets.
    binder: Binder,
}

/// What is known for a while of a worker that ended.
#[derive(Debug)]
struct Recent {
    worker: WorkerId,
    pid: Pid,
    /// The last lines of its stderr.
    stderr: Vec<String>,
    /// What it served when it ended, or was aborted.
    request: Option<String>,
}

/// A worker's end, as `sockd status` tells it.
#[derive(Clone, Debug)]
pub(super) struct LastExit {
    pub(super) reason: String,
    pub(super) at: SystemTime,
    pub(super) lived: Duration,
    pub(super) last_lines: Vec<String>,
}

/// One worker's process and what belongs to it.
#[derive(Debug)]
pub(super) struct Worker {
    generation: GenerationId,
    role: Role,
    /// Where it alone can be asked.
    probes: Vec<probe::Socket>,
    conventions: &'static Conventions,
    child: Option<Child>,
    output: Output,
    notifications: Notifications,
    /// The template that was ordered to fork it.
    template: Option<u64>,
    /// What hooks have left in its object.
    hook_state: Option<String>,
    /// What it shows of itself, if it does.
    scoreboard: Option<Arc<Scoreboard>>,
    /// What it says of its requests when it is asked, if it does.
    server_stats: Option<ServerStats>,
    /// A request that it serves for longer is written to the log.
    slow_requests_after: Option<Duration>,
    /// What it served when it was aborted: a server may end the request before itself.
    aborted_request: Option<String>,
    cgroup: WorkerCgroup,
    /// The last question to it had no answer.
    unanswered: bool,
}

impl Worker {
    pub(super) fn generation(&self) -> GenerationId {
        self.generation
    }

    /// This worker as hooks see it, if a template has forked it.
    pub(super) fn forked_process(&self, id: WorkerId) -> Option<WorkerProcess> {
        self.template?;
        self.pid().map(|pid| self.as_process(id, pid))
    }

    /// The template that was ordered to fork it.
    pub(super) fn template(&self) -> Option<u64> {
        self.template
    }

    /// Whether the last question to it had no answer.
    pub(super) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    fn as_process(&self, id: WorkerId, pid: Pid) -> WorkerProcess {
        WorkerProcess { worker: id.0, pid: pid.as_raw_nonzero().get(), hook_state: self.hook_state.clone() }
    }

    /// The inodes of all sockets that only it was given.
    fn private_inodes(&self) -> impl Iterator<Item = u64> {
        self.probes.iter().map(probe::Socket::inode).chain(self.server_stats.as_ref().map(ServerStats::inode))
    }

    /// Where it alone is asked.
    pub(super) fn probe_socket(&self) -> Option<&probe::Socket> {
        self.probes.first()
    }

    /// The process, and the signal that has it open its log files afresh, if there is one.
    pub(super) fn reopens(&self) -> Option<(&Child, Reopen)> {
        Some((self.child.as_ref()?, self.conventions.reopen?))
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.cgroup.group.as_ref()
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Child::pid)
    }

    /// Says how many lines about it were not written, once their time is over, or at its end.
    fn tell_suppressed(&mut self, id: WorkerId, end: bool) {
        let now = Instant::now();
        self.notifications.tell_suppressed(id, now, end);
        self.cgroup.tell_suppressed(id, now, end);
    }

    /// The last line of its stderr that names an error.
    pub(super) fn last_error(&self) -> Option<String> {
        self.output.tail().error().map(str::to_owned)
    }
}

impl Workers {
    /// None yet. Their sockets will be in this directory, where it is given and can be written to.
    pub(super) fn new(runtime_directory: Option<PathBuf>) -> Self {
        Self {
            all: BTreeMap::new(),
            by_pid: HashMap::new(),
            last_exits: BTreeMap::new(),
            recent: VecDeque::new(),
            traffic: Traffic::default(),
            cgroups: WorkerCgroups::default(),
            binder: Binder::new(runtime_directory),
        }
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.all.get(&id)
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.all.iter().map(|(id, worker)| (*id, worker))
    }

    /// Those of these that have the public sockets and have shown no request, and the sockets that each worker has for itself.
    pub(super) fn serving(&self, ids: impl Iterator<Item = WorkerId>) -> Serving {
        let serving = |worker: &&Worker| worker.role == Role::Serving && !worker.has_shown_requests();
        let serving = ids.filter_map(|id| self.all.get(&id)).filter(serving);
        Serving {
            private: self.all.values().flat_map(Worker::private_inodes).collect(),
            pids: serving.filter_map(Worker::pid).collect(),
        }
    }

    /// The worker whose process this is, until it is reaped.
    pub(super) fn of_process(&self, pid: Pid) -> Option<WorkerId> {
        self.by_pid.get(&pid).copied()
    }

    /// All that templates have forked and that live.
    pub(super) fn forked_processes(&self) -> Vec<WorkerProcess> {
        self.iter().filter_map(|(id, worker)| worker.forked_process(id)).collect()
    }

    /// What a template says that hooks have left in the object of a worker.
    pub(super) fn set_hook_state(&mut self, id: WorkerId, hook_state: Option<String>) {
        if let Some(worker) = self.all.get_mut(&id) {
            worker.hook_state = hook_state;
        }
    }

    /// Whether the last question to it had no answer.
    pub(super) fn set_unanswered(&mut self, id: WorkerId, unanswered: bool) {
        if let Some(worker) = self.all.get_mut(&id) {
            worker.unanswered = unanswered;
        }
    }

    /// Effect::PassStderr: what it writes is not kept back any more.
    pub(super) fn pass_stderr(&self, id: WorkerId) {
        self.all.get(&id).iter().for_each(|worker| worker.output.pass_on());
    }

    /// Effect::Signal.
    pub(super) fn signal(&mut self, id: WorkerId, signal: Signal) {
        let Some(worker) = self.all.get_mut(&id) else { return };
        if signal == Signal::Abort && worker.aborted_request.is_none() {
            worker.aborted_request = worker.request();
        }
        let Some(child) = &worker.child else { return };
        let sent = match signal {
            Signal::Drain => {
                let mut signals = worker.conventions.drain_signals.iter();
                signals.try_for_each(|signal| child.signal(by_number(*signal)))
            }
            Signal::Stop => child.signal(by_number(worker.conventions.stop_signal)),
            Signal::Terminate => child.signal(rustix::process::Signal::TERM),
            Signal::Abort => child.signal(rustix::process::Signal::ABORT),
            Signal::Kill => {
                // A worker that has not entered its group yet is killed as one without.
                let group = worker.group().map_or(Ok(()), Group::kill);
                child.kill().and(group)
            }
        };
        if let Err(error) = sent {
            tracing::error!(SOCKD_WORKER = id.0, "cannot signal worker {id} (pid {}): {error}", child.pid());
        }
    }

    /// Says how many lines about workers were not written.
    pub(super) fn tell_suppressed(&mut self) {
        self.all.iter_mut().for_each(|(id, worker)| worker.tell_suppressed(*id, false));
    }

    /// Effect::RecordExit: the end of the last worker of a slot.
    pub(super) fn record_exit(&mut self, id: WorkerId, slot: SlotId, lived: Duration, reason: String) {
        let last_lines = self.last_lines(id);
        let reason = match self.request(id) {
            Some(request) => format!("{reason}; it served {request}"),
            None => reason,
        };
        self.last_exits.insert(slot, LastExit { reason, at: SystemTime::now(), lived, last_lines });
    }

    /// The end of the last worker of a slot that ended.
    pub(super) fn last_exit(&self, slot: SlotId) -> Option<&LastExit> {
        self.last_exits.get(&slot)
    }

    /// A worker has ended: keeps what those want to know who ask why.
    fn remember(&mut self, recent: Recent) {
        self.recent.push_back(recent);
        while self.recent.len() > MAX_REMEMBERED {
            self.recent.pop_front();
        }
    }

    /// What is still known of a worker that ended.
    /// The process of a worker, also of one that has ended lately.
    pub(super) fn pid_of(&self, id: WorkerId) -> Option<Pid> {
        match self.all.get(&id) {
            Some(worker) => worker.pid(),
            None => self.recent(id).map(|recent| recent.pid),
        }
    }

    fn recent(&self, id: WorkerId) -> Option<&Recent> {
        self.recent.iter().find(|recent| recent.worker == id)
    }

    /// The last lines of a worker, dead or alive.
    pub(super) fn last_lines(&self, id: WorkerId) -> Vec<String> {
        match self.all.get(&id) {
            Some(worker) => quoted(&worker.output.tail()),
            None => self.recent(id).map(|recent| recent.stderr.clone()).unwrap_or_default(),
        }
    }

    /// A datagram came in on a worker's notification socket.
    pub(super) fn hear(&mut self, id: WorkerId, datagram: Datagram, outbox: &mut Outbox) {
        if let Some(worker) = self.all.get_mut(&id) {
            let process = worker.pid();
            worker.notifications.hear(id, process, datagram, outbox);
        }
    }

    /// Looks whether the worker, or one of its descendants, holds one of our sockets.
    pub(super) fn inspect(&self, id: WorkerId, listeners: &[Listener], somebody_serves: bool, outbox: &mut Outbox) {
        let Some(worker) = self.all.get(&id) else { return };
        let inodes: BTreeSet<u64> = match worker.role {
            Role::Serving => listeners.iter().map(|listener| listener.inode).collect(),
            Role::Canary => worker.probes.iter().map(probe::Socket::inode).collect(),
        };
        let held = worker.pid().and_then(held_sockets);
        let holds = match &held {
            Some(held) if !held.is_disjoint(&inodes) => Holds::Yes,
            Some(_) => Holds::No,
            None => Holds::Unknown,
        };
        let accepts = match worker.role {
            Role::Serving if worker.child.is_some() => accepts(&held.unwrap_or_default(), listeners, somebody_serves),
            Role::Serving | Role::Canary => Accepts::Unknown,
        };
        outbox.event(Event::Worker(id, WorkerEvent::Inspected { holds, accepts }));
    }
}

/// What is quoted of a process's last lines.
fn quoted(tail: &Tail) -> Vec<String> {
    let lines: Vec<String> = tail.lines().map(str::to_owned).collect();
    let skip = lines.len().saturating_sub(QUOTED_LINES);
    lines.into_iter().skip(skip).collect()
}

/// Whether a worker that holds these sockets takes what waits on the public ones.
fn accepts(held: &BTreeSet<u64>, listeners: &[Listener], somebody_serves: bool) -> Accepts {
    let accepted_here = || listeners.iter().filter_map(|l| queue::accepted(&l.address).ok()).flatten();
    // The kernel looks at every socket there is, ours of all workers among them, to say which were accepted. One that
    // holds none beside the listeners has accepted nothing.
    let others = held.iter().any(|inode| listeners.iter().all(|listener| listener.inode != *inode));
    if others && accepted_here().any(|inode| held.contains(&inode)) {
        Accepts::Yes
    } else if somebody_serves {
        // What waits may wait for them; and the kernel looks for the queue among all sockets, too.
        Accepts::Unknown
    } else {
        let depths = listeners.iter().map(|listener| queue::depth(&listener.address, listener.inode));
        let waiting: Vec<_> = depths.map(|depth| depth.ok().map(|depth| depth.waiting)).collect();
        match waiting {
            waiting if waiting.iter().flatten().any(|waiting| *waiting > 0) => Accepts::NotYet,
            waiting if waiting.iter().all(Option::is_some) => Accepts::NobodyWaits,
            _ => Accepts::Unknown,
        }
    }
}

pub(super) fn by_number(signal: i32) -> rustix::process::Signal {
    signal_by_number(signal).unwrap_or(rustix::process::Signal::TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_worker_is_known_after_its_end_although_many_younger_ones_ended_before() {
        let mut workers = Workers::new(None);
        for id in (2..40).chain([1]) {
            let stderr = vec![format!("the end of {id}")];
            workers.remember(Recent {
                worker: WorkerId(id),
                pid: Pid::INIT,
                stderr,
                request: Some(format!("GET /{id}")),
            });
        }
        assert_eq!(workers.last_lines(WorkerId(1)), ["the end of 1"]);
        assert_eq!(workers.request(WorkerId(1)).as_deref(), Some("GET /1"));
        assert_eq!(workers.recent.len(), MAX_REMEMBERED);
        assert!(workers.last_lines(WorkerId(2)).is_empty() && workers.request(WorkerId(2)).is_none());
    }
}
