//! The helper process that answers 503 while no worker can, or none shall: started with what visitors read, given the
//! time for Retry-After, stopped. When it is started again is the core's to decide.

use super::maintenance::MaintenanceState;
use super::message::Message;
use super::outbox::Outbox;
use crate::app::Command;
use crate::fallback::NO_THREAD;
use crate::listener::Listener;
use crate::process::{Child, End, Ended, SpawnRequest, explain};
use crate::supervisor::Event;
use rustix::process::{Pid, Signal, test_kill_process};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

#[derive(Debug, Default)]
pub(super) struct Fallback {
    wanted: bool,
    helper: Option<Helper>,
    /// It is finishing and has not ended yet.
    leaving: Option<Child>,
    /// The seconds of Retry-After that it was given last.
    retry_after: Option<u64>,
    /// The operator's own page, as the configuration last said.
    page: Option<PathBuf>,
    pub(super) maintenance: MaintenanceState,
}

#[derive(Debug)]
struct Helper {
    child: Child,
    /// Its stdin; closing it tells the helper to finish.
    orders: OwnedFd,
}

impl Fallback {
    /// A helper that has none to start yet.
    pub(super) fn new(maintenance: MaintenanceState) -> Self {
        Self { maintenance, ..Self::default() }
    }

    /// What the helper shows from its next start on.
    pub(super) fn show(&mut self, page: Option<&Path>) {
        self.page = page.map(Path::to_owned);
    }

    pub(super) fn stop(&mut self) {
        self.wanted = false;
        self.retry_after = None;
        if let Some(helper) = self.helper.take() {
            self.leaving = Some(helper.child);
        }
    }

    /// Whether there is a helper that answers.
    pub(super) fn answers(&self) -> bool {
        self.helper.is_some()
    }

    /// Whether this is the helper, or one that is leaving.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        let helper = self.helper.as_ref().map(|helper| &helper.child);
        helper.into_iter().chain(&self.leaving).any(|child| child.pid() == pid)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// For the end of the program, where nobody hears of each process that is reaped.
    pub(super) fn forget_if_gone(&mut self) {
        let gone = |child: &Child| test_kill_process(child.pid()) == Err(rustix::io::Errno::SRCH);
        if self.leaving.as_ref().is_some_and(gone) {
            self.leaving = None;
        }
    }

    /// Starts the helper, unless it is there or nothing listens: then no visitor can come.
    pub(super) fn start(&mut self, listeners: &[Listener], outbox: &mut Outbox) {
        self.wanted = true;
        if listeners.is_empty() || self.helper.is_some() {
            return;
        }
        match self.spawn(listeners, outbox) {
            Ok(helper) => self.helper = Some(helper),
            Err(why) => outbox.event(Event::FallbackLost { why }),
        }
    }

    /// Where the helper is wanted, has one answer on listeners that are there now, or are others than before.
    pub(super) fn restart(&mut self, listeners: &[Listener], outbox: &mut Outbox) {
        if self.wanted {
            self.stop();
            self.start(listeners, outbox);
        }
    }

    fn spawn(&self, listeners: &[Listener], outbox: &Outbox) -> Result<Helper, String> {
        let (stdin, orders) = pair().map_err(|error| format!("cannot make a pipe: {error}"))?;
        // One that does not read them is not worth waiting for.
        rustix::io::ioctl_fionbio(&orders, true).map_err(|error| format!("cannot set a pipe up: {error}"))?;
        let (visitors, stdout) = pair().map_err(|error| format!("cannot make a pipe: {error}"))?;
        let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let names: Vec<_> = listeners.iter().map(|l| l.name.as_str()).collect();
        let count = sockets.len().to_string();
        let mut arguments: Vec<OsString> = ["sockd", "fallback", "--listeners", &count].map(OsString::from).into();
        if let Some(page) = &self.page {
            arguments.extend(["--page".into(), page.clone().into()]);
        }
        if let Some(message) = self.maintenance.on().and_then(|on| on.message.as_ref()) {
            arguments.push(format!("--message={message}").into());
        }
        let command = Command {
            launcher: Vec::new(),
            program: "/proc/self/exe".into(),
            arguments,
            directory: "/".into(),
            environment: BTreeMap::new(),
        };
        let request = SpawnRequest {
            command: &command,
            environment: &BTreeMap::new(),
            descriptors: &sockets,
            listen_names: Some(&names),
            stderr: None,
            pipes: Some((stdin.as_fd(), stdout.as_fd())),
            group: None,
            parent_death: Signal::TERM,
            sheltered: true,
        };
        let child = request.spawn().map_err(|error| error.to_string())?;
        count_visitors(visitors, outbox).map_err(|error| error.to_string())?;
        Ok(Helper { child, orders })
    }

    /// Sends the helper the time until the next attempt.
    pub(super) fn set_retry_after(&mut self, next_attempt: Option<Duration>) {
        let seconds = match self.maintenance.on() {
            Some(maintenance) => maintenance.retry_after.into(),
            None => next_attempt.map_or(1, |wait| wait.as_secs() + 1),
        };
        let Some(helper) = &self.helper else { return };
        if self.retry_after == Some(seconds) {
            return;
        }
        self.retry_after = Some(seconds);
        let line = format!("{{\"retry_after\":{seconds}}}\n");
        // The pipe holds a thousand such lines.
        let _ = rustix::io::write(&helper.orders, line.as_bytes());
    }

    /// Whether it was the helper that ended.
    pub(super) fn ended(&mut self, ended: Ended, outbox: &mut Outbox) -> bool {
        if self.leaving.as_ref().is_some_and(|child| child.pid() == ended.pid) {
            self.leaving = None;
            return true;
        }
        if !self.helper.as_ref().is_some_and(|helper| helper.child.pid() == ended.pid) {
            return false;
        }
        self.helper = None;
        self.retry_after = None;
        let why = if ended.end == End::Code(NO_THREAD.into()) {
            format!("the helper that answers 503 has no thread: {}", explain(&rustix::io::Errno::AGAIN.into()))
        } else {
            format!("the helper that answers 503 ended ({})", ended.end)
        };
        outbox.event(Event::FallbackLost { why });
        true
    }
}

/// Each byte is a visitor who got an answer.
fn count_visitors(visitors: OwnedFd, outbox: &Outbox) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&visitors, true)?;
    let mut visitors = pipe::Receiver::from_owned_fd(visitors)?;
    let sender = outbox.sender();
    tokio::spawn(async move {
        let mut bytes = [0; 64];
        // A thousand visitors in a moment ask for the same thing as one.
        while let Ok(count @ 1..) = visitors.read(&mut bytes).await {
            if sender.send(Message::TurnedAway(count as u64)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// A pipe: reading end, writing end.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
