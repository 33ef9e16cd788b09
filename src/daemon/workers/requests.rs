//! The requests that workers show on their scoreboards, for those who ask: `sockd status` and the log.
//!
//! Owns: what ended workers had finished, and what all had finished at a few moments of the last minutes. Never: has a page
//! read for its own sake: a moment is kept when the loop turns anyway.

use super::{Worker, Workers};
use crate::control::message;
use crate::scoreboard::{Finished, InFlight, Requests, Scoreboard};
use crate::supervisor::WorkerId;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Moments are kept so far apart, and so many of them: the last minute is told of.
const MOMENT_INTERVAL: Duration = Duration::from_secs(10);
const MAX_MOMENTS: usize = 7;

/// What became of the instance's requests.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Of workers that ended.
    ended: Finished,
    /// Whether any worker ever showed its requests.
    is_shown: bool,
    /// What all had finished then, the oldest first.
    moments: VecDeque<(Instant, Finished)>,
}

impl Workers {
    /// What became of the requests since the start and lately. None: no worker shows them.
    pub(in crate::daemon) fn traffic(&self) -> Option<message::Requests> {
        let now = Instant::now();
        let (finished, is_shown) = self.finished();
        if !is_shown {
            return None;
        }
        let lately = self.traffic.moments.front().map(|(then, before)| {
            let since = finished.since(before);
            message::Lately {
                period_ms: ms(now.saturating_duration_since(*then)),
                finished: since.total(),
                server_errors: since.server_errors(),
                aborted: since.aborted(),
                median_us: since.quantile(500).map(us),
                percentile_95_us: since.quantile(950).map(us),
            }
        });
        Some(message::Requests {
            finished: finished.total(),
            server_errors: finished.server_errors(),
            aborted: finished.aborted(),
            lately,
        })
    }

    /// Keeps what all have finished by now, if it is time for that.
    pub(in crate::daemon) fn keep_moment(&mut self) {
        let now = Instant::now();
        if self.traffic.moments.back().is_some_and(|(last, _)| now.saturating_duration_since(*last) < MOMENT_INTERVAL) {
            return;
        }
        let (finished, is_shown) = self.finished();
        if !is_shown {
            return;
        }
        self.traffic.moments.push_back((now, finished));
        while self.traffic.moments.len() > MAX_MOMENTS {
            self.traffic.moments.pop_front();
        }
    }

    /// What all workers have finished that ever were, and whether any of them shows it.
    fn finished(&self) -> (Finished, bool) {
        let mut finished = self.traffic.ended.clone();
        let mut is_shown = self.traffic.is_shown;
        for requests in self.all.values().filter_map(requests) {
            finished.add(&requests.finished);
            is_shown = true;
        }
        (finished, is_shown)
    }

    /// The request that a worker serves, or served when it ended or was aborted, as the log tells it.
    pub(in crate::daemon) fn request(&self, id: WorkerId) -> Option<String> {
        let remembered = self.last_requests.get(&id).cloned();
        remembered.or_else(|| self.all.get(&id).and_then(requests).as_ref().and_then(describe))
    }
}

impl Worker {
    /// What it serves and has served, for the status.
    pub(in crate::daemon) fn traffic(&self) -> Option<message::WorkerRequests> {
        let requests = requests(self)?;
        Some(message::WorkerRequests {
            finished: requests.finished.total(),
            busy: requests.busy(),
            websockets: requests.websockets,
            in_flight: requests.in_flight.into_iter().map(in_flight).collect(),
        })
    }
}

impl Traffic {
    /// A worker has ended. The request that it served then, as the log tells it.
    pub(super) fn worker_ended(&mut self, worker: &Worker) -> Option<String> {
        let requests = requests(worker)?;
        self.is_shown = true;
        self.ended.add(&requests.finished);
        describe(&requests)
    }
}

fn requests(worker: &Worker) -> Option<Requests> {
    worker.scoreboard.as_ref().map(Scoreboard::read)?.requests
}

/// `GET /export since 4.1 s`, and how many others there are.
fn describe(requests: &Requests) -> Option<String> {
    let oldest = requests.in_flight.first()?;
    let since = format!("{} since {:.1} s", oldest.request, oldest.since.as_secs_f64());
    Some(match requests.busy() - 1 {
        0 => since,
        others => format!("{since}, and {others} more"),
    })
}

fn in_flight(request: InFlight) -> message::InFlight {
    message::InFlight { request: request.request, for_ms: ms(request.since) }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
