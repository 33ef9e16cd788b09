//! What a worker says of its requests, and why that is not known.

use std::io;
use std::time::Duration;

/// The longest answer that is read, in bytes.
pub(super) const LARGEST_ANSWER: u64 = 256 << 10;

/// What a worker says of its requests. How they were answered is in none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many it has begun since its start.
    pub begun: u64,
    /// How many of them it serves at this moment.
    pub busy: u64,
    /// Some of these, the longest first, where it says which they are: 15 at most.
    pub in_flight: Vec<InFlight>,
}

/// A request that a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Its method and its path without the query, made harmless; a path that is longer ends in "…".
    pub request: String,
    /// For how long it is served.
    pub since: Duration,
}

/// Why a worker's statistics are not known.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// Nobody listens, or the connection broke.
    #[error("it cannot be asked: {0}")]
    Connection(#[from] io::Error),
    /// The whole answer had not come within this time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// There is more of it than is read.
    #[error("its answer is longer than {LARGEST_ANSWER} bytes")]
    TooLong,
    /// It is not what this server says.
    #[error("its answer is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
}
