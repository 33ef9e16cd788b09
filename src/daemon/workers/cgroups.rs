//! The cgroup of each worker, where systemd lets us have one: made before the worker, killed and removed after it. What is
//! missing is said once, and workers go on without.

use crate::cgroup::{Absent, Group, Limits, OomWatch, OutOfMemory, Tree};
use crate::config::{self, size};
use crate::daemon::log_limit::LogLimit;
use crate::daemon::message::Message;
use crate::daemon::outbox::Outbox;
use crate::supervisor::WorkerId;
use crate::systemd::environment;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// A worker that the kernel kills for want of memory is reaped within this time; one that lives on lost a process that
/// it had started.
const SURVIVAL: Duration = Duration::from_secs(1);

/// A worker's control group, with all that it starts.
#[derive(Debug, Default)]
pub(super) struct WorkerCgroup {
    pub(super) group: Option<Group>,
    watching: Option<AbortHandle>,
    /// How many processes of it the kernel had killed for want of memory when that was last reported.
    pub(super) oom_kills_reported: u64,
    /// The lines about them.
    pub(super) kills: LogLimit,
}

impl Drop for WorkerCgroup {
    fn drop(&mut self) {
        self.watching.iter().for_each(AbortHandle::abort);
    }
}

impl WorkerCgroup {
    /// Listens for the kernel killing processes of a worker that lives on.
    pub(super) fn watch(id: WorkerId, group: Group, outbox: &Outbox) -> Self {
        // Without the memory controller there is nothing to hear.
        let watching = OomWatch::new(&group).ok().map(|mut watch| {
            let sender = outbox.sender();
            let listening = tokio::spawn(async move {
                while let Ok(killed) = watch.killed().await {
                    sleep(SURVIVAL).await;
                    if sender.send(Message::OutOfMemory(id, killed)).await.is_err() {
                        return;
                    }
                }
            });
            listening.abort_handle()
        });
        Self { group: Some(group), watching, oom_kills_reported: 0, kills: LogLimit::default() }
    }

    /// Says how many lines about killed processes were not written, once their time is over, or at its end.
    pub(super) fn tell_suppressed(&mut self, id: WorkerId, now: Instant, end: bool) {
        if let Some(count) = self.kills.suppressed(now, end) {
            tracing::warn!(SOCKD_WORKER = id.0, "the kernel killed processes of worker {id} {count} more times");
        }
    }
}

/// What we have of control groups.
#[derive(Debug, Default)]
pub(in crate::daemon) struct WorkerCgroups {
    state: State,
    /// Whether it was reported that a group could not be made.
    reported: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unopened,
    Absent(Absent),
    Open(Tree),
}

impl WorkerCgroups {
    /// Puts our unit's control group in order, the first time. Called when templates boot, which takes longer, and
    /// before the first worker is made.
    pub(in crate::daemon) fn open(&mut self, settings: &config::Workers) {
        if matches!(self.state, State::Unopened) {
            self.open_now();
        }
        let missing = match &self.state {
            State::Unopened => None,
            State::Absent(why) => Some(why.to_string()),
            State::Open(tree) => tree.without_memory().map(str::to_owned),
        };
        for (key, value) in [("memory-high", settings.memory_high), ("memory-max", settings.memory_max)] {
            if let (Some(why), Some(size)) = (&missing, value) {
                tracing::warn!("{key} = {} has no effect: {why}, ignoring", size::show(size));
            }
        }
    }

    fn open_now(&mut self) {
        let opened = if environment::started_by_systemd() { Tree::open() } else { Err(Absent::NoUnit) };
        self.state = match opened {
            Ok(mut tree) => {
                if let Some(why) = tree.without_memory() {
                    tracing::info!("{why}: the memory of workers is read from /proc and has no limits of its own");
                }
                // A predecessor's workers hold its sockets, and nobody watches them.
                for group in tree.left_behind() {
                    tracing::warn!("killing what a sockd before us left in {}", group.name());
                    remove_when_empty(&mut tree, group);
                }
                State::Open(tree)
            }
            Err(why) => {
                // Without a unit there is nothing to fix.
                if !matches!(why, Absent::NoUnit) {
                    tracing::info!("workers have no control groups of their own: {why}");
                }
                State::Absent(why)
            }
        };
    }

    /// Why workers have no groups of their own, where systemd could have given them some.
    pub(in crate::daemon) fn missing(&self) -> Option<String> {
        match &self.state {
            State::Unopened | State::Open(_) | State::Absent(Absent::NoUnit) => None,
            State::Absent(why) => Some(why.to_string()),
        }
    }

    /// The group for a worker about to be made, and the descriptor by which it enters.
    pub(in crate::daemon) fn make(&mut self, worker: WorkerId, settings: &config::Workers) -> Option<(Group, OwnedFd)> {
        let State::Open(tree) = &mut self.state else { return None };
        let limits = Limits { memory_high: settings.memory_high, memory_max: settings.memory_max };
        let made = tree.group(worker.0, limits).and_then(|group| Ok((group.entrance()?, group)));
        match made {
            Ok((entrance, group)) => Some((group, entrance)),
            Err(error) => {
                if !std::mem::replace(&mut self.reported, true) {
                    tracing::warn!("cannot make a control group for worker {worker}: {error}, going on without");
                }
                None
            }
        }
    }

    /// Kills what a dead worker left in its group; the group goes when that is dead.
    pub(in crate::daemon) fn remove_when_empty(&mut self, group: Group) {
        if let State::Open(tree) = &mut self.state {
            remove_when_empty(tree, group);
        }
    }

    /// Removes the groups of the dead in which nobody lives any more.
    pub(in crate::daemon) fn clear(&mut self) {
        if let State::Open(tree) = &mut self.state {
            tree.clear();
        }
    }

    /// Why the kernel has killed processes of this group, for people.
    pub(in crate::daemon) fn out_of_memory(&mut self, group: &Group) -> String {
        let State::Open(tree) = &mut self.state else { return "out of memory".to_owned() };
        let had = group.usage().memory_peak;
        match tree.out_of_memory(group) {
            OutOfMemory::Group { limit } => match (had, limit) {
                (Some(had), Some(limit)) => {
                    format!("out of memory, {} of memory-max {}", size::show(had), size::show(limit))
                }
                (None, Some(limit)) => format!("out of memory, memory-max is {}", size::show(limit)),
                (_, None) => "out of memory".to_owned(),
            },
            OutOfMemory::Unit { limit } => {
                let limit = limit.map(|limit| format!(" (MemoryMax={})", size::show(limit))).unwrap_or_default();
                format!("out of memory, the unit's limit{limit} is reached{}", and_it_had(had))
            }
            OutOfMemory::System => {
                format!("out of memory, of the machine or a slice above the unit{}", and_it_had(had))
            }
        }
    }
}

fn remove_when_empty(tree: &mut Tree, group: Group) {
    let name = group.name();
    if let Err(error) = tree.remove_when_empty(group)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot kill what is left in {name}: {error}");
    }
}

fn and_it_had(peak: Option<u64>) -> String {
    peak.map(|peak| format!("; it had {}", size::show(peak))).unwrap_or_default()
}
