//! Making a generation ready to spawn, and giving it up: its specification, and its template where there is one. What is on
//! disk is read elsewhere (reading.rs), and a reload has it checked (checks.rs) between Effect::Read and Effect::Load.

use super::{EventLoop, Generations};
use crate::adapter::Making;
use crate::adapter::python::Python;
use crate::adapter::server_settings::ServerSettings;
use crate::app::{Address, Command};
use crate::daemon::bind::{bind_addresses, bind_all};
use crate::daemon::checks;
use crate::daemon::generation::{Generation, Read};
use crate::daemon::health::Subject;
use crate::daemon::message::Message;
use crate::daemon::spec::{Asked, spec, warming};
use crate::daemon::templates::Boot;
use crate::daemon::workers::Workers;
use crate::journal::message_id;
use crate::listener::Permissions;
use crate::process::Hello;
use crate::supervisor::{Checks, Event, GenerationId, PREPARE_TIMEOUT, Source, Spec, WorkerId};
use std::path::{Path, PathBuf};

impl Generations {
    /// A worker, and the generation that says how it is asked.
    pub(super) fn subject<'a>(&'a self, workers: &'a Workers, id: WorkerId) -> Option<Subject<'a>> {
        let worker = workers.get(id)?;
        Some(Subject { id, worker, generation: self.ready.get(&worker.generation())? })
    }
}

impl EventLoop {
    /// Effect::Read: reads everything afresh. Answers with an event when it was read.
    pub(super) fn read(&mut self, id: GenerationId, source: Source) {
        let release = self.reloads.history.target(source).cloned();
        let reading = self.generations.readers.begin(id, &self.setup, release);
        self.outbox.later(async move { Some(Message::Read(id, Box::new(reading.await))) });
    }

    /// What there was to read has been read.
    pub(super) fn configuration_read(&mut self, id: GenerationId, read: Read) {
        // It may have been released meanwhile.
        if !self.generations.readers.end(id) {
            return;
        }
        for line in read.problems {
            tracing::error!(MESSAGE_ID = message_id::CONFIGURATION_REFUSED, SOCKD_GENERATION = id.0, "{line}");
        }
        if let Some(release) = read.release {
            self.reloads.history.read_from(id, release);
        }
        if let Some(page) = read.page {
            self.children.fallback.show(page.as_deref());
        }
        self.outbox.event(match read.generation {
            Err(why) => Event::PrepareFailed { generation: id, why },
            Ok(generation) => {
                let checks = generation.checks.as_ref().map_err(Clone::clone).map(|checks| Checks {
                    programs: checks.iter().map(checks::name).collect(),
                    timeout: generation.settings.reload.check_timeout,
                });
                self.generations.read.insert(id, (generation, read.template));
                Event::Read { generation: id, checks }
            }
        });
    }

    /// Effect::Check: runs one of the programs that were read.
    pub(super) fn check(&mut self, id: GenerationId, number: usize) {
        let generation = self.generations.read.get(&id).map(|(generation, _)| generation);
        let Some(generation) = generation else { return };
        if let Some(command) = generation.checks.as_ref().ok().and_then(|checks| checks.get(number)) {
            let timeout = generation.settings.reload.check_timeout;
            self.children.checks.run(id, command, timeout, &mut self.outbox);
        }
    }

    /// Effect::Load: answers with an event at once, or when the template has spoken.
    pub(super) fn load(&mut self, id: GenerationId) {
        let Some((generation, template)) = self.generations.read.remove(&id) else { return };
        if let Err(why) = self.begin_generation(id, generation, template) {
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
        for warning in &generation.plan.warnings {
            tracing::warn!(SOCKD_GENERATION = id.0, "{warning}");
        }
        match template {
            None => {
                if generation.settings.workers.preload == Some(true) {
                    tracing::warn!("preload is ignored: sockd has no template for this server ({name})");
                }
                if generation.settings.requests.slow.is_some() && generation.plan.worker.is_some() {
                    tracing::warn!("requests.slow is ignored: this server ({name}) does not show its requests");
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
                let boot = Boot {
                    generation: id,
                    conventions: &generation.adapter.conventions,
                    command: &command,
                    python,
                    bound: !self.listeners.listeners().is_empty(),
                    workers: self.children.workers.forked_processes(),
                };
                generation.template = Some(self.children.templates.boot(boot, &self.exits.repeats, &self.outbox)?);
            }
        }
        // While the template boots, since it takes a while.
        self.children.workers.cgroups.open(&generation.settings.workers);
        self.generations.ready.insert(id, generation);
        Ok(())
    }

    /// Effect::Warm: answers with an event when the template has.
    pub(super) fn warm(&mut self, id: GenerationId) {
        let Some(generation) = self.generations.ready.get(&id) else { return };
        if let Err(why) = self.children.templates.warm(generation.template, &warming(&generation.settings)) {
            self.outbox.event(Event::NotWarm { generation: id, why });
        }
    }

    /// Effect::UseWarm, Effect::UseUnwarmed.
    pub(super) fn fork_from_copy(&mut self, id: GenerationId, from_copy: bool) {
        let template = self.generations.ready.get(&id).and_then(|generation| generation.template);
        self.children.templates.fork_from_copy(template, from_copy);
    }

    /// Effect::Release: it will make no worker any more.
    pub(super) fn release(&mut self, id: GenerationId) {
        self.generations.readers.end(id);
        self.generations.read.remove(&id);
        self.children.checks.release(id);
        let template = self.generations.ready.remove(&id).and_then(|generation| generation.template);
        for worker in template.map(|number| self.children.templates.release(number)).unwrap_or_default() {
            self.children.workers.not_made(worker, "its template was given up".to_owned(), &mut self.outbox);
        }
    }

    /// Gives up a generation that could not be made ready.
    pub(super) fn refuse(&mut self, id: GenerationId, why: String) {
        self.release(id);
        self.outbox.event(Event::PrepareFailed { generation: id, why });
    }

    /// The template of a generation is ready, and this is what it has read.
    pub(super) fn template_ready(&mut self, number: u64, id: GenerationId, hello: Hello) {
        match self.take_report(number, id, hello) {
            Ok(spec) => {
                self.children.templates.begin_notices(number);
                self.outbox.event(Event::Prepared { generation: id, spec });
            }
            Err(why) => self.refuse(id, why),
        }
    }

    fn take_report(&mut self, number: u64, id: GenerationId, hello: Hello) -> Result<Spec, String> {
        let report = ServerSettings::read(&hello.message)?;
        let (workers, service) = (report.follows_workers, report.follows_service);
        let first = self.children.templates.take_hello(number, id, hello.hook_state, workers, service);
        let directory =
            self.generations.ready.get(&id).map_or_else(PathBuf::new, |g| g.command.directory.join(&report.chdir));
        // What the template could not look up is not looked up here, where everybody would wait.
        let not_found = |_: &str, _| Err("the name could not be looked up".to_owned());
        let addresses = bind_addresses(&report.bind, &directory, not_found);
        if self.listeners.listeners().is_empty() {
            let addresses = addresses?;
            let listeners = bind_all(addresses.iter(), Some(report.umask), None, report.backlog.max(1))?;
            if listeners.is_empty() {
                return Err(format!("nothing to listen on: {:?} cannot be bound", report.bind));
            }
            self.listeners.take(listeners, &self.outbox);
            self.children.fallback.restart(self.listeners.listeners(), &mut self.outbox);
        } else {
            match addresses {
                Ok(addresses) => self.compare_addresses(id, &addresses),
                Err(why) => tracing::warn!(
                    SOCKD_GENERATION = id.0,
                    "{why}; it is ignored: sockd serves {}",
                    self.listeners.listeners().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
                ),
            }
        }
        if let Some((user, group)) = report.owner.filter(|_| first) {
            // Its configuration file may say what its command line did not.
            let by_our_settings = |generation: &Generation| !generation.settings.listen.addresses.is_empty();
            if !self.generations.ready.get(&id).is_some_and(by_our_settings) {
                self.listeners.hand_over(Permissions { mode: 0o777 & !report.umask, user, group });
            }
        }
        let generation = self.generations.ready.get_mut(&id).ok_or("the generation was released")?;
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
        if let Some(why) =
            report.unfit_to_warm.filter(|_| report.preload && !generation.settings.workers.warm.is_empty())
        {
            tracing::warn!(SOCKD_GENERATION = id.0, "workers.warm is ignored: {why}");
        }
        Ok(spec)
    }

    /// An address of the command line's that is another than the one we serve is ignored, and its owner should know.
    fn compare_addresses(&self, id: GenerationId, wanted: &[Address]) {
        let Some(Making::Template(python)) = self.generations.ready.get(&id).map(|g| &g.adapter.making) else { return };
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
        let served: Vec<Address> = self.listeners.listeners().iter().map(|listener| listener.address.clone()).collect();
        let ours: Vec<String> = self.listeners.listeners().iter().map(ToString::to_string).collect();
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
