//! The server's end of the control socket: each status request and each reload client becomes a call.
//!
//! Owns: the listening socket and one task for each client. A valid request becomes a [`Call`] in the event loop's channel.
//! Never: waits for a client in the event loop, or lets a client stop anything by going away, being slow or writing
//! rubbish (`tests/control/`).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdUnixListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use crate::peer::Stream;

use super::history::HistoryEntry;
use super::message::{Outcome, Progress, Refusal, RefusalKind, Reply, Request, Stacks, Status};
use super::recording::Recording;
use super::{REQUEST_LIMIT, name};

/// How many clients are served at once; one more gets [`RefusalKind::Busy`].
pub const MAX_CLIENTS: usize = 16;
/// How long a client may take to send its request, and how long to take one line of the answer.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many lines of an answer wait for a client that reads slowly.
const ANSWER_LINES: usize = 256;
/// The rest before accepting is tried again after an error that will not pass by itself (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A request with the way back to the client that made it.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The user who asks, as the kernel tells it; `None`: sockd itself.
    pub uid: Option<u32>,
    /// Where the answer goes. If it is dropped without an answer, the client hears that the supervisor is stopping.
    pub replier: Replier,
}

/// The way back to a client. Nothing here waits, and nothing fails: a client that went away is no one's trouble.
#[derive(Debug)]
pub struct Replier {
    lines: mpsc::Sender<Reply>,
}

impl Replier {
    /// Answers [`Request::Status`].
    pub fn status(self, status: Status) {
        let _ = self.lines.try_send(Reply::Status(Box::new(status)));
    }

    /// Answers [`Request::Stacks`].
    pub fn stacks(self, stacks: Stacks) {
        let _ = self.lines.try_send(Reply::Stacks(stacks));
    }

    /// Answers [`Request::LastLines`].
    pub fn last_lines(self, lines: Vec<String>) {
        let _ = self.lines.try_send(Reply::LastLines(lines));
    }

    /// Answers [`Request::History`].
    pub fn history(self, entries: Vec<HistoryEntry>) {
        let _ = self.lines.try_send(Reply::History(entries));
    }

    /// Answers [`Request::Recording`].
    pub fn recording(self, recording: Recording) {
        let _ = self.lines.try_send(Reply::Recording(recording));
    }

    /// Tells a step of a reload. When the client has 255 unread lines the step is left out: the last place in the
    /// queue is the outcome's.
    pub fn progress(&self, message: impl Into<String>) {
        if self.lines.capacity() > 1 {
            let _ = self.lines.try_send(Reply::Progress(Progress { message: message.into() }));
        }
    }

    /// Ends the answer to [`Request::Reload`] and to [`Request::Replace`].
    pub fn outcome(self, outcome: Outcome) {
        let _ = self.lines.try_send(Reply::Outcome(outcome));
    }

    /// Refuses the request.
    pub fn refuse(self, kind: RefusalKind, message: impl Into<String>) {
        let _ = self.lines.try_send(Reply::Error(Refusal { kind, message: message.into() }));
    }

    /// Whether the client went away.
    pub fn is_gone(&self) -> bool {
        self.lines.is_closed()
    }

    /// Waits until the client goes away.
    pub async fn gone(&self) {
        self.lines.closed().await;
    }

    /// A call as the server makes it, and the receiving end of its answer: for tests of the shell.
    pub fn pair() -> (Self, mpsc::Receiver<Reply>) {
        let (lines, answer) = mpsc::channel(ANSWER_LINES);
        (Self { lines }, answer)
    }
}

/// The listening control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    name: String,
    uid: u32,
    patience: Duration,
}

impl Server {
    /// Binds and listens. Must be called inside a tokio runtime, after the last fork: the name holds our process id.
    ///
    /// # Errors
    /// What socket, bind and listen say. A supervisor survives that; it cannot be asked anything then.
    pub fn bind() -> io::Result<Self> {
        Self::bind_to(name::new(std::process::id()))
    }

    /// Binds another name than ours, for tests: no `sockd status` of the same machine finds it and asks.
    ///
    /// # Errors
    /// As [`Server::bind`].
    pub fn bind_to(name: String) -> io::Result<Self> {
        let listener = StdUnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, name, uid: rustix::process::geteuid().as_raw(), patience: CLIENT_TIMEOUT })
    }

    /// The socket's abstract name, without the leading zero byte.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another patience than [`CLIENT_TIMEOUT`], for tests.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Serves until the shell's receiver is gone: run it as a task. A full channel makes the clients wait, not the
    /// shell.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = calls.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => Stream::new(stream),
                Err(error) => {
                    tracing::debug!("cannot accept on the control socket: {error}, ignoring");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let uid = match admit(&stream, self.uid) {
                Ok(uid) => uid,
                Err(refusal) => {
                    turn_away(&stream, refusal);
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let message = format!("{MAX_CLIENTS} clients are asking already, try again");
                turn_away(&stream, Refusal { kind: RefusalKind::Busy, message });
                continue;
            };
            let (calls, patience) = (calls.clone(), self.patience);
            tokio::spawn(async move {
                // An error means that the client is gone or too slow; there is no one to tell.
                let _ = attend(stream, uid, calls, patience).await;
                drop(place);
            });
        }
    }
}

/// Who asks. Only root and our own user may: the answer holds lines of the application's log, and a reload is an action.
fn admit(stream: &Stream, uid: u32) -> Result<u32, Refusal> {
    let kind = RefusalKind::NotPermitted;
    match stream.connection().and_then(UnixStream::peer_cred) {
        Ok(peer) if peer.uid() == 0 || peer.uid() == uid => Ok(peer.uid()),
        Ok(_) => Err(Refusal { kind, message: format!("only root and the user with id {uid} may ask this sockd") }),
        Err(error) => Err(Refusal { kind, message: format!("cannot tell who asks: {error}") }),
    }
}

/// Refuses without waiting: a fresh socket's buffer takes a line, and if it does not, the client hears nothing.
fn turn_away(stream: &Stream, refusal: Refusal) {
    let _ = stream.connection().and_then(|stream| stream.try_write(&line(&Reply::Error(refusal))));
}

/// Serves one client from its request to the last line of its answer.
async fn attend(mut stream: Stream, uid: u32, calls: mpsc::Sender<Call>, patience: Duration) -> io::Result<()> {
    let request = match timeout(patience, read_request(&mut stream)).await {
        Ok(request) => request?,
        Err(_) => Err(format!("no request came within {patience:?}")),
    };
    let request = match request {
        Ok(request) => request,
        Err(message) => return send(&mut stream, patience, &Reply::Error(bad_request(message))).await,
    };
    let (replier, mut answer) = Replier::pair();
    let handed = tokio::select! {
        handed = calls.send(Call { request, uid: Some(uid), replier }) => handed.is_ok(),
        () = gone(&stream) => return Ok(()),
    };
    let stopping = Reply::Error(Refusal { kind: RefusalKind::Busy, message: "this sockd is stopping".to_owned() });
    if !handed {
        return send(&mut stream, patience, &stopping).await;
    }
    loop {
        let reply = tokio::select! {
            reply = answer.recv() => reply,
            // Dropping `answer` is how the shell learns of it (`Replier::is_gone`).
            () = gone(&stream) => return Ok(()),
        };
        let Some(reply) = reply else { return send(&mut stream, patience, &stopping).await };
        send(&mut stream, patience, &reply).await?;
        if !matches!(reply, Reply::Progress(_)) {
            return Ok(());
        }
    }
}

fn bad_request(message: String) -> Refusal {
    Refusal { kind: RefusalKind::BadRequest, message }
}

/// Reads one line of at most [`REQUEST_LIMIT`] bytes. The inner error is a sentence for the client.
async fn read_request(stream: &mut Stream) -> io::Result<Result<Request, String>> {
    let mut buffer = Vec::with_capacity(256);
    let mut part = (&mut *stream).take(REQUEST_LIMIT as u64);
    let end = loop {
        let start = buffer.len();
        let read = part.read_buf(&mut buffer).await?;
        if let Some(at) = buffer[start..].iter().position(|&byte| byte == b'\n') {
            break start + at;
        }
        if buffer.len() >= REQUEST_LIMIT {
            return Ok(Err(format!("a request is one line of at most {REQUEST_LIMIT} bytes")));
        }
        if read == 0 {
            return Ok(Err("the request has no end of line".to_owned()));
        }
    };
    Ok(serde_json::from_slice(&buffer[..end]).map_err(|error| format!("not a request: {error}")))
}

/// Waits until the client has closed its socket. What it still writes is thrown away; closing only its writing side
/// (`nc -N`) is not going away, though from then on only a failing write tells.
async fn gone(stream: &Stream) {
    let mut rubbish = [0; 512];
    let Ok(connection) = stream.connection() else { return };
    loop {
        if connection.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut rubbish) {
            Ok(0) if !is_hung_up(connection) => return std::future::pending().await,
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Whether both directions are closed: POLLHUP (poll(2)). tokio shows this only together with writability.
fn is_hung_up(stream: &UnixStream) -> bool {
    let mut asked = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut asked, Some(&Timespec::default())).is_err() || asked[0].revents().contains(PollFlags::HUP)
}

async fn send(stream: &mut Stream, patience: Duration, reply: &Reply) -> io::Result<()> {
    timeout(patience, stream.write_all(&line(reply))).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// A reply as it goes over the wire.
fn line(reply: &Reply) -> Vec<u8> {
    // These types hold text, numbers and lists: there is no map whose keys could fail to be written.
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    line
}
