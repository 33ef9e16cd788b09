//! The helper process that answers 503 while no worker can: started, told when to come again, stopped.

use super::shell::{Message, Shell};
use crate::app::Command;
use crate::process::{Child, Ended, Launch};
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
use tokio::time::sleep;

/// A helper that ends by itself is started again after this time.
const RESTART: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Fallback {
    wanted: bool,
    helper: Option<Helper>,
    /// It was told to finish and has not ended yet.
    leaving: Option<Child>,
    told: Option<u64>,
    /// Why nobody is answered although it is wanted.
    failure: Option<String>,
    /// The operator's own page, as the configuration last said.
    page: Option<PathBuf>,
}

#[derive(Debug)]
struct Helper {
    child: Child,
    /// Its stdin; closing it tells the helper to finish.
    orders: OwnedFd,
}

impl Fallback {
    /// What the helper shows from its next start on.
    pub(super) fn show(&mut self, page: Option<&Path>) {
        self.page = page.map(Path::to_owned);
    }

    pub(super) fn stop(&mut self) {
        self.wanted = false;
        self.told = None;
        self.failure = None;
        if let Some(helper) = self.helper.take() {
            self.leaving = Some(helper.child);
        }
    }

    /// Why visitors are not answered although the core wants them to be.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether this is the helper, or one that is leaving.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        let helper = self.helper.as_ref().map(|helper| &helper.child);
        helper.into_iter().chain(&self.leaving).any(|child| child.pid() == pid)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// For the end of the program, where nobody is told of each process that is reaped.
    pub(super) fn forget_if_gone(&mut self) {
        let gone = |child: &Child| test_kill_process(child.pid()) == Err(rustix::io::Errno::SRCH);
        if self.leaving.as_ref().is_some_and(gone) {
            self.leaving = None;
        }
    }
}

impl Shell {
    pub(super) fn start_fallback(&mut self) {
        self.fallback.wanted = true;
        // Where to listen is not known yet: no visitor can come.
        if self.listeners.is_empty() {
            return;
        }
        match self.spawn_helper() {
            Ok(helper) => {
                self.fallback.helper = Some(helper);
                // It is to hear when to come again.
                self.shown = None;
                // Whether it stays is looked at then.
                if self.fallback.failure.is_some() {
                    self.restart_fallback_later();
                }
            }
            Err(why) => self.fallback_fails(why),
        }
    }

    /// Starts the helper if it is missing; one that is there has lived for a while.
    pub(super) fn restart_fallback(&mut self) {
        if self.fallback.wanted && self.fallback.helper.is_none() {
            self.start_fallback();
        } else if self.fallback.failure.take().is_some() {
            tracing::info!("visitors are answered 503 again");
            self.shown = None;
        }
    }

    /// Says once why nobody is answered, however often it is tried.
    fn fallback_fails(&mut self, why: String) {
        if self.fallback.failure.is_none() {
            tracing::error!("cannot answer 503: {why}; visitors wait in the queue; it is tried again every second");
            self.fallback.failure = Some(why);
            self.shown = None;
        }
        self.restart_fallback_later();
    }

    fn restart_fallback_later(&self) {
        self.later(async {
            sleep(RESTART).await;
            Some(Message::RestartFallback)
        });
    }

    fn spawn_helper(&self) -> Result<Helper, String> {
        let (stdin, orders) = pair().map_err(|error| format!("cannot make a pipe: {error}"))?;
        // One that does not read them is not worth waiting for.
        rustix::io::ioctl_fionbio(&orders, true).map_err(|error| format!("cannot set a pipe up: {error}"))?;
        let (visitors, stdout) = pair().map_err(|error| format!("cannot make a pipe: {error}"))?;
        let sockets: Vec<_> = self.listeners.iter().map(AsFd::as_fd).collect();
        let names: Vec<_> = self.listeners.iter().map(|l| l.name.as_str()).collect();
        let count = sockets.len().to_string();
        let mut arguments: Vec<OsString> = ["sockd", "fallback", "--listeners", &count].map(OsString::from).into();
        if let Some(page) = &self.fallback.page {
            arguments.extend(["--page".into(), page.clone().into()]);
        }
        let command = Command {
            launcher: Vec::new(),
            program: "/proc/self/exe".into(),
            arguments,
            directory: "/".into(),
            environment: BTreeMap::new(),
        };
        let launch = Launch {
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
        let child = launch.spawn().map_err(|error| error.to_string())?;
        self.count_visitors(visitors).map_err(|error| error.to_string())?;
        Ok(Helper { child, orders })
    }

    /// Each byte is a visitor who got an answer.
    fn count_visitors(&self, visitors: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&visitors, true)?;
        let mut visitors = pipe::Receiver::from_owned_fd(visitors)?;
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 64];
            // A thousand visitors in a moment ask for the same thing as one.
            while visitors.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                if sender.send(Message::Core(Event::VisitorTurnedAway)).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Tells the helper when the next attempt is due.
    pub(super) fn tell_fallback(&mut self, next_attempt: Option<Duration>) {
        let seconds = next_attempt.map_or(1, |wait| wait.as_secs() + 1);
        let Some(helper) = &self.fallback.helper else { return };
        if self.fallback.told == Some(seconds) {
            return;
        }
        self.fallback.told = Some(seconds);
        let line = format!("{{\"retry_after\":{seconds}}}\n");
        // The pipe holds a thousand such lines.
        let _ = rustix::io::write(&helper.orders, line.as_bytes());
    }

    /// Whether it was the helper that ended.
    pub(super) fn fallback_ended(&mut self, ended: Ended) -> bool {
        if self.fallback.leaving.as_ref().is_some_and(|child| child.pid() == ended.pid) {
            self.fallback.leaving = None;
            return true;
        }
        if !self.fallback.helper.as_ref().is_some_and(|helper| helper.child.pid() == ended.pid) {
            return false;
        }
        self.fallback.helper = None;
        self.fallback.told = None;
        self.fallback_fails(format!("the helper that answers 503 ended ({})", ended.end));
        true
    }
}

/// A pipe: reading end, writing end.
fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
