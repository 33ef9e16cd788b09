//! Asking a worker over HTTP, or the uwsgi protocol, whether its code may serve: until it may, or until its time to start is
//! over, because a program that says nothing of itself may hold its socket long before it serves. What is usual is asked of
//! those who serve.
//!
//! Owns no state: everything that is needed is in the [`Inquiry`]. Never: decides what an answer means, which are the rules of
//! `supervisor/acceptance.rs`.

use crate::app::Address;
use crate::listener::Listener;
use crate::probe::{self, Answers, AskError, Question, ask};
use crate::process::holds_socket;
use crate::queue;
use crate::supervisor::{Answer, Expectation, judge, may_improve, speaks_for_itself, usual};
use rustix::process::Pid;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two questions to a worker that closes the connection.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// What came of a judgement.
#[derive(Debug)]
pub(in super::super) struct Judgement {
    pub(super) verdict: Result<(), String>,
    /// What the worker answered.
    pub(super) new: Answer,
    /// What those who serve answer, if they were asked.
    pub(super) old: Option<Answer>,
}

/// A listening socket that is asked: where it is reached, and how the kernel knows it.
#[derive(Clone, Debug)]
pub(in super::super) struct ProbeAddress {
    reach: String,
    address: Address,
    inode: u64,
    answers: Option<Answers>,
}

impl ProbeAddress {
    pub(in super::super) fn private(socket: &probe::Socket) -> Self {
        let reach = socket.address().to_owned();
        // Of a unix socket its inode tells enough.
        let address = reach.parse().map_or_else(|_| Address::Abstract(reach.clone()), Address::Tcp);
        Self { address, reach, inode: socket.inode(), answers: Some(socket.answers().clone()) }
    }

    /// Asks there.
    pub(super) async fn ask(&self, question: &Question) -> Result<hyper::StatusCode, AskError> {
        let heard = ask(&self.reach, question).await;
        if heard.is_ok() {
            self.answers.iter().for_each(Answers::count);
        }
        heard
    }

    /// Where a visitor reaches the listener. None: its path has no text.
    pub(in super::super) fn public(listener: &Listener) -> Option<Self> {
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
        Some(Self { reach, address: listener.address.clone(), inode: listener.inode, answers: None })
    }
}

/// One worker that is asked whether its code may serve.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) question: Question,
    pub(super) expectation: Expectation,
    pub(super) patience: Duration,
    pub(super) worker: ProbeAddress,
    pub(super) pid: Option<Pid>,
    /// Where visitors come in who may keep it busy, if another worker of its code has answered.
    pub(super) public: Vec<Address>,
    /// Who tells what is usual.
    pub(super) reference: Option<ProbeAddress>,
    pub(super) remembered: Option<Answer>,
}

impl Inquiry {
    /// Asks until the worker may serve, has answered for good, or has had its time.
    pub(super) async fn judge(self) -> Judgement {
        let begun = Instant::now();
        let rest = || self.patience.saturating_sub(begun.elapsed());
        let (mut old, mut last_answer) = (None, None);
        loop {
            // One connection waits for its answer all the time; after each span that an answer may take the silence so
            // far is judged.
            let question = Question { patience: rest(), ..self.question.clone() };
            let mut asked = std::pin::pin!(self.worker.ask(&question));
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
                        sleep(RETRY_INTERVAL).await;
                    }
                    return Judgement { verdict, new, old };
                }
                if answered {
                    last_answer = Some(new);
                    break;
                }
            }
            sleep(RETRY_INTERVAL.min(rest())).await;
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
        Some(match place.ask(&self.question).await {
            // With others in the queue nobody knows whose turn it was.
            Err(error @ AskError::Timeout(_)) => match queue::depth(&place.address, place.inode) {
                Ok(depth) if depth.waiting == 0 => Answer::Silent(error.to_string()),
                Ok(_) | Err(_) => Answer::NotAccepted(error.to_string()),
            },
            other => answer(other),
        })
    }
}

/// What an answer is to the core's rules.
pub(super) fn answer(asked: Result<hyper::StatusCode, AskError>) -> Answer {
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
