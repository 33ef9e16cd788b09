//! What was counted at a look: the next sample is what came since.

use crate::cgroup::{Account, Machine};
use crate::control::recording::Sample;
use crate::scoreboard::Finished;
use crate::supervisor::WorkerId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a thread has seen.
#[derive(Debug)]
pub(in crate::daemon) struct Looked {
    pub(super) sample: Sample,
    pub(super) counted: Counted,
}

/// What was counted at the look before.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Counted {
    pub(super) at: Instant,
    pub(super) finished: Option<Finished>,
    pub(super) server_errors: BTreeMap<WorkerId, u64>,
    pub(super) turned_away: u64,
    pub(super) account: Account,
    pub(super) cpu: BTreeMap<WorkerId, Duration>,
    pub(super) machine: Option<Machine>,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            at: Instant::now(),
            finished: None,
            server_errors: BTreeMap::new(),
            turned_away: 0,
            account: Account::default(),
            cpu: BTreeMap::new(),
            machine: None,
        }
    }
}
