//! A generation's specification, as the core needs it: how many workers, their timeouts, how they are probed.

use std::time::Duration;

/// When the first worker is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As soon as sockd runs; the service is ready when the first worker is.
    AtOnce,
    /// With the first connection; the service is ready when it waits for one.
    OnConnection,
}

/// What holds for the workers of one generation. Plain data, made by the daemon from configuration and adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// How many slots the pool has: 1 to [`MAX_WORKERS`].
    pub workers: u32,
    /// A worker that says nothing counts as ready when it has lived for this long and holds the socket. None: only
    /// the worker's own word counts.
    pub ready_after: Option<Duration>,
    /// Whether its server is known to say READY=1 when it serves, and not before. Another's word and silence prove
    /// nothing as long as connections wait that nobody accepts.
    pub says_ready: bool,
    /// Whether every worker has a socket of its own, on which it can be asked while it serves. One without, that a canary
    /// or an earlier worker has stood for, counts as ready when it has lived as long as that one took to answer.
    pub own_socket: bool,
    /// From the decision to start a worker, or from when its turn came to be made, to its readiness, at most.
    pub start_timeout: Duration,
    /// So long may nothing come of the orders that what makes the workers has got; then it is taken to be stuck.
    pub order_timeout: Duration,
    /// How long a worker may drain when it is replaced; then it is asked to close what is still connected.
    pub drain_timeout: Duration,
    /// How long a worker may take to end when the service stops, or when it is given up before it served.
    pub stop_timeout: Duration,
    /// A ready worker whose last heartbeat is older than this hangs. None: heartbeats are not expected.
    pub watchdog: Option<Duration>,
    /// Whether a worker serves one request at a time and beats between two of them only: then a drain is its last
    /// request, and that may take no longer than any other.
    pub silent_when_busy: bool,
    /// How a ready worker is asked whether it is well. None: it is not asked.
    pub probe: Option<Probe>,
    /// Whether workers are made from code in memory, so that what lies on disk by then does not matter.
    pub preloaded: bool,
    /// Whether a copy of what makes the workers can answer requests, so that the workers it makes then need not learn how.
    pub warms: bool,
    /// Whether what makes the workers has work of its own to do once the last of them has ended with the service.
    pub concludes: bool,
    /// A worker that has been there for so long, or up to a tenth less by chance, is replaced while it is well.
    pub max_age: Option<Duration>,
    /// A worker that holds more memory than this, in bytes, is replaced while it is well.
    pub max_memory: Option<u64>,
    /// Whether a reload proves the new generation on a worker without the public socket first.
    pub canary: bool,
    /// How many slots may hold an old and a new worker at the same time during a rollout: 1 or more.
    pub surge: u32,
    /// How visitors try a new generation before it takes every slot. None: they do not.
    pub trial: Option<Trial>,
    /// How long the complete new generation must stay well before the old one drains.
    pub soak: Duration,
}

/// How visitors try a new generation before it takes every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// On how many of its workers.
    pub share: Share,
    /// So many requests of theirs decide, 1 or more.
    pub requests: u64,
    /// So long it takes at most.
    pub time: Duration,
}

/// Some workers of a pool, always one at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many, or all if there are fewer.
    Workers(u32),
    /// So many of a hundred, 1 to 100, rounded up.
    Percent(u32),
}

impl Share {
    /// How many that is, of so many.
    pub fn of(self, workers: u32) -> u32 {
        match self {
            Self::Workers(count) => count.clamp(1, workers.max(1)),
            Self::Percent(percent) => (workers * percent.min(100)).div_ceil(100).max(1),
        }
    }
}

/// The programs that a reload runs before it loads a new generation, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Each as people know it: its command line. None: nothing is checked.
    pub programs: Vec<String>,
    /// How long each of them may take.
    pub timeout: Duration,
}

/// When a ready worker is asked, and how many failures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Between two questions to the same worker, whole seconds.
    pub interval: Duration,
    /// So many failures in a row, 1 or more, mean that the worker is not well.
    pub failures: u32,
    /// Failures so soon after the worker got ready do not count.
    pub grace: Duration,
    /// Whether the question is work for the application and its access log, so that a worker that was well is not asked
    /// while nobody is being served.
    pub skip_when_idle: bool,
}

/// No pool is larger.
pub const MAX_WORKERS: u32 = 4096;
/// Between SIGABRT, which lets a hung worker write its stack, and SIGKILL.
pub const ABORT_GRACE: Duration = Duration::from_secs(2);
/// Between the end of a drain, when a replaced worker is asked to close its long-lived connections, and SIGKILL.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// A worker that is given up before it said that it is ready serves nobody: it gets this long to leave. gunicorn's do not
/// heed SIGTERM before the application is imported, and a stop would wait for one that hangs there while visitors queue.
pub const UNHEARD_GRACE: Duration = Duration::from_secs(2);
/// A worker that no longer answers and has a proven successor gets this long, at most, for the requests that it may still
/// be serving; then it writes its stack and goes.
pub const SILENT_DRAIN: Duration = Duration::from_secs(10);
/// A worker that holds too much memory is replaced when it has been ready for at least this long.
pub const TOO_BIG_AFTER: Duration = Duration::from_secs(10);
/// Between two looks whether a worker holds its socket and accepts what waits there.
pub const INSPECT_INTERVAL: Duration = Duration::from_millis(250);
/// The daemon's verdict comes so long before the start of a worker that it asks is over.
pub const VERDICT_MARGIN: Duration = Duration::from_millis(500);
/// A canary that has answered is watched for this long, or for the soak if that is shorter.
pub const CANARY_WATCH: Duration = Duration::from_millis(500);
/// Workers that were replaced get at most this long to leave before a reload is reported done: a signal is heard within
/// it, long-lived connections last longer.
pub const HANDOVER: Duration = Duration::from_secs(1);
/// What is left of a drain after a second request to stop.
pub const HURRIED_DRAIN: Duration = Duration::from_secs(1);
/// What makes the workers gets this long for its own work at the end of the service, when no worker is left.
pub const CONCLUSION: Duration = Duration::from_secs(10);
/// [`Spec::order_timeout`] where no code of the user's comes before the fork. That takes milliseconds, but a template comes
/// to it later: it may be importing what its workers will need.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(10);
/// The daemon may take this long to prepare a generation, unless it says another limit.
pub const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);
/// A visitor may call the next attempt to start when the last one ended at least this long ago.
pub const VISITOR_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Added to what is asked of the service manager, so that our own deadline always comes first.
pub const MANAGER_MARGIN: Duration = Duration::from_secs(10);
