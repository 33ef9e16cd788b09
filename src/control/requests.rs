//! What a status says of the visitors' requests.
//!
//! Owns: the shape of it. Spans are milliseconds, unless a name says otherwise.

use serde::{Deserialize, Serialize};

/// What became of the visitors' requests since the supervisor started, by its workers' word; sockd's own are none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requests {
    /// How many are finished.
    pub finished: u64,
    /// How many of them had an answer from 500 to 599.
    pub server_errors: u64,
    /// How many of them had no answer: the visitor left, or was cut off.
    pub aborted: u64,
    /// How many of them were answered in a way that the server does not tell; they are in no other number but `finished`.
    /// `None` where every worker tells it.
    pub unclassified: Option<u64>,
    /// The same for the last minute, or what there is of it; `None` in the first seconds.
    pub lately: Option<Lately>,
    /// By the generation that served them, the oldest first: the three newest generations that served, and all before them
    /// together.
    pub by_generation: Vec<GenerationRequests>,
    /// How long they took; `None` where the supervisor does not tell.
    pub durations: Option<Durations>,
}

/// What became of the requests that a generation has finished, or all generations up to one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationRequests {
    /// The generation.
    pub generation: u64,
    /// Whether all before it are counted here, too.
    pub and_before: bool,
    /// How many were answered with a status from 100 to 199.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// How many from 200 to 299.
    #[serde(rename = "2xx")]
    pub successful: u64,
    /// How many from 300 to 399.
    #[serde(rename = "3xx")]
    pub redirected: u64,
    /// How many from 400 to 499.
    #[serde(rename = "4xx")]
    pub client_errors: u64,
    /// How many from 500 to 599.
    #[serde(rename = "5xx")]
    pub server_errors: u64,
    /// How many had no answer: the visitor left, or was cut off.
    pub aborted: u64,
    /// How many were answered in a way that the server does not tell; `None` where every worker tells it.
    pub unclassified: Option<u64>,
}

/// How long requests took that are finished. The bounds are the same for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Durations {
    /// How many took no longer than each bound, the shortest bound first.
    pub buckets: Vec<Bucket>,
    /// How many there were.
    pub count: u64,
    /// How long they took together, in microseconds.
    pub sum_us: u64,
}

/// How many requests took no longer than a bound, those of all shorter bounds among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// The bound, in nanoseconds.
    pub up_to_ns: u64,
    /// How many.
    pub count: u64,
}

/// What became of the requests that ended lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lately {
    /// Since so long ago.
    pub period_ms: u64,
    /// How many were finished.
    pub finished: u64,
    /// How many of them had an answer from 500 to 599.
    pub server_errors: u64,
    /// How many of them had no answer.
    pub aborted: u64,
    /// Half of them took no longer, in microseconds, right to a fifth; `None` where there was none.
    pub median_us: Option<u64>,
    /// 95 of 100 took no longer, in microseconds, right to a fifth; `None` where there was none.
    pub percentile_95_us: Option<u64>,
}

/// What a worker serves, and how much it has served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerRequests {
    /// How many requests it has finished.
    pub finished: u64,
    /// How many it serves, WebSockets aside.
    pub busy: u64,
    /// How many WebSockets are open.
    pub websockets: u64,
    /// What it serves, the oldest first, 15 at most; fewer than it is busy with where it does not tell them all.
    pub in_flight: Vec<InFlight>,
}

/// A request that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InFlight {
    /// Its method and its path without the query; one of more than 88 bytes is cut and ends in "…".
    pub request: String,
    /// For how long.
    pub for_ms: u64,
    /// The thread that serves it, as the worker's stacks name it; `None` where no thread does so alone.
    pub thread: Option<u64>,
}
