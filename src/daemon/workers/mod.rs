//! The processes behind the core's workers: how they are made, signalled, listened to, and how they ended.

use super::event_loop::EventLoop;
use super::log_limit::LogLimit;
use super::message::Message;
use super::repeats::Lines;
use crate::adapter::Making;
use crate::adapter::exec::WorkerFds;
use crate::app::{Address, Conventions, ExitMeaning, Reopen};
use crate::cgroup::Group;
use crate::journal::{self, message_id};
use crate::listener::Listener;
use crate::notify::{self, Datagram};
use crate::probe;
use crate::process::{
    Child, End, Ended, FIRST_DESCRIPTOR, ForkRequest, SpawnRequest, Stderr, Tail, WorkerProcess, held_sockets,
    memory_file, signal_by_number,
};
use crate::queue;
use crate::scoreboard::Scoreboard;
use crate::supervisor::{Accepts, Event, GenerationId, Holds, Role, Signal, WorkerEvent, WorkerId};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// SIGKILL (signal(7)).
const KILL: i32 = rustix::process::Signal::KILL.as_raw();
/// How many of a dead worker's last lines are quoted.
const QUOTED_LINES: usize = 20;

/// One worker's process and what belongs to it.
#[derive(Debug)]
pub(super) struct Worker {
    generation: GenerationId,
    role: Role,
    /// Where it alone can be asked.
    probes: Vec<probe::Socket>,
    conventions: &'static Conventions,
    pub(super) child: Option<Child>,
    stderr: Arc<Stderr>,
    /// What of its lines is kept back.
    pub(super) lines: Arc<Lines>,
    listening: AbortHandle,
    /// The template that was ordered to fork it.
    pub(super) template: Option<u64>,
    /// What hooks have left in its object.
    hook_state: Option<String>,
    /// What it shows of itself, if it does.
    scoreboard: Option<Scoreboard>,
    /// What it said before its template reported it.
    pub(super) early: Vec<Datagram>,
    /// Its control group, with all that it starts.
    group: Option<Group>,
    watching: Option<AbortHandle>,
    /// How many processes of its group the kernel had killed for want of memory when that was last reported.
    oom_kills_reported: u64,
    /// The last question to it had no answer.
    pub(super) unanswered: bool,
    /// Its own STATUS=.
    pub(super) status: Option<String>,
    /// The lines about its notifications that are refused, and about processes of its own that the kernel kills.
    pub(super) refusals: LogLimit,
    kills: LogLimit,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.listening.abort();
        self.watching.iter().for_each(AbortHandle::abort);
    }
}

impl Worker {
    pub(super) fn generation(&self) -> GenerationId {
        self.generation
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// This worker as hooks see it.
    pub(super) fn as_process(&self, id: WorkerId, pid: Pid) -> WorkerProcess {
        WorkerProcess { worker: id.0, pid: pid.as_raw_nonzero().get(), hook_state: self.hook_state.clone() }
    }

    /// The inodes of all sockets that only it was given.
    pub(super) fn private_inodes(&self) -> impl Iterator<Item = u64> {
        self.probes.iter().map(probe::Socket::inode)
    }

    /// Where it alone is asked.
    pub(super) fn probe_socket(&self) -> Option<&probe::Socket> {
        self.probes.first()
    }

    /// What it shows of itself, if it does.
    pub(super) fn scoreboard(&self) -> Option<&Scoreboard> {
        self.scoreboard.as_ref()
    }

    /// The process, and the signal that has it open its log files afresh, if there is one.
    pub(super) fn reopens(&self) -> Option<(&Child, Reopen)> {
        Some((self.child.as_ref()?, self.conventions.reopen?))
    }

    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    pub(super) fn pid(&self) -> Option<Pid> {
        self.child.as_ref().map(Child::pid)
    }

    /// Says how many lines about it were not written, once their time is over, or at its end.
    fn tell_suppressed(&mut self, id: WorkerId, end: bool) {
        let now = Instant::now();
        if let Some(count) = self.refusals.suppressed(now, end) {
            tracing::warn!(SOCKD_WORKER = id.0, "{count} more notifications of worker {id} were refused, ignoring");
        }
        if let Some(count) = self.kills.suppressed(now, end) {
            tracing::warn!(SOCKD_WORKER = id.0, "the kernel killed processes of worker {id} {count} more times");
        }
    }

    /// The last line of its stderr that names an error.
    pub(super) fn last_error(&self) -> Option<String> {
        self.stderr.pump();
        self.stderr.tail().error().map(str::to_owned)
    }
}

impl EventLoop {
    pub(super) fn spawn(&mut self, id: WorkerId, generation: GenerationId, role: Role) {
        match self.try_spawn(id, generation, role) {
            Ok(true) => self.outbox.event(Event::Worker(id, WorkerEvent::Spawned)),
            // The template will report it.
            Ok(false) => {}
            Err(why) => self.not_made(id, why),
        }
    }

    /// Gives up a worker that has no process and will have none.
    pub(super) fn not_made(&mut self, id: WorkerId, why: String) {
        if let Some(group) = self.workers.remove(&id).and_then(|mut worker| worker.group.take()) {
            self.worker_cgroups.remove_when_empty(group);
        }
        self.outbox.event(Event::Worker(id, WorkerEvent::SpawnFailed { why }));
    }

    /// Makes the worker, or orders it; true if it exists.
    fn try_spawn(&mut self, id: WorkerId, generation_id: GenerationId, role: Role) -> Result<bool, String> {
        let generation = self.generations.get(&generation_id).ok_or("its generation was released")?;
        let adapter = generation.adapter;
        let conventions = &adapter.conventions;
        let socket = notify::Socket::bind(&self.binder)
            .map_err(|error| format!("cannot make the worker's notification socket: {error}"))?;
        let address = socket.address();
        let (mut worker, write) = self.new_worker(id, generation_id, role, conventions, socket)?;
        let settings = &self.generations[&generation_id].settings.workers;
        let (group, entrance) = self.worker_cgroups.make(id, settings).unzip();
        worker.watching = group.as_ref().and_then(|group| self.watch_memory(id, group));
        worker.group = group;
        self.workers.insert(id, worker);
        match adapter.making {
            Making::Exec(_) => {
                let entrance = entrance.as_ref().map(AsFd::as_fd);
                let child = self.execute(id, generation_id, role, &address, &write, entrance)?;
                if let Some(worker) = self.workers.get_mut(&id) {
                    self.worker_of.insert(child.pid(), id);
                    worker.child = Some(child);
                }
                Ok(true)
            }
            Making::Template(_) => {
                self.order(id, generation_id, role, address, &write, entrance.as_ref().map(AsFd::as_fd))?;
                Ok(false)
            }
        }
    }

    /// What a generation's workers get as WATCHDOG_USEC (sd_watchdog_enabled(3)).
    fn watchdog(&self, generation: GenerationId) -> Option<String> {
        let watchdog = self.generations.get(&generation)?.spec.as_ref()?.watchdog?;
        Some(watchdog.as_micros().to_string())
    }

    /// Executes the generation's command for one worker.
    fn execute(
        &mut self,
        id: WorkerId,
        generation: GenerationId,
        role: Role,
        notify: &str,
        stderr: &OwnedFd,
        group: Option<BorrowedFd<'_>>,
    ) -> Result<Child, String> {
        let listeners = Arc::clone(&self.listeners);
        let with_private = self.generations[&generation].plan.private_socket;
        let private: Vec<OwnedFd> = match role {
            // Servers with a private socket serve it beside sockets of any family.
            _ if with_private => vec![self.private_socket(id, &Address::Abstract(String::new()))?],
            Role::Serving => Vec::new(),
            // One for each socket it expects; it is asked on the first.
            Role::Canary => {
                listeners.iter().map(|listener| self.private_socket(id, &listener.address)).collect::<Result<_, _>>()?
            }
        };
        let public: &[Listener] = match role {
            Role::Canary => &[],
            Role::Serving => &listeners,
        };
        let watchdog = self.watchdog(generation);
        let generation = &self.generations[&generation];
        let texts = generation.plan.files.iter().map(|text| memory_file("sockd-worker", text));
        let files: Vec<OwnedFd> =
            texts.collect::<Result<_, _>>().map_err(|error| format!("cannot make a file in memory: {error}"))?;
        let all = public.iter().map(AsFd::as_fd).chain(private.iter().map(AsFd::as_fd));
        let descriptors: Vec<_> = all.chain(files.iter().map(AsFd::as_fd)).collect();
        // The private sockets of a canary take the places, and so the names, of the public ones.
        let named = if with_private { public } else { &listeners };
        let given = WorkerFds {
            listeners: &named.iter().map(|listener| &listener.address).collect::<Vec<_>>(),
            private_socket: with_private.then_some(FIRST_DESCRIPTOR + public.len()),
            files: FIRST_DESCRIPTOR + public.len() + private.len(),
            notify,
        };
        let execution = generation.plan.execution(&generation.command, &given);
        let mut environment = BTreeMap::<OsString, OsString>::new();
        if execution.notify_socket {
            environment.insert("NOTIFY_SOCKET".into(), notify.into());
        }
        if let Some(watchdog) = watchdog {
            environment.insert("WATCHDOG_USEC".into(), watchdog.into());
        }
        let private_name = with_private.then_some("private");
        let names: Vec<_> = named.iter().map(|listener| listener.name.as_str()).chain(private_name).collect();
        let request = SpawnRequest {
            command: &execution.command,
            environment: &environment,
            descriptors: &descriptors,
            listen_names: execution.listen_fds.then_some(&names),
            stderr: Some(stderr.as_fd()),
            pipes: None,
            group,
            parent_death: by_number(generation.adapter.conventions.stop_signal),
            sheltered: false,
        };
        request.spawn().map_err(|error| error.to_string())
    }

    fn new_worker(
        &self,
        id: WorkerId,
        generation: GenerationId,
        role: Role,
        conventions: &'static Conventions,
        socket: notify::Socket,
    ) -> Result<(Worker, OwnedFd), String> {
        let lines = self.repeats.of_worker(id, generation, role);
        let taken = Arc::clone(&lines);
        let (stderr, write) =
            Stderr::new(move |line| taken.take(line)).map_err(|error| format!("cannot make a pipe: {error}"))?;
        drop(tokio::spawn(Arc::clone(&stderr).follow(journal::is_congested)));
        let sender = self.outbox.sender();
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
        })
        .abort_handle();
        let worker = Worker {
            generation,
            role,
            probes: Vec::new(),
            conventions,
            child: None,
            template: None,
            hook_state: None,
            stderr,
            lines,
            listening,
            scoreboard: None,
            early: Vec::new(),
            group: None,
            watching: None,
            oom_kills_reported: 0,
            unanswered: false,
            status: None,
            refusals: LogLimit::default(),
            kills: LogLimit::default(),
        };
        Ok((worker, write))
    }

    /// Listens on a socket that only this worker will hold, of the same family as `like`.
    fn private_socket(&mut self, id: WorkerId, like: &Address) -> Result<OwnedFd, String> {
        let listening = match like {
            Address::Tcp(address) => probe::Socket::listen_tcp(*address),
            Address::Unix(_) | Address::Abstract(_) => probe::Socket::listen(&self.binder),
        };
        let (socket, fd) = listening.map_err(|error| format!("cannot make the worker's probe socket: {error}"))?;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.probes.push(socket);
        }
        Ok(fd)
    }

    /// Orders a worker from the template.
    fn order(
        &mut self,
        id: WorkerId,
        generation: GenerationId,
        role: Role,
        address: String,
        stderr: &OwnedFd,
        group: Option<BorrowedFd<'_>>,
    ) -> Result<(), String> {
        let environment = BTreeMap::from([("NOTIFY_SOCKET".to_owned(), address)]);
        let scoreboard = Scoreboard::new().map_err(|error| format!("cannot make the worker's scoreboard: {error}"))?;
        // The Python servers serve sockets of any family beside each other, and a unix socket has no port that others see.
        let probe = self.private_socket(id, &Address::Abstract(String::new()))?;
        let listeners = Arc::clone(&self.listeners);
        let sockets: Vec<_> = match role {
            Role::Serving => listeners.iter().map(AsFd::as_fd).collect(),
            Role::Canary => Vec::new(),
        };
        let request = ForkRequest {
            worker: id.0,
            environment: &environment,
            stderr: stderr.as_fd(),
            scoreboard: scoreboard.as_fd(),
            listeners: &sockets,
            probe: Some(probe.as_fd()),
            group,
        };
        let template = self.order_worker(generation, role, &request)?;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.template = Some(template);
            worker.scoreboard = Some(scoreboard);
        }
        Ok(())
    }

    /// A template says that it has made the worker that was ordered.
    pub(super) fn worker_forked(&mut self, id: WorkerId, pid: Pid, hook_state: Option<String>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.hook_state = hook_state;
        // It may have died before we heard of it; then its number may belong to somebody else already.
        if let Some(ended) = self.unclaimed_exits.take(Instant::now(), pid) {
            self.outbox.event(Event::Worker(id, WorkerEvent::Spawned));
            self.finish_exit(id, ended);
            self.end_orphans();
            return;
        }
        let child = match self.adopt(pid) {
            Ok(child) => child,
            Err(why) => {
                self.not_made(id, why);
                return;
            }
        };
        self.outbox.event(Event::Worker(id, WorkerEvent::Spawned));
        self.worker_of.insert(pid, id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.child = Some(child);
        for datagram in std::mem::take(&mut worker.early) {
            self.worker_says(id, datagram);
        }
        self.worker_joined(id);
    }

    pub(super) fn signal(&mut self, id: WorkerId, signal: Signal) {
        let Some(worker) = self.workers.get(&id) else { return };
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
                let group = worker.group.as_ref().map_or(Ok(()), Group::kill);
                child.kill().and(group)
            }
        };
        if let Err(error) = sent {
            tracing::error!(SOCKD_WORKER = id.0, "cannot signal worker {id} (pid {}): {error}", child.pid());
        }
    }

    /// Says how many lines about workers were not written.
    pub(super) fn tell_suppressed(&mut self) {
        self.workers.iter_mut().for_each(|(id, worker)| worker.tell_suppressed(*id, false));
    }

    /// Whether it was a worker that ended.
    pub(super) fn worker_ended(&mut self, ended: Ended) -> bool {
        let Some(id) = self.worker_of.remove(&ended.pid) else { return false };
        self.finish_exit(id, ended);
        true
    }

    fn finish_exit(&mut self, id: WorkerId, Ended { pid, end }: Ended) {
        let Some(mut worker) = self.workers.remove(&id) else { return };
        if worker.template.is_some() {
            self.worker_exited(&worker, worker.as_process(id, pid));
        }
        worker.tell_suppressed(id, true);
        // Its last lines may still be in the pipe.
        worker.stderr.pump();
        self.repeats.worker_ended(id, worker.generation, &worker.lines);
        let tail = worker.stderr.tail();
        let mut why = verdict(end, Some(worker.conventions), &tail);
        if let Some(group) = worker.group.take() {
            if group.oom_kills().is_some_and(|kills| kills > worker.oom_kills_reported) {
                let cause = self.worker_cgroups.out_of_memory(&group);
                why = match end {
                    End::Signal(KILL) => format!("killed by the kernel: {cause}"),
                    End::Signal(_) | End::Code(_) => {
                        format!("{why}; the kernel had killed a process that it had started: {cause}")
                    }
                };
            }
            // What it leaves behind would keep its sockets and serve nobody.
            self.worker_cgroups.remove_when_empty(group);
        } else {
            self.orphans.look_for(id, pid);
        }
        self.remember_last_lines(id, &tail);
        self.outbox.event(Event::Worker(id, WorkerEvent::Exited { why }));
    }

    /// The kernel has killed processes of this worker for want of memory.
    pub(super) fn process_killed(&mut self, id: WorkerId, killed: u64) {
        // One that has ended has had its verdict.
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(group) = worker.group.as_ref().filter(|_| killed > worker.oom_kills_reported) else { return };
        worker.oom_kills_reported = killed;
        let cause = self.worker_cgroups.out_of_memory(group);
        if !worker.kills.allows(Instant::now()) {
            return;
        }
        tracing::warn!(
            MESSAGE_ID = message_id::OUT_OF_MEMORY,
            SOCKD_EVENT = "out-of-memory",
            SOCKD_WORKER = id.0,
            "the kernel killed a process that worker {id} had started: {cause}; the worker lives on"
        );
    }

    /// Keeps the last lines of the workers that ended last, for those who ask why.
    fn remember_last_lines(&mut self, id: WorkerId, tail: &Tail) {
        let lines: Vec<String> = tail.lines().map(str::to_owned).collect();
        let skip = lines.len().saturating_sub(QUOTED_LINES);
        self.recent_stderr.insert(id, lines.into_iter().skip(skip).collect());
        while self.recent_stderr.len() > 16 {
            self.recent_stderr.pop_first();
        }
    }

    /// The last lines of a worker, dead or alive.
    pub(super) fn last_lines(&self, id: WorkerId) -> Vec<String> {
        if let Some(worker) = self.workers.get(&id) {
            worker.stderr.pump();
            let lines: Vec<String> = worker.stderr.tail().lines().map(str::to_owned).collect();
            let skip = lines.len().saturating_sub(QUOTED_LINES);
            return lines.into_iter().skip(skip).collect();
        }
        self.recent_stderr.get(&id).cloned().unwrap_or_default()
    }

    /// Looks whether the worker, or one of its descendants, holds one of our sockets.
    pub(super) fn inspect(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let inodes: BTreeSet<u64> = match worker.role {
            Role::Serving => self.listeners.iter().map(|listener| listener.inode).collect(),
            Role::Canary => worker.probes.iter().map(probe::Socket::inode).collect(),
        };
        let held = worker.pid().and_then(held_sockets);
        let holds = match &held {
            Some(held) if !held.is_disjoint(&inodes) => Holds::Yes,
            Some(_) => Holds::No,
            None => Holds::Unknown,
        };
        let accepts = match worker.role {
            Role::Serving if worker.child.is_some() => self.accepts(&held.unwrap_or_default()),
            Role::Serving | Role::Canary => Accepts::Unknown,
        };
        self.outbox.event(Event::Worker(id, WorkerEvent::Inspected { holds, accepts }));
    }

    /// Whether a worker that holds these sockets takes what waits on the public ones.
    fn accepts(&self, held: &BTreeSet<u64>) -> Accepts {
        let waits =
            |listener: &Listener| queue::depth(&listener.address, listener.inode).is_ok_and(|depth| depth.waiting > 0);
        let accepted = || self.listeners.iter().filter_map(|l| queue::accepted(&l.address).ok()).flatten();
        // The kernel looks at every socket there is, ours of all workers among them, to say which were accepted. One that
        // holds none beside the listeners has accepted nothing.
        let others = held.iter().any(|inode| self.listeners.iter().all(|listener| listener.inode != *inode));
        if others && accepted().any(|inode| held.contains(&inode)) {
            Accepts::Yes
        } else if !self.core.somebody_serves() && self.listeners.iter().any(waits) {
            // Where others serve, it waits for them; and the kernel looks for the queue among all sockets, too.
            Accepts::NotYet
        } else {
            Accepts::Unknown
        }
    }
}

pub(super) fn by_number(signal: i32) -> rustix::process::Signal {
    signal_by_number(signal).unwrap_or(rustix::process::Signal::TERM)
}

/// How a process ended, in the words of its server, with the line of its stderr that says most.
pub(super) fn verdict(end: End, conventions: Option<&Conventions>, tail: &Tail) -> String {
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
