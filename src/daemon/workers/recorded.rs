//! What the recorder is given of each worker.

use super::{Worker, Workers};
use crate::cgroup::Group;
use crate::scoreboard::{Finished, Requests};
use crate::supervisor::{Role, WorkerId};
use rustix::process::Pid;

/// A worker that serves, at one moment.
#[derive(Debug)]
pub(in crate::daemon) struct Recorded {
    pub(in crate::daemon) id: WorkerId,
    pub(in crate::daemon) pid: Option<Pid>,
    pub(in crate::daemon) group: Option<Group>,
    /// What it shows of its requests.
    pub(in crate::daemon) requests: Option<Requests>,
}

impl Workers {
    /// The workers that serve, and what those had finished together that have ended. Each page is read once.
    pub(in crate::daemon) fn recorded(&self) -> (Finished, Vec<Recorded>) {
        let serving = self.all.iter().filter(|(_, worker)| worker.role == Role::Serving);
        let recorded = serving.map(|(id, worker): (&WorkerId, &Worker)| Recorded {
            id: *id,
            pid: worker.pid(),
            group: worker.group().cloned(),
            requests: worker.shown_requests(),
        });
        (self.traffic.ended(), recorded.collect())
    }
}
