//! Health: whether a worker's code may serve (Effect::Judge) and whether a ready worker is well (Effect::Probe). A program of
//! the operator's answers both where one is configured; else the worker is asked over HTTP, and one that speaks TLS must
//! answer the beginning of a handshake. The core's rules say what an answer means.

pub(super) mod exec;
pub(super) mod http;

use super::event_loop::EventLoop;
use super::generation::Generation;
use super::message::Message;
use super::workers::Worker;
use crate::probe::{AskError, Question, ask, greet};
use crate::queue;
use crate::supervisor::{Answer, Answers, Event, Expectation, ProbeOutcome, WorkerEvent, WorkerId, find};
use http::{Inquiry, Judgement, ProbeAddress, RETRY_INTERVAL};
use std::time::Duration;
use tokio::time::sleep;

/// Why a worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Effect::Judge: may its code serve? It may be asked for so long; None: once.
    Judgement(Option<Duration>),
    /// Effect::Probe: is it well?
    Probe,
}

/// What a worker's answer is compared with, as the core has it (Effect::Judge).
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    pub(super) reference: Option<WorkerId>,
    pub(super) remembered: Option<Answer>,
    pub(super) may_be_busy: bool,
}

impl EventLoop {
    /// Asks the worker, and the reference where that matters; one that speaks TLS is greeted. One without a private
    /// socket cannot be asked: it is judged by its readiness.
    pub(super) fn judge(&mut self, id: WorkerId, baseline: Baseline, patience: Option<Duration>) {
        if self.run_health_command(id, Purpose::Judgement(patience)) || self.judge_greeting(id, patience) {
            return;
        }
        let Some(inquiry) = self.inquiry(id, baseline, patience) else {
            self.outbox.event(Event::Worker(id, WorkerEvent::Judged { verdict: Ok(()), answers: Answers::default() }));
            return;
        };
        self.outbox.later(async move { Some(Message::Judged { worker: id, judgement: inquiry.judge().await }) });
    }

    /// Whether the worker speaks TLS: then it must answer a greeting, whatever those who serve do.
    fn judge_greeting(&mut self, id: WorkerId, patience: Option<Duration>) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        let generation = self.generations.get(&worker.generation()).filter(|generation| generation.speaks_tls);
        let (Some(generation), Some(socket)) = (generation, worker.probe_socket()) else { return false };
        let health = &generation.settings.health;
        let host = health.host.clone().unwrap_or_else(|| "localhost".to_owned());
        let (address, patience) = (socket.address().to_owned(), patience.unwrap_or(health.timeout));
        self.outbox.later(async move {
            let greeted = greet(&address, &host, patience).await;
            if matches!(greeted, Err(AskError::Closed)) {
                // What it says of why comes by another way.
                sleep(RETRY_INTERVAL).await;
            }
            let verdict = greeted.map_err(|error| format!("TLS handshake: {error}"));
            Some(Message::Greeted { worker: id, verdict })
        });
        true
    }

    /// A worker was greeted for its judgement.
    pub(super) fn greeted(&mut self, id: WorkerId, verdict: Result<(), String>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let verdict = verdict.map_err(|why| with_reason(why, worker));
        self.outbox.event(Event::Worker(id, WorkerEvent::Judged { verdict, answers: Answers::default() }));
    }

    fn inquiry(&self, id: WorkerId, baseline: Baseline, patience: Option<Duration>) -> Option<Inquiry> {
        let Baseline { reference, remembered, may_be_busy } = baseline;
        let worker = self.workers.get(&id)?;
        let generation = self.generations.get(&worker.generation())?;
        let question = self.question(id)?;
        let private = |id: WorkerId| self.workers.get(&id)?.probe_socket().map(ProbeAddress::private);
        // A worker without a socket of its own is reached by the public one, like all that serve.
        let reference =
            reference.and_then(|id| private(id).or_else(|| self.listeners.first().and_then(ProbeAddress::public)));
        let public = self.listeners.iter().filter(|_| may_be_busy).map(|listener| listener.address.clone()).collect();
        Some(Inquiry {
            expectation: Expectation { watched: patience.is_none(), ..expectation(generation) },
            patience: patience.unwrap_or(question.patience),
            question,
            worker: private(id)?,
            pid: worker.pid(),
            public,
            reference,
            remembered,
        })
    }

    pub(super) fn judged(&mut self, id: WorkerId, judgement: Judgement) {
        let Judgement { verdict, new, old } = judgement;
        let Some(worker) = self.workers.get(&id) else { return };
        let verdict = verdict.map_err(|why| with_reason(why, worker));
        let answers = Answers { new: Some(new), old };
        self.outbox.event(Event::Worker(id, WorkerEvent::Judged { verdict, answers }));
    }

    /// Runs the operator's program for this worker, if one is configured; its end answers.
    fn run_health_command(&mut self, id: WorkerId, purpose: Purpose) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        let Some(generation) = self.generations.get(&worker.generation()) else { return false };
        let Some(command) = &generation.health_command else { return false };
        let request = exec::Request {
            command: command.clone(),
            timeout: generation.settings.health.timeout,
            pid: worker.pid(),
            says_ready: generation.spec.as_ref().is_none_or(|spec| spec.says_ready),
            purpose,
        };
        self.health_commands.run(id, &request, &mut self.outbox);
        true
    }

    /// Asks a worker whether it is well.
    pub(super) fn probe(&mut self, id: WorkerId, doubted: bool) {
        if self.run_health_command(id, Purpose::Probe) {
            return;
        }
        let socket = self.workers.get(&id).and_then(Worker::probe_socket);
        let address = socket.map(|socket| socket.address().to_owned());
        let (Some(address), Some(question)) = (address, self.question(id)) else {
            self.outbox.event(Event::Worker(id, WorkerEvent::Probed(ProbeOutcome::Healthy)));
            return;
        };
        let generation = self.generations.get(&self.workers[&id].generation());
        // A question without a path of its own is the application's start page. Where nobody is being served, nobody
        // can be stuck, and neither the application nor its access log need to be troubled.
        if generation.is_some_and(|g| g.settings.health.path.is_none()) && !doubted && self.nobody_is_served() {
            self.outbox.event(Event::Worker(id, WorkerEvent::Probed(ProbeOutcome::Healthy)));
            return;
        }
        if self.question_waits(id) {
            self.probed(id, &Answer::NotAccepted("it has not accepted the last question yet".to_owned()));
            return;
        }
        self.outbox.later(async move {
            let answer = match ask(&address, &question).await {
                Err(error @ AskError::Timeout(_)) => Answer::Silent(error.to_string()),
                other => http::answer(other),
            };
            Some(Message::Probed { worker: id, answer })
        });
    }

    /// Whether the last question, given up, is still in the queue of the worker's private socket: another one behind it
    /// would tell nothing new, and the worker would have to answer them all. False where the kernel does not tell.
    fn question_waits(&self, id: WorkerId) -> bool {
        let socket = self.workers.get(&id).filter(|worker| worker.unanswered).and_then(Worker::probe_socket);
        let depth = socket.and_then(|socket| queue::unix_depth(socket.inode()).ok());
        depth.is_some_and(|depth| depth.waiting > 0)
    }

    /// Whether the kernel is certain that no connection waits or is open on any of our sockets.
    fn nobody_is_served(&self) -> bool {
        self.listeners.iter().all(|listener| {
            let open = queue::in_flight(&listener.address).is_ok_and(|in_flight| in_flight.connections == 0);
            open && queue::depth(&listener.address, listener.inode).is_ok_and(|depth| depth.waiting == 0)
        })
    }

    pub(super) fn probed(&mut self, id: WorkerId, answer: &Answer) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.unanswered = matches!(answer, Answer::Silent(_) | Answer::NotAccepted(_));
        let Some(generation) = self.generations.get(&worker.generation()) else { return };
        let finding = find(&expectation(generation), answer);
        self.read_requests(id);
        self.outbox.event(Event::Worker(id, WorkerEvent::Probed(finding)));
    }

    fn question(&self, id: WorkerId) -> Option<Question> {
        let generation = self.generations.get(&self.workers.get(&id)?.generation()).filter(|g| !g.speaks_tls)?;
        let health = &generation.settings.health;
        Some(Question {
            path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: health.host.clone().unwrap_or_else(|| "localhost".to_owned()),
            headers: health.headers.clone(),
            patience: health.timeout,
            uwsgi: generation.speaks_uwsgi,
        })
    }
}

/// A new worker that answers 500, or nothing, has usually just written why.
fn with_reason(why: String, worker: &Worker) -> String {
    match worker.last_error() {
        Some(error) => format!("{why}: {error}"),
        None => why,
    }
}

fn expectation(generation: &Generation) -> Expectation {
    let health = &generation.settings.health;
    Expectation {
        path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
        wanted: health.path.as_ref().map(|_| health.status.clone().unwrap_or_default()),
        protocol: generation.adapter.protocol,
        silent_when_busy: generation.silent_when_busy,
        watched: false,
    }
}
