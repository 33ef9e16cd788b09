//! Making a generation ready to spawn: its specification, and its template where there is one. What is on disk is read
//! elsewhere (reading.rs).

use super::event_loop::EventLoop;
use super::hooks::Notices;
use super::log_limit::LogLimit;
use super::message::Message;
use super::reading::Read;
use super::repeats::Lines;
use super::spec::{Asked, spec};
use super::startup::{bind_addresses, bind_all};
use super::workers::verdict;
use crate::adapter::exec::LaunchPlan;
use crate::adapter::python::{self, Python};
use crate::adapter::server_settings::ServerSettings;
use crate::adapter::{Adapter, Making};
use crate::app::{Address, Command};
use crate::config::Settings;
use crate::journal::{self, message_id};
use crate::listener::Permissions;
use crate::process::{Child, End, Ended, ForkRequest, Hello, Life, Stderr, Template, TemplateMessage};
use crate::supervisor::{Event, GenerationId, PREPARE_TIMEOUT, Role, Spec, WorkerId};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What a generation's workers are made from.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) settings: Settings,
    pub(super) adapter: &'static Adapter,
    pub(super) command: Command,
    /// How its workers are executed, if no template forks them.
    pub(super) plan: LaunchPlan,
    pub(super) spec: Option<Spec>,
    /// Whether its workers serve one request at a time.
    pub(super) silent_when_busy: bool,
    /// Whether its workers understand TLS alone, so that no question of ours is answered.
    pub(super) speaks_tls: bool,
    /// Whether they are asked in the uwsgi protocol.
    pub(super) speaks_uwsgi: bool,
    /// `health.command`, ready to be executed.
    pub(super) health_command: Option<Command>,
    /// Its template, by number.
    pub(super) template: Option<u64>,
}

/// All templates that have not ended yet, also those of generations that were released.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pub(super) running: BTreeMap<u64, Booted>,
    last: u64,
}

/// A template that has been started and has not ended.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) template: Template,
    stderr: Arc<Stderr>,
    /// What of its lines is kept back.
    lines: Arc<Lines>,
    /// None: it was released, and workers that it still reports are not wanted.
    pub(super) generation: Option<GenerationId>,
    pub(super) said_hello: bool,
    /// The worker in whose control group a process of it waits.
    placed: Option<WorkerId>,
    /// Workers that were ordered and neither reported nor refused.
    ordered: BTreeSet<WorkerId>,
    /// Whether one of them was to serve.
    pub(super) serves: bool,
    /// Whether its hooks must know all workers, and the service's begin and end.
    pub(super) follows_workers: bool,
    pub(super) follows_service: bool,
    pub(super) notices: Notices,
    /// How it ended; its last reports may still be on their way.
    pub(super) end: Option<End>,
    silent: bool,
    /// The lines about what makes no sense.
    garbage: LogLimit,
}

impl Templates {
    /// Whether this is the process of one of them.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        self.running.values().any(|booted| booted.template.child().pid() == pid)
    }

    /// Whether one of them has been ordered a worker that it has not reported.
    pub(super) fn await_workers(&self) -> bool {
        self.running.values().any(|booted| !booted.ordered.is_empty())
    }
}

impl EventLoop {
    /// Reads everything afresh. Answers with an event when it was read, or when the template has spoken.
    pub(super) fn prepare(&mut self, id: GenerationId) {
        self.reading.insert(id);
        let reading = self.readers.read(&self.setup);
        self.outbox.later(async move { Some(Message::Read(id, Box::new(reading.await))) });
    }

    /// What there was to read has been read.
    pub(super) fn configuration_read(&mut self, id: GenerationId, read: Read) {
        // It may have been released meanwhile.
        if !self.reading.remove(&id) {
            return;
        }
        for line in read.problems {
            tracing::error!(MESSAGE_ID = message_id::CONFIGURATION_REFUSED, SOCKD_GENERATION = id.0, "{line}");
        }
        if let Some(page) = read.page {
            self.fallback.show(page.as_deref());
        }
        if let Err(why) = read.generation.and_then(|generation| self.begin_generation(id, generation, read.template)) {
            self.outbox.event(Event::PrepareFailed { generation: id, why });
        }
    }

    fn begin_generation(
        &mut self,
        id: GenerationId,
        mut generation: Generation,
        template: Option<(Command, &'static Python)>,
    ) -> Result<(), String> {
        let name = generation.adapter.conventions.name;
        match template {
            None => {
                if generation.settings.workers.preload == Some(true) {
                    tracing::warn!("preload is ignored: sockd has no template for this server ({name})");
                }
                for warning in &generation.plan.warnings {
                    tracing::warn!(SOCKD_GENERATION = id.0, "{warning}");
                }
                self.warn_of_other_addresses(id, name, generation.plan.listen.clone());
                let spec = spec(&generation.settings, &Asked::from(&generation.plan));
                generation.spec = Some(spec.clone());
                self.outbox.event(Event::Prepared { generation: id, spec });
            }
            Some((command, python)) => {
                // It may import the application.
                let limit = generation.settings.workers.start_timeout;
                if limit > PREPARE_TIMEOUT {
                    self.outbox.event(Event::Preparing { generation: id, limit });
                }
                generation.template = Some(self.boot_template(id, &command, python)?);
            }
        }
        // While the template boots, since it takes a while.
        self.worker_cgroups.open(&generation.settings.workers);
        self.generations.insert(id, generation);
        Ok(())
    }

    fn boot_template(&mut self, id: GenerationId, command: &Command, python: &Python) -> Result<u64, String> {
        let lines = self.repeats.of_template(id);
        let taken = Arc::clone(&lines);
        let (stderr, write) =
            Stderr::new(move |line| taken.take(line)).map_err(|error| format!("cannot make a pipe: {error}"))?;
        let (phase, hook_state) = self.hooks.life(id);
        let life = Life { phase, hook_state, bound: !self.listeners.is_empty(), workers: self.worker_processes() };
        let package = python.package()?;
        let template = Template::boot(command, [&package, python::BOOTSTRAP], &life, std::os::fd::AsFd::as_fd(&write))
            .map_err(|error| error.to_string())?;
        drop(tokio::spawn(Arc::clone(&stderr).follow(journal::is_congested)));
        self.templates.last += 1;
        let number = self.templates.last;
        let reports = template.reports();
        let sender = self.outbox.sender();
        tokio::spawn(async move {
            loop {
                let report = reports.next().await;
                let last = report.is_none();
                if sender.send(Message::Template(number, report)).await.is_err() || last {
                    return;
                }
            }
        });
        let booted = Booted {
            template,
            stderr,
            lines,
            generation: Some(id),
            said_hello: false,
            placed: None,
            ordered: BTreeSet::new(),
            serves: false,
            follows_workers: false,
            follows_service: false,
            notices: Notices::default(),
            end: None,
            silent: false,
            garbage: LogLimit::default(),
        };
        self.templates.running.insert(number, booted);
        Ok(number)
    }

    /// Orders a worker from the template of its generation; its number.
    pub(super) fn order_worker(
        &mut self,
        generation: GenerationId,
        role: Role,
        request: &ForkRequest<'_>,
    ) -> Result<u64, String> {
        let number = self.generations.get(&generation).and_then(|generation| generation.template);
        let number = number.ok_or("its template is gone")?;
        let booted = self.templates.running.get_mut(&number).ok_or("its template is gone")?;
        booted.template.fork(request).map_err(|error| error.to_string())?;
        booted.ordered.insert(WorkerId(request.worker));
        if role == Role::Serving && !std::mem::replace(&mut booted.serves, true) {
            self.hooks.serves(generation);
        }
        Ok(number)
    }

    /// The templates that open log files afresh at a signal, and that signal.
    pub(super) fn templates_that_reopen(&self) -> impl Iterator<Item = (&Child, i32)> {
        self.templates.running.values().filter_map(|booted| {
            let reopen = self.generations.get(&booted.generation?)?.adapter.conventions.reopen?;
            Some((booted.template.child(), reopen.signal))
        })
    }

    /// Has a process of the template wait in the control group of the next worker, if this generation makes it: moving
    /// there takes long, and a dead worker's successor is waited for.
    pub(super) fn place_next(&mut self, generation: GenerationId, next: WorkerId) {
        let Some(Generation { settings, template: Some(number), .. }) = self.generations.get(&generation) else {
            return;
        };
        let Some(booted) = self.templates.running.get_mut(number) else { return };
        if !booted.said_hello || booted.placed == Some(next) {
            return;
        }
        let Some((_, entrance)) = self.worker_cgroups.make(next, &settings.workers) else { return };
        // The order itself brings the same descriptor: nothing is lost with this one.
        if booted.template.place(next.0, std::os::fd::AsFd::as_fd(&entrance)).is_ok() {
            booted.placed = Some(next);
        }
    }

    pub(super) fn release(&mut self, id: GenerationId) {
        self.reading.remove(&id);
        let Some(generation) = self.generations.remove(&id) else { return };
        let Some(booted) = generation.template.and_then(|number| self.templates.running.get_mut(&number)) else {
            return;
        };
        booted.generation = None;
        let _ = booted.template.child().kill();
        let notices = std::mem::take(&mut booted.notices);
        for worker in std::mem::take(&mut booted.ordered) {
            self.not_made(worker, "its template was given up".to_owned());
        }
        self.pass_notices_on(notices);
    }

    pub(super) fn template_reports(&mut self, number: u64, report: Option<TemplateMessage>) {
        let Some(booted) = self.templates.running.get_mut(&number) else { return };
        match report {
            Some(TemplateMessage::Hello(hello)) => {
                booted.said_hello = true;
                booted.lines.give_up();
                if let Some(id) = booted.generation {
                    self.template_ready(number, id, hello);
                }
            }
            Some(TemplateMessage::Forked { worker, pid, hook_state }) => {
                let worker = WorkerId(worker);
                if booted.ordered.remove(&worker) {
                    self.worker_forked(worker, pid, hook_state);
                } else {
                    self.forked_unasked(number, worker, pid);
                }
            }
            Some(TemplateMessage::Failed { worker, error }) => {
                let worker = WorkerId(worker);
                if booted.ordered.remove(&worker) {
                    self.not_made(worker, error);
                }
            }
            Some(TemplateMessage::Noted { .. }) => self.notice_noted(number),
            Some(TemplateMessage::HookState(state)) => {
                if let Some(id) = booted.generation {
                    self.hooks.left(id, Some(state));
                }
            }
            // Nothing better follows.
            Some(TemplateMessage::Garbage(text)) if !booted.said_hello && booted.generation.is_some() => {
                if let Some(id) = booted.generation {
                    self.release(id);
                    let why = format!("the template says what makes no sense: {text:?}");
                    self.outbox.event(Event::PrepareFailed { generation: id, why });
                }
            }
            Some(TemplateMessage::Garbage(text)) if booted.garbage.allows(Instant::now()) => {
                tracing::warn!("the template says what makes no sense: {text:?}, ignoring");
            }
            Some(TemplateMessage::Garbage(_)) => {}
            None => {
                booted.silent = true;
                self.finish_template_exit(number);
            }
        }
    }

    /// A worker was reported that nobody waits for: its generation was released meanwhile, or it was never ordered.
    fn forked_unasked(&mut self, number: u64, worker: WorkerId, pid: Pid) {
        let why = match self.adopt(pid) {
            Ok(child) => {
                let _ = child.kill();
                return;
            }
            Err(why) => why,
        };
        let Some(booted) = self.templates.running.get_mut(&number) else { return };
        // What is released is dying, and so are its workers.
        if booted.generation.is_some() && booted.garbage.allows(Instant::now()) {
            tracing::warn!("worker {worker} was not ordered, and {why}, ignoring");
        }
    }

    fn template_ready(&mut self, number: u64, id: GenerationId, hello: Hello) {
        let event = match self.take_report(number, id, hello) {
            Ok(spec) => {
                self.template_listens(number);
                Event::Prepared { generation: id, spec }
            }
            Err(why) => {
                self.release(id);
                Event::PrepareFailed { generation: id, why }
            }
        };
        self.outbox.event(event);
    }

    fn take_report(&mut self, number: u64, id: GenerationId, hello: Hello) -> Result<Spec, String> {
        let report = ServerSettings::read(&hello.message)?;
        if let Some(booted) = self.templates.running.get_mut(&number) {
            booted.follows_workers = report.follows_workers;
            booted.follows_service = report.follows_service;
        }
        let first = self.hooks.started(id);
        self.hooks.left(id, hello.hook_state);
        let directory =
            self.generations.get(&id).map_or_else(PathBuf::new, |g| g.command.directory.join(&report.chdir));
        // What the template could not look up is not looked up here, where everybody would wait.
        let not_found = |_: &str, _| Err("the name could not be looked up".to_owned());
        let addresses = bind_addresses(&report.bind, &directory, not_found);
        if self.listeners.is_empty() {
            let addresses = addresses?;
            let listeners = bind_all(addresses.iter(), Some(report.umask), None, report.backlog.max(1))?;
            if listeners.is_empty() {
                return Err(format!("nothing to listen on: {:?} cannot be bound", report.bind));
            }
            self.take_listeners(listeners);
        } else {
            match addresses {
                Ok(addresses) => self.compare_addresses(id, &addresses),
                Err(why) => tracing::warn!(
                    SOCKD_GENERATION = id.0,
                    "{why}; it is ignored: sockd serves {}",
                    self.listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
                ),
            }
        }
        if let Some((user, group)) = report.owner.filter(|_| first) {
            self.hand_over_sockets(id, Permissions { mode: 0o777 & !report.umask, user, group });
        }
        let generation = self.generations.get_mut(&id).ok_or("the generation was released")?;
        let spec = spec(&generation.settings, &Asked::from(&report));
        generation.spec = Some(spec.clone());
        generation.silent_when_busy = report.silent_when_busy;
        generation.speaks_tls = report.speaks_tls;
        generation.speaks_uwsgi = report.speaks_uwsgi;
        if report.speaks_tls && generation.settings.health.path.is_some() {
            tracing::warn!(
                SOCKD_GENERATION = id.0,
                "health.path is not asked for: the workers speak TLS, and sockd does not; a health.command can (curl)"
            );
        }
        Ok(spec)
    }

    /// Gives the unix sockets that we have bound for the server the owner and the mode that it would give them: its
    /// configuration file may say what its command line did not.
    fn hand_over_sockets(&self, id: GenerationId, permissions: Permissions) {
        let by_our_settings = |generation: &Generation| !generation.settings.listen.addresses.is_empty();
        if self.generations.get(&id).is_some_and(by_our_settings) {
            return;
        }
        for listener in self.listeners.iter() {
            if let Err(error) = listener.hand_over(permissions) {
                tracing::warn!("cannot give {listener} its owner and mode: {error}, ignoring");
            }
        }
    }

    /// An address of the command line's that is another than the one we serve is ignored, and its owner should know.
    fn compare_addresses(&self, id: GenerationId, wanted: &[Address]) {
        let Some(Making::Template(python)) = self.generations.get(&id).map(|g| &g.adapter.making) else { return };
        let default: [Result<Address, _>; 1] = [python.default_bind.parse()];
        if wanted.iter().map(Ok).eq(default.iter().map(Result::as_ref)) {
            return;
        }
        self.warn_of_other_addresses(id, python.bind_options, wanted.to_vec());
    }

    /// In a thread of its own, since paths are followed on a disk.
    fn warn_of_other_addresses(&self, id: GenerationId, option: &'static str, wanted: Vec<Address>) {
        if wanted.is_empty() {
            return;
        }
        let served: Vec<Address> = self.listeners.iter().map(|listener| listener.address.clone()).collect();
        let ours: Vec<String> = self.listeners.iter().map(ToString::to_string).collect();
        tokio::task::spawn_blocking(move || {
            for address in wanted.iter().filter(|wanted| !served.iter().any(|served| same_place(served, wanted))) {
                tracing::warn!(
                    SOCKD_GENERATION = id.0,
                    "{option} {address} is ignored: sockd serves {}; make ListenStream= of the socket unit and {option} \
                     name the same place",
                    ours.join(" and ")
                );
            }
        });
    }

    /// Whether it was a template that ended.
    pub(super) fn template_ended(&mut self, ended: Ended) -> bool {
        let found = self.templates.running.iter_mut().find(|(_, b)| b.template.child().pid() == ended.pid);
        let Some((number, booted)) = found else { return false };
        booted.end = Some(ended.end);
        let number = *number;
        self.finish_template_exit(number);
        true
    }

    /// Once a template is dead and all its reports are read, nothing more will come of it.
    fn finish_template_exit(&mut self, number: u64) {
        let Some(Booted { end: Some(end), silent: true, .. }) = self.templates.running.get(&number) else { return };
        let end = *end;
        let Some(mut booted) = self.templates.running.remove(&number) else { return };
        if let Some(count) = booted.garbage.suppressed(Instant::now(), true) {
            tracing::warn!("the template said {count} more things that make no sense, ignoring");
        }
        let Some(id) = booted.generation else { return };
        booted.stderr.pump();
        self.repeats.template_ended(id, &booted.lines);
        let tail = booted.stderr.tail();
        let conventions = self.generations.get(&id).map(|g| &g.adapter.conventions);
        let why = verdict(end, conventions, &tail);
        for worker in booted.ordered {
            self.not_made(worker, format!("its template ended ({why})"));
        }
        self.pass_notices_on(booted.notices);
        if let Some(generation) = self.generations.get_mut(&id) {
            generation.template = None;
        }
        self.outbox.event(if booted.said_hello {
            Event::PreparationLost { generation: id, why: format!("the template ended: {why}") }
        } else {
            Event::PrepareFailed { generation: id, why }
        });
    }
}

fn same_place(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => {
            let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
            a == b || real(a) == real(b)
        }
        (a, b) => a == b,
    }
}
