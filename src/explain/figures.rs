//! Numbers of a span of time, summed up from its samples.

use crate::control::recording::Sample;
use serde::Serialize;

/// What was so on average. `None`: it is not known. Shares are of the time, or of the requests, from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Requests per second.
    pub rate: Option<f64>,
    /// Requests that were finished.
    pub finished: u64,
    /// How many of them had an answer from 500 to 599.
    pub server_errors: u64,
    /// How many of them had no answer.
    pub aborted: u64,
    /// Visitors that sockd itself answered 503.
    pub turned_away: u64,
    /// Half of the requests took no longer, in milliseconds.
    pub median_ms: Option<f64>,
    /// 95 of 100 took no longer.
    pub percentile_95_ms: Option<f64>,
    /// Workers with a request.
    pub busy: f64,
    /// Workers that served.
    pub ready: f64,
    /// Requests that were being served.
    pub in_flight: f64,
    /// The share of the time in which every worker was busy.
    pub all_busy: f64,
    /// Connections in the queue.
    pub waiting: f64,
    /// The most of them.
    pub waiting_max: u64,
    /// How many the queue holds.
    pub queue_limit: Option<u64>,
    /// The most memory of the service, in bytes.
    pub memory_bytes: Option<u64>,
    /// MemoryMax= of the service, in bytes.
    pub memory_limit_bytes: Option<u64>,
    /// Processors that the service used.
    pub cpu: Option<f64>,
    /// Processors that all that runs on the machine used.
    pub machine_cpu: Option<f64>,
    /// How many there are.
    pub cpus: u64,
    /// The share of the machine's processor time that the hypervisor gave to others.
    pub steal: f64,
    /// The share of the time in which CPUQuota= kept the service from running.
    pub throttled: f64,
    /// The share of the time in which some process waited for a processor.
    pub cpu_stall: Option<f64>,
    /// The same for a disk.
    pub io_stall: Option<f64>,
    /// The same for memory.
    pub memory_stall: Option<f64>,
}

impl Figures {
    /// Sums up.
    pub(super) fn of(samples: &[&Sample]) -> Self {
        let milliseconds = samples.iter().map(|sample| sample.span_ms).sum::<u64>().max(1) as f64;
        // An average over time.
        let mean = |value: fn(&Sample) -> u64| {
            samples.iter().map(|sample| value(sample) as f64 * sample.span_ms as f64).sum::<f64>() / milliseconds
        };
        // How much of the time it was; none where no sample knows it.
        let share = |value: fn(&Sample) -> Option<u64>| {
            let known = samples.iter().filter_map(|sample| Some((value(sample)?, sample.span_ms)));
            let (value, time) = known.fold((0, 0), |(sum, time), (value, span)| (sum + value, time + span));
            (time > 0).then(|| value as f64 / time as f64)
        };
        let sum = |value: fn(&Sample) -> u64| samples.iter().map(|sample| value(sample)).sum::<u64>();
        let all_busy = samples.iter().filter(|sample| sample.ready > 0 && sample.busy >= sample.ready);
        Self {
            seconds: milliseconds / 1000.0,
            rate: share(|sample| sample.finished).map(|rate| rate * 1000.0),
            finished: sum(|sample| sample.finished.unwrap_or(0)),
            server_errors: sum(|sample| sample.server_errors),
            aborted: sum(|sample| sample.aborted),
            turned_away: sum(|sample| sample.turned_away),
            median_ms: typical(samples, |sample| sample.median_us),
            percentile_95_ms: typical(samples, |sample| sample.percentile_95_us),
            busy: mean(|sample| sample.busy),
            ready: mean(|sample| sample.ready),
            in_flight: mean(|sample| sample.in_flight),
            all_busy: all_busy.map(|sample| sample.span_ms).sum::<u64>() as f64 / milliseconds,
            waiting: mean(|sample| sample.waiting.unwrap_or(0)),
            waiting_max: samples.iter().filter_map(|sample| sample.waiting).max().unwrap_or(0),
            queue_limit: samples.iter().rev().find_map(|sample| sample.queue_limit),
            memory_bytes: samples.iter().filter_map(|sample| sample.memory_bytes).max(),
            memory_limit_bytes: samples.iter().rev().find_map(|sample| sample.memory_limit_bytes),
            cpu: share(|sample| sample.cpu_ms),
            machine_cpu: share(|sample| sample.machine_cpu_ms),
            cpus: samples.iter().map(|sample| sample.cpus).max().unwrap_or(0),
            steal: share(|sample| (sample.cpus > 0).then(|| sample.steal_ms / sample.cpus)).unwrap_or(0.0),
            throttled: share(|sample| Some(sample.throttled_ms)).unwrap_or(0.0),
            cpu_stall: share(|sample| sample.cpu_stall_ms),
            io_stall: share(|sample| sample.io_stall_ms),
            memory_stall: share(|sample| sample.memory_stall_ms),
        }
    }

    /// The share of the answers that say that the server failed.
    pub fn error_share(&self) -> f64 {
        if self.finished == 0 { 0.0 } else { self.server_errors as f64 / self.finished as f64 }
    }
}

/// What is typical of the requests: each sample counts as often as it has requests. In milliseconds.
fn typical(samples: &[&Sample], value: fn(&Sample) -> Option<u64>) -> Option<f64> {
    let mut values: Vec<(u64, u64)> =
        samples.iter().filter_map(|sample| Some((value(sample)?, sample.finished.unwrap_or(0)))).collect();
    values.sort_unstable();
    let half = values.iter().map(|(_, weight)| weight).sum::<u64>().div_ceil(2).max(1);
    let mut seen = 0;
    let found = values.iter().find(|(_, weight)| {
        seen += weight;
        seen >= half
    });
    found.map(|(value, _)| *value as f64 / 1000.0)
}
