//! Effect::Judge and Effect::Probe: a worker is asked, the core's rules say what its answer means.
//!
//! New code is asked until it may serve, or until its time to start is over: a program that says nothing of itself may
//! hold its socket long before it serves. What is usual is asked of those who serve, once, and remembered. A worker that
//! speaks TLS is not asked: it must answer the beginning of a handshake.

use super::prepare::Generation;
use super::shell::{Message, Shell};
use super::workers::Worker;
use crate::app::Address;
use crate::listener::Listener;
use crate::probe::{self, AskError, Question, ask, greet};
use crate::process::holds_socket;
use crate::queue;
use crate::supervisor::{
    Answer, Event, Expectation, Finding, Role, WorkerEvent, WorkerId, find, judge, may_improve, speaks_for_itself,
    usual,
};
use rustix::process::Pid;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two questions to a worker that closes the connection.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Why a worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Effect::Judge: may its code serve? It may be asked for so long; None: once.
    Judgement(Option<Duration>),
    /// Effect::Probe: is it well?
    Probe,
}

/// What came of a judgement.
#[derive(Debug)]
pub(super) struct Judgement {
    verdict: Result<(), String>,
    /// What the worker answered.
    new: Answer,
    /// What those who serve answer, if they were asked.
    old: Option<Answer>,
}

/// A listening socket that is asked: where it is reached, and how the kernel knows it.
#[derive(Clone, Debug)]
struct Place {
    reach: String,
    address: Address,
    inode: u64,
}

impl Place {
    fn private(socket: &probe::Socket) -> Self {
        let reach = socket.address().to_owned();
        // Of a unix socket its inode tells enough.
        let address = reach.parse().map_or_else(|_| Address::Abstract(reach.clone()), Address::Tcp);
        Self { address, reach, inode: socket.inode() }
    }

    /// Where a visitor reaches the listener. None: its path has no text.
    fn public(listener: &Listener) -> Option<Self> {
        let reach = match &listener.address {
            Address::Unix(path) => path.to_str()?.to_owned(),
            Address::Abstract(name) => format!("@{name}"),
            Address::Tcp(address) => SocketAddr::new(
                match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
                },
                address.port(),
            )
            .to_string(),
        };
        Some(Self { reach, address: listener.address.clone(), inode: listener.inode })
    }
}

impl Shell {
    /// Asks the worker, and the reference where that matters; one that speaks TLS is greeted. One without a private
    /// socket cannot be asked: it is judged by its readiness.
    pub(super) fn judge(&mut self, id: WorkerId, reference: Option<WorkerId>, patience: Option<Duration>) {
        if self.run_health_command(id, Purpose::Judgement(patience)) || self.judge_greeting(id, patience) {
            return;
        }
        let Some(inquiry) = self.inquiry(id, reference, patience) else {
            self.events.push_back(Event::Worker(id, WorkerEvent::Judged { verdict: Ok(()) }));
            return;
        };
        self.later(async move { Some(Message::Judged { worker: id, judgement: inquiry.judge().await }) });
    }

    /// Whether the worker speaks TLS: then it must answer a greeting, whatever those who serve do.
    fn judge_greeting(&mut self, id: WorkerId, patience: Option<Duration>) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        let generation = self.generations.get(&worker.generation()).filter(|generation| generation.speaks_tls);
        let (Some(generation), Some(socket)) = (generation, worker.probe_socket()) else { return false };
        let health = &generation.settings.health;
        let host = health.host.clone().unwrap_or_else(|| "localhost".to_owned());
        let (address, patience) = (socket.address().to_owned(), patience.unwrap_or(health.timeout));
        self.later(async move {
            let greeted = greet(&address, &host, patience).await;
            if matches!(greeted, Err(AskError::Closed)) {
                // What it says of why comes by another way.
                sleep(ASK_AGAIN).await;
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
        self.events.push_back(Event::Worker(id, WorkerEvent::Judged { verdict }));
    }

    fn inquiry(&self, id: WorkerId, reference: Option<WorkerId>, patience: Option<Duration>) -> Option<Inquiry> {
        let worker = self.workers.get(&id)?;
        let generation = self.generations.get(&worker.generation())?;
        let question = self.question(id)?;
        let private = |id: WorkerId| self.workers.get(&id)?.probe_socket().map(Place::private);
        // A worker without a socket of its own is reached by the public one, like all that serve.
        let reference = reference.and_then(|id| private(id).or_else(|| self.listeners.first().and_then(Place::public)));
        let public = match worker.role() {
            Role::Serving if generation.answered.is_some() => {
                self.listeners.iter().map(|l| l.address.clone()).collect()
            }
            Role::Serving | Role::Canary => Vec::new(),
        };
        Some(Inquiry {
            expectation: Expectation { watched: patience.is_none(), ..expectation(generation) },
            patience: patience.unwrap_or(question.patience),
            question,
            worker: private(id)?,
            pid: worker.pid(),
            public,
            // What is usual need not be asked again for each worker of a generation.
            reference: reference.filter(|_| generation.answered.is_none()),
            remembered: generation.answered.clone().or_else(|| generation.usual.clone()),
        })
    }

    pub(super) fn judged(&mut self, id: WorkerId, judgement: Judgement) {
        let Judgement { verdict, new, old } = judgement;
        let Some(worker) = self.workers.get(&id) else { return };
        let verdict = verdict.map_err(|why| with_reason(why, worker));
        let generation = worker.generation();
        if let Some(generation) = self.generations.get_mut(&generation).filter(|_| verdict.is_ok()) {
            generation.remember(new);
        }
        let serving = self.core.overview(self.now()).generation;
        if let (Some(generation), Some(old)) = (self.generations.get_mut(&serving), old) {
            generation.remember(old);
        }
        self.events.push_back(Event::Worker(id, WorkerEvent::Judged { verdict }));
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
            self.probed(id, &Answer::NotAccepted("it has not accepted the last question yet".to_owned()));
            return;
        }
        self.later(async move {
            let answer = match ask(&address, &question).await {
                Err(error @ AskError::Timeout(_)) => Answer::Silent(error.to_string()),
                other => answer(other),
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
        self.events.push_back(Event::Worker(id, WorkerEvent::Probed(finding)));
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

/// One worker that is asked for its judgement.
struct Inquiry {
    question: Question,
    expectation: Expectation,
    patience: Duration,
    worker: Place,
    pid: Option<Pid>,
    /// Where visitors come in who may keep it busy, if another worker of its code has answered.
    public: Vec<Address>,
    /// Who tells what is usual.
    reference: Option<Place>,
    remembered: Option<Answer>,
}

impl Inquiry {
    /// Asks until the worker may serve, has answered for good, or has had its time.
    async fn judge(self) -> Judgement {
        let begun = Instant::now();
        let rest = || self.patience.saturating_sub(begun.elapsed());
        let (mut old, mut last_answer) = (None, None);
        loop {
            // One connection waits for its answer all the time; after each span that an answer may take the silence so
            // far is judged.
            let question = Question { patience: rest(), ..self.question.clone() };
            let mut asked = std::pin::pin!(ask(&self.worker.reach, &question));
            loop {
                let heard = tokio::select! {
                    heard = &mut asked => Some(heard),
                    () = sleep(self.question.patience.min(rest())) => None,
                };
                let over = rest().is_zero();
                let (new, answered) = match heard {
                    // A last question, asked just before the time is over, says less than the answer before it.
                    None | Some(Err(AskError::Timeout(_))) => {
                        (last_answer.clone().unwrap_or_else(|| self.silence(begun.elapsed())), false)
                    }
                    Some(heard) => (answer(heard), true),
                };
                if old.is_none() && !speaks_for_itself(&self.expectation, &new) {
                    old = self.ask_reference().await;
                }
                let verdict = judge(&self.expectation, &new, usual(old.as_ref(), self.remembered.as_ref()));
                if verdict.is_ok() || over || !may_improve(&self.expectation, &new) {
                    if verdict.is_err() && new == Answer::Closed {
                        // Its end may have closed the connection, and says more.
                        sleep(ASK_AGAIN).await;
                    }
                    return Judgement { verdict, new, old };
                }
                if answered {
                    last_answer = Some(new);
                    break;
                }
            }
            sleep(ASK_AGAIN.min(rest())).await;
        }
    }

    /// It has not answered: whether it has accepted the connection, or has no time for it.
    fn silence(&self, waited: Duration) -> Answer {
        let waited = Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX).next_multiple_of(100));
        let serves = |pid: Pid| {
            let accepted = self.public.iter().filter_map(|address| queue::accepted(address).ok()).flatten().collect();
            holds_socket(pid, &accepted) == Some(true)
        };
        if self.pid.is_some_and(serves) {
            return Answer::Busy;
        }
        // Nobody else connects to its socket: with nothing in the queue ours has been accepted.
        match queue::depth(&self.worker.address, self.worker.inode) {
            Ok(depth) if depth.waiting > 0 => Answer::NotAccepted(format!(
                "it has not accepted a connection on the socket that it was given within {waited:?}"
            )),
            Ok(_) | Err(_) => Answer::Silent(format!("no answer within {waited:?}")),
        }
    }

    /// What a serving worker answers.
    async fn ask_reference(&self) -> Option<Answer> {
        let place = self.reference.as_ref()?;
        Some(match ask(&place.reach, &self.question).await {
            // With others in the queue nobody knows whose turn it was.
            Err(error @ AskError::Timeout(_)) => match queue::depth(&place.address, place.inode) {
                Ok(depth) if depth.waiting == 0 => Answer::Silent(error.to_string()),
                Ok(_) | Err(_) => Answer::NotAccepted(error.to_string()),
            },
            other => answer(other),
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

fn answer(asked: Result<hyper::StatusCode, AskError>) -> Answer {
    match asked {
        Ok(status) => Answer::Status(status.as_u16()),
        Err(AskError::NotHttp(_)) => Answer::NotHttp,
        Err(AskError::Closed) => Answer::Closed,
        Err(
            error @ (AskError::Connect(_)
            | AskError::QueueFull
            | AskError::Timeout(_)
            | AskError::Question(_)
            | AskError::NotTls
            | AskError::TooLong),
        ) => Answer::NotAccepted(error.to_string()),
    }
}
