//! What became of the visitors' requests, of all workers together.
//!
//! Owns: what ended workers had finished, by their generation, and samples of what all had finished, of the last minute.
//! Never: reads a worker's page, or has the loop wake for it: a sample is taken when it turns anyway.

use crate::control::requests;
use crate::scoreboard::{BOUNDS, Finished, Requests};
use crate::supervisor::GenerationId;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Samples are so far apart, and so many are kept: they cover the last minute.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
const MAX_SAMPLES: usize = 7;
/// So many generations are distinguished, the newest ones: the one that serves, one before it and one after it.
const MAX_GENERATIONS: usize = 3;
/// The bounds of [`requests::Durations`], by their index in [`BOUNDS`]: from 0.26 ms on (2^18 ns), each twice the one before,
/// to 69 s. They stay for ever: numbers that were counted by other bounds cannot be added up.
const FIRST_BUCKET: usize = 8;
const BUCKET_STEP: usize = 2;

/// What became of the instance's requests.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Of workers that ended.
    ended: ByGeneration,
    /// What all had finished then, the oldest first.
    samples: VecDeque<(Instant, Finished)>,
}

/// What was finished, by the generation of the worker. Nothing that was once counted is lost, and each number only grows:
/// so the sum over all does, and none of them takes over what another had.
#[derive(Clone, Debug, Default)]
pub(super) struct ByGeneration {
    /// The newest generations, [`MAX_GENERATIONS`] at most.
    newest: BTreeMap<GenerationId, Finished>,
    /// The last of those before them, and what they have finished together.
    older: Option<(GenerationId, Finished)>,
}

impl ByGeneration {
    fn add(&mut self, generation: GenerationId, finished: &Finished) {
        if let Some((last, older)) = &mut self.older
            && generation <= *last
        {
            older.add(finished);
            return;
        }
        self.newest.entry(generation).or_default().add(finished);
        if self.newest.len() > MAX_GENERATIONS
            && let Some((oldest, finished)) = self.newest.pop_first()
        {
            let (last, older) = self.older.get_or_insert_with(|| (oldest, Finished::default()));
            *last = oldest;
            older.add(&finished);
        }
    }

    /// What this one has finished, if it is among the newest.
    pub(super) fn of(&self, generation: GenerationId) -> Finished {
        self.newest.get(&generation).cloned().unwrap_or_default()
    }

    /// What all of them have finished. None: no worker shows that.
    pub(super) fn total(&self) -> Option<Finished> {
        let all = self.older.iter().map(|(_, finished)| finished).chain(self.newest.values());
        all.fold(None, |sum: Option<Finished>, finished| {
            let mut sum = sum.unwrap_or_default();
            sum.add(finished);
            Some(sum)
        })
    }

    fn document(&self) -> Vec<requests::GenerationRequests> {
        let older = self.older.iter().map(|(last, finished)| of_generation(*last, true, finished));
        older.chain(self.newest.iter().map(|(id, finished)| of_generation(*id, false, finished))).collect()
    }
}

fn of_generation(generation: GenerationId, and_before: bool, finished: &Finished) -> requests::GenerationRequests {
    let [aborted, informational, successful, redirected, client_errors, server_errors] = finished.by_class();
    requests::GenerationRequests {
        generation: generation.0.into(),
        and_before,
        informational,
        successful,
        redirected,
        client_errors,
        server_errors,
        aborted,
        unclassified: finished.of_unknown_class(),
    }
}

fn durations(finished: &Finished) -> requests::Durations {
    let bounds = BOUNDS.iter().enumerate().skip(FIRST_BUCKET).step_by(BUCKET_STEP);
    requests::Durations {
        buckets: bounds
            .map(|(bound, up_to_ns)| requests::Bucket { up_to_ns: *up_to_ns, count: finished.shorter_than(bound) })
            .collect(),
        count: finished.timed(),
        sum_us: us(finished.took()),
    }
}

impl Traffic {
    /// A worker has ended.
    pub(super) fn worker_ended(&mut self, generation: GenerationId, finished: &Finished) {
        self.ended.add(generation, finished);
    }

    /// What those have finished that have ended.
    pub(super) fn ended(&self) -> Finished {
        self.ended.total().unwrap_or_default()
    }

    /// What all workers have finished that ever were.
    pub(super) fn finished(&self, living: impl Iterator<Item = (GenerationId, Finished)>) -> ByGeneration {
        let mut all = self.ended.clone();
        living.for_each(|(generation, finished)| all.add(generation, &finished));
        all
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

    /// Drops what is older than the last minute: a sample of long ago says nothing of it.
    pub(super) fn drop_old_samples(&mut self, now: Instant) {
        let period = SAMPLE_INTERVAL * MAX_SAMPLES as u32;
        self.samples.retain(|(then, _)| now.saturating_duration_since(*then) <= period);
    }

    /// What the status says, where all have finished so much. None: no worker shows that.
    pub(super) fn document(&self, now: Instant, all: &ByGeneration) -> Option<requests::Requests> {
        let finished = all.total()?;
        let lately = self.samples.front().map(|(then, before)| {
            let since = finished.since(before);
            requests::Lately {
                period_ms: ms(now.saturating_duration_since(*then)),
                finished: since.total(),
                server_errors: since.server_errors(),
                aborted: since.aborted(),
                median_us: since.quantile(500).map(us),
                percentile_95_us: since.quantile(950).map(us),
            }
        });
        Some(requests::Requests {
            finished: finished.total(),
            server_errors: finished.server_errors(),
            aborted: finished.aborted(),
            lately,
            by_generation: all.document(),
            unclassified: finished.of_unknown_class(),
            // Of a server that does not tell there are none.
            durations: (finished.of_unknown_class().is_none() || finished.timed() > 0).then(|| durations(&finished)),
        })
    }
}

/// What one worker serves and has served.
pub(super) fn of_worker(requests: Requests) -> requests::WorkerRequests {
    requests::WorkerRequests {
        finished: requests.finished.total(),
        busy: requests.busy(),
        websockets: requests.websockets,
        in_flight: requests
            .in_flight
            .into_iter()
            .map(|request| requests::InFlight {
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

    fn ok(finished: u64) -> Finished {
        Finished::of_class(2, finished)
    }

    fn of(generation: u32, finished: u64) -> (GenerationId, Finished) {
        (GenerationId(generation), ok(finished))
    }

    #[test]
    fn what_the_dead_had_finished_counts_and_the_last_minute_is_what_came_since() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut traffic = Traffic::default();
        assert_eq!(traffic.finished(std::iter::empty()).total(), None, "nobody shows any");
        for sample in 0..20_u32 {
            let (now, living) = (begin + sample * 10 * second, u64::from(sample) * 100);
            assert!(traffic.is_due(now) && !traffic.is_due(now - second) || sample == 0, "{sample}");
            let finished = traffic.finished([of(1, living), of(1, 5)].into_iter());
            traffic.add_sample(now, finished.total().unwrap());
        }
        traffic.worker_ended(GenerationId(1), &ok(1900));
        let finished = traffic.finished([of(1, 5), of(2, 35)].into_iter());
        let document = traffic.document(begin + 195 * second, &finished).unwrap();
        assert_eq!(document.finished, 1940);
        let lately = document.lately.unwrap();
        assert_eq!((lately.period_ms, lately.finished), (65_000, 635));
    }

    /// What Prometheus sees over many reloads: the sum never falls, and no series takes over what another had.
    #[test]
    fn older_generations_are_counted_together_and_no_series_jumps() {
        let mut traffic = Traffic::default();
        let mut before: BTreeMap<(u64, bool), u64> = BTreeMap::new();
        for generation in 1..=9_u32 {
            // A worker of an old generation has finished what it had begun.
            traffic.worker_ended(GenerationId(generation.saturating_sub(4).max(1)), &ok(1));
            let all = traffic.finished([of(generation, 0)].into_iter());
            let series: BTreeMap<_, _> =
                all.document().iter().map(|row| ((row.generation, row.and_before), row.successful)).collect();
            assert!(series.len() <= MAX_GENERATIONS + 1, "{series:?}");
            assert_eq!(series.values().sum::<u64>(), u64::from(generation * 11 - 10), "{series:?}");
            for (name, count) in &series {
                let grown = before.get(name).map_or(0, |before| count.checked_sub(*before).expect("it fell"));
                assert!(grown <= 11, "{name:?} takes over what another had: {before:?} {series:?}");
            }
            before = series;
            traffic.worker_ended(GenerationId(generation), &ok(10));
        }
        assert_eq!(before.keys().copied().collect::<Vec<_>>(), [(6, true), (7, false), (8, false), (9, false)]);
    }

    #[test]
    fn what_a_server_does_not_tell_is_not_known() {
        let mut traffic = Traffic::default();
        traffic.worker_ended(GenerationId(1), &Finished::unclassified(7));
        let living = [(GenerationId(2), Finished::unclassified(3))];
        let document = |traffic: &Traffic| {
            let all = traffic.finished(living.clone().into_iter());
            traffic.document(Instant::now(), &all).expect("some are known")
        };
        let said = document(&traffic);
        assert_eq!((said.finished, said.unclassified, said.durations), (10, Some(10), None));
        let rows: Vec<_> = said.by_generation.iter().map(|row| (row.generation, row.unclassified)).collect();
        assert_eq!(rows, [(1, Some(7)), (2, Some(3))]);
        // One of another server served before.
        traffic.worker_ended(GenerationId(1), &ok(5));
        let said = document(&traffic);
        assert_eq!((said.finished, said.unclassified), (15, Some(10)));
    }

    #[test]
    fn a_sample_of_long_ago_says_nothing_of_the_last_minute() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut traffic = Traffic::default();
        traffic.add_sample(begin, ok(1));
        traffic.add_sample(begin + 3600 * second, ok(9));
        traffic.drop_old_samples(begin + 3601 * second);
        let all = traffic.finished([of(1, 9)].into_iter());
        let lately = traffic.document(begin + 3601 * second, &all).and_then(|document| document.lately);
        assert_eq!(lately.map(|lately| (lately.period_ms, lately.finished)), Some((1000, 0)));
    }

    #[test]
    fn the_bounds_of_durations_stay() {
        let bounds: Vec<u64> = durations(&Finished::default()).buckets.iter().map(|bucket| bucket.up_to_ns).collect();
        let expected: Vec<u64> = (18..=36).map(|power| 1 << power).collect();
        assert_eq!(bounds, expected);
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
