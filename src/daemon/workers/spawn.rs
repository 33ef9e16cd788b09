//! Making a worker's process: executed by sockd itself, or ordered from a template.

use super::cgroups::WorkerCgroup;
use super::notify::Notifications;
use super::server_stats::ServerStats;
use super::{Worker, Workers, by_number};
use crate::adapter::exec::{StatsInterface, WorkerFds};
use crate::app::Address;
use crate::daemon::generation::Generation;
use crate::daemon::outbox::Outbox;
use crate::daemon::output::Output;
use crate::daemon::repeats::Repeats;
use crate::listener::Listener;
use crate::notify;
use crate::probe;
use crate::process::{Child, FIRST_DESCRIPTOR, ForkRequest, SpawnRequest, WorkerProcess, memory_file};
use crate::scoreboard::Scoreboard;
use crate::supervisor::{Event, GenerationId, Role, WorkerEvent, WorkerId};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Which worker is to be made, and for what.
#[derive(Clone, Copy, Debug)]
pub(in crate::daemon) struct New {
    pub(in crate::daemon) id: WorkerId,
    pub(in crate::daemon) generation: GenerationId,
    pub(in crate::daemon) role: Role,
}

/// What a worker's process gets, beside sockets.
#[derive(Debug)]
pub(in crate::daemon) struct WorkerIo {
    /// NOTIFY_SOCKET=.
    notify: String,
    stderr: OwnedFd,
    /// By this it enters its control group.
    entrance: Option<OwnedFd>,
}

impl Workers {
    /// Makes everything that belongs to a worker but its process.
    pub(in crate::daemon) fn begin(
        &mut self,
        new: New,
        generation: &Generation,
        repeats: &Repeats,
        outbox: &Outbox,
    ) -> Result<WorkerIo, String> {
        let New { id, role, .. } = new;
        let socket = notify::Socket::bind(&self.binder)
            .map_err(|error| format!("cannot make the worker's notification socket: {error}"))?;
        let notify = socket.address();
        let (output, stderr) = Output::follow(repeats.of_worker(id, new.generation, role))?;
        let notifications = Notifications::listen(id, socket, outbox);
        let (group, entrance) = self.cgroups.make(id, &generation.settings.workers).unzip();
        let worker = Worker {
            generation: new.generation,
            role,
            probes: Vec::new(),
            conventions: &generation.adapter.conventions,
            child: None,
            output,
            notifications,
            template: None,
            hook_state: None,
            scoreboard: None,
            server_stats: None,
            slow_requests_after: generation.settings.requests.slow,
            aborted_request: None,
            cgroup: group.map(|group| WorkerCgroup::watch(id, group, outbox)).unwrap_or_default(),
            unanswered: false,
        };
        self.all.insert(id, worker);
        Ok(WorkerIo { notify, stderr, entrance })
    }

    /// Executes the generation's command for one worker.
    pub(in crate::daemon) fn execute(
        &mut self,
        new: New,
        generation: &Generation,
        listeners: &[Listener],
        io: &WorkerIo,
        outbox: &mut Outbox,
    ) -> Result<(), String> {
        let New { id, role, .. } = new;
        let with_private = generation.plan.private_socket;
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
            Role::Serving => listeners,
        };
        let texts = generation.plan.files.iter().map(|text| memory_file("sockd-worker", text));
        let files: Vec<OwnedFd> =
            texts.collect::<Result<_, _>>().map_err(|error| format!("cannot make a file in memory: {error}"))?;
        let all = public.iter().map(AsFd::as_fd).chain(private.iter().map(AsFd::as_fd));
        let mut descriptors: Vec<_> = all.chain(files.iter().map(AsFd::as_fd)).collect();
        let shows_requests = generation.settings.requests.show;
        let stats = match generation.plan.stats.as_ref().filter(|_| shows_requests) {
            Some(interface) => Some(self.stats_socket(id, interface.clone())?),
            None => None,
        };
        // The private sockets of a canary take the places, and so the names, of the public ones.
        let named = if with_private { public } else { listeners };
        let given = WorkerFds {
            listeners: &named.iter().map(|listener| &listener.address).collect::<Vec<_>>(),
            private_socket: with_private.then_some(FIRST_DESCRIPTOR + public.len()),
            files: FIRST_DESCRIPTOR + public.len() + private.len(),
            stats_socket: stats.is_some().then_some(FIRST_DESCRIPTOR + descriptors.len()),
            notify: &io.notify,
        };
        let execution = generation.plan.execution(&generation.command, &given);
        descriptors.extend(stats.as_ref().map(AsFd::as_fd));
        if let (Some(alias), Some(worker)) = (execution.alias, self.all.get(&id)) {
            worker.output.name_files(alias);
        }
        let mut environment = BTreeMap::<OsString, OsString>::new();
        let with_scoreboard = shows_requests && generation.plan.takes_scoreboard();
        let scoreboard = with_scoreboard.then(new_scoreboard).transpose()?;
        if let Some(scoreboard) = &scoreboard {
            environment.insert("SOCKD_SCOREBOARD".into(), (FIRST_DESCRIPTOR + descriptors.len()).to_string().into());
            descriptors.push(scoreboard.as_fd());
        }
        if execution.notify_socket {
            environment.insert("NOTIFY_SOCKET".into(), io.notify.clone().into());
        }
        // sd_watchdog_enabled(3).
        if let Some(watchdog) = generation.spec.as_ref().and_then(|spec| spec.watchdog) {
            environment.insert("WATCHDOG_USEC".into(), watchdog.as_micros().to_string().into());
        }
        let private_name = with_private.then_some("private");
        let names: Vec<_> = named.iter().map(|listener| listener.name.as_str()).chain(private_name).collect();
        let request = SpawnRequest {
            command: &execution.command,
            environment: &environment,
            descriptors: &descriptors,
            listen_names: execution.listen_fds.then_some(&names),
            stderr: Some(io.stderr.as_fd()),
            pipes: None,
            group: io.entrance.as_ref().map(AsFd::as_fd),
            parent_death: by_number(generation.adapter.conventions.stop_signal),
            sheltered: false,
        };
        let child = request.spawn().map_err(|error| error.to_string())?;
        if let Some(worker) = self.all.get_mut(&id) {
            worker.scoreboard = scoreboard;
        }
        self.adopt(id, child);
        outbox.event(Event::Worker(id, WorkerEvent::Spawned));
        Ok(())
    }

    /// Orders a worker from the template that `send` sends to, which gives its number.
    pub(in crate::daemon) fn order(
        &mut self,
        New { id, role, .. }: New,
        shows_requests: bool,
        listeners: &[Listener],
        io: &WorkerIo,
        send: impl FnOnce(&ForkRequest<'_>) -> Result<u64, String>,
    ) -> Result<(), String> {
        let environment = BTreeMap::from([("NOTIFY_SOCKET".to_owned(), io.notify.clone())]);
        let scoreboard = new_scoreboard()?;
        // The Python servers serve sockets of any family beside each other, and a unix socket has no port that others see.
        let probe = self.private_socket(id, &Address::Abstract(String::new()))?;
        let sockets: Vec<_> = match role {
            Role::Serving => listeners.iter().map(AsFd::as_fd).collect(),
            Role::Canary => Vec::new(),
        };
        let template = send(&ForkRequest {
            worker: id.0,
            environment: &environment,
            stderr: io.stderr.as_fd(),
            scoreboard: scoreboard.as_fd(),
            shows_requests,
            listeners: &sockets,
            probe: Some(probe.as_fd()),
            group: io.entrance.as_ref().map(AsFd::as_fd),
        })?;
        if let Some(worker) = self.all.get_mut(&id) {
            worker.template = Some(template);
            worker.scoreboard = Some(scoreboard);
        }
        Ok(())
    }

    /// The template has forked this process, a child of ours, for the worker that was ordered. The worker as hooks see it.
    pub(in crate::daemon) fn forked(
        &mut self,
        id: WorkerId,
        child: Child,
        outbox: &mut Outbox,
    ) -> Option<WorkerProcess> {
        outbox.event(Event::Worker(id, WorkerEvent::Spawned));
        self.adopt(id, child);
        for datagram in self.all.get_mut(&id)?.notifications.take_early() {
            self.hear(id, datagram, outbox);
        }
        self.all.get(&id)?.forked_process(id)
    }

    /// Gives up a worker that has no process and will have none.
    pub(in crate::daemon) fn not_made(&mut self, id: WorkerId, why: String, outbox: &mut Outbox) {
        if let Some(group) = self.all.remove(&id).and_then(|mut worker| worker.cgroup.group.take()) {
            self.cgroups.remove_when_empty(group);
        }
        outbox.event(Event::Worker(id, WorkerEvent::SpawnFailed { why }));
    }

    fn adopt(&mut self, id: WorkerId, child: Child) {
        if let Some(worker) = self.all.get_mut(&id) {
            self.by_pid.insert(child.pid(), id);
            worker.child = Some(child);
        }
    }

    /// Listens on a socket where only this worker is asked of its requests.
    fn stats_socket(&mut self, id: WorkerId, interface: StatsInterface) -> Result<OwnedFd, String> {
        let (socket, fd) = probe::Socket::listen(&self.binder)
            .map_err(|error| format!("cannot make the socket for the worker's statistics: {error}"))?;
        if let Some(worker) = self.all.get_mut(&id) {
            worker.server_stats = Some(ServerStats::new(interface, socket));
        }
        Ok(fd)
    }

    /// Listens on a socket that only this worker will hold, of the same family as `like`.
    fn private_socket(&mut self, id: WorkerId, like: &Address) -> Result<OwnedFd, String> {
        let listening = match like {
            Address::Tcp(address) => probe::Socket::listen_tcp(*address),
            Address::Unix(_) | Address::Abstract(_) => probe::Socket::listen(&self.binder),
        };
        let (socket, fd) = listening.map_err(|error| format!("cannot make the worker's probe socket: {error}"))?;
        if let Some(worker) = self.all.get_mut(&id) {
            worker.probes.push(socket);
        }
        Ok(fd)
    }
}

fn new_scoreboard() -> Result<Arc<Scoreboard>, String> {
    Scoreboard::new().map(Arc::new).map_err(|error| format!("cannot make the worker's scoreboard: {error}"))
}
