//! Orphans: children of ours that nobody made as such, what a dead worker's application had started, and programs that put
//! themselves into the background. We are the subreaper: the kernel gives them to us, and they would stay for ever, with
//! the public sockets and their worker's stderr. Control groups do this better where there are any.
//!
//! Owns who they are and whose they may be. A number here is that of a child that was not reaped, so it names no other
//! process; nobody is held by a descriptor. Must never touch what may belong to a worker that lives.

use super::event_loop::EventLoop;
use super::message::Message;
use crate::process::{self, Child, kill_descendant};
use crate::supervisor::WorkerId;
use rustix::process::{Pid, Signal, getpid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::sleep;

/// Between SIGTERM and SIGKILL: nobody is served by them, and what they have begun nobody waits for.
const GRACE: Duration = Duration::from_secs(2);

/// The orphans that we have.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    known: HashMap<Pid, Orphan>,
    /// Workers that have just ended, and what processes they were: nobody has looked for what they left behind.
    dead: Vec<(WorkerId, Pid)>,
}

#[derive(Debug)]
struct Orphan {
    /// The workers of whom one had started it.
    suspects: BTreeSet<WorkerId>,
    /// Whether it was asked to end.
    asked: bool,
}

impl Orphans {
    /// This child was reaped.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.known.remove(&pid);
    }

    /// This worker has ended, and was this process: [`EventLoop::end_orphans`] will look.
    pub(super) fn look_for(&mut self, dead: WorkerId, leader: Pid) {
        self.dead.push((dead, leader));
    }
}

impl EventLoop {
    /// Ends what workers have left behind that have just ended. One look for all of them: the kernel lists every child of
    /// ours for it, and a reload ends many workers at once.
    pub(super) fn end_orphans(&mut self) {
        let dead = std::mem::take(&mut self.orphans.dead);
        let Some(&(last, _)) = dead.last() else { return };
        for pid in process::children(getpid()) {
            if !self.worker_of.contains_key(&pid)
                && self.known_as(pid).is_none()
                && !self.orphans.known.contains_key(&pid)
                && let Some(suspects) = self.suspects(pid, &dead)
            {
                self.orphans.known.insert(pid, Orphan { suspects, asked: false });
            }
        }
        let workers = &self.workers;
        let lives = |id: &WorkerId| workers.contains_key(id);
        let ownerless = self.orphans.known.iter_mut().filter(|(_, o)| !o.asked && !o.suspects.iter().any(lives));
        let mut ending = BTreeMap::<WorkerId, Vec<Pid>>::new();
        for (pid, orphan) in ownerless {
            orphan.asked = true;
            let Ok(child) = Child::adopt(*pid) else { continue };
            let left_by = dead.iter().map(|(id, _)| *id).rfind(|id| orphan.suspects.contains(id)).unwrap_or(last);
            let ending = ending.entry(left_by).or_default();
            ending.push(*pid);
            ending.extend(process::descendants(*pid));
            let _ = child.signal(Signal::TERM);
        }
        for (dead, ending) in ending {
            let numbers: Vec<String> = ending.iter().take(8).map(ToString::to_string).collect();
            let more = if ending.len() > numbers.len() { " and others" } else { "" };
            tracing::warn!(
                SOCKD_EVENT = "orphans-ended",
                SOCKD_WORKER = dead.0,
                "worker {dead} has left processes behind ({}{more}), which end with it",
                numbers.join(", ")
            );
            self.outbox.later(async move {
                sleep(GRACE).await;
                Some(Message::KillOrphans(ending))
            });
        }
    }

    /// They had their time.
    pub(super) fn kill_orphans(&self, pids: Vec<Pid>) {
        // A number may be that of a worker by now.
        pids.into_iter().filter(|pid| self.known_as(*pid).is_none()).for_each(kill_descendant);
    }

    /// The workers of whom one has started this child of ours, which is nothing that we know. Each of our workers and
    /// templates leads a session, and what they start is in it unless it has left it. None: it is no orphan.
    fn suspects(&self, pid: Pid, dead: &[(WorkerId, Pid)]) -> Option<BTreeSet<WorkerId>> {
        let session = process::session(pid)?;
        // It was started before sockd, by what executed sockd.
        if process::session(getpid()) == Some(session) {
            return None;
        }
        if let Some((worker, _)) = dead.iter().find(|(_, leader)| *leader == session) {
            return Some([*worker].into());
        }
        if let Some(worker) = self.worker_of.get(&session) {
            return Some([*worker].into());
        }
        // A template's spare, or what it has just become: a worker whose report is under way.
        if self.known_as(session).is_some() || self.templates.await_workers() {
            return None;
        }
        Some(self.workers.keys().copied().chain(dead.iter().map(|(id, _)| *id)).collect())
    }
}
