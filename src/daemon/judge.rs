//! Effect::Judge and Effect::Probe: a worker is asked, the core's rules say what its answer means.

use super::prepare::Generation;
use super::shell::{Message, Shell};
use super::workers::Worker;
use crate::probe::{AskError, Question, ask};
use crate::queue;
use crate::supervisor::{Answer, Event, Expectation, Finding, WorkerEvent, WorkerId, find, judge};

/// Why a worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Effect::Judge: may its code serve?
    Judgement,
    /// Effect::Probe: is it well?
    Probe,
}

impl Shell {
    /// Asks the worker and the reference. One without a private socket, or that speaks TLS, is judged by its readiness.
    pub(super) fn judge(&mut self, id: WorkerId, reference: Option<WorkerId>) {
        if self.run_health_command(id, Purpose::Judgement) {
            return;
        }
        let address = |id: WorkerId| Some(self.workers.get(&id)?.probe_socket()?.address().to_owned());
        let (Some(worker), Some(question)) = (address(id), self.question(id)) else {
            self.events.push_back(Event::Worker(id, WorkerEvent::Judged { verdict: Ok(()) }));
            return;
        };
        // What is usual need not be asked again for each worker of a generation.
        let known = self.generations.get(&self.workers[&id].generation()).is_some_and(|g| g.answered.is_some());
        let reference = reference.filter(|_| !known).and_then(address);
        self.later(async move {
            let asked = ask(&worker, &question);
            let (new, old) = match &reference {
                Some(reference) => {
                    let (new, old) = tokio::join!(asked, ask(reference, &question));
                    (new, Some(answer(old)))
                }
                None => (asked.await, None),
            };
            Some(Message::Answered { worker: id, purpose: Purpose::Judgement, new: answer(new), old })
        });
    }

    /// Asks a worker whether it is well.
    pub(super) fn probe(&mut self, id: WorkerId, doubted: bool) {
        if self.run_health_command(id, Purpose::Probe) {
            return;
        }
        let socket = self.workers.get(&id).and_then(Worker::probe_socket);
        let address = socket.map(|socket| socket.address().to_owned());
        let (Some(address), Some(question)) = (address, self.question(id)) else {
            self.events.push_back(Event::Worker(id, WorkerEvent::Probed(Finding::Well)));
            return;
        };
        let generation = self.generations.get(&self.workers[&id].generation());
        // A question without a path of its own is the application's start page. Where nobody is being served, nobody
        // can be stuck, and neither the application nor its access log need to be troubled.
        if generation.is_some_and(|g| g.settings.health.path.is_none()) && !doubted && self.nobody_is_served() {
            self.events.push_back(Event::Worker(id, WorkerEvent::Probed(Finding::Well)));
            return;
        }
        if self.question_waits(id) {
            let new = Answer::None("it has not accepted the last question yet".to_owned());
            self.answered(id, Purpose::Probe, new, None);
            return;
        }
        self.later(async move {
            let new = answer(ask(&address, &question).await);
            Some(Message::Answered { worker: id, purpose: Purpose::Probe, new, old: None })
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

    pub(super) fn answered(&mut self, id: WorkerId, purpose: Purpose, new: Answer, old: Option<Answer>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.unanswered = matches!(new, Answer::None(_));
        let generation_id = worker.generation();
        let Some(generation) = self.generations.get_mut(&generation_id) else { return };
        let expectation = expectation(generation);
        let event = match purpose {
            Purpose::Judgement => {
                let old = old.or_else(|| generation.answered.clone());
                let verdict = judge(&expectation, &new, old.as_ref()).map_err(|why| match worker.last_error() {
                    // A new worker that answers 500 has usually just written why.
                    Some(error) => format!("{why}: {error}"),
                    None => why,
                });
                if verdict.is_ok() && generation.answered.is_none() {
                    generation.answered = Some(new);
                }
                WorkerEvent::Judged { verdict }
            }
            Purpose::Probe => WorkerEvent::Probed(find(&expectation, &new)),
        };
        self.events.push_back(Event::Worker(id, event));
    }

    fn question(&self, id: WorkerId) -> Option<Question> {
        let generation = self.generations.get(&self.workers.get(&id)?.generation()).filter(|g| !g.speaks_tls)?;
        let health = &generation.settings.health;
        Some(Question {
            path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: health.host.clone().unwrap_or_else(|| "localhost".to_owned()),
            headers: health.headers.clone(),
            patience: health.timeout,
        })
    }
}

fn expectation(generation: &Generation) -> Expectation {
    let health = &generation.settings.health;
    Expectation {
        path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
        wanted: health.path.as_ref().map(|_| health.status.clone().unwrap_or_default()),
        speaks_http: generation.adapter.speaks_http,
        silent_when_busy: generation.silent_when_busy,
        answered_before: matches!(generation.answered, Some(Answer::Status(_) | Answer::NotHttp)),
    }
}

fn answer(asked: Result<hyper::StatusCode, AskError>) -> Answer {
    match asked {
        Ok(status) => Answer::Status(status.as_u16()),
        Err(AskError::NotHttp(_)) => Answer::NotHttp,
        Err(
            error @ (AskError::Connect(_)
            | AskError::QueueFull
            | AskError::Timeout(_)
            | AskError::Closed
            | AskError::Question(_)),
        ) => Answer::None(error.to_string()),
    }
}
