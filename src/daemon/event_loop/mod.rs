//! The event loop: it owns the parts of the daemon. It waits for signals, the core's deadline and the drivers' messages,
//! tells the core, and carries out what the core answers.
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
//!   sendto systemd                         never blocking; what does not fit waits in memory, in order, bounded
//!                                          (systemd/notify.rs). The log is a queue, which a thread writes (journal/queue.rs)
//!   socket, pipe2, memfd_create, getrandom the kernel's memory
//!   bind, open(O_PATH), unlink             private sockets: in RuntimeDirectory= or /dev/shm, which are memory, and on
//!                                          another file system only where neither can be written to
//!   bind, lstat, chown, unlink             listeners of our own: before anything is served, when the path was lost that
//!                                          a thread has just looked at, and at the end
//!   listen, getsockopt, netlink sock_diag  tables of the kernel; the answer is made within send(2)
//!   pread                                  workers' scoreboards, which are memory; what a worker maps there or cuts out of it
//!                                          holds up itself alone
//!   read of our own smaps, madvise         our own memory, which no other process locks
//!   fallocate, lseek                       of a scoreboard, before its worker writes its stacks: memory, too
//!   /proc/PID/{fd,stat,status,task/*/{children,stat,wchan}}
//!                                          tables of the kernel. Not cmdline, environ or smaps, which wait for the process
//!   control groups: mkdir, rmdir, cgroup.kill, limits, memory.events
//!                                          the kernel's memory; a busy group is an error at once
//! ```
//!
//! What may take long is done by other threads (tokio's), bounded in number, and comes back as a message: reading what a
//! generation is made from (reading.rs, with a time limit), looking where paths lead (listener_monitor.rs), measuring
//! workers and listeners (measure.rs), reading and writing the history (history.rs) and the
//! recording (recorder/store.rs), sampling for it (recorder/sampler.rs) and whether maintenance is on (maintenance.rs), binding a status socket that a
//! reload has moved (status_socket.rs), closing what others sent (peer.rs). `tests/daemon/strangers.rs` and `log.rs`, and
//! `tests/systemd/journald_stall.rs`, stop each of them in turn and see the watchdog fed.

mod calls;
mod children;
mod effects;
mod generations;
mod recording;
mod reports;
mod signals;

use super::after_reload::AfterReload;
use super::balancer::Balancers;
use super::checks::Checks;
use super::children::Children;
use super::clock::Clock;
use super::counts::Counts;
use super::fallback::Fallback;
use super::generation::Generation;
use super::health::exec::HealthCommands;
use super::history::History;
use super::listener_monitor::ListenerMonitor;
use super::maintenance::MaintenanceState;
use super::measure::Meters;
use super::message::Message;
use super::orphans::Orphans;
use super::outbox::Outbox;
use super::reading::Readers;
use super::recorder::Recorder;
use super::repeats::Repeats;
use super::service_manager::ServiceManager;
use super::setup::Setup;
use super::signals::UselessSignals;
use super::slow_requests::SlowRequests;
use super::status;
use super::status_socket::StatusSocket;
use super::templates::Templates;
use super::timerfd::Timerfd;
use super::unclaimed_exits::UnclaimedExits;
use super::waiting_clients::WaitingClients;
use super::workers::Workers;
use crate::adapter::python::Python;
use crate::app::{Address, Command};
use crate::control::{self, Call};
use crate::exit;
use crate::journal::message_id;
use crate::listener::Listener;
use crate::process::{Signals, release_file_pages};
use crate::supervisor::{GenerationId, Overview, Phase, Start, Supervisor, Time, WorkerSnapshot};
use crate::systemd::environment;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

/// So many messages of drivers may wait; a driver that has more waits itself.
const INBOX: usize = 256;
/// While systemd does not take what waits for it, it is offered again after this time.
const NOTIFY_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// So often the drivers' tasks get their turn before a deadline counts: they wake, read, and send.
const MAX_DRIVER_TURNS: usize = 3;

/// The parts of the daemon, and the loop through them.
pub(super) struct EventLoop {
    setup: Arc<Setup>,
    clock: Clock,
    core: Supervisor,
    inputs: Inputs,
    outbox: Outbox,
    listeners: ListenerMonitor,
    generations: Generations,
    children: Children,
    exits: Exits,
    meters: Meters,
    observers: Observers,
    counts: Counts,
    service_manager: ServiceManager,
    reloads: Reloads,
    progress: Progress,
}

/// What the loop waits for, beside the timers of its parts.
struct Inputs {
    signals: Signals,
    useless_signals: UselessSignals,
    /// Of the core.
    deadline: Timerfd,
    inbox: mpsc::Receiver<Message>,
    calls: mpsc::Receiver<Call>,
    /// Its clients' questions are calls as well.
    status_socket: StatusSocket,
    /// What those of them hear that are balancers.
    balancers: Arc<Balancers>,
}

/// What boots a template.
type Boot = (Command, &'static Python);

/// The generations that are there, and the threads that read for those to come.
#[derive(Default)]
struct Generations {
    ready: BTreeMap<GenerationId, Generation>,
    /// Those that were read and are not loaded, with what boots their templates.
    read: BTreeMap<GenerationId, (Generation, Option<Boot>)>,
    readers: Readers,
}

/// What is known of processes beyond their end.
#[derive(Default)]
struct Exits {
    /// What those that cannot start write again and again.
    repeats: Repeats,
    unclaimed: UnclaimedExits,
    orphans: Orphans,
}

/// Who looks at the workers' requests, beside those who ask.
struct Observers {
    slow_requests: SlowRequests,
    recorder: Recorder,
}

/// Who asks for reloads, and what became of them.
struct Reloads {
    clients: WaitingClients,
    history: History,
}

/// How far the loop is.
#[derive(Default)]
struct Progress {
    /// The revisions of core and listeners that were shown last.
    shown: Option<(u64, u64)>,
    /// All that was wanted was reached: memory is given back then, for the sake of others, who may need it.
    release_memory_at: Option<Instant>,
    finished: bool,
    /// Those who wait for a status until workers have answered.
    status_clients: Vec<control::Replier>,
}

impl EventLoop {
    /// `status`: where the configuration wants the status socket, as far as it could be read.
    pub(super) fn new(
        setup: Setup,
        listeners: Vec<Listener>,
        start: Start,
        status: Option<&Address>,
    ) -> io::Result<Self> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let (calls_sender, calls) = mpsc::channel(control::MAX_CLIENTS);
        let signals = Signals::new(environment::watchdog_period().is_some())?;
        match control::Server::bind() {
            Ok(server) => drop(tokio::spawn(server.serve(calls_sender.clone()))),
            Err(error) => {
                tracing::warn!("`sockd status` will not see this instance: no control socket ({error}), ignoring")
            }
        }
        let clock = Clock::start();
        let seed = u64::from(std::process::id()) << 32
            ^ SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::from(d.subsec_nanos()));
        let (core, effects) = Supervisor::new(Time::default(), start, seed);
        let outbox = Outbox::new(sender);
        let history = History::new(environment::history_directory(), &outbox);
        let balancers = Arc::<Balancers>::default();
        let recorder = Recorder::new(environment::state_directory(), &outbox)?;
        let mut event_loop = Self {
            clock,
            core,
            inputs: Inputs {
                signals,
                useless_signals: UselessSignals::default(),
                deadline: Timerfd::new()?,
                inbox,
                calls,
                status_socket: StatusSocket::new(calls_sender, Arc::clone(&balancers)),
                balancers,
            },
            outbox,
            listeners: ListenerMonitor::new(setup.unit.clone(), setup.greeting.clone())?,
            generations: Generations::default(),
            children: Children {
                workers: Workers::new(environment::runtime_directory()),
                templates: Templates::default(),
                fallback: Fallback::new(MaintenanceState::new(environment::state_directory())),
                health_commands: HealthCommands::default(),
                checks: Checks::default(),
                after_reload: AfterReload::default(),
            },
            exits: Exits::default(),
            meters: Meters::default(),
            observers: Observers { slow_requests: SlowRequests::new()?, recorder },
            counts: Counts::default(),
            service_manager: ServiceManager::from_environment()?,
            reloads: Reloads { clients: WaitingClients::default(), history },
            progress: Progress::default(),
            setup: Arc::new(setup),
        };
        event_loop.listeners.take(listeners, &event_loop.outbox);
        // Before a worker can take its place.
        event_loop.inputs.status_socket.begin(event_loop.overview().generation, status);
        event_loop.carry_out(effects);
        if event_loop.children.fallback.maintenance.on().is_some() {
            let event = event_loop.reloads.clients.maintenance(true, None);
            event_loop.outbox.event(event);
        }
        event_loop.settle();
        Ok(event_loop)
    }

    /// Runs until the core has stopped; returns the exit code.
    pub(super) async fn run(mut self) -> u8 {
        self.service_manager.begin();
        let mut signals_came = false;
        while !self.progress.finished {
            let deadline = self.core.poll_timeout().map(|(at, _)| self.clock.instant(at));
            // What is due comes before what others send, however much that is. The dead come first: their successors are
            // waited for.
            let signals_first = !std::mem::take(&mut signals_came);
            let release = self.progress.release_memory_at;
            tokio::select! {
                biased;
                numbers = self.inputs.signals.next(), if signals_first => {
                    signals_came = true;
                    self.signalled(&numbers);
                }
                () = self.service_manager.watchdog.tick() => self.service_manager.feed_watchdog(),
                () = self.inputs.deadline.until(deadline) => {
                    self.hear_what_waits().await;
                    let effects = self.core.handle_timeout(self.clock.now());
                    self.carry_out(effects);
                }
                () = self.listeners.ticker.tick() => self.look(),
                () = self.observers.recorder.due() => self.record(),
                () = self.observers.slow_requests.due() => self.observers.slow_requests.look(&self.children.workers, Instant::now()),
                numbers = self.inputs.signals.next(), if !signals_first => self.signalled(&numbers),
                Some(call) = self.inputs.calls.recv() => self.answer(call),
                Some(message) = self.inputs.inbox.recv() => self.receive(message),
                () = sleep_until(release.unwrap_or_else(Instant::now).into()), if release.is_some() => {
                    self.progress.release_memory_at = None;
                    let _ = release_file_pages();
                }
                () = sleep(NOTIFY_RETRY_INTERVAL), if self.service_manager.is_waiting() => {}
            }
            self.settle();
            self.service_manager.flush();
        }
        self.observers.slow_requests.tell_suppressed(Instant::now(), true);
        self.sweep().await;
        self.children.workers.cgroups.clear();
        self.listeners.unlink();
        self.inputs.status_socket.close();
        self.reloads.history.finish().await;
        self.observers.recorder.finish().await;
        self.children.fallback.maintenance.finish().await;
        tracing::info!(MESSAGE_ID = message_id::STOPPED, SOCKD_EVENT = "stopped", "stopped");
        exit::SUCCESS
    }

    /// Tells the core everything that has come up, until nothing more comes of it, and shows the new state.
    fn settle(&mut self) {
        self.tell_core();
        self.children.workers.cgroups.clear();
        self.show();
    }

    /// Takes what was said before a deadline counts: while sockd stood still, heartbeats waited in their sockets. What comes
    /// meanwhile may wait longer than the deadline.
    async fn hear_what_waits(&mut self) {
        // The drivers' tasks read their sockets, and put into the inbox what they have read.
        for _ in 0..MAX_DRIVER_TURNS {
            tokio::task::yield_now().await;
        }
        for _ in 0..self.inputs.inbox.len() {
            let Ok(message) = self.inputs.inbox.try_recv() else { break };
            self.receive(message);
        }
        self.tell_core();
    }

    fn tell_core(&mut self) {
        while let Some(event) = self.outbox.next_event() {
            let effects = self.core.handle_event(self.clock.now(), event);
            self.carry_out(effects);
        }
    }

    /// Shows the service manager and the 503 helper what has changed, if anything has.
    fn show(&mut self) {
        let revision = (self.core.revision(), self.listeners.revision());
        if self.progress.shown.replace(revision) == Some(revision) {
            return;
        }
        let overview = self.overview();
        self.listeners.plan(&overview);
        self.service_manager.show(&self.listeners.status_line(status::status_line(&overview), &overview));
        if !overview.stopping {
            self.place_next(&overview);
        }
        if let Some(serving) = self.generations.ready.get(&overview.generation) {
            let wanted = serving.settings.status.listen.as_ref();
            self.inputs.status_socket.follow(overview.generation, wanted, &self.outbox);
        }
        if overview.fallback {
            self.children.fallback.set_retry_after(overview.next_attempt_in);
        }
    }

    fn overview(&self) -> Overview {
        self.core.overview(self.clock.now())
    }

    /// The state in one line.
    fn status_line(&self) -> String {
        let overview = self.overview();
        self.listeners.status_line(status::status_line(&overview), &overview)
    }

    /// What is looked at now and then.
    fn look(&mut self) {
        let overview = self.overview();
        let (workers, generations) = (&self.children.workers, &self.generations.ready);
        let start_timeout = |id| Some(generations.get(&id)?.spec.as_ref()?.start_timeout);
        // Where a worker listens while it loads need not be where it serves; and one whose like has answered is stuck.
        let loads = |worker: &WorkerSnapshot| {
            worker.phase == Phase::Starting
                && start_timeout(worker.generation).is_none_or(|limit| worker.age < limit / 2)
        };
        let may_serve_elsewhere = |worker: &&WorkerSnapshot| !loads(worker) && !worker.takes_its_sockets;
        let serving = || {
            let snapshot = self.core.snapshot(self.clock.now());
            workers.serving(snapshot.workers.iter().filter(may_serve_elsewhere).map(|worker| worker.worker))
        };
        self.listeners.look(&overview, serving, &self.outbox);
        self.inputs.status_socket.look(&self.outbox);
        let limited = |generation: &Generation| generation.spec.as_ref().is_some_and(|spec| spec.max_memory.is_some());
        let measured = self
            .children
            .workers
            .iter()
            .filter(|(_, worker)| generations.get(&worker.generation()).is_some_and(limited));
        self.meters.measure(measured, &self.outbox);
        self.children.workers.sample_requests();
        self.record();
        self.children.workers.tell_suppressed();
        self.observers.slow_requests.tell_suppressed(Instant::now(), false);
        self.inputs.useless_signals.tell_suppressed(Instant::now());
    }

    /// The process of a template that waits for the next worker does so in that one's control group, if its generation makes it.
    fn place_next(&mut self, overview: &Overview) {
        let next = overview.next_worker;
        let generation = self.generations.ready.get(&overview.generation);
        let Some(Generation { settings, template: Some(number), .. }) = generation else { return };
        if self.children.templates.lacks_place(*number, next)
            && let Some((_, entrance)) = self.children.workers.cgroups.make(next, &settings.workers)
        {
            self.children.templates.place(*number, next, entrance.as_fd());
        }
    }
}
