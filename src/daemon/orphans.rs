//! Orphans: children of ours that nobody made as such, what a dead worker's application had started, and programs that put
//! themselves into the background. We are the subreaper: the kernel gives them to us, and they would stay for ever, with
//! the public sockets and their worker's stderr. Control groups do this better where there are any.
//!
//! Owns who they are and whose they may be. A number here is that of a child that was not reaped, so it names no other
//! process; nobody is held by a descriptor. Must never touch what may belong to a worker that lives.

use super::message::Message;
use super::outbox::Outbox;
use crate::process::{self, Child, kill_descendant};
use crate::supervisor::WorkerId;
use rustix::process::{Pid, Signal, getpid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::sleep;

/// Between SIGTERM and SIGKILL: nobody is served by them, and what they have begun nobody waits for.
const GRACE: Duration = Duration::from_secs(2);

/// Who is known to sockd.
pub(super) trait Family {
    /// The worker whose process this is, until it is reaped.
    fn worker_of(&self, pid: Pid) -> Option<WorkerId>;
    /// Whether this child of ours is something that we made, or a worker.
    fn knows(&self, pid: Pid) -> bool;
    /// All workers that live.
    fn workers(&self) -> BTreeSet<WorkerId>;
    /// Whether a template has been ordered a worker that it has not reported.
    fn awaits_workers(&self) -> bool;
}

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

    /// This worker has ended, and was this process: [`Orphans::end`] will look.
    pub(super) fn look_for(&mut self, dead: WorkerId, leader: Pid) {
        self.dead.push((dead, leader));
    }

    /// Ends what workers have left behind that have just ended. One look for all of them: the kernel lists every child of
    /// ours for it, and a reload ends many workers at once.
    pub(super) fn end(&mut self, family: &impl Family, outbox: &Outbox) {
        let dead = std::mem::take(&mut self.dead);
        let Some(&(last, _)) = dead.last() else { return };
        let living = family.workers();
        for pid in process::children(getpid()) {
            if !family.knows(pid)
                && !self.known.contains_key(&pid)
                && let Some(suspects) = suspects(pid, &dead, family, &living)
            {
                self.known.insert(pid, Orphan { suspects, asked: false });
            }
        }
        let ownerless = self.known.iter_mut().filter(|(_, o)| !o.asked && o.suspects.is_disjoint(&living));
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
            outbox.later(async move {
                sleep(GRACE).await;
                Some(Message::KillOrphans(ending))
            });
        }
    }
}

/// They had their time. A number may be that of a worker by now.
pub(super) fn kill_orphans(pids: Vec<Pid>, family: &impl Family) {
    pids.into_iter().filter(|pid| !family.knows(*pid)).for_each(kill_descendant);
}

/// The workers of whom one has started this child of ours, which is nothing that we know. Each of our workers and
/// templates leads a session, and what they start is in it unless it has left it. None: it is no orphan.
fn suspects(
    pid: Pid,
    dead: &[(WorkerId, Pid)],
    family: &impl Family,
    living: &BTreeSet<WorkerId>,
) -> Option<BTreeSet<WorkerId>> {
    let session = process::session(pid)?;
    // It was started before sockd, by what executed sockd.
    if process::session(getpid()) == Some(session) {
        return None;
    }
    if let Some((worker, _)) = dead.iter().find(|(_, leader)| *leader == session) {
        return Some([*worker].into());
    }
    if let Some(worker) = family.worker_of(session) {
        return Some([worker].into());
    }
    // A template's spare, or what it has just become: a worker whose report is under way.
    if family.knows(session) || family.awaits_workers() {
        return None;
    }
    Some(living.iter().copied().chain(dead.iter().map(|(id, _)| *id)).collect())
}
