//! What became of the visitors' requests, of all workers together.
//!
//! Owns: what ended workers had finished, and samples of what all had finished, of the last minute. Never: reads a worker's
//! page, or has the loop wake for it: a sample is taken when it turns anyway.

use crate::control::message;
use crate::scoreboard::{Finished, Requests};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples are so far apart, and so many are kept: they cover the last minute.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
const MAX_SAMPLES: usize = 7;

/// What became of the instance's requests.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Of workers that ended. None: none of them showed its requests.
    ended: Option<Finished>,
    /// What all had finished then, the oldest first.
    samples: VecDeque<(Instant, Finished)>,
}

impl Traffic {
    /// A worker has ended.
    pub(super) fn worker_ended(&mut self, requests: &Requests) {
        self.ended.get_or_insert_default().add(&requests.finished);
    }

    /// What all workers have finished that ever were. None: no worker shows that.
    pub(super) fn finished(&self, living: impl Iterator<Item = Requests>) -> Option<Finished> {
        living.fold(self.ended.clone(), |sum, requests| {
            let mut sum = sum.unwrap_or_default();
            sum.add(&requests.finished);
            Some(sum)
        })
    }

    /// Whether it is time for a sample.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.samples.back().is_none_or(|(last, _)| now.saturating_duration_since(*last) >= SAMPLE_INTERVAL)
    }

    /// Keeps what all have finished by now, and drops the oldest sample.
    pub(super) fn add_sample(&mut self, now: Instant, finished: Finished) {
        self.samples.push_back((now, finished));
        while self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
        }
    }

    /// What the status says, where all have finished so much.
    pub(super) fn document(&self, now: Instant, finished: &Finished) -> message::Requests {
        let lately = self.samples.front().map(|(then, before)| {
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
        message::Requests {
            finished: finished.total(),
            server_errors: finished.server_errors(),
            aborted: finished.aborted(),
            lately,
        }
    }
}

/// What one worker serves and has served.
pub(super) fn of_worker(requests: Requests) -> message::WorkerRequests {
    message::WorkerRequests {
        finished: requests.finished.total(),
        busy: requests.busy(),
        websockets: requests.websockets,
        in_flight: requests
            .in_flight
            .into_iter()
            .map(|request| message::InFlight {
                request: request.request,
                for_ms: ms(request.since),
                thread: request.thread.map(u64::from),
            })
            .collect(),
    }
}

/// `GET /export since 4.1 s`, and how many others there are. None: it serves nobody.
pub(super) fn describe(requests: &Requests) -> Option<String> {
    let oldest = requests.in_flight.first()?;
    let since = format!("{} since {:.1} s", oldest.request, oldest.since.as_secs_f64());
    Some(match requests.busy().saturating_sub(1) {
        0 => since,
        others => format!("{since}, and {others} more"),
    })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(finished: u64) -> Requests {
        Requests { finished: Finished::of_class(2, finished), ..Requests::default() }
    }

    #[test]
    fn what_the_dead_had_finished_counts_and_the_last_minute_is_what_came_since() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut traffic = Traffic::default();
        assert_eq!(traffic.finished(std::iter::empty()), None, "nobody shows any");
        for sample in 0..20_u32 {
            let (now, living) = (begin + sample * 10 * second, u64::from(sample) * 100);
            assert!(traffic.is_due(now) && !traffic.is_due(now - second) || sample == 0, "{sample}");
            let finished = traffic.finished([requests(living), requests(5)].into_iter()).unwrap();
            traffic.add_sample(now, finished);
        }
        traffic.worker_ended(&requests(1900));
        let finished = traffic.finished([requests(5), requests(35)].into_iter()).unwrap();
        let document = traffic.document(begin + 195 * second, &finished);
        assert_eq!(document.finished, 1940);
        let lately = document.lately.unwrap();
        assert_eq!((lately.period_ms, lately.finished), (65_000, 635));
    }

    #[test]
    fn the_oldest_request_speaks_for_those_beside_it() {
        let one = |since, request: &str| crate::scoreboard::InFlight {
            began: 1,
            since: Duration::from_millis(since),
            thread: None,
            request: request.to_owned(),
        };
        let mut requests = Requests::default();
        assert_eq!(describe(&requests), None);
        requests.in_flight = vec![one(4100, "GET /export"), one(3, "GET /")];
        requests.without_slot = 7;
        assert_eq!(describe(&requests).as_deref(), Some("GET /export since 4.1 s, and 8 more"));
    }
}
