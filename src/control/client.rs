//! The client's end of the control socket: finding the supervisors of this machine and asking them.
//!
//! Owns: the check that the one who answers is the process in the name.
//! Never: trusts what it reads to be short, quick or well-meant.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::history::HistoryEntry;
use super::message::{Outcome, Refusal, RefusalKind, Reply, Request, Stacks, Status};
use super::recording::Recording;
use super::{RESPONSE_LIMIT, name};
use crate::printable::for_terminal;

/// How long finding, connecting and asking may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(3);
/// How long a supervisor may take for an answer that is not about the end of a reload. It answers within milliseconds; on a
/// machine without memory or processor time to spare, where `sockd status` is needed most, it takes longer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// No more sockets of one process are taken for supervisors. One has one.
const MAX_NAMES_PER_PROCESS: usize = 16;

/// A running supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its process id, confirmed by the kernel (SO_PEERCRED).
    pub pid: u32,
    /// The user it runs as.
    pub uid: u32,
    /// The unit of its control group; `None` outside systemd. To be filled by who may read control groups.
    pub unit: Option<String>,
    /// The abstract name of its socket, without the leading zero byte.
    pub socket: String,
}

/// What is said of a supervisor that does not know what it was asked.
pub const OLDER: &str = "it runs an older sockd, from before the upgrade: a restart of the unit brings the new one";

/// Why asking failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The listener runs as a user that we should not believe and that would not answer us.
    #[error("it runs as the user with id {uid}")]
    NotPermitted {
        /// The user of the listener.
        uid: u32,
    },
    /// The supervisor answered with a refusal.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// No connection within [`TIME_LIMIT`], or no answer within [`ANSWER_TIMEOUT`].
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The connection failed or ended early.
    #[error("cannot speak to it: {0}")]
    Io(#[from] io::Error),
    /// The answer is none that we know.
    #[error("its answer is not understood: {0}")]
    NotUnderstood(String),
}

impl AskError {
    /// Whether the supervisor does not know what it was asked: it is of an older version ([`OLDER`]).
    pub fn is_unknown_request(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.kind == RefusalKind::BadRequest,
            Self::NotPermitted { .. } | Self::TimedOut(_) | Self::Io(_) | Self::NotUnderstood(_) => false,
        }
    }

    /// Whether we are not among those whom the supervisor answers.
    pub fn is_denial(&self) -> bool {
        match self {
            Self::NotPermitted { .. } => true,
            Self::Refused(refusal) => refusal.kind == RefusalKind::NotPermitted,
            Self::TimedOut(_) | Self::Io(_) | Self::NotUnderstood(_) => false,
        }
    }
}

/// Finds every supervisor in our network namespace, within [`TIME_LIMIT`]. Each listener is connected to and asked for its
/// credentials by the kernel; one whose process id, here or in its own namespace, is not the one in its name is left out, as
/// is one that goes away meanwhile. Anybody may listen under such a name, so this says who claims to be a supervisor and no
/// more: who is to be obeyed or believed is [`of_process`], by the process id that the service manager tells.
///
/// # Errors
/// The kernel's list cannot be read.
pub async fn discover() -> io::Result<Vec<Instance>> {
    let end = Instant::now() + TIME_LIMIT;
    let mut found: Vec<Instance> = Vec::new();
    for (pid, socket) in name::listening(&sockets()?) {
        if Instant::now() > end {
            break;
        }
        // The names are in the order of process ids.
        if found.iter().rev().take_while(|last| last.pid == pid).count() >= MAX_NAMES_PER_PROCESS {
            continue;
        }
        if let Ok((_, peer, uid)) = connect(&socket).await
            && is_named(peer, pid)
        {
            found.push(Instance { pid: peer, uid, unit: None, socket });
        }
    }
    Ok(found)
}

/// The supervisor that is the process `pid`. Names of others are no hindrance, however many they are.
///
/// # Errors
/// NotFound when that process has no control socket in our network namespace.
pub async fn of_process(pid: u32) -> io::Result<Instance> {
    let names = name::listening(&sockets()?);
    for (_, socket) in names.into_iter().filter(|(of, _)| is_named(pid, *of)) {
        // What listens under that name may be left from a former process with the same number: of another user, if it
        // was up to anything.
        if let Ok((_, peer, uid)) = connect(&socket).await
            && peer == pid
            && user_of(pid).is_ok_and(|user| user == uid)
        {
            return Ok(Instance { pid, uid, unit: None, socket });
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, absence(pid)))
}

/// Why the main process of a unit has no control socket that we can see. After `adopt --write` it is still the program of
/// before, until somebody restarts the unit; a unit that has nothing to do with sockd may be asked for, too.
pub fn absence(pid: u32) -> String {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(&comm);
    match for_terminal(name.trim_end(), false) {
        // Before it is executed, systemd's name for it has parentheses.
        name if name.is_empty() || name.contains("sockd") => {
            format!(
                "process {pid} has no control socket here (PrivateNetwork=yes hides it, and PrivatePIDs=yes from \
                 ExecReload=)"
            )
        }
        name => format!("process {pid} is {name}, not sockd; a unit that was adopted runs sockd once it is restarted"),
    }
}

/// The kernel's list of unix sockets. Under ProcSubset=pid there is no /proc/net, but each process has its own.
fn sockets() -> io::Result<String> {
    let text = std::fs::read("/proc/self/net/unix")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn user_of(pid: u32) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(format!("/proc/{pid}"))?.uid())
}

/// Whether this process calls itself by this number: its own, or the one that it has in its own process namespace
/// (PrivatePIDs=, a container).
fn is_named(pid: u32, number: u32) -> bool {
    pid == number || number_within(pid) == Some(number)
}

/// The number of a process in the innermost process namespace that it is in (NSpid in proc_pid_status(5)).
fn number_within(pid: u32) -> Option<u32> {
    let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    numbers.split_whitespace().next_back()?.parse().ok()
}

/// Connects; returns the process and the user that listen as well. A queue that is full is an error at once: the socket
/// does not block.
async fn connect(socket: &str) -> io::Result<(UnixStream, u32, u32)> {
    // tokio takes a path that begins with a zero byte for an abstract name.
    let stream = UnixStream::connect(format!("\0{socket}")).await?;
    // For a stream socket the kernel keeps the credentials of the process that called listen (unix(7)).
    let peer = stream.peer_cred()?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    Ok((stream, pid.ok_or_else(|| io::Error::other("the kernel names no process"))?, peer.uid()))
}

/// A request under way: its answer is read line by line.
#[derive(Debug)]
pub struct Asking {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// How many bytes of earlier lines have been taken out of the buffer.
    taken: usize,
}

/// Connects, verifies and sends the request, within [`TIME_LIMIT`].
///
/// # Errors
/// See [`AskError`]; [`AskError::NotPermitted`] when the listener runs neither as root nor as us, unless we are root.
pub async fn ask(instance: &Instance, request: Request) -> Result<Asking, AskError> {
    let asking = async {
        let (mut stream, pid, uid) = connect(&instance.socket).await?;
        if pid != instance.pid {
            return Err(io::Error::other("another process listens there").into());
        }
        let us = rustix::process::geteuid().as_raw();
        if us != 0 && uid != 0 && uid != us {
            return Err(AskError::NotPermitted { uid });
        }
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');
        // A server that turns us away may have answered and closed before it read anything.
        match stream.write_all(&line).await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        Ok(Asking { stream, buffer: Vec::new(), taken: 0 })
    };
    timeout(TIME_LIMIT, asking).await.map_err(|_| AskError::TimedOut(TIME_LIMIT))?
}

impl Asking {
    /// The next line of the answer. The caller limits the time. Safe to drop between and in the middle of lines.
    ///
    /// # Errors
    /// [`AskError::Refused`] for a refusal; [`AskError::Io`] when the answer ends early; an answer longer than
    /// [`RESPONSE_LIMIT`] in all is not understood.
    pub async fn next(&mut self) -> Result<Reply, AskError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|&byte| byte == b'\n') {
                let end = searched + at;
                let reply = serde_json::from_slice(&self.buffer[..end]);
                self.buffer.drain(..=end);
                self.taken += end + 1;
                return match reply {
                    Ok(Reply::Error(refusal)) => Err(AskError::Refused(refusal)),
                    Ok(reply) => Ok(reply),
                    Err(error) => Err(AskError::NotUnderstood(error.to_string())),
                };
            }
            searched = self.buffer.len();
            if self.taken + searched >= RESPONSE_LIMIT {
                return Err(AskError::NotUnderstood(format!("it is longer than {RESPONSE_LIMIT} bytes")));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended early").into());
            }
        }
    }

    /// The next line, within [`ANSWER_TIMEOUT`].
    async fn next_in_time(&mut self) -> Result<Reply, AskError> {
        timeout(ANSWER_TIMEOUT, self.next()).await.map_err(|_| AskError::TimedOut(ANSWER_TIMEOUT))?
    }
}

/// Asks for what is answered in one line, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer: `what`,
/// which `take` finds in a reply of the right kind.
async fn ask_once<T>(
    instance: &Instance,
    request: Request,
    what: &str,
    take: fn(Reply) -> Option<T>,
) -> Result<T, AskError> {
    let reply = ask(instance, request).await?.next_in_time().await?;
    take(reply).ok_or_else(|| AskError::NotUnderstood(format!("it is not {what}")))
}

/// Asks for the status, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer.
///
/// # Errors
/// See [`AskError`].
pub async fn status(instance: &Instance) -> Result<Status, AskError> {
    let take = |reply| if let Reply::Status(status) = reply { Some(*status) } else { None };
    ask_once(instance, Request::Status, "a status", take).await
}

/// Asks where the threads of a worker stand, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer.
///
/// # Errors
/// See [`AskError`]. [`AskError::Refused`] where there is no such worker.
pub async fn stacks(instance: &Instance, worker: u64) -> Result<Stacks, AskError> {
    let take = |reply| if let Reply::Stacks(stacks) = reply { Some(stacks) } else { None };
    ask_once(instance, Request::Stacks { worker }, "about a worker's threads", take).await
}

/// Asks what a worker wrote last to its stderr, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer.
///
/// # Errors
/// See [`AskError`].
pub async fn last_lines(instance: &Instance, worker: u64) -> Result<Vec<String>, AskError> {
    let take = |reply| if let Reply::LastLines(lines) = reply { Some(lines) } else { None };
    ask_once(instance, Request::LastLines { worker }, "what a worker wrote", take).await
}

/// Asks for the history, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer.
///
/// # Errors
/// See [`AskError`]. An older supervisor refuses it.
pub async fn history(instance: &Instance) -> Result<Vec<HistoryEntry>, AskError> {
    let take = |reply| if let Reply::History(entries) = reply { Some(entries) } else { None };
    ask_once(instance, Request::History, "a history", take).await
}

/// Asks for the recording, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer.
///
/// # Errors
/// See [`AskError`]. An older supervisor refuses it.
pub async fn recording(instance: &Instance) -> Result<Recording, AskError> {
    let take = |reply| if let Reply::Recording(recording) = reply { Some(recording) } else { None };
    ask_once(instance, Request::Recording, "a recording", take).await
}

/// Asks for a reload, a rollback, a pause or its end, and calls `step` for each line of progress. With `wait` a rollout may
/// take as long as the workers' limits allow, and so may a pause; while nothing is heard of it, the supervisor must at least
/// answer [`status`], each [`ANSWER_TIMEOUT`]. Its end closes the connection when it goes away.
///
/// # Errors
/// See [`AskError`].
pub async fn follow(instance: &Instance, request: Request, mut step: impl FnMut(&str)) -> Result<Outcome, AskError> {
    let wait = matches!(
        request,
        Request::Reload { wait: true, .. }
            | Request::Trial { wait: true, .. }
            | Request::Rollback { wait: true, .. }
            | Request::Pause { .. }
            | Request::Resume
            | Request::Maintenance { .. }
    );
    let mut asking = ask(instance, request).await?;
    loop {
        let reply = match timeout(ANSWER_TIMEOUT, asking.next()).await {
            Ok(reply) => reply?,
            Err(_) if wait => match status(instance).await {
                // One that is busy answers, too.
                Ok(_) | Err(AskError::Refused(_)) => continue,
                Err(silent) => return Err(silent),
            },
            Err(_) => return Err(AskError::TimedOut(ANSWER_TIMEOUT)),
        };
        match reply {
            Reply::Progress(progress) => step(&progress.message),
            Reply::Outcome(outcome) => return Ok(outcome),
            Reply::Error(refusal) => return Err(AskError::Refused(refusal)),
            Reply::Status(_) | Reply::Stacks(_) | Reply::LastLines(_) | Reply::History(_) | Reply::Recording(_) => {
                return Err(AskError::NotUnderstood("it is not about what was asked".to_owned()));
            }
        }
    }
}

/// Decides about the reload that is under way: the new generation that visitors try takes every slot, or the reload is called
/// off. Within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the answer.
///
/// # Errors
/// See [`AskError`].
pub async fn decide(instance: &Instance, promote: bool) -> Result<Outcome, AskError> {
    let take = |reply| if let Reply::Outcome(outcome) = reply { Some(outcome) } else { None };
    let request = if promote { Request::Promote } else { Request::Abort };
    ask_once(instance, request, "about a reload", take).await
}

/// Asks for another worker in the place of this one, within [`TIME_LIMIT`] for the request and [`ANSWER_TIMEOUT`] for the
/// answer, which says whether that has begun.
///
/// # Errors
/// See [`AskError`].
pub async fn replace(instance: &Instance, worker: u64) -> Result<Outcome, AskError> {
    let take = |reply| if let Reply::Outcome(outcome) = reply { Some(outcome) } else { None };
    ask_once(instance, Request::Replace { worker }, "about a worker", take).await
}
