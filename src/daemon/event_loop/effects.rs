//! One arm for each effect of the core, carried out in the order returned.

use super::EventLoop;
use super::calls::Wanted;
use crate::adapter::Making;
use crate::control::{Asker, Means};
use crate::daemon::children::Children;
use crate::daemon::health::http::ProbeAddress;
use crate::daemon::health::{self, Baseline};
use crate::daemon::message::Message;
use crate::daemon::notice_log::{Facts, log_notice};
use crate::daemon::workers::Worker;
use crate::daemon::workers::spawn::New;
use crate::listener::Listener;
use crate::queue::Depth;
use crate::supervisor::{
    Answers, Effect, Effects, Event, GenerationId, ProbeOutcome, Signal, SocketId, WorkerEvent, WorkerId,
};
use rustix::process::Pid;
use std::time::{Duration, Instant};

/// Memory is given back so long after all workers are there: in their first moments visitors wait for the processor.
const RELEASE_MEMORY_DELAY: Duration = Duration::from_secs(1);

impl EventLoop {
    /// Does what the core wants done, in its order. Answers that are known at once wait in the outbox.
    pub(super) fn carry_out(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Read { generation, source } => self.read(generation, source),
                Effect::Check { generation, number } => self.check(generation, number),
                Effect::EndCheck(generation) => self.children.checks.end_late(generation, &mut self.outbox),
                Effect::Load(generation) => self.load(generation),
                Effect::Warm(generation) => self.warm(generation),
                Effect::UseWarm(generation) => self.fork_from_copy(generation, true),
                Effect::UseUnwarmed(generation) => self.fork_from_copy(generation, false),
                Effect::Release(generation) => self.release(generation),
                Effect::Conclude(generation) => {
                    let generation = self.generations.ready.get(&generation);
                    generation
                        .and_then(|g| g.template)
                        .iter()
                        .for_each(|number| self.children.templates.conclude(*number));
                }
                Effect::Spawn { worker, generation, role } => self.spawn(New { id: worker, generation, role }),
                Effect::Inspect(worker) => {
                    let serves = self.core.somebody_serves();
                    self.children.workers.inspect(worker, self.listeners.listeners(), serves, &mut self.outbox);
                }
                Effect::Judge { worker, reference, remembered, may_be_busy, patience } => {
                    // A worker without a socket of its own is reached by the public one, like all that serve.
                    let private =
                        |id| self.children.workers.get(id).and_then(Worker::probe_socket).map(ProbeAddress::private);
                    let listeners = self.listeners.listeners();
                    let public = || listeners.first().and_then(ProbeAddress::public);
                    let reference = reference.and_then(|id| private(id).or_else(public));
                    let busy_on = listeners.iter().filter(|_| may_be_busy);
                    let public = busy_on.map(|listener| listener.address.clone()).collect();
                    self.judge(worker, Baseline { reference, remembered, public }, patience);
                }
                Effect::CountAnswers(new) => {
                    let old = self.core.overview(self.clock.now()).generation;
                    let generation = new;
                    let [new, old] = self.children.workers.answered([new, old]);
                    self.outbox.event(Event::AnswersCounted { generation, new, old });
                }
                Effect::MeasureQueue => {
                    let Depth { waiting, limit } = self.listeners.fullest_queue();
                    self.outbox.event(Event::QueueMeasured { waiting, limit });
                }
                Effect::Probe { worker, skip_when_idle } => self.probe(worker, skip_when_idle),
                Effect::ReadHeartbeat(worker) => {
                    self.children.workers.read_heartbeat(worker, self.clock, &mut self.outbox);
                }
                Effect::Signal(worker, Signal::Drain) => self.drain(worker),
                Effect::Signal(worker, signal) => self.children.workers.signal(worker, signal),
                Effect::WatchListeners => self.listeners.watch(&self.outbox),
                Effect::Rebind(socket) => {
                    if self.listeners.rebind(socket, &mut self.outbox) {
                        self.children.fallback.restart(self.listeners.listeners(), &mut self.outbox);
                    }
                }
                Effect::LeaveUnbound(socket) => self.listeners.leave_unbound(socket),
                Effect::RequestReload => {
                    self.reload(None, Asker { means: Means::Sockd, ..Asker::default() }, Wanted::Configured);
                }
                Effect::RestoreBacklogs => self.listeners.restore_backlogs(),
                Effect::PassStderr(worker) => self.children.workers.pass_stderr(worker),
                Effect::RecordExit { worker, slot, lived, why } => {
                    self.children.workers.record_exit(worker, slot, lived, why)
                }
                Effect::ReportPoolSize(workers) => self.children.templates.workers_resized(workers),
                Effect::ReleaseMemory => {
                    self.progress.release_memory_at = Some(Instant::now() + RELEASE_MEMORY_DELAY);
                }
                Effect::KeepMaintenance(on) => {
                    if self.children.fallback.maintenance.decided(on) {
                        self.children.fallback.restart(self.listeners.listeners(), &mut self.outbox);
                    }
                }
                Effect::StartFallback => self.children.fallback.start(self.listeners.listeners(), &mut self.outbox),
                Effect::StopFallback => self.children.fallback.stop(),
                Effect::Announce(announcement) => {
                    let line = self.status_line();
                    self.service_manager.announce(announcement, &line);
                }
                Effect::ReportProgress(progress) => self.reloads.clients.report(progress),
                Effect::Answer(request, outcome) => {
                    let Children { workers, checks, .. } = &self.children;
                    let last_lines = |generation, worker: Option<WorkerId>| match worker {
                        Some(worker) => workers.last_lines(worker),
                        None => checks.last_lines(generation),
                    };
                    self.reloads.clients.answer(request, outcome, last_lines);
                }
                Effect::RunAfterReload { generation, verdict } => self.run_after_reload(generation, &verdict),
                Effect::Record(record) => self.reloads.history.record(record, &self.outbox),
                Effect::Notice(notice) => {
                    self.counts.notice(&notice);
                    let workers = &self.children.workers;
                    self.observers.recorder.notice(&notice, |worker| workers.request(worker), &self.outbox);
                    log_notice(&notice, self);
                }
                Effect::Exit => self.progress.finished = true,
            }
        }
    }

    /// The program hears of it that the configuration names which serves.
    fn run_after_reload(&mut self, generation: GenerationId, verdict: &Result<(), String>) {
        let serving = self.generations.ready.get(&self.overview().generation);
        if let Some(command) = serving.and_then(|serving| serving.after.as_ref()) {
            let unit = self.setup.unit.as_deref();
            self.children.after_reload.run(command, generation, verdict, unit, &self.outbox);
        }
    }

    /// A worker that says what it has served only when it is asked is asked once more before.
    fn drain(&mut self, id: WorkerId) {
        match self.children.workers.question_before_drain(id) {
            Some(question) => self.outbox.later(async move {
                let (worker, stats) = question.before_drain().await;
                Some(Message::StatsBeforeDrain(worker, stats))
            }),
            None => self.children.workers.signal(id, Signal::Drain),
        }
    }

    /// Makes a worker, or orders it from its template, which will report it.
    fn spawn(&mut self, new: New) {
        if let Err(why) = self.try_spawn(new) {
            self.children.workers.not_made(new.id, why, &mut self.outbox);
        }
    }

    fn try_spawn(&mut self, new: New) -> Result<(), String> {
        let generation = self.generations.ready.get(&new.generation).ok_or("its generation was released")?;
        let io = self.children.workers.begin(new, generation, &self.exits.repeats, &self.outbox)?;
        self.observers.slow_requests.watch(generation.settings.requests.slow, Instant::now());
        let listeners = self.listeners.listeners();
        match generation.adapter.making {
            Making::Exec(_) => self.children.workers.execute(new, generation, listeners, &io, &mut self.outbox),
            Making::Template(_) => {
                let templates = &mut self.children.templates;
                let (template, shows_requests) = (generation.template, generation.settings.requests.show);
                self.children
                    .workers
                    .order(new, shows_requests, listeners, &io, |request| templates.order(template, new.role, request))
            }
        }
    }

    /// Asks whether a worker's code may serve, for so long (None: once).
    pub(super) fn judge(&mut self, id: WorkerId, baseline: Baseline, patience: Option<Duration>) {
        if let Some(subject) = self.generations.subject(&self.children.workers, id) {
            health::judge(subject, baseline, patience, &mut self.children.health_commands, &mut self.outbox);
        } else {
            self.outbox.event(Event::Worker(id, WorkerEvent::Judged { verdict: Ok(()), answers: Answers::default() }));
        }
    }

    fn probe(&mut self, id: WorkerId, skip_when_idle: bool) {
        if let Some(subject) = self.generations.subject(&self.children.workers, id) {
            let listeners = self.listeners.listeners();
            health::probe(subject, skip_when_idle, listeners, &mut self.children.health_commands, &mut self.outbox);
        } else {
            self.outbox.event(Event::Worker(id, WorkerEvent::Probed(ProbeOutcome::Healthy)));
        }
    }
}

impl Facts for EventLoop {
    fn pid(&self, worker: WorkerId) -> Option<Pid> {
        self.children.workers.pid_of(worker)
    }

    fn request(&self, worker: WorkerId) -> Option<String> {
        self.children.workers.request(worker)
    }

    fn listener(&self, socket: SocketId) -> Option<&Listener> {
        self.listeners.get(socket)
    }

    fn status_line(&self) -> String {
        Self::status_line(self)
    }

    fn answers_503(&self) -> bool {
        self.children.fallback.answers()
    }

    fn somebody_serves(&self) -> bool {
        self.overview().ready > 0
    }
}
