//! Templates: started for a generation, ordered to fork workers, heard, and given up.
//!
//! Owns: every template that has not ended, and what hooks are sent through them. Never: takes a process that a template
//! reports for a worker, or decides what its end means.

use super::hooks::{Hooks, Notices};
use super::log_limit::LogLimit;
use super::message::Message;
use super::outbox::Outbox;
use super::output::Output;
use super::repeats::Repeats;
use super::workers::exit::verdict;
use crate::adapter::python::{self, Python};
use crate::app::{Command, Conventions};
use crate::process::{
    Child, End, Ended, ForkRequest, Hello, Life, Notice, Template, TemplateMessage, Warming, WorkerProcess,
};
use crate::supervisor::{GenerationId, Role, WorkerId};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Characters of what a template says of its copy.
const MAX_REASON: usize = 400;

/// All templates that have not ended yet, also those of generations that were released.
#[derive(Debug, Default)]
pub(super) struct Templates {
    running: BTreeMap<u64, Booted>,
    last: u64,
    hooks: Hooks,
}

/// What is to be booted.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    pub(super) generation: GenerationId,
    pub(super) conventions: &'static Conventions,
    pub(super) command: &'a Command,
    pub(super) python: &'static Python,
    /// Whether the sockets that it will serve are there.
    pub(super) bound: bool,
    /// All workers that templates have forked and that live.
    pub(super) workers: Vec<WorkerProcess>,
}

/// What a template said, where that concerns others.
#[derive(Debug)]
pub(super) enum Report {
    /// It is ready, and this is what it has read.
    Hello(GenerationId, Hello),
    /// It has made the worker that it was ordered.
    Forked { worker: WorkerId, pid: Pid, hook_state: Option<String> },
    /// It has made a worker that nobody waits for: its generation was released meanwhile, or it was never ordered.
    ForkedUnasked { worker: WorkerId, pid: Pid },
    /// It cannot make the worker that it was ordered.
    NotForked { worker: WorkerId, why: String },
    /// A copy of it can be used.
    Warmed(GenerationId),
    /// There is none, or no more.
    NotWarm(GenerationId, String),
    /// Before its hello it said what makes no sense: nothing better follows.
    Nonsense(GenerationId, String),
    /// It will say no more.
    Silent,
}

/// The end of a template whose generation was not released.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) generation: GenerationId,
    pub(super) said_hello: bool,
    pub(super) why: String,
    /// The workers that it was ordered and will not make.
    pub(super) ordered: BTreeSet<WorkerId>,
}

/// A template that has been started and has not ended.
#[derive(Debug)]
struct Booted {
    template: Template,
    conventions: &'static Conventions,
    output: Output,
    /// None: it was released, and workers that it still reports are not wanted.
    generation: Option<GenerationId>,
    said_hello: bool,
    /// The worker in whose control group a process of it waits.
    placed: Option<WorkerId>,
    /// Workers that were ordered and neither reported nor refused.
    ordered: BTreeSet<WorkerId>,
    /// Whether one of them was to serve.
    serves: bool,
    notices: Notices,
    /// How it ended; its last reports may still be on their way.
    end: Option<End>,
    silent: bool,
    /// The lines about what makes no sense.
    garbage: LogLimit,
}

impl Booted {
    /// Whether it is there to hear of workers.
    fn listens(&self) -> bool {
        self.notices.follows_workers && self.generation.is_some() && self.end.is_none()
    }

    /// Has it sent, now or when it listens: before its hello nobody knows whether it will.
    fn enqueue(&mut self, notice: Notice) {
        if self.listens() || !self.said_hello {
            self.notices.push(notice);
            self.send_next();
        }
    }

    fn send_next(&mut self) {
        if self.said_hello {
            self.notices.send_next(&self.template);
        }
    }
}

impl Templates {
    /// Starts one; its number.
    pub(super) fn boot(&mut self, boot: Boot<'_>, repeats: &Repeats, outbox: &Outbox) -> Result<u64, String> {
        let (output, write) = Output::follow(repeats.of_template(boot.generation))?;
        let (phase, hook_state) = self.hooks.life(boot.generation);
        let life = Life { phase, hook_state, bound: boot.bound, workers: boot.workers };
        let package = boot.python.package()?;
        let template = Template::boot(boot.command, [&package, python::BOOTSTRAP], &life, write.as_fd())
            .map_err(|error| error.to_string())?;
        self.last += 1;
        let number = self.last;
        let reports = template.reports();
        let sender = outbox.sender();
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
            conventions: boot.conventions,
            output,
            generation: Some(boot.generation),
            said_hello: false,
            placed: None,
            ordered: BTreeSet::new(),
            serves: false,
            notices: Notices::default(),
            end: None,
            silent: false,
            garbage: LogLimit::default(),
        };
        self.running.insert(number, booted);
        Ok(number)
    }

    /// Whether this is the process of one of them.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        self.running.values().any(|booted| booted.template.child().pid() == pid)
    }

    /// Those that live and make the workers of a generation.
    pub(super) fn living(&self) -> impl Iterator<Item = (GenerationId, Pid)> {
        let living = self.running.values().filter(|booted| booted.end.is_none());
        living.filter_map(|booted| Some((booted.generation?, booted.template.child().pid())))
    }

    /// Whether one of them has been ordered a worker that it has not reported.
    pub(super) fn await_workers(&self) -> bool {
        self.running.values().any(|booted| !booted.ordered.is_empty())
    }

    /// Those that open log files afresh at a signal, and that signal.
    pub(super) fn reopening(&self) -> impl Iterator<Item = (&Child, i32)> {
        let wanted = self.running.values().filter(|booted| booted.generation.is_some());
        wanted.filter_map(|booted| Some((booted.template.child(), booted.conventions.reopen?.signal)))
    }

    /// Orders a worker from a template; its number.
    pub(super) fn order(&mut self, number: Option<u64>, role: Role, request: &ForkRequest<'_>) -> Result<u64, String> {
        let number = number.ok_or("its template is gone")?;
        let booted = self.running.get_mut(&number).ok_or("its template is gone")?;
        booted.template.fork(request).map_err(|error| error.to_string())?;
        booted.ordered.insert(WorkerId(request.worker));
        if role == Role::Serving
            && !std::mem::replace(&mut booted.serves, true)
            && let Some(generation) = booted.generation
        {
            self.hooks.serves(generation);
        }
        Ok(number)
    }

    /// Whether a process of this template should wait in the control group of the next worker: moving there takes long,
    /// and a dead worker's successor is waited for.
    pub(super) fn lacks_place(&self, number: u64, next: WorkerId) -> bool {
        self.running.get(&number).is_some_and(|booted| booted.said_hello && booted.placed != Some(next))
    }

    /// Has a process of the template wait in this control group.
    pub(super) fn place(&mut self, number: u64, next: WorkerId, group: BorrowedFd<'_>) {
        if let Some(booted) = self.running.get_mut(&number)
            // The order itself brings the same descriptor: nothing is lost with this one.
            && booted.template.place(next.0, group).is_ok()
        {
            booted.placed = Some(next);
        }
    }

    /// Has a copy of a template answer requests.
    ///
    /// # Errors
    /// Why nothing will be heard of it.
    pub(super) fn warm(&self, number: Option<u64>, warming: &Warming) -> Result<(), String> {
        let booted = number.and_then(|number| self.running.get(&number)).ok_or("its template is gone")?;
        booted.template.warm(warming).map_err(|error| error.to_string())
    }

    /// Has the next workers forked from that copy, or from the template itself.
    pub(super) fn fork_from_copy(&mut self, number: Option<u64>, from_copy: bool) {
        let Some(booted) = number.and_then(|number| self.running.get_mut(&number)) else { return };
        // The process that waits in the control group of the next worker is not the one that becomes it.
        booted.placed = None;
        if let Err(error) = booted.template.fork_from_copy(from_copy) {
            tracing::warn!("cannot tell the template which of its processes makes the workers: {error}, ignoring");
        }
    }

    /// Ends the template of a generation that is released. The workers that it was ordered and will not make.
    pub(super) fn release(&mut self, number: u64) -> BTreeSet<WorkerId> {
        let Some(booted) = self.running.get_mut(&number) else { return BTreeSet::new() };
        booted.generation = None;
        let _ = booted.template.child().kill();
        let (ordered, notices) = (std::mem::take(&mut booted.ordered), std::mem::take(&mut booted.notices));
        self.pass_notices_on(notices);
        ordered
    }

    /// A template said something, or (None) will say no more.
    pub(super) fn receive(&mut self, number: u64, message: Option<TemplateMessage>) -> Option<Report> {
        let booted = self.running.get_mut(&number)?;
        match message {
            Some(TemplateMessage::Hello(hello)) => {
                booted.said_hello = true;
                booted.output.pass_on();
                booted.generation.map(|generation| Report::Hello(generation, hello))
            }
            Some(TemplateMessage::Forked { worker, pid, hook_state }) => {
                let worker = WorkerId(worker);
                let was_ordered = booted.ordered.remove(&worker);
                Some(if was_ordered {
                    Report::Forked { worker, pid, hook_state }
                } else {
                    Report::ForkedUnasked { worker, pid }
                })
            }
            Some(TemplateMessage::Failed { worker, error }) => {
                let worker = WorkerId(worker);
                booted.ordered.remove(&worker).then_some(Report::NotForked { worker, why: error })
            }
            Some(TemplateMessage::Noted { .. }) => {
                booted.notices.noted();
                booted.send_next();
                None
            }
            Some(TemplateMessage::HookState(state)) => {
                if let Some(generation) = booted.generation {
                    self.hooks.left(generation, Some(state));
                }
                None
            }
            Some(TemplateMessage::Warmed) => booted.generation.map(Report::Warmed),
            Some(TemplateMessage::NotWarm { why }) => {
                let why = why.chars().take(MAX_REASON).collect();
                booted.generation.map(|generation| Report::NotWarm(generation, why))
            }
            Some(TemplateMessage::Garbage(text)) => match booted.generation.filter(|_| !booted.said_hello) {
                Some(generation) => {
                    Some(Report::Nonsense(generation, format!("the template says what makes no sense: {text:?}")))
                }
                None => {
                    if booted.garbage.allows(Instant::now()) {
                        tracing::warn!("the template says what makes no sense: {text:?}, ignoring");
                    }
                    None
                }
            },
            None => {
                booted.silent = true;
                Some(Report::Silent)
            }
        }
    }

    /// Says that a template has reported a process that is no worker of ours, and why not.
    pub(super) fn warn_of_unasked(&mut self, number: u64, worker: WorkerId, why: &str) {
        let Some(booted) = self.running.get_mut(&number) else { return };
        // What is released is dying, and so are its workers.
        if booted.generation.is_some() && booted.garbage.allows(Instant::now()) {
            tracing::warn!("worker {worker} was not ordered, and {why}, ignoring");
        }
    }

    /// Whether it was a template that ended, and which.
    pub(super) fn exited(&mut self, ended: Ended) -> Option<u64> {
        let (number, booted) = self.running.iter_mut().find(|(_, b)| b.template.child().pid() == ended.pid)?;
        booted.end = Some(ended.end);
        Some(*number)
    }

    /// Forgets a template once it is dead and all its reports are read: nothing more will come of it.
    pub(super) fn forget_if_over(&mut self, number: u64, repeats: &mut Repeats) -> Option<Lost> {
        let booted = self.running.get(&number)?;
        let end = booted.end.filter(|_| booted.silent)?;
        let mut booted = self.running.remove(&number)?;
        if let Some(count) = booted.garbage.suppressed(Instant::now(), true) {
            tracing::warn!("the template said {count} more things that make no sense, ignoring");
        }
        let generation = booted.generation?;
        let tail = booted.output.tail();
        repeats.template_ended(generation, booted.output.lines());
        let why = verdict(end, Some(booted.conventions), &tail);
        self.pass_notices_on(booted.notices);
        Some(Lost { generation, said_hello: booted.said_hello, why, ordered: booted.ordered })
    }
}

/// What hooks are sent.
impl Templates {
    /// Takes what a template has reported of its hooks. Whether it is the first of all that is ready.
    pub(super) fn take_hello(
        &mut self,
        number: u64,
        generation: GenerationId,
        hook_state: Option<String>,
        follows_workers: bool,
        follows_service: bool,
    ) -> bool {
        if let Some(booted) = self.running.get_mut(&number) {
            (booted.notices.follows_workers, booted.notices.follows_service) = (follows_workers, follows_service);
        }
        let first = self.hooks.started(generation);
        self.hooks.left(generation, hook_state);
        first
    }

    /// The report of a template was taken: it hears what has waited for it.
    pub(super) fn begin_notices(&mut self, number: u64) {
        let untold = self.hooks.take_untold();
        let Some(booted) = self.running.get_mut(&number) else { return };
        if booted.notices.follows_workers {
            booted.send_next();
            untold.into_iter().for_each(|process| booted.enqueue(Notice::Exited { process, call: true }));
        } else {
            booted.notices.clear();
        }
        if booted.notices.follows_service
            && let Err(error) = booted.template.tell(&Notice::Started)
        {
            tracing::warn!("cannot tell the template that the service has begun: {error}, ignoring");
        }
    }

    /// A template has forked this worker: the others hear of it.
    pub(super) fn worker_joined(&mut self, forked_by: Option<u64>, process: &WorkerProcess) {
        let others = self.running.iter_mut().filter(|(number, _)| Some(**number) != forked_by);
        others.for_each(|(_, booted)| booted.enqueue(Notice::Joined(process.clone())));
    }

    /// Another number of workers was asked for beside the configuration: the template of those that serve hears of it,
    /// before it forks one more.
    pub(super) fn workers_resized(&mut self, to: u32) {
        let serving = self.hook_caller(None).and_then(|number| self.running.get_mut(&number));
        if let Some(booted) = serving
            && let Err(error) = booted.template.tell(&Notice::Resized(to))
        {
            tracing::warn!("cannot tell the template of the number of workers: {error}, ignoring");
        }
    }

    /// A worker that a template had forked was reaped.
    pub(super) fn worker_exited(&mut self, forked_by: Option<u64>, role: Role, process: WorkerProcess) {
        let caller = self.hook_caller(forked_by.filter(|_| role == Role::Canary));
        for (number, booted) in &mut self.running {
            booted.enqueue(Notice::Exited { process: process.clone(), call: Some(*number) == caller });
        }
        if caller.is_none() {
            self.hooks.keep(process);
        }
    }

    /// No worker is left: the template calls what it has to at the end of the service, and ends.
    pub(super) fn conclude(&mut self, number: u64) {
        if let Some(booted) = self.running.get_mut(&number) {
            booted.notices.end();
            booted.send_next();
        }
    }

    /// The template that calls the hook for an exit: `own`, if it is there, else the youngest that serves.
    fn hook_caller(&self, own: Option<u64>) -> Option<u64> {
        let listening = || self.running.iter().filter(|(_, booted)| booted.listens() && booted.said_hello);
        let numbered = |(number, _): (&u64, &Booted)| *number;
        own.filter(|own| listening().any(|(number, _)| number == own))
            .or_else(|| listening().filter(|(_, booted)| booted.serves).map(numbered).next_back())
            .or_else(|| listening().map(numbered).next_back())
    }

    /// A template is given up or has ended: what it was to call is called in another.
    fn pass_notices_on(&mut self, notices: Notices) {
        for process in self.hooks.uncalled(notices) {
            match self.hook_caller(None).and_then(|number| self.running.get_mut(&number)) {
                Some(booted) => booted.enqueue(Notice::Exited { process, call: true }),
                None => self.hooks.keep(process),
            }
        }
    }
}
