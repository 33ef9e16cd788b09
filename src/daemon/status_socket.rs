//! The status socket of this instance: where it is by the configuration that serves, and what is answered there.
//!
//! Owns: the listening socket, and the status that was asked for last. However often and by however many the metrics are
//! asked for, the loop makes no more than one status a second for them.
//! Never: keeps the site from serving, whatever is wrong with it.

use crate::app::Address;
use crate::control::{Call, Replier, Reply, Request, Status};
use crate::journal::message_id;
use crate::listener::{self, Listener};
use crate::metrics::{self, Format, Instance};
use crate::status_socket::{self, Page, Question, Socket};
use crate::supervisor::GenerationId;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// What is answered there.
const METRICS: &str = "/metrics";
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
    /// Where it was to be, and by which generation, when it was last tried to bind it.
    tried: Option<(GenerationId, Address)>,
}

#[derive(Debug)]
struct Bound {
    /// What was written; port 0 has become another.
    wanted: Address,
    listener: Listener,
    serving: JoinHandle<()>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.serving.abort();
        if let Err(error) = self.listener.unlink_if_bound_here() {
            tracing::warn!("cannot remove the file of {}: {error}, ignoring", self.listener.address);
        }
    }
}

impl StatusSocket {
    /// None yet. The status is asked for as `sockd status` asks.
    pub(super) fn new(calls: mpsc::Sender<Call>) -> Self {
        let source = Arc::new(Source { calls, last: Mutex::default() });
        Self { source, bound: None, tried: None }
    }

    /// This is where the generation that serves wants it. A socket that cannot be bound is tried once for each generation, and
    /// the one before it stays meanwhile.
    pub(super) fn follow(&mut self, generation: GenerationId, wanted: Option<&Address>) {
        let Some(wanted) = wanted else {
            (self.bound, self.tried) = (None, None);
            return;
        };
        let is_there = self.bound.as_ref().is_some_and(|bound| bound.wanted == *wanted);
        let was_tried = self.tried.as_ref().is_some_and(|(by, address)| *by == generation && address == wanted);
        if is_there || was_tried {
            return;
        }
        self.tried = Some((generation, wanted.clone()));
        match self.bind(wanted) {
            Ok(bound) => {
                tracing::info!(
                    MESSAGE_ID = message_id::LISTENER_TAKEN,
                    SOCKD_EVENT = "status-socket-bound",
                    "metrics are served on {} ({METRICS})",
                    bound.listener.address
                );
                self.bound = Some(bound);
            }
            Err(why) => {
                let instead = self.bound.as_ref().map(|bound| format!(", but still on {}", bound.listener.address));
                tracing::error!(
                    SOCKD_EVENT = "status-socket-failed",
                    "status.listen: {why}; metrics are not served there{}; the site is",
                    instead.unwrap_or_default()
                );
            }
        }
    }

    /// The end: its file goes.
    pub(super) fn close(&mut self) {
        self.bound = None;
    }

    fn bind(&self, wanted: &Address) -> Result<Bound, String> {
        let listener = listener::bind(wanted, None, Some(MODE), BACKLOG).map_err(|error| error.to_string())?;
        let socket = socket(&listener).map_err(|error| format!("cannot listen on {wanted}: {error}"))?;
        let source = Arc::clone(&self.source);
        let answer = move |question| Arc::clone(&source).answer(question);
        let serving = tokio::spawn(status_socket::serve(socket, &[METRICS], answer));
        Ok(Bound { wanted: wanted.clone(), listener, serving })
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
}

impl Source {
    async fn answer(self: Arc<Self>, question: Question) -> Option<Page> {
        let format = Format::wanted(&question.accept);
        let status = self.status().await?;
        let unit = status.unit.clone().unwrap_or_default();
        let text = metrics::text(&[Instance { unit, status: Some(&status) }], format);
        Some(Page { content_type: format.content_type(), text })
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
        self.calls.send(Call { request: Request::Status, replier }).await.ok()?;
        let status = match answer.recv().await? {
            Reply::Status(status) => Arc::new(*status),
            Reply::Stacks(_) | Reply::LastLines(_) | Reply::Progress(_) | Reply::Outcome(_) | Reply::Error(_) => {
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
            let source = Arc::new(Source { calls, last: Mutex::default() });
            let question = |accept: &str| Question { path: METRICS, accept: accept.to_owned() };
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
