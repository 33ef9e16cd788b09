//! The status socket of this instance: where it is by the configuration that serves, and what is answered there.
//!
//! Owns: the listening socket, and the status that was asked for last. However often and by however many the metrics are
//! asked for, the loop makes no more than one status a second for them.
//! Never: keeps the site from serving, whatever is wrong with it.

use super::balancer::Balancers;
use super::message::Message;
use super::outbox::Outbox;
use crate::app::Address;
use crate::control::{Call, Replier, Reply, Request, Status};
use crate::journal::message_id;
use crate::listener::{self, AtPath, Listener};
use crate::metrics::{self, Format, Instance};
use crate::status_socket::{self, Page, Question, Socket};
use crate::supervisor::GenerationId;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

/// What is answered there: the metrics, whether the instance takes visitors, whether its loop turns.
const PATHS: &[&str] = &[METRICS, READY, LIVE];
const METRICS: &str = "/metrics";
const READY: &str = "/ready";
const LIVE: &str = "/live";
/// A status that is not older is used again.
const FRESH: Duration = Duration::from_secs(1);
/// Everybody who reaches a unix socket may ask: its directory decides who that is.
const MODE: u32 = 0o666;
/// Clients beside those who are answered.
const BACKLOG: u32 = 64;

/// The status socket.
#[derive(Debug)]
pub(super) struct StatusSocket {
    source: Arc<Source>,
    bound: Option<Bound>,
    tried: Option<Try>,
}

/// Where the socket was to be when it was last tried to bind it.
#[derive(Debug)]
struct Try {
    /// Which generation wanted it there.
    by: GenerationId,
    address: Address,
    /// What came of it is not known yet.
    pending: bool,
}

#[derive(Debug)]
struct Bound {
    /// What was written; port 0 has become another.
    wanted: Address,
    listener: Listener,
    /// A thread looks at its file.
    looking: bool,
    serving: JoinHandle<()>,
}

impl StatusSocket {
    /// None yet. The status is asked for as `sockd status` asks.
    pub(super) fn new(calls: mpsc::Sender<Call>, balancers: Arc<Balancers>) -> Self {
        let source = Arc::new(Source { calls, last: Mutex::default(), balancers });
        Self { source, bound: None, tried: None }
    }

    /// Whether anybody could ask there.
    pub(super) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    /// Binds it at the start, when there is nothing that could be kept waiting.
    pub(super) fn begin(&mut self, generation: GenerationId, wanted: Option<&Address>) {
        if let Some(wanted) = self.next_try(generation, wanted) {
            let bound = bind(&wanted);
            self.take(&wanted, bound);
        }
    }

    /// This is where the generation that serves wants it. A thread binds it, as its path may be on a disk that does not
    /// answer, and reports that. One that cannot be bound is tried once for each generation, and the one before it stays.
    pub(super) fn follow(&mut self, generation: GenerationId, wanted: Option<&Address>, outbox: &Outbox) {
        if let Some(wanted) = self.next_try(generation, wanted) {
            bind_aside(wanted, outbox);
        }
    }

    /// Has a thread look whether its file is still there: what cleans directories may have removed it.
    pub(super) fn look(&mut self, outbox: &Outbox) {
        if let Some(bound) = self.bound.as_mut().filter(|bound| !bound.looking) {
            bound.looking = true;
            let file = bound.listener.file().clone();
            let looking = spawn_blocking(move || file.at_path());
            outbox.later(async move { Some(Message::StatusSocketFile(looking.await.unwrap_or(AtPath::Unknown))) });
        }
    }

    /// This stands where its file was. Where nothing does, it is bound again.
    pub(super) fn file_seen(&mut self, at_path: AtPath, outbox: &Outbox) {
        let Some(bound) = &mut self.bound else { return };
        bound.looking = false;
        if let Some(tried) = self.tried.as_mut().filter(|tried| at_path == AtPath::Nothing && !tried.pending) {
            tracing::warn!("the file of {} was removed, binding it again", bound.listener.address);
            tried.pending = true;
            bind_aside(bound.wanted.clone(), outbox);
        }
    }

    /// Where it is to be bound, if it is not there and was not tried.
    fn next_try(&mut self, generation: GenerationId, wanted: Option<&Address>) -> Option<Address> {
        let Some(wanted) = wanted else {
            self.tried = None;
            self.bound.take().into_iter().for_each(Bound::remove_aside);
            return None;
        };
        let is_there = self.bound.as_ref().is_some_and(|bound| bound.wanted == *wanted);
        let tried = self.tried.as_ref().filter(|tried| tried.address == *wanted);
        if is_there || tried.is_some_and(|tried| tried.pending || tried.by == generation) {
            return None;
        }
        self.tried = Some(Try { by: generation, address: wanted.clone(), pending: true });
        Some(wanted.clone())
    }

    /// What came of binding it there.
    pub(super) fn take(&mut self, wanted: &Address, bound: Result<Listener, String>) {
        let Some(tried) = self.tried.as_mut().filter(|tried| tried.address == *wanted) else {
            // It is wanted elsewhere by now.
            bound.into_iter().for_each(|listener| drop(spawn_blocking(move || unlink(&listener))));
            return;
        };
        tried.pending = false;
        match bound.and_then(|listener| self.serve(wanted, listener)) {
            Ok(bound) => {
                tracing::info!(
                    MESSAGE_ID = message_id::LISTENER_TAKEN,
                    SOCKD_EVENT = "status-socket-bound",
                    "metrics are served on {} ({METRICS}), and balancers hear there who takes visitors ({READY}, {LIVE}, \
                     HAProxy's agent-check)",
                    bound.listener.address
                );
                self.bound.replace(bound).into_iter().for_each(Bound::remove_aside);
            }
            Err(why) => {
                // One whose file is lost and cannot be made again is no use; the next reload tries once more.
                self.bound.take_if(|bound| bound.wanted == *wanted).into_iter().for_each(Bound::remove_aside);
                let instead = self.bound.as_ref().map(|bound| format!(", but still on {}", bound.listener.address));
                tracing::error!(
                    SOCKD_EVENT = "status-socket-failed",
                    "status.listen: {why}; metrics are not served there{}; the site is",
                    instead.unwrap_or_default()
                );
            }
        }
    }

    fn serve(&self, wanted: &Address, listener: Listener) -> Result<Bound, String> {
        let socket = socket(&listener).map_err(|error| format!("cannot listen on {wanted}: {error}"))?;
        let source = Arc::clone(&self.source);
        let answer = move |question| Arc::clone(&source).answer(question);
        let serving = tokio::spawn(status_socket::serve(socket, PATHS, answer));
        Ok(Bound { wanted: wanted.clone(), listener, looking: false, serving })
    }

    /// The end: its file goes.
    pub(super) fn close(&mut self) {
        self.bound.take().iter().for_each(|bound| unlink(&bound.listener));
    }
}

impl Bound {
    /// Ends it; a thread removes its file.
    fn remove_aside(self) {
        self.serving.abort();
        drop(spawn_blocking(move || unlink(&self.listener)));
    }
}

fn bind_aside(wanted: Address, outbox: &Outbox) {
    let address = wanted.clone();
    let binding = spawn_blocking(move || bind(&address));
    outbox.later(async move { Some(Message::StatusSocket(wanted, binding.await.ok()?)) });
}

fn bind(wanted: &Address) -> Result<Listener, String> {
    listener::bind(wanted, None, Some(MODE), BACKLOG).map_err(|error| error.to_string())
}

fn unlink(listener: &Listener) {
    if let Err(error) = listener.unlink_if_bound_here() {
        tracing::warn!("cannot remove the file of {}: {error}, ignoring", listener.address);
    }
}

fn socket(listener: &Listener) -> io::Result<Socket> {
    let descriptor = listener.as_fd().try_clone_to_owned()?;
    match listener.address {
        Address::Unix(_) | Address::Abstract(_) => Socket::unix(descriptor),
        Address::Tcp(_) => Socket::tcp(descriptor),
    }
}

/// Where the answers come from.
#[derive(Debug)]
struct Source {
    calls: mpsc::Sender<Call>,
    /// The lock is held while the loop is asked: who comes meanwhile waits for the same status.
    last: Mutex<Option<(Instant, Arc<Status>)>>,
    balancers: Arc<Balancers>,
}

impl Source {
    async fn answer(self: Arc<Self>, question: Question) -> Option<Page> {
        let status = self.status().await?;
        let accept = match question {
            Question::Agent => return Some(Page::plain(true, self.balancers.agent_line(&status))),
            Question::Path { path: LIVE, .. } => return Some(Page::plain(true, "live\n".to_owned())),
            Question::Path { path: READY, .. } => {
                let unready = self.balancers.ask(&status);
                return Some(Page::plain(unready.is_none(), format!("{}\n", unready.unwrap_or("ready"))));
            }
            Question::Path { accept, .. } => accept,
        };
        let format = Format::wanted(&accept);
        let unit = status.unit.clone().unwrap_or_default();
        let text = metrics::text(&[Instance { unit, status: Some(&status) }], format);
        Some(Page { is_well: true, content_type: format.content_type(), text })
    }

    /// The status of this second. None: sockd is stopping.
    async fn status(&self) -> Option<Arc<Status>> {
        let mut last = self.last.lock().await;
        if let Some((at, status)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(status));
        }
        let (replier, mut answer) = Replier::pair();
        self.calls.send(Call { request: Request::Status, uid: None, replier }).await.ok()?;
        let status = match answer.recv().await? {
            Reply::Status(status) => Arc::new(*status),
            Reply::Stacks(_)
            | Reply::LastLines(_)
            | Reply::History(_)
            | Reply::Recording(_)
            | Reply::Progress(_)
            | Reply::Outcome(_)
            | Reply::Error(_) => {
                return None;
            }
        };
        *last = Some((Instant::now(), Arc::clone(&status)));
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_ask_the_loop_makes_one_status() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (calls, mut asked) = mpsc::channel(1);
            let source = Arc::new(Source { calls, last: Mutex::default(), balancers: Arc::default() });
            let question = |accept: &str| Question::Path { path: METRICS, accept: accept.to_owned() };
            let ask = |accept| tokio::spawn(Arc::clone(&source).answer(question(accept)));
            let clients: Vec<_> = (0..50).map(|_| ask("")).collect();
            let Call { replier, .. } = asked.recv().await.expect("a question");
            replier.status(Status { unit: Some("web.service".to_owned()), ..Status::default() });
            for client in clients {
                let page = client.await.expect("no panic").expect("an answer");
                assert!(page.text.contains("sockd_up{unit=\"web.service\"} 1"), "{page:?}");
            }
            let late = ask("application/openmetrics-text").await.expect("no panic").expect("an answer");
            assert!(late.content_type.starts_with("application/openmetrics-text"), "{late:?}");
            assert!(asked.try_recv().is_err(), "it was asked twice within a second");
            // A loop that answers no more.
            drop(asked);
            *source.last.lock().await = None;
            assert_eq!(ask("").await.expect("no panic"), None);
        });
    }
}
