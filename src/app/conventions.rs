//! How one kind of server wants to be treated: what an adapter knows.

/// The manners of one kind of server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// What the adapter is called in messages: `gunicorn`, `generic`.
    pub name: &'static str,
    /// The signal that makes a replaced worker stop accepting and finish what it has begun, long-lived connections
    /// included (a number of signal(7)).
    pub drain_signal: i32,
    /// The signal at the end of the service: stop accepting, finish the requests in flight, close the rest.
    pub stop_signal: i32,
    /// What exit codes other than zero mean.
    pub exits: &'static [(i32, ExitMeaning)],
}

/// What a worker's exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitMeaning {
    /// The worker ended as it was told to.
    Clean,
    /// The worker could not start; the text says why in the server's words.
    FailedToStart(&'static str),
}
