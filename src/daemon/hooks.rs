//! What templates are sent for the sake of the user's hooks: which workers there are, which have ended, when the service
//! begins and when it ends.
//!
//! gunicorn calls these hooks in one process that lives as long as the service; with us templates come and go. Owns what
//! hooks have left behind for the templates to come, and the exits that no template has heard of. Each exit's hook is
//! called in one template, once: in the youngest that serves, a canary's in its own. Must never wait for a template: one
//! message at a time is under way to each, and an exit whose hook hangs, or ends two templates, is given up.

use super::event_loop::EventLoop;
use super::generation::Booted;
use super::workers::Worker;
use crate::process::{Notice, Phase, WorkerProcess};
use crate::supervisor::{GenerationId, Role, WorkerId};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// So many exits are kept for the next template.
const MAX_PENDING_NOTICES: usize = 1024;
/// A hook that has not returned after this time is taken for what its template hangs in.
const HANGS: Duration = Duration::from_secs(5);

/// What outlives templates.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Whether a template has ever been ready.
    started: bool,
    /// What hooks have left in the templates of each generation.
    states: BTreeMap<GenerationId, State>,
    /// Exits whose hook is to be called, and no template to do it.
    untold: VecDeque<WorkerProcess>,
    /// The worker whose exit was sent once more, because the template that got it first has ended over it.
    sent_again: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether workers of this generation were to serve.
    serves: bool,
    left: Option<String>,
}

impl Hooks {
    /// When the next template of this generation is born, and what the one before it has left.
    pub(super) fn life(&self, id: GenerationId) -> (Phase, Option<&str>) {
        if !self.started {
            return (Phase::Start, None);
        }
        if let Some(state) = self.states.get(&id) {
            return (Phase::Again, state.left.as_deref());
        }
        // A generation that was refused has left nothing.
        let serving = self.states.values().rfind(|state| state.serves);
        (Phase::Reload, serving.or(self.states.values().next_back()).and_then(|state| state.left.as_deref()))
    }

    /// A template of this generation is ready. Whether it is the first one of all.
    pub(super) fn started(&mut self, id: GenerationId) -> bool {
        self.states.entry(id).or_default();
        !std::mem::replace(&mut self.started, true)
    }

    pub(super) fn left(&mut self, id: GenerationId, state: Option<String>) {
        self.states.entry(id).or_default().left = state;
    }

    /// Workers of this generation are to serve: those before it are history.
    pub(super) fn serves(&mut self, id: GenerationId) {
        let state = self.states.entry(id).or_default();
        if !std::mem::replace(&mut state.serves, true) {
            let serving_before = self.states.range(..id).rfind(|(_, state)| state.serves).map(|(id, _)| *id);
            // That one is gone back to if this one is refused.
            self.states.retain(|other, _| *other >= id || Some(*other) == serving_before);
        }
    }

    fn keep(&mut self, process: WorkerProcess) {
        if self.untold.len() == MAX_PENDING_NOTICES {
            self.untold.pop_front();
        }
        self.untold.push_back(process);
    }
}

/// What one template is still to be sent.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: VecDeque<Notice>,
    /// Sent at this time and not noted yet.
    under_way: Option<(Instant, Notice)>,
    /// Whether the service ends once all is sent.
    end: bool,
}

impl Booted {
    /// Whether it is there to hear of workers.
    fn listens(&self) -> bool {
        self.follows_workers && self.generation.is_some() && self.end.is_none()
    }

    /// Has it sent, now or when it listens: before its hello nobody knows whether it will.
    fn enqueue(&mut self, notice: Notice) {
        if self.listens() || !self.said_hello {
            self.notices.waiting.push_back(notice);
            self.tell_next();
        }
    }

    /// Sends the next notice, if none is under way.
    fn tell_next(&mut self) {
        if self.notices.under_way.is_some() || !self.said_hello {
            return;
        }
        if let Some(notice) = self.notices.waiting.pop_front() {
            match self.template.tell(&notice) {
                Ok(()) => self.notices.under_way = Some((Instant::now(), notice)),
                // It is gone, or does not read; the next occasion is another try.
                Err(_) => self.notices.waiting.push_front(notice),
            }
        } else if self.notices.end
            && let Err(error) = self.template.tell(&Notice::End)
        {
            tracing::warn!("cannot tell the template that the service ends: {error}, ignoring");
        }
    }
}

impl EventLoop {
    /// All workers that templates have forked and that live.
    pub(super) fn worker_processes(&self) -> Vec<WorkerProcess> {
        self.workers.iter().filter_map(|(id, worker)| worker_process(*id, worker)).collect()
    }

    /// A template has said hello, and its report was taken.
    pub(super) fn template_listens(&mut self, number: u64) {
        let untold = std::mem::take(&mut self.hooks.untold);
        let Some(booted) = self.templates.running.get_mut(&number) else { return };
        if !booted.follows_workers {
            booted.notices.waiting.clear();
        } else {
            booted.tell_next();
            untold.into_iter().for_each(|process| booted.enqueue(Notice::Exited { process, call: true }));
        }
        if booted.follows_service
            && let Err(error) = booted.template.tell(&Notice::Started)
        {
            tracing::warn!("cannot tell the template that the service has begun: {error}, ignoring");
        }
    }

    /// A template has forked this worker: the others hear of it.
    pub(super) fn worker_joined(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(process) = worker_process(id, worker) else { return };
        let others = self.templates.running.iter_mut().filter(|(number, _)| Some(**number) != worker.template);
        others.for_each(|(_, booted)| booted.enqueue(Notice::Joined(process.clone())));
    }

    /// Another number of workers was asked for beside the configuration: the template of those that serve hears of it, before
    /// it forks one more.
    pub(super) fn workers_resized(&mut self, to: u32) {
        let serving = self.hook_caller(None).and_then(|number| self.templates.running.get_mut(&number));
        if let Some(booted) = serving
            && let Err(error) = booted.template.tell(&Notice::Resized(to))
        {
            tracing::warn!("cannot tell the template of the number of workers: {error}, ignoring");
        }
    }

    /// A worker that a template had forked was reaped.
    pub(super) fn worker_exited(&mut self, worker: &Worker, process: WorkerProcess) {
        let caller = self.hook_caller(worker.template.filter(|_| worker.role() == Role::Canary));
        for (number, booted) in &mut self.templates.running {
            booted.enqueue(Notice::Exited { process: process.clone(), call: Some(*number) == caller });
        }
        if caller.is_none() {
            self.hooks.keep(process);
        }
    }

    /// The template that calls the hook for an exit: `own`, if it is there, else the youngest that serves.
    fn hook_caller(&self, own: Option<u64>) -> Option<u64> {
        let listening = || self.templates.running.iter().filter(|(_, booted)| booted.listens() && booted.said_hello);
        let numbered = |(number, _): (&u64, &Booted)| *number;
        own.filter(|own| listening().any(|(number, _)| number == own))
            .or_else(|| listening().filter(|(_, booted)| booted.serves).map(numbered).next_back())
            .or_else(|| listening().map(numbered).next_back())
    }

    /// A template has taken note of what it was sent.
    pub(super) fn notice_noted(&mut self, number: u64) {
        if let Some(booted) = self.templates.running.get_mut(&number) {
            booted.notices.under_way = None;
            booted.tell_next();
        }
    }

    /// A template is given up or has ended: what it was to call is called in another.
    pub(super) fn pass_notices_on(&mut self, notices: Notices) {
        let to_call = |notice| match notice {
            Notice::Exited { process, call: true } => Some(process),
            Notice::Exited { .. } | Notice::Joined(_) | Notice::Started | Notice::Resized(_) | Notice::End => None,
        };
        let mut exits: Vec<_> = notices.waiting.into_iter().filter_map(to_call).collect();
        if let Some((since, notice)) = notices.under_way
            && let Some(process) = to_call(notice)
        {
            // What has ended two templates, or hangs in one, would do so in the next.
            if self.hooks.sent_again == Some(process.worker) || since.elapsed() > HANGS {
                tracing::warn!("the hook for the end of worker {} has not returned, ignoring", process.worker);
            } else {
                self.hooks.sent_again = Some(process.worker);
                exits.insert(0, process);
            }
        }
        for process in exits {
            match self.hook_caller(None).and_then(|number| self.templates.running.get_mut(&number)) {
                Some(booted) => booted.enqueue(Notice::Exited { process, call: true }),
                None => self.hooks.keep(process),
            }
        }
    }

    /// No worker is left: the template calls what it has to at the end of the service, and ends.
    pub(super) fn conclude(&mut self, id: GenerationId) {
        let number = self.generations.get(&id).and_then(|generation| generation.template);
        if let Some(booted) = number.and_then(|number| self.templates.running.get_mut(&number)) {
            booted.notices.end = true;
            booted.tell_next();
        }
    }
}

fn worker_process(id: WorkerId, worker: &Worker) -> Option<WorkerProcess> {
    worker.template?;
    worker.pid().map(|pid| worker.as_process(id, pid))
}
