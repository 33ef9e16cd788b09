//! The event loop. It waits for signals, the core's deadline and the drivers' messages, tells the core, and carries out
//! what the core answers.
//!
//! # What the loop asks of the system, and why each call returns at once
//!
//! The loop feeds the watchdog, reaps, and carries out every deadline: what it waits for, the whole instance waits for.
//!
//! ```text
//!   epoll_wait, timerfd, clock_gettime     the waiting itself
//!   waitid(WNOHANG), pidfd_open, pidfd_send_signal, kill of a process group, prctl
//!                                          tables of the kernel
//!   fork                                   copies our own small memory; entering the control group, the directory and
//!                                          the program is the child's, and nobody waits for it (process/spawn.rs)
//!   recvmsg, recv, read, accept            never blocking; descriptors that come along are closed by a thread (peer.rs)
//!   connect, send, write                   never blocking, to workers' private sockets, templates, clients of the control
//!                                          socket, the 503 helper; what does not fit is an error (probe, process, control)
//!   sendto systemd and journald            never blocking; what does not fit waits in memory, in order, bounded
//!                                          (systemd/notify.rs, journal/outlet.rs); a stderr is asked before each write
//!   socket, pipe2, memfd_create, getrandom the kernel's memory
//!   bind, open(O_PATH), unlink             private sockets: in RuntimeDirectory= or /dev/shm, which are memory, and on
//!                                          another file system only where neither can be written to
//!   bind, lstat, chown, unlink             listeners of our own: before anything is served, when the path was lost that
//!                                          a thread has just looked at, and at the end
//!   listen, getsockopt, netlink sock_diag  tables of the kernel; the answer is made within send(2)
//!   /proc/PID/{fd,stat,task/*/children}    tables of the kernel. Not cmdline, environ or smaps, which wait for the process
//!   control groups: mkdir, rmdir, cgroup.kill, limits, memory.events
//!                                          the kernel's memory; a busy group is an error at once
//! ```
//!
//! What may take long is done by other threads (tokio's), bounded in number, and comes back as a message: reading what a
//! generation is made from (reading.rs, with a time limit), looking where paths lead (listener_monitor.rs), measuring
//! workers and listeners (measure.rs), closing what others sent (peer.rs). `tests/daemon/strangers.rs` and `log.rs`, and
//! `tests/systemd/standstill.rs`, stop each of them in turn and see the watchdog fed.

use super::fallback::Fallback;
use super::generation::Generation;
use super::health::Baseline;
use super::health::exec::HealthCommands;
use super::hooks::Hooks;
use super::listener_monitor::ListenerMonitor;
use super::measure::Meters;
use super::message::Message;
use super::orphans::Orphans;
use super::outbox::Outbox;
use super::reading::Readers;
use super::repeats::Repeats;
use super::signals::UselessSignals;
use super::startup::Setup;
use super::timerfd::Timerfd;
use super::unclaimed_exits::UnclaimedExits;
use super::worker_cgroups::WorkerCgroups;
use super::workers::Worker;
use crate::control::{self, Call, Replier};
use crate::journal::{self, message_id};
use crate::listener::Listener;
use crate::private_socket::Binder;
use crate::process::{Signals, reap};
use crate::supervisor::{Event, GenerationId, RequestId, SlotId, Start, Supervisor, Time, WorkerId};
use crate::systemd::{Notifier, ReloadGuard, environment};
use crate::{exit, process};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// So many messages of drivers may wait; a driver that has more waits itself.
const INBOX: usize = 256;
/// While nobody takes what waits for the log, it is offered again after this time.
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// So often the drivers' tasks get their turn before a deadline counts: they wake, read, and send.
const MAX_DRIVER_TURNS: usize = 3;
/// Between the core's end and ours: what descendants are left get this long to be killed and reaped.
const SWEEP: Duration = Duration::from_secs(5);

/// A worker's end, as `sockd status` tells it.
#[derive(Clone, Debug)]
pub(super) struct LastExit {
    pub(super) reason: String,
    pub(super) at: SystemTime,
    pub(super) lived: Duration,
    pub(super) last_lines: Vec<String>,
}

pub(super) struct EventLoop {
    pub(super) setup: Arc<Setup>,
    pub(super) core: Supervisor,
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    pub(super) listeners: Arc<Vec<Listener>>,
    pub(super) listener_monitor: ListenerMonitor,
    /// The core wants to know of the first connection, and nothing listens yet.
    pub(super) watch_wanted: bool,
    pub(super) generations: BTreeMap<GenerationId, Generation>,
    pub(super) readers: Readers,
    /// The generations that are being read.
    pub(super) reading: BTreeSet<GenerationId>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// Whose process it is, until it is reaped.
    pub(super) worker_of: HashMap<Pid, WorkerId>,
    pub(super) last_exits: BTreeMap<SlotId, LastExit>,
    pub(super) repeats: Repeats,
    /// The last lines of workers that ended, the youngest few.
    pub(super) recent_stderr: BTreeMap<WorkerId, Vec<String>>,
    pub(super) templates: super::generation::Templates,
    pub(super) hooks: Hooks,
    pub(super) worker_cgroups: WorkerCgroups,
    pub(super) fallback: Fallback,
    pub(super) health_commands: HealthCommands,
    pub(super) notifier: Notifier,
    /// The core's revision that was shown last; None: something else has changed since.
    pub(super) shown: Option<u64>,
    pub(super) reload_guard: Option<ReloadGuard>,
    pub(super) binder: Binder,
    pub(super) meters: Meters,
    /// Who waits for the outcome of a reload.
    pub(super) clients: BTreeMap<RequestId, Replier>,
    next_request: u64,
    pub(super) outbox: Outbox,
    pub(super) unclaimed_exits: UnclaimedExits,
    pub(super) orphans: Orphans,
    pub(super) finished: bool,
    /// All that was wanted was just reached: there is little to do from here on.
    pub(super) at_rest: bool,
    /// Of the core.
    deadline: Timerfd,
    /// When the service manager is to hear that the loop turns.
    watchdog: Timerfd,
    inbox: mpsc::Receiver<Message>,
    calls: mpsc::Receiver<Call>,
    signals: Signals,
    pub(super) useless_signals: UselessSignals,
}

impl EventLoop {
    pub(super) fn new(setup: Setup, listeners: Vec<Listener>, start: Start) -> io::Result<Self> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (calls_sender, calls) = mpsc::channel(control::MAX_CLIENTS);
        let signals = Signals::new(environment::watchdog_period().is_some())?;
        match control::Server::bind() {
            Ok(server) => drop(tokio::spawn(server.serve(calls_sender))),
            Err(error) => {
                tracing::warn!("`sockd status` will not see this instance: no control socket ({error}), ignoring")
            }
        }
        let began = Instant::now();
        let seed = u64::from(std::process::id()) << 32
            ^ SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::from(d.subsec_nanos()));
        let (core, effects) = Supervisor::new(Time::default(), start, seed);
        let mut shell = Self {
            binder: Binder::new(environment::runtime_directory()),
            notifier: Notifier::from_environment(),
            shown: None,
            setup: Arc::new(setup),
            core,
            began,
            began_at: SystemTime::now(),
            listeners: Arc::new(listeners),
            listener_monitor: ListenerMonitor::new()?,
            watch_wanted: false,
            generations: BTreeMap::new(),
            readers: Readers::default(),
            reading: BTreeSet::new(),
            workers: BTreeMap::new(),
            worker_of: HashMap::new(),
            last_exits: BTreeMap::new(),
            repeats: Repeats::default(),
            recent_stderr: BTreeMap::new(),
            templates: super::generation::Templates::default(),
            hooks: Hooks::default(),
            worker_cgroups: WorkerCgroups::default(),
            fallback: Fallback::default(),
            health_commands: HealthCommands::default(),
            reload_guard: None,
            meters: Meters::default(),
            clients: BTreeMap::new(),
            next_request: 1,
            outbox: Outbox::new(sender),
            unclaimed_exits: UnclaimedExits::default(),
            orphans: Orphans::default(),
            finished: false,
            at_rest: false,
            deadline: Timerfd::new()?,
            watchdog: Timerfd::new()?,
            inbox,
            calls,
            signals,
            useless_signals: UselessSignals::default(),
        };
        shell.tell_listeners();
        shell.look_at_paths();
        shell.carry_out(effects);
        shell.settle();
        Ok(shell)
    }

    /// Runs until the core has stopped; returns the exit code.
    pub(super) async fn run(mut self) -> u8 {
        let watchdog = environment::watchdog_period();
        if watchdog.is_some() {
            self.notifier.watchdog();
        }
        self.watchdog.every(watchdog);
        let mut signals_came = false;
        while !self.finished {
            let deadline = self.core.poll_timeout().map(|(at, _)| self.began + at.since(Time::default()));
            // What is due comes before what others send, however much that is. The dead come first: their successors are
            // waited for.
            let signals_first = !std::mem::take(&mut signals_came);
            tokio::select! {
                biased;
                numbers = self.signals.next(), if signals_first => {
                    signals_came = true;
                    self.signalled(&numbers);
                }
                () = self.watchdog.tick() => self.notifier.watchdog(),
                () = self.deadline.until(deadline) => {
                    self.hear_what_waits().await;
                    let effects = self.core.handle_timeout(self.now());
                    self.carry_out(effects);
                }
                () = self.listener_monitor.ticker.tick() => {
                    self.look();
                    self.measure_workers();
                    self.tell_suppressed();
                    self.useless_signals.tell_suppressed(Instant::now());
                }
                numbers = self.signals.next(), if !signals_first => self.signalled(&numbers),
                Some(call) = self.calls.recv() => self.answer(call),
                Some(message) = self.inbox.recv() => self.receive(message),
                () = sleep(LOG_POLL_INTERVAL), if journal::is_waiting() || self.notifier.is_waiting() => {}
            }
            self.settle();
            journal::flush();
            self.notifier.flush();
            if std::mem::take(&mut self.at_rest) {
                // Only for the sake of others, who may need the memory.
                let _ = process::release_file_pages();
            }
        }
        self.sweep().await;
        self.worker_cgroups.clear();
        for listener in self.listeners.iter() {
            if let Err(error) = listener.unlink_if_bound_here() {
                tracing::warn!("cannot remove {}: {error}, ignoring", listener.address);
            }
        }
        tracing::info!(MESSAGE_ID = message_id::STOPPED, SOCKD_EVENT = "stopped", "stopped");
        exit::SUCCESS
    }

    /// Time as the core sees it.
    pub(super) fn now(&self) -> Time {
        Time::default() + self.began.elapsed()
    }

    /// The time of day of a moment of the core's.
    pub(super) fn wall_clock(&self, at: Time) -> SystemTime {
        self.began_at + at.since(Time::default())
    }

    /// Tells the core everything that has come up, until nothing more comes of it, and shows the new state.
    fn settle(&mut self) {
        self.tell_core();
        self.worker_cgroups.clear();
        self.show();
    }

    /// Takes what was said before a deadline counts: while sockd stood still, heartbeats waited in their sockets. What comes
    /// meanwhile may wait longer than the deadline.
    async fn hear_what_waits(&mut self) {
        // The drivers' tasks read their sockets, and put into the inbox what they have read.
        for _ in 0..MAX_DRIVER_TURNS {
            tokio::task::yield_now().await;
        }
        for _ in 0..self.inbox.len() {
            let Ok(message) = self.inbox.try_recv() else { break };
            self.receive(message);
        }
        self.tell_core();
    }

    fn tell_core(&mut self) {
        while let Some(event) = self.outbox.next_event() {
            let effects = self.core.handle_event(self.now(), event);
            self.carry_out(effects);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Core(event) => self.outbox.event(event),
            Message::Read(generation, read) => self.configuration_read(generation, *read),
            Message::Template(template, report) => self.template_reports(template, report),
            Message::Notify(worker, datagram, _done) => self.worker_says(worker, datagram),
            Message::Judged { worker, judgement } => self.judged(worker, judgement),
            Message::Greeted { worker, verdict } => self.greeted(worker, verdict),
            Message::Probed { worker, answer } => self.probed(worker, &answer),
            Message::JudgeAgain { worker, patience } => self.judge(worker, Baseline::default(), Some(patience)),
            Message::HealthCommandLate { worker, pid } => self.health_commands.late(worker, pid),
            Message::OutOfMemory(worker, killed) => self.process_killed(worker, killed),
            Message::Paths(found) => self.paths_seen(&found),
            Message::Measured(memory) => self.workers_measured(memory),
            Message::KillOrphans(pids) => self.kill_orphans(pids),
        }
    }

    fn answer(&mut self, call: Call) {
        match call.request {
            control::Request::Status => self.answer_status(call.replier),
            control::Request::Reload { wait: true } => self.request_reload(Some(call.replier)),
            control::Request::Reload { wait: false } => {
                self.request_reload(None);
                let message = "the reload has begun".to_owned();
                call.replier.outcome(control::Outcome { ok: true, message, details: Vec::new() });
            }
        }
    }

    pub(super) fn request_reload(&mut self, client: Option<Replier>) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        if let Some(client) = client {
            self.clients.insert(request, client);
        }
        self.outbox.event(Event::ReloadRequested(request));
    }

    pub(super) fn reap_all(&mut self) {
        while let Some(ended) = reap() {
            self.orphans.forget(ended.pid);
            let known = self.worker_ended(ended)
                || self.template_ended(ended)
                || self.fallback.ended(ended, &mut self.outbox)
                || self.health_commands.ended(ended, &mut self.outbox);
            if !known {
                self.unclaimed_exits.remember(Instant::now(), ended);
            }
        }
    }

    fn tell_listeners(&self) {
        for listener in self.listeners.iter() {
            let how = if listener.is_bound_here() { "listening on" } else { "inherited" };
            tracing::info!(MESSAGE_ID = message_id::LISTENER_TAKEN, SOCKD_EVENT = "listener-taken", "{how} {listener}");
        }
        if let Some(greeting) = self.setup.greeting.as_ref().filter(|_| !self.listeners.is_empty()) {
            eprintln!("{greeting}");
        }
    }

    /// Takes listeners that could only be bound once the template had spoken.
    pub(super) fn take_listeners(&mut self, listeners: Vec<Listener>) {
        self.listeners = Arc::new(listeners);
        self.shown = None;
        self.tell_listeners();
        self.look_at_paths();
        self.fallback.restart(&self.listeners, &mut self.outbox);
        if std::mem::take(&mut self.watch_wanted) {
            self.watch_listeners();
        }
    }

    /// Kills and reaps whatever descends from us and is not known: a worker's children that outlived it.
    async fn sweep(&mut self) {
        let end = Instant::now() + SWEEP;
        while Instant::now() < end {
            while reap().is_some() {}
            let left = process::descendants(rustix::process::getpid());
            if left.is_empty() {
                return;
            }
            // The helper that answers 503 finishes by itself; everything else has had its time.
            if !self.fallback.is_leaving() {
                left.into_iter().for_each(process::kill_descendant);
            }
            tokio::select! {
                _ = self.signals.next() => {}
                () = sleep(Duration::from_millis(100)) => {}
            }
            self.fallback.forget_if_gone();
        }
        tracing::warn!("some processes could not be killed; the service manager will try");
    }
}
