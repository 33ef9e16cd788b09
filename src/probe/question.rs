//! A question to a worker, and why it has no answer.

use std::io;
use std::time::Duration;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The path, with its leading slash.
    pub path: String,
    /// The Host header.
    pub host: String,
    /// More headers, name and value.
    pub headers: Vec<(String, String)>,
    /// How long the answer's head may take.
    pub patience: Duration,
    /// Whether it is asked in the uwsgi protocol.
    pub uwsgi: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens (any more).
    #[error("it cannot be reached: {0}")]
    Connect(io::Error),
    /// It takes no connections, and its queue holds no more.
    #[error("its queue is full")]
    QueueFull,
    /// Nothing came within this time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection was closed without an answer.
    #[error("it closed the connection without an answer")]
    Closed,
    /// What came is not HTTP.
    #[error("its answer is not HTTP: {0}")]
    NotHttp(hyper::Error),
    /// What came is not TLS.
    #[error("its answer is not TLS")]
    NotTls,
    /// Path or host hold what a request cannot carry.
    #[error("the request cannot be made: {0}")]
    Question(#[from] hyper::http::Error),
    /// It does not fit the uwsgi protocol.
    #[error("the request is too long for the uwsgi protocol")]
    TooLong,
}
