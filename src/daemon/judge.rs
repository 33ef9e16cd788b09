//! Effect::Judge: the question goes to the worker and to one that serves, the core's rule decides.

use super::shell::{Message, Shell};
use crate::adapter::Adapter;
use crate::config::Health;
use crate::probe::{AskError, Question, ask};
use crate::supervisor::{Answer, Event, Expectation, GenerationId, Phase, WorkerEvent, WorkerId, judge};
use std::time::Duration;
use tokio::time::sleep;

/// Why a worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is to become ready.
    Proof,
    /// It is ready, and its generation soaks.
    Soak,
}

impl Shell {
    /// Asks the worker and the reference. One without a private socket is judged by its readiness.
    pub(super) fn judge(&mut self, id: WorkerId, reference: Option<WorkerId>) {
        let address = |id: WorkerId| Some(self.workers.get(&id)?.probe_address()?.to_owned());
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
            Some(Message::Answered { worker: id, purpose: Purpose::Proof, new: answer(new), old })
        });
    }

    /// Asks every worker of a generation again, halfway through its soak.
    pub(super) fn ask_soaking(&self, generation: GenerationId, soak: Duration) {
        for worker in self.core.snapshot(self.now()).workers {
            if worker.generation != generation || worker.phase != Phase::Ready {
                continue;
            }
            let id = worker.worker;
            let address = self.workers.get(&id).and_then(|worker| worker.probe_address());
            let (Some(address), Some(question)) = (address.map(str::to_owned), self.question(id)) else { continue };
            self.later(async move {
                sleep(soak / 2).await;
                let new = answer(ask(&address, &question).await);
                Some(Message::Answered { worker: id, purpose: Purpose::Soak, new, old: None })
            });
        }
    }

    pub(super) fn answered(&mut self, id: WorkerId, purpose: Purpose, new: Answer, old: Option<Answer>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let generation_id = worker.generation();
        let Some(generation) = self.generations.get_mut(&generation_id) else { return };
        let expectation = expectation(&generation.settings.health, generation.adapter);
        let old = old.or_else(|| generation.answered.clone());
        let verdict = match (&new, &generation.answered) {
            // A worker that serves may be busy: silence proves nothing against it once its generation has answered.
            (Answer::None(_), Some(Answer::Status(_) | Answer::NotHttp)) => Ok(()),
            (Answer::None(_) | Answer::NotHttp | Answer::Status(_), _) => judge(&expectation, &new, old.as_ref()),
        };
        if verdict.is_ok() && generation.answered.is_none() {
            generation.answered = Some(new);
        }
        let event = match (purpose, verdict) {
            (Purpose::Proof, verdict) => WorkerEvent::Judged { verdict },
            (Purpose::Soak, Err(why)) => WorkerEvent::FoundSick { why },
            (Purpose::Soak, Ok(())) => return,
        };
        self.events.push_back(Event::Worker(id, event));
    }

    fn question(&self, id: WorkerId) -> Option<Question> {
        let health = &self.generations.get(&self.workers.get(&id)?.generation())?.settings.health;
        Some(Question {
            path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: health.host.clone().unwrap_or_else(|| "localhost".to_owned()),
            patience: health.timeout,
        })
    }
}

fn expectation(health: &Health, adapter: &Adapter) -> Expectation {
    Expectation {
        path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
        wanted: health.path.as_ref().map(|_| health.status.clone().unwrap_or_default()),
        speaks_http: adapter.speaks_http,
    }
}

fn answer(asked: Result<hyper::StatusCode, AskError>) -> Answer {
    match asked {
        Ok(status) => Answer::Status(status.as_u16()),
        Err(AskError::NotHttp(_)) => Answer::NotHttp,
        Err(error @ (AskError::Connect(_) | AskError::Timeout(_) | AskError::Closed | AskError::Question(_))) => {
            Answer::None(error.to_string())
        }
    }
}
