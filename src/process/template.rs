//! A template: a process with the server loaded, which forks workers on command.
//!
//! It listens on one end of a SOCK_SEQPACKET pair and takes one JSON object per datagram; a worker's stderr,
//! scoreboard and sockets travel with the command (SCM_RIGHTS), so the template itself holds no visitor's socket. Who
//! takes the command is a spare, forked in advance, and twice, so that it is a child of ours, the subreaper, before it
//! becomes the worker. The protocol is written down in `src/adapter/python/sockd_worker/protocol.py`.

use super::Child;
use super::memfd::memory_file;
use super::spawn::{SpawnError, SpawnRequest};
use crate::app::Command;
use crate::peer::Packets;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The longest message in either direction, in bytes.
const MESSAGE_LIMIT: usize = 64 << 10;
/// The kernel passes at most this many descriptors with one message (SCM_MAX_FD).
const MAX_DESCRIPTORS: usize = 253;

/// A running template.
#[derive(Debug)]
pub struct Template {
    child: Child,
    control: Arc<Packets>,
}

/// What the template says first.
#[derive(Clone, Debug)]
pub struct Hello {
    /// The whole message, with the settings as the server itself understood them: the adapter knows their names.
    pub message: Vec<u8>,
    /// What hooks have left in the template.
    pub hook_state: Option<String>,
}

/// Where in the service's life a template is born.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No template has been ready yet.
    Start,
    /// For new code.
    Reload,
    /// For code that had a template before.
    Again,
}

/// What a template is sent when it starts.
#[derive(Debug, Serialize)]
pub struct Life<'a> {
    /// When that is.
    pub phase: Phase,
    /// What hooks have left in the template before it.
    pub hook_state: Option<&'a str>,
    /// Whether sockets are bound already, so that no name needs to be looked up.
    pub bound: bool,
    /// All workers that live.
    pub workers: Vec<WorkerProcess>,
}

/// A worker, as hooks see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkerProcess {
    /// Who: gunicorn's `worker.age`.
    pub worker: u64,
    /// Its process id, which belongs to nobody any more once it was reaped.
    pub pid: i32,
    /// What hooks have left in the worker's object.
    pub hook_state: Option<String>,
}

/// What the user's hooks in a template are to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another template has forked this worker. Answered by [`TemplateMessage::Noted`].
    Joined(WorkerProcess),
    /// A worker was reaped. Answered by [`TemplateMessage::Noted`].
    Exited {
        /// Which.
        process: WorkerProcess,
        /// Whether this template, of all, calls the hook.
        call: bool,
    },
    /// The sockets are bound.
    Started,
    /// So many workers are wanted from here on, beside the configuration.
    Resized(u32),
    /// No worker is left, and the service ends: the template ends, too.
    End,
}

/// The order to fork one worker.
#[derive(Debug)]
pub struct ForkRequest<'a> {
    /// Who it will be: comes back in the answer.
    pub worker: u64,
    /// Added to the template's environment.
    pub environment: &'a BTreeMap<String, String>,
    /// The worker's stderr.
    pub stderr: BorrowedFd<'a>,
    /// The page on which it shows how it is.
    pub scoreboard: BorrowedFd<'a>,
    /// Whether it shows its requests there.
    pub shows_requests: bool,
    /// The sockets it shall serve.
    pub listeners: &'a [BorrowedFd<'a>],
    /// A listening socket of its own, served beside the others.
    pub probe: Option<BorrowedFd<'a>>,
    /// The `cgroup.procs` of the control group that it enters before it does anything else.
    pub group: Option<BorrowedFd<'a>>,
}

/// The requests that a copy of the template answers to itself before it makes workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Warming {
    /// What is asked for, with GET: paths with their queries.
    pub paths: Vec<String>,
    /// How often each is.
    pub requests: u32,
    /// The Host header.
    pub host: String,
    /// More headers, name and value.
    pub headers: Vec<(String, String)>,
}

/// What a template reports.
#[derive(Debug)]
pub enum TemplateMessage {
    /// It is ready to fork.
    Hello(Hello),
    /// A worker exists.
    Forked {
        /// Who.
        worker: u64,
        /// Its process id, if the application that the template has loaded tells the truth.
        pid: Pid,
        /// What hooks have left in the worker's object.
        hook_state: Option<String>,
    },
    /// It has taken note of a [`Notice`] about this worker.
    Noted {
        /// Who.
        worker: u64,
    },
    /// What hooks have left in the template.
    HookState(String),
    /// No worker came into being.
    Failed {
        /// Who was meant.
        worker: u64,
        /// Why, for people.
        error: String,
    },
    /// A copy of it has answered the requests of a [`Warming`], and waits to be used.
    Warmed,
    /// There is no such copy, or no more.
    NotWarm {
        /// Why, for people.
        why: String,
    },
    /// Something that is not understood.
    Garbage(String),
}

/// Why a template could not be asked to fork.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// The kernel did not take the message: the template is gone, or busy with very many orders.
    #[error("cannot reach the template: {0}")]
    Send(#[from] io::Error),
    /// More sockets than one message can bring.
    #[error("{0} sockets are more than a template can be handed (at most {MAX_DESCRIPTORS})")]
    TooManySockets(usize),
}

#[derive(Serialize)]
struct Order<'a> {
    fork: Fork<'a>,
}

#[derive(Serialize)]
struct Placing {
    place: Place,
}

#[derive(Serialize)]
struct Place {
    worker: u64,
}

#[derive(Serialize)]
struct Exit<'a> {
    #[serde(flatten)]
    process: &'a WorkerProcess,
    call: bool,
}

#[derive(Serialize)]
struct Fork<'a> {
    worker: u64,
    environment: &'a BTreeMap<String, String>,
    requests: bool,
    listeners: usize,
    probe: bool,
    group: bool,
}

#[derive(Deserialize)]
struct Message {
    hello: Option<HelloMessage>,
    forked: Option<Forked>,
    failed: Option<Failed>,
    noted: Option<Noted>,
    hook_state: Option<String>,
    warmed: Option<Warmed>,
    not_warm: Option<NotWarm>,
}

#[derive(Deserialize)]
struct Warmed {}

#[derive(Deserialize)]
struct NotWarm {
    why: String,
}

#[derive(Deserialize)]
struct HelloMessage {
    hook_state: Option<String>,
}

#[derive(Deserialize)]
struct Noted {
    worker: u64,
}

#[derive(Deserialize)]
struct Forked {
    worker: u64,
    pid: i32,
    hook_state: Option<String>,
}

#[derive(Deserialize)]
struct Failed {
    worker: u64,
    error: String,
}

impl Template {
    /// Executes `command` with the control socket as descriptor 3, then the two texts, the package and `bootstrap.py`, and
    /// its life, each as a file.
    ///
    /// # Errors
    /// [`SpawnError`]: the interpreter is missing, or the system has no process or descriptor left.
    pub fn boot(
        command: &Command,
        texts: [&str; 2],
        life: &Life<'_>,
        stderr: BorrowedFd<'_>,
    ) -> Result<Self, SpawnError> {
        let failed = |source: io::Error| SpawnError::Execute { program: command.program.clone(), source };
        let life = serde_json::to_string(life).map_err(io::Error::from).map_err(failed)?;
        let files = texts.iter().copied().chain([&*life]).map(|text| memory_file("sockd-template", text));
        let files: Vec<OwnedFd> = files.collect::<Result<_, _>>().map_err(failed)?;
        let (ours, theirs) = control_pair().map_err(failed)?;
        let descriptors: Vec<_> = std::iter::once(&theirs).chain(&files).map(AsFd::as_fd).collect();
        let environment: BTreeMap<OsString, OsString> = BTreeMap::new();
        let child = SpawnRequest {
            command,
            environment: &environment,
            descriptors: &descriptors,
            listen_names: None,
            stderr: Some(stderr),
            pipes: None,
            group: None,
            parent_death: Signal::TERM,
            sheltered: true,
        }
        .spawn()?;
        let control = Arc::new(Packets::new(ours).map_err(failed)?);
        Ok(Self { child, control })
    }

    /// The process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Orders a worker; a [`TemplateMessage`] answers.
    ///
    /// # Errors
    /// [`ForkError`]; no report follows then.
    pub fn fork(&self, request: &ForkRequest<'_>) -> Result<(), ForkError> {
        let descriptors: Vec<BorrowedFd<'_>> = [request.stderr, request.scoreboard]
            .into_iter()
            .chain(request.listeners.iter().copied())
            .chain(request.probe)
            .chain(request.group)
            .collect();
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(ForkError::TooManySockets(request.listeners.len()));
        }
        let order = Order {
            fork: Fork {
                worker: request.worker,
                environment: request.environment,
                requests: request.shows_requests,
                listeners: request.listeners.len(),
                probe: request.probe.is_some(),
                group: request.group.is_some(),
            },
        };
        self.send(&order, &descriptors)
    }

    /// Tells it who will probably be ordered next, so that a process can wait in that worker's control group, whose
    /// `cgroup.procs` this is. Nothing answers.
    ///
    /// # Errors
    /// [`ForkError`]: as for an order.
    pub fn place(&self, worker: u64, group: BorrowedFd<'_>) -> Result<(), ForkError> {
        self.send(&Placing { place: Place { worker } }, &[group])
    }

    /// Tells it what the user's hooks are to know.
    ///
    /// # Errors
    /// [`ForkError`]: as for an order.
    pub fn tell(&self, notice: &Notice) -> Result<(), ForkError> {
        use serde_json::json;
        let message = match notice {
            Notice::Joined(process) => json!({ "joined": process }),
            Notice::Exited { process, call } => json!({ "exited": Exit { process, call: *call } }),
            Notice::Started => json!({ "started": {} }),
            Notice::Resized(workers) => json!({ "resized": { "workers": workers } }),
            Notice::End => json!({ "end": {} }),
        };
        self.send(&message, &[])
    }

    /// Has a copy of it answer requests; [`TemplateMessage::Warmed`] or [`TemplateMessage::NotWarm`] answers.
    ///
    /// # Errors
    /// [`ForkError`]: as for an order.
    pub fn warm(&self, warming: &Warming) -> Result<(), ForkError> {
        self.send(&serde_json::json!({ "warm": warming }), &[])
    }

    /// Has workers that are ordered from here on forked from that copy, or from the template itself again, where the copy
    /// ends.
    ///
    /// # Errors
    /// [`ForkError`]: as for an order.
    pub fn fork_from_copy(&self, from_copy: bool) -> Result<(), ForkError> {
        self.send(&BTreeMap::from([(if from_copy { "promote" } else { "demote" }, BTreeMap::<&str, ()>::new())]), &[])
    }

    fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), ForkError> {
        let text = serde_json::to_vec(message).map_err(io::Error::from)?;
        let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(descriptors).size()];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let control = self.control.descriptor()?;
        rustix::net::sendmsg(control, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)
            .map_err(io::Error::from)?;
        Ok(())
    }

    /// Where its reports come from.
    pub fn reports(&self) -> TemplateMessages {
        TemplateMessages { control: Arc::clone(&self.control) }
    }
}

/// The stream of a template's reports.
#[derive(Debug)]
pub struct TemplateMessages {
    control: Arc<Packets>,
}

impl TemplateMessages {
    /// The next report; None when the template is gone.
    pub async fn next(&self) -> Option<TemplateMessage> {
        let (text, packet) = self.control.next::<MESSAGE_LIMIT>().await.ok()?;
        self.control.take(packet).await;
        (!text.is_empty()).then(|| parse(&text))
    }
}

fn parse(text: &[u8]) -> TemplateMessage {
    let garbage = || TemplateMessage::Garbage(String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned());
    let Ok(message) = serde_json::from_slice::<Message>(text) else { return garbage() };
    match message {
        Message { hello: Some(HelloMessage { hook_state }), .. } => {
            TemplateMessage::Hello(Hello { message: text.to_owned(), hook_state })
        }
        Message { forked: Some(Forked { worker, pid, hook_state }), .. } if pid > 0 => match Pid::from_raw(pid) {
            Some(pid) => TemplateMessage::Forked { worker, pid, hook_state },
            None => garbage(),
        },
        Message { noted: Some(Noted { worker }), .. } => TemplateMessage::Noted { worker },
        Message { hook_state: Some(state), .. } => TemplateMessage::HookState(state),
        Message { warmed: Some(Warmed {}), .. } => TemplateMessage::Warmed,
        Message { not_warm: Some(NotWarm { why }), .. } => TemplateMessage::NotWarm { why },
        Message { failed: Some(Failed { worker, error }), .. } => TemplateMessage::Failed { worker, error },
        Message { .. } => garbage(),
    }
}

fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Our end alone: the template waits in recvmsg.
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_understood_or_called_garbage() {
        assert!(matches!(parse(br#"{"hello":{"settings":{"workers":3}}}"#), TemplateMessage::Hello(_)));
        assert!(matches!(parse(br#"{"forked":{"worker":7,"pid":123}}"#), TemplateMessage::Forked { worker: 7, .. }));
        assert!(matches!(
            parse(br#"{"failed":{"worker":7,"error":"fork"}}"#),
            TemplateMessage::Failed { worker: 7, .. }
        ));
        assert!(matches!(parse(br#"{"warmed":{"pid":12}}"#), TemplateMessage::Warmed));
        assert!(
            matches!(parse(br#"{"not_warm":{"why":"a thread"}}"#), TemplateMessage::NotWarm { why } if why == "a thread")
        );
        for text in
            [&b"{}"[..], b"", b"\xff", br#"{"forked":{"worker":7,"pid":0}}"#, br#"{"forked":{"worker":7,"pid":-4}}"#]
        {
            assert!(matches!(parse(text), TemplateMessage::Garbage(_)), "{text:?}");
        }
    }
}
