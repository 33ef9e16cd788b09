//! What a thread reads for a sample: control groups, /proc, and the kernel's word of sockets. The loop gives what workers show.

use super::counted::Counted;
use crate::app::Address;
use crate::cgroup::{Group, account, machine};
use crate::control::recording::{Largest, Sample, SlowRequest, WaitsFor};
use crate::daemon::workers::recorded::Recorded;
use crate::process::{connected, cpu_time, resident_memory, threads};
use crate::queue;
use crate::recording::{MAX_FAILED, MAX_SLOW};
use crate::scoreboard::Finished;
use crate::supervisor::WorkerId;
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// A request that is served for longer is slow enough to be named.
const SLOW: Duration = Duration::from_millis(500);
/// The memory of so many workers is read.
const MAX_MEASURED: usize = 64;
/// Services, and how their addresses end.
const SERVICES: [(&str, &str); 14] = [
    (":5432", "PostgreSQL"),
    ("/.s.PGSQL.5432", "PostgreSQL"),
    (":6432", "PgBouncer"),
    (":3306", "MySQL"),
    ("/mysqld.sock", "MySQL"),
    (":1433", "SQL Server"),
    (":1521", "Oracle"),
    (":27017", "MongoDB"),
    (":6379", "Redis"),
    ("/redis-server.sock", "Redis"),
    (":11211", "memcached"),
    (":5672", "RabbitMQ"),
    (":9200", "Elasticsearch"),
    (":443", "a web service"),
];

/// What the loop knows at the moment of a sample.
#[derive(Debug)]
pub(in crate::daemon) struct Look {
    pub(in crate::daemon) generation: u64,
    pub(in crate::daemon) wanted: u64,
    pub(in crate::daemon) ready: u64,
    pub(in crate::daemon) turned_away: u64,
    pub(in crate::daemon) alarm: Option<String>,
    pub(in crate::daemon) listeners: Vec<(Address, u64)>,
    /// How many wait in the fullest queue.
    pub(in crate::daemon) waiting: u32,
    /// What workers that have ended had finished.
    pub(in crate::daemon) ended: Finished,
    pub(in crate::daemon) workers: Vec<Recorded>,
}

impl Look {
    /// Whether every worker is there, nobody is served or waits, and nothing was finished since then. False where workers do
    /// not show that.
    pub(super) fn is_as_quiet_as(&self, before: &Counted) -> bool {
        let finished = finished(self).map(|finished| finished.total());
        let is_idle = |worker: &Recorded| worker.requests.as_ref().is_some_and(|requests| requests.busy() == 0);
        finished.is_some()
            && finished == before.finished.as_ref().map(Finished::total)
            && self.turned_away == before.turned_away
            && self.ready >= self.wanted
            && self.waiting == 0
            && self.alarm.is_none()
            && self.workers.iter().all(is_idle)
    }
}

/// What workers have finished; `None` where none shows that.
fn finished(look: &Look) -> Option<Finished> {
    look.workers.iter().filter_map(|worker| worker.requests.as_ref()).fold(None, |sum: Option<Finished>, requests| {
        let mut sum = sum.unwrap_or_else(|| look.ended.clone());
        sum.add(&requests.finished);
        Some(sum)
    })
}

/// Takes a sample.
pub(super) fn sample(look: &Look, unit: Option<&PathBuf>, before: &Counted) -> (Sample, Counted) {
    let now = count(look, unit);
    let mut sample = Sample {
        at_unix_ms: unix_ms(),
        span_ms: ms(now.at.saturating_duration_since(before.at)),
        generation: look.generation,
        wanted: look.wanted,
        ready: look.ready,
        turned_away: now.turned_away.saturating_sub(before.turned_away),
        alarm: look.alarm.clone(),
        memory_bytes: now.account.memory.or_else(|| memory_of(&look.workers)),
        memory_limit_bytes: now.account.memory_max,
        largest: largest(&look.workers),
        cpu_ms: cpu(&now, before),
        throttled_ms: since(now.account.throttled, before.account.throttled).unwrap_or(0),
        cpu_stall_ms: since(now.account.cpu_stall, before.account.cpu_stall),
        io_stall_ms: since(now.account.io_stall, before.account.io_stall),
        memory_stall_ms: since(now.account.memory_stall, before.account.memory_stall),
        ..Sample::default()
    };
    if let (Some(now), Some(before)) = (now.machine, before.machine) {
        sample.machine_cpu_ms = Some(ms(now.busy.saturating_sub(before.busy)));
        sample.steal_ms = ms(now.steal.saturating_sub(before.steal));
        sample.cpus = now.cpus;
    }
    let depths = look.listeners.iter().filter_map(|(address, inode)| queue::depth(address, *inode).ok());
    if let Some(depth) = depths.max_by_key(|depth| u64::from(depth.waiting) * 1000 / u64::from(depth.limit.max(1))) {
        (sample.waiting, sample.queue_limit) = (Some(depth.waiting.into()), Some(depth.limit.into()));
    }
    add_requests(&mut sample, look, &now, before);
    (sample, now)
}

fn count(look: &Look, unit: Option<&PathBuf>) -> Counted {
    let shown = || look.workers.iter().filter_map(|worker| Some((worker, worker.requests.as_ref()?)));
    let account = account(unit.map(PathBuf::as_path));
    // A control group has counted the processor time of all that ever ran in it.
    let measured = look.workers.iter().filter(|_| account.cpu.is_none());
    Counted {
        at: Instant::now(),
        finished: finished(look),
        server_errors: shown().map(|(worker, requests)| (worker.id, requests.finished.server_errors())).collect(),
        turned_away: look.turned_away,
        account,
        cpu: measured.filter_map(|worker| Some((worker.id, cpu_time(worker.pid?)?))).collect(),
        machine: machine(),
    }
}

fn add_requests(sample: &mut Sample, look: &Look, now: &Counted, before: &Counted) {
    if let Some(finished) = &now.finished {
        let finished = before.finished.as_ref().map_or_else(|| finished.clone(), |before| finished.since(before));
        sample.finished = Some(finished.total());
        (sample.server_errors, sample.aborted) = (finished.server_errors(), finished.aborted());
        sample.median_us = finished.quantile(500).map(us);
        sample.percentile_95_us = finished.quantile(950).map(us);
    }
    let mut slow = Vec::new();
    for worker in &look.workers {
        let Some(requests) = &worker.requests else { continue };
        sample.busy += u64::from(requests.busy() > 0);
        sample.in_flight = sample.in_flight.saturating_add(requests.busy());
        let long = requests.in_flight.iter().filter(|request| request.since >= SLOW);
        slow.extend(long.map(|request| (request, worker)));
        let failures = requests.finished.server_errors();
        let known = before.server_errors.get(&worker.id).copied().unwrap_or(0);
        if failures > known && sample.failed.len() < MAX_FAILED {
            sample.failed.extend(requests.last_failure.clone());
        }
    }
    slow.sort_by_key(|(request, _)| std::cmp::Reverse(request.since));
    // What a worker waits for is said of its oldest request alone.
    let mut seen = BTreeSet::new();
    for (request, worker) in slow {
        if sample.slow.len() < MAX_SLOW && seen.insert(worker.id) {
            let has_thread = request.thread.is_some();
            let (waits_for, peer) = worker.pid.map(|pid| waits(pid, has_thread)).unwrap_or_default();
            let (request, for_ms) = (request.request.clone(), ms(request.since));
            sample.slow.push(SlowRequest { worker: worker.id.0, request, for_ms, waits_for, peer });
        }
    }
}

/// What the threads of a busy worker wait for, and on which service. `has_thread`: a thread of its own serves the request.
fn waits(pid: Pid, has_thread: bool) -> (WaitsFor, Option<String>) {
    let mut threads = threads(pid);
    if has_thread && threads.len() > 1 {
        // Another one waits for visitors.
        threads.retain(|thread| !thread.waits_in.as_deref().is_some_and(is_event_loop));
    }
    let kinds: Vec<WaitsFor> =
        threads.iter().map(|thread| waits_for(thread.state, thread.waits_in.as_deref().unwrap_or_default())).collect();
    // One thread of several serves the request: the others of a pool wait for work, at a lock.
    let order = [
        WaitsFor::Continuation,
        WaitsFor::Disk,
        WaitsFor::Nothing,
        WaitsFor::Answer,
        WaitsFor::Time,
        WaitsFor::Lock,
        WaitsFor::Unknown,
    ];
    let waits_for = order.into_iter().find(|kind| kinds.contains(kind)).unwrap_or_default();
    (waits_for, if waits_for == WaitsFor::Answer { service(&connected(pid)) } else { None })
}

/// The functions in which the kernel has epoll_wait(2) wait.
fn is_event_loop(function: &str) -> bool {
    function.contains("ep_poll") || function.contains("epoll")
}

/// By the state of proc_pid_stat(5) and the function of the kernel (proc_pid_wchan(5)).
fn waits_for(state: char, function: &str) -> WaitsFor {
    let is = |parts: &[&str]| parts.iter().any(|part| function.contains(part));
    match state {
        'T' | 't' => WaitsFor::Continuation,
        'D' => WaitsFor::Disk,
        'R' => WaitsFor::Nothing,
        _ if is(&["futex", "lock", "sem", "flock"]) => WaitsFor::Lock,
        _ if is(&["nanosleep"]) => WaitsFor::Time,
        _ if is(&["poll", "select", "wait_woken", "sk_wait", "recvmsg", "stream", "pipe", "tcp", "ep_"]) => {
            WaitsFor::Answer
        }
        _ => WaitsFor::Unknown,
    }
}

/// The service that a worker is connected to and may wait for.
fn service(addresses: &BTreeSet<String>) -> Option<String> {
    let known = addresses.iter().find_map(|address| {
        let (_, name) = SERVICES.iter().find(|(end, _)| address.ends_with(end))?;
        Some(format!("{name} ({address})"))
    });
    // A port that is not chosen by chance is that of a service (ip_local_port_range).
    let port = |address: &&String| address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    known.or_else(|| addresses.iter().find(|address| port(address).is_some_and(|port| port < 32_768)).cloned())
}

fn memory_of(workers: &[Recorded]) -> Option<u64> {
    let resident = workers.iter().take(MAX_MEASURED).filter_map(|worker| resident_memory(worker.pid?));
    resident.reduce(u64::saturating_add)
}

fn largest(workers: &[Recorded]) -> Option<Largest> {
    let held = |worker: &Recorded| {
        let by_group = worker.group.as_ref().and_then(|group| group.usage().memory_held());
        let memory_bytes = by_group.or_else(|| resident_memory(worker.pid?))?;
        let limit_bytes = worker.group.as_ref().map(Group::limits).and_then(|limits| limits.memory_max);
        Some(Largest { worker: worker.id.0, memory_bytes, limit_bytes })
    };
    workers.iter().take(MAX_MEASURED).filter_map(held).max_by_key(|largest| largest.memory_bytes)
}

fn cpu(now: &Counted, before: &Counted) -> Option<u64> {
    if now.account.cpu.is_some() {
        return since(now.account.cpu, before.account.cpu);
    }
    let used = |(id, cpu): (&WorkerId, &Duration)| cpu.saturating_sub(before.cpu.get(id).copied().unwrap_or_default());
    now.cpu.iter().map(used).reduce(|sum, more| sum + more).map(ms)
}

fn since(now: Option<Duration>, before: Option<Duration>) -> Option<u64> {
    Some(ms(now?.saturating_sub(before?)))
}

pub(super) fn unix_ms() -> u64 {
    ms(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
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
    use crate::scoreboard::Requests;

    #[test]
    fn quiet_is_where_nothing_was_finished_and_nobody_waits() {
        let worker = |finished| {
            let requests = Requests { finished: Finished::of_class(2, finished), ..Requests::default() };
            Recorded { id: WorkerId(1), pid: None, group: None, requests: Some(requests) }
        };
        let look = |change: fn(&mut Look)| {
            let mut look = Look {
                generation: 1,
                wanted: 1,
                ready: 1,
                turned_away: 2,
                alarm: None,
                listeners: Vec::new(),
                waiting: 0,
                ended: Finished::of_class(2, 5),
                workers: vec![worker(3)],
            };
            change(&mut look);
            look
        };
        let before = Counted { finished: Some(Finished::of_class(2, 8)), turned_away: 2, ..Counted::default() };
        assert!(look(|_| {}).is_as_quiet_as(&before));
        let changes: [fn(&mut Look); 6] = [
            |look| look.ended = Finished::of_class(2, 6),
            |look| look.turned_away = 3,
            |look| look.wanted = 2,
            |look| look.waiting = 1,
            |look| look.alarm = Some("nothing is left there".to_owned()),
            |look| look.workers[0].requests = None,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(!look(change).is_as_quiet_as(&before), "{number}");
        }
        assert!(!look(|look| look.workers.clear()).is_as_quiet_as(&Counted::default()), "nobody shows anything");
    }

    #[test]
    fn what_a_thread_waits_for_is_read_from_its_state_and_function() {
        for (state, function, expected) in [
            ('R', "", WaitsFor::Nothing),
            ('S', "futex_wait_queue", WaitsFor::Lock),
            ('S', "locks_lock_inode_wait", WaitsFor::Lock),
            ('S', "hrtimer_nanosleep", WaitsFor::Time),
            ('S', "poll_schedule_timeout.constprop.0", WaitsFor::Answer),
            ('S', "wait_woken", WaitsFor::Answer),
            ('S', "unix_stream_read_generic", WaitsFor::Answer),
            ('D', "io_schedule", WaitsFor::Disk),
            ('T', "do_signal_stop", WaitsFor::Continuation),
            ('S', "", WaitsFor::Unknown),
        ] {
            assert_eq!(waits_for(state, function), expected, "{state} {function}");
        }
    }

    #[test]
    fn a_service_is_known_by_its_address_and_a_visitor_is_none() {
        let service = |addresses: &[&str]| service(&addresses.iter().map(|address| (*address).to_owned()).collect());
        assert_eq!(service(&["127.0.0.1:50123", "10.0.0.7:5432"]).as_deref(), Some("PostgreSQL (10.0.0.7:5432)"));
        let unix = "unix:/var/run/postgresql/.s.PGSQL.5432";
        assert_eq!(service(&[unix]), Some(format!("PostgreSQL ({unix})")));
        assert_eq!(service(&["10.0.0.7:8090"]).as_deref(), Some("10.0.0.7:8090"));
        assert_eq!(service(&["127.0.0.1:50123"]), None);
    }
}
