//! How one kind of server wants to be treated: what an adapter knows.

/// The manners of one kind of server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// What the adapter is called in messages: `gunicorn`, `generic`.
    pub name: &'static str,
    /// The signals, sent one after the other, that make a replaced worker stop accepting and finish what it has begun,
    /// long-lived connections included (numbers of signal(7)).
    pub drain_signals: &'static [i32],
    /// The signal at the end of the service: stop accepting, finish the requests in flight, close the rest.
    pub stop_signal: i32,
    /// How a worker is asked to open its log files afresh, as logrotate's `kill -USR1` means it. None: its server knows
    /// no signal for that.
    pub reopen: Option<Reopen>,
    /// What exit codes other than zero mean.
    pub exits: &'static [(i32, ExitMeaning)],
}

/// A signal that makes a worker open its log files afresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reopen {
    /// Its number (signal(7)).
    pub signal: i32,
    /// Whether it is harmless before the worker is ready; else it might still end the process.
    pub while_starting: bool,
}

/// What a worker's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitMeaning {
    /// The worker ended as it was asked to.
    Clean,
    /// The worker could not start; the text says why in the server's words.
    FailedToStart(&'static str),
}
