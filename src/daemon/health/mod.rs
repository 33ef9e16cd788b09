//! Health: whether a worker's code may serve (Effect::Judge) and whether a ready worker is well (Effect::Probe). A program of
//! the operator's answers both where one is configured; else the worker is asked over HTTP, and one that speaks TLS must
//! answer the beginning of a handshake. The core's rules say what an answer means.
//!
//! Owns: the programs that run. Everything else is given with each question, as a [`Subject`].

pub(super) mod exec;
pub(super) mod http;

use self::exec::{HealthCommands, Purpose};
use self::http::{Inquiry, Judgement, ProbeAddress, RETRY_INTERVAL};
use super::generation::Generation;
use super::message::Message;
use super::outbox::Outbox;
use super::workers::Worker;
use crate::app::Address;
use crate::listener::Listener;
use crate::probe::{AskError, Question, greet};
use crate::queue;
use crate::supervisor::{Answer, Answers, Event, Expectation, ProbeOutcome, WorkerEvent, WorkerId, find};
use std::time::Duration;
use tokio::time::sleep;

/// The worker that is asked, and what its generation says of how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) id: WorkerId,
    pub(super) worker: &'a Worker,
    pub(super) generation: &'a Generation,
}

/// What a worker's answer is compared with (Effect::Judge).
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    /// Who tells what is usual.
    pub(super) reference: Option<ProbeAddress>,
    pub(super) remembered: Option<Answer>,
    /// Where visitors come in who may keep it busy.
    pub(super) public: Vec<Address>,
}

/// Asks the worker, and the reference where that matters, for so long (None: once); one that speaks TLS is greeted. One
/// without a private socket cannot be asked: it is judged by its readiness.
pub(super) fn judge(
    subject: Subject<'_>,
    baseline: Baseline,
    patience: Option<Duration>,
    commands: &mut HealthCommands,
    outbox: &mut Outbox,
) {
    let Subject { id, .. } = subject;
    if let Some(request) = subject.command(Purpose::Judgement(patience)) {
        commands.run(id, &request, outbox);
    } else if let Some((address, host)) = subject.greeting() {
        let patience = patience.unwrap_or(subject.generation.settings.health.timeout);
        outbox.later(async move {
            Some(Message::Greeted { worker: id, verdict: greeted(&address, &host, patience).await })
        });
    } else if let Some(inquiry) = subject.inquiry(baseline, patience) {
        outbox.later(async move { Some(Message::Judged { worker: id, judgement: inquiry.judge().await }) });
    } else {
        outbox.event(Event::Worker(id, WorkerEvent::Judged { verdict: Ok(()), answers: Answers::default() }));
    }
}

/// Asks a worker whether it is well, or finds out that nobody is being served on the listeners, where that will do.
pub(super) fn probe(
    subject: Subject<'_>,
    skip_when_idle: bool,
    listeners: &[Listener],
    commands: &mut HealthCommands,
    outbox: &mut Outbox,
) {
    let Subject { id, worker, .. } = subject;
    if skip_when_idle && nobody_is_served(listeners) {
        outbox.event(Event::Worker(id, WorkerEvent::Probed(ProbeOutcome::Idle)));
        return;
    }
    if let Some(request) = subject.command(Purpose::Probe) {
        commands.run(id, &request, outbox);
        return;
    }
    let address = worker.probe_socket().map(ProbeAddress::private);
    let (Some(address), Some(question)) = (address, subject.question()) else {
        outbox.event(Event::Worker(id, WorkerEvent::Probed(ProbeOutcome::Healthy)));
        return;
    };
    let waits = subject.question_waits();
    outbox.later(async move {
        let answer = if waits {
            Answer::NotAccepted("it has not accepted the last question yet".to_owned())
        } else {
            match address.ask(&question).await {
                Err(error @ AskError::Timeout(_)) => Answer::Silent(error.to_string()),
                other => http::answer(other),
            }
        };
        Some(Message::Probed { worker: id, answer })
    });
}

/// What came of asking a worker whether its code may serve.
pub(super) fn judged(id: WorkerId, worker: &Worker, judgement: Judgement) -> Event {
    let Judgement { verdict, new, old } = judgement;
    let answers = Answers { new: Some(new), old };
    Event::Worker(id, WorkerEvent::Judged { verdict: verdict.map_err(|why| with_reason(why, worker)), answers })
}

/// What came of greeting a worker in TLS.
pub(super) fn was_greeted(id: WorkerId, worker: &Worker, verdict: Result<(), String>) -> Event {
    let verdict = verdict.map_err(|why| with_reason(why, worker));
    Event::Worker(id, WorkerEvent::Judged { verdict, answers: Answers::default() })
}

/// What an answer to a probe says of a worker of this generation.
pub(super) fn probed(id: WorkerId, generation: &Generation, answer: &Answer) -> Event {
    Event::Worker(id, WorkerEvent::Probed(find(&expectation(generation), answer)))
}

impl Subject<'_> {
    /// The operator's program, if one is configured.
    fn command(&self, purpose: Purpose) -> Option<exec::Request> {
        let generation = self.generation;
        Some(exec::Request {
            command: generation.health_command.clone()?,
            timeout: generation.settings.health.timeout,
            pid: self.worker.pid(),
            says_ready: generation.spec.as_ref().is_none_or(|spec| spec.says_ready),
            purpose,
        })
    }

    /// Where a worker that speaks TLS is greeted, and by which name: it must answer, whatever those who serve do.
    fn greeting(&self) -> Option<(String, String)> {
        let socket = self.worker.probe_socket().filter(|_| self.generation.speaks_tls)?;
        let host = self.generation.settings.health.host.clone();
        Some((socket.address().to_owned(), host.unwrap_or_else(|| "localhost".to_owned())))
    }

    fn inquiry(&self, baseline: Baseline, patience: Option<Duration>) -> Option<Inquiry> {
        let question = self.question()?;
        let Baseline { reference, remembered, public } = baseline;
        Some(Inquiry {
            expectation: Expectation { watched: patience.is_none(), ..expectation(self.generation) },
            patience: patience.unwrap_or(question.patience),
            question,
            worker: self.worker.probe_socket().map(ProbeAddress::private)?,
            pid: self.worker.pid(),
            public,
            reference,
            remembered,
        })
    }

    fn question(&self) -> Option<Question> {
        if self.generation.speaks_tls {
            return None;
        }
        let health = &self.generation.settings.health;
        Some(Question {
            path: health.path.clone().unwrap_or_else(|| "/".to_owned()),
            host: health.host.clone().unwrap_or_else(|| "localhost".to_owned()),
            headers: health.headers.clone(),
            patience: health.timeout,
            uwsgi: self.generation.speaks_uwsgi,
        })
    }

    /// Whether the last question, given up, is still in the queue of the worker's private socket: another one behind it
    /// would tell nothing new, and the worker would have to answer them all. False where the kernel does not tell.
    fn question_waits(&self) -> bool {
        let socket = self.worker.probe_socket().filter(|_| self.worker.is_unanswered());
        let depth = socket.and_then(|socket| queue::unix_depth(socket.inode()).ok());
        depth.is_some_and(|depth| depth.waiting > 0)
    }
}

async fn greeted(address: &str, host: &str, patience: Duration) -> Result<(), String> {
    let greeted = greet(address, host, patience).await;
    if matches!(greeted, Err(AskError::Closed)) {
        // What it says of why comes by another way.
        sleep(RETRY_INTERVAL).await;
    }
    greeted.map_err(|error| format!("TLS handshake: {error}"))
}

/// Whether the kernel is certain that no connection waits or is open on any of our sockets.
fn nobody_is_served(listeners: &[Listener]) -> bool {
    listeners.iter().all(|listener| {
        let open = queue::in_flight(&listener.address).is_ok_and(|in_flight| in_flight.connections == 0);
        open && queue::depth(&listener.address, listener.inode).is_ok_and(|depth| depth.waiting == 0)
    })
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
