//! Recorded windows, and the cause that each is to be explained by.

use super::{Explanation, explain};
use crate::control::recording::{Entry, Event, EventKind, Largest, Sample, SlowRequest, WaitsFor};

/// 2026-12-01 10:40:00 UTC.
const BEGIN: u64 = 1_796_121_600_000;
const M: u64 = 1 << 20;

/// A second with ten quick requests, three workers, two processors.
fn calm(second: u64) -> Sample {
    Sample {
        at_unix_ms: BEGIN + second * 1000,
        span_ms: 1000,
        generation: 1,
        finished: Some(10),
        median_us: Some(20_000),
        percentile_95_us: Some(50_000),
        wanted: 3,
        ready: 3,
        busy: 1,
        in_flight: 1,
        waiting: Some(0),
        queue_limit: Some(128),
        memory_bytes: Some(120 * M),
        memory_limit_bytes: Some(512 * M),
        largest: Some(Largest { worker: 1, memory_bytes: 40 * M, limit_bytes: None }),
        cpu_ms: Some(100),
        cpu_stall_ms: Some(10),
        io_stall_ms: Some(5),
        memory_stall_ms: Some(0),
        machine_cpu_ms: Some(200),
        cpus: 2,
        ..Sample::default()
    }
}

/// All three workers are busy with this request, which takes longer and longer, and wait for the same.
fn stuck(sample: &mut Sample, second: u64, request: &str, waits_for: WaitsFor, peer: Option<&str>) {
    (sample.busy, sample.in_flight, sample.finished) = (3, 3, Some(0));
    (sample.median_us, sample.percentile_95_us) = (None, None);
    let slow = |worker| SlowRequest {
        worker,
        request: request.to_owned(),
        for_ms: second * 1000 + 600,
        waits_for,
        peer: peer.map(str::to_owned),
    };
    sample.slow = (1..=3).map(slow).collect();
    sample.cpu_ms = Some(10);
}

fn event(second: u64, kind: EventKind, worker: Option<u64>, text: &str) -> Entry {
    let generation = matches!(kind, EventKind::ReloadBegun | EventKind::ReloadDone | EventKind::ReloadRefused);
    let generation = generation.then_some(2);
    Entry::Event(Event { at_unix_ms: BEGIN + second * 1000, kind, worker, generation, text: text.to_owned() })
}

/// A minute of calm, then twenty seconds that are changed, by their number, and what happened.
fn window(change: impl Fn(&mut Sample, u64), events: Vec<Entry>) -> Vec<Entry> {
    let mut entries = vec![event(0, EventKind::Started, None, "sockd started")];
    entries.extend((1..=60).map(|second| Entry::Sample(Box::new(calm(second)))));
    for second in 1..=20 {
        let mut sample = calm(60 + second);
        change(&mut sample, second);
        entries.push(Entry::Sample(Box::new(sample)));
    }
    entries.extend(events);
    entries.sort_by_key(Entry::at_unix_ms);
    entries
}

fn explained(entries: &[Entry]) -> Explanation {
    explain(entries, "web", None, BEGIN + 82_000)
}

fn unchanged(_: &mut Sample, _: u64) {}

#[track_caller]
fn names(id: &str, entries: &[Entry]) -> Explanation {
    let found = explained(entries);
    assert_eq!(found.causes.first().map(|cause| cause.id), Some(id), "{found:#?}");
    assert!(found.is_trouble && !found.causes[0].evidence.is_empty() && !found.causes[0].next.is_empty(), "{found:#?}");
    found
}

#[test]
fn a_calm_time_has_no_cause() {
    let found = explained(&window(unchanged, Vec::new()));
    assert!(!found.is_trouble && found.causes.is_empty() && found.is_recorded, "{found:#?}");
    let nothing = explain(&[], "web", Some(5), BEGIN);
    assert!(!nothing.is_recorded && !nothing.is_trouble, "{nothing:#?}");
}

#[test]
fn a_start_is_no_trouble_and_workers_that_are_missing_later_are() {
    let mut entries = window(unchanged, Vec::new());
    let lacks = |entries: &mut Vec<Entry>, from: u64| {
        for entry in entries {
            if let Entry::Sample(sample) = entry
                && (from..from + 5).contains(&((sample.at_unix_ms - BEGIN) / 1000))
            {
                sample.ready = 1;
            }
        }
    };
    lacks(&mut entries, 1);
    assert!(!explained(&entries).is_trouble);
    lacks(&mut entries, 40);
    assert!(explained(&entries).is_trouble);
}

#[test]
fn what_workers_wait_for_is_the_cause() {
    for (waits_for, peer, id) in [
        (WaitsFor::Answer, Some("PostgreSQL (127.0.0.1:5432)"), "slow-database"),
        (WaitsFor::Answer, Some("10.0.0.7:8090"), "slow-service"),
        (WaitsFor::Answer, None, "slow-service"),
        (WaitsFor::Lock, None, "stuck-lock"),
        (WaitsFor::Disk, None, "slow-disk"),
        (WaitsFor::Time, None, "sleeping"),
        (WaitsFor::Continuation, None, "workers-hang"),
    ] {
        let found =
            names(id, &window(|sample, second| stuck(sample, second, "GET /report", waits_for, peer), Vec::new()));
        assert!(found.causes[0].evidence.iter().any(|line| line.contains("GET /report")), "{found:#?}");
        assert_eq!((found.from_unix_ms - BEGIN, found.to_unix_ms - BEGIN), (61_000, 80_000), "{id}");
        assert!(found.before.is_some_and(|before| before.rate.is_some_and(|rate| (rate - 10.0).abs() < 0.5)));
    }
}

#[test]
fn a_lock_is_more_likely_than_the_hang_that_comes_of_it() {
    let hangs = (1..=3).map(|worker| event(75, EventKind::WorkerHangs, Some(worker), "worker hangs: no heartbeat"));
    let change = |sample: &mut Sample, second| stuck(sample, second, "GET /export", WaitsFor::Lock, None);
    names("stuck-lock", &window(change, hangs.collect()));
}

#[test]
fn memory_that_grows_is_a_leak_and_memory_that_is_gone_at_once_is_none() {
    let grows = |sample: &mut Sample, second: u64| {
        sample.memory_bytes = Some((120 + 18 * second) * M);
        sample.largest = Some(Largest { worker: 2, memory_bytes: (40 + 18 * second) * M, limit_bytes: None });
    };
    let killed = || event(80, EventKind::OutOfMemory, Some(2), "worker 2 died: killed by the kernel: out of memory");
    let found = names("memory-leak", &window(grows, vec![killed()]));
    assert!(
        found.causes[0].evidence.iter().any(|line| line == "worker 2 grew from 58M to 400M within 19 s"),
        "{found:#?}"
    );
    names("memory-leak", &window(grows, vec![event(80, EventKind::WorkerTooBig, Some(2), "worker 2 holds 400M")]));
    names("out-of-memory", &window(unchanged, vec![killed()]));
    names("out-of-memory", &window(|sample, _| sample.memory_bytes = Some(500 * M), Vec::new()));
    names("memory-pressure", &window(|sample, _| sample.memory_stall_ms = Some(500), Vec::new()));
}

#[test]
fn too_many_visitors_are_a_spike_or_too_few_workers() {
    let full = |rate: u64| {
        move |sample: &mut Sample, _| {
            (sample.busy, sample.in_flight, sample.waiting, sample.finished) = (3, 3, Some(40), Some(rate));
        }
    };
    names("traffic-spike", &window(full(60), Vec::new()));
    names("too-few-workers", &window(full(14), Vec::new()));
}

#[test]
fn a_processor_is_burnt_or_taken() {
    let slow = |sample: &mut Sample| {
        (sample.busy, sample.in_flight) = (3, 3);
        (sample.median_us, sample.percentile_95_us, sample.finished) = (Some(900_000), Some(1_400_000), Some(2));
    };
    let burns = |sample: &mut Sample, second| {
        stuck(sample, second, "GET /image", WaitsFor::Nothing, None);
        (sample.cpu_ms, sample.machine_cpu_ms, sample.cpu_stall_ms) = (Some(1900), Some(2000), Some(700));
    };
    names("application-cpu", &window(burns, Vec::new()));
    let neighbour = |sample: &mut Sample, _| {
        slow(sample);
        (sample.cpu_ms, sample.machine_cpu_ms, sample.cpu_stall_ms) = (Some(300), Some(2000), Some(900));
    };
    names("cpu-neighbour", &window(neighbour, Vec::new()));
    let quota = |sample: &mut Sample, _| {
        slow(sample);
        sample.throttled_ms = 600;
    };
    names("cpu-quota", &window(quota, Vec::new()));
    let stolen = |sample: &mut Sample, _| {
        slow(sample);
        sample.steal_ms = 900;
    };
    names("cpu-stolen", &window(stolen, Vec::new()));
    // A neighbour that was there before has harmed nobody then.
    let mut always = window(neighbour, Vec::new());
    for entry in &mut always {
        if let Entry::Sample(sample) = entry {
            (sample.machine_cpu_ms, sample.cpu_stall_ms) = (Some(2000), Some(900));
        }
    }
    assert!(!explained(&always).causes.iter().any(|cause| cause.id == "cpu-neighbour"));
}

#[test]
fn a_slow_disk_is_seen_by_its_pressure_alone() {
    let change = |sample: &mut Sample, _| {
        (sample.io_stall_ms, sample.percentile_95_us, sample.busy, sample.in_flight) =
            (Some(700), Some(2_500_000), 3, 3);
    };
    names("slow-disk", &window(change, Vec::new()));
}

#[test]
fn new_code_that_fails_is_a_broken_deploy_and_code_that_failed_before_is_none() {
    let fails = |sample: &mut Sample, second: u64| {
        if second > 2 {
            sample.generation = 2;
            (sample.server_errors, sample.failed) = (5, vec!["GET /shop".to_owned()]);
        }
    };
    let reload = || {
        vec![
            event(61, EventKind::ReloadBegun, None, "reload to generation 2"),
            event(62, EventKind::ReloadDone, None, "generation 2 has taken over"),
        ]
    };
    let found = names("broken-deploy", &window(fails, reload()));
    assert!(found.causes[0].advice.contains("sockd rollback web"), "{found:#?}");
    names("failing-url", &window(fails, Vec::new()));
    let mut before = window(fails, reload());
    for entry in &mut before {
        if let Entry::Sample(sample) = entry {
            sample.server_errors = 5;
        }
    }
    assert_ne!(explained(&before).causes.first().map(|cause| cause.id), Some("broken-deploy"));
    let refused = event(70, EventKind::ReloadRefused, None, "reload refused: ModuleNotFoundError: shop");
    names("broken-deploy", &window(unchanged, vec![refused]));
}

#[test]
fn what_the_core_has_seen_is_believed() {
    let died = |second, worker| event(second, EventKind::WorkerDied, Some(worker), "worker died: killed by SIGSEGV");
    let found = names("workers-crash", &window(unchanged, vec![died(70, 1), died(75, 4)]));
    assert_eq!(found.causes[0].next, "sockd logs web --worker 4");
    let nobody = |sample: &mut Sample, _| {
        (sample.ready, sample.busy, sample.in_flight, sample.finished, sample.turned_away) = (0, 0, 0, Some(0), 10);
    };
    let cannot = vec![
        event(61, EventKind::WorkerNotReady, Some(5), "worker 5 could not start: ModuleNotFoundError: shop"),
        event(61, EventKind::Answering503, None, "ModuleNotFoundError: shop"),
    ];
    names("cannot-start", &window(nobody, cannot));
    let half = |worker| event(65, EventKind::WorkerUnhealthy, Some(worker), "worker is not well: no answer");
    assert_eq!(names("workers-hang", &window(unchanged, vec![half(1), half(2)])).causes[0].what, "2 of 3 workers hung");
    names("stood-still", &window(unchanged, vec![event(70, EventKind::StoodStill, None, "sockd stood still")]));
    names("on-purpose", &window(nobody, vec![event(61, EventKind::MaintenanceBegun, None, "maintenance")]));
    let alarm = |sample: &mut Sample, _| sample.alarm = Some("the path of web.sock leads nowhere".to_owned());
    names("unreachable", &window(alarm, Vec::new()));
}

#[test]
fn a_sockd_that_nobody_had_stopped_has_ended_and_one_that_was_stopped_has_not() {
    let again = |second| event(second, EventKind::Started, None, "sockd started");
    names("sockd-ended", &window(unchanged, vec![again(90)]));
    let stopped = event(81, EventKind::Stopping, None, "the service stops");
    let found = explained(&window(unchanged, vec![stopped, again(90)]));
    assert!(found.causes.is_empty(), "{found:#?}");
}

#[test]
fn one_url_that_fails_is_named_and_many_are_not() {
    let failing = |urls: &'static [&'static str]| {
        move |sample: &mut Sample, second: u64| {
            sample.server_errors = 4;
            sample.failed = vec![urls[second as usize % urls.len()].to_owned()];
        }
    };
    let found = names("failing-url", &window(failing(&["GET /pay"]), Vec::new()));
    assert_eq!(found.causes[0].what, "GET /pay fails");
    names("failing", &window(failing(&["GET /a", "GET /b", "GET /c"]), Vec::new()));
}

#[test]
fn visitors_who_stay_away_are_noticed_and_a_site_that_few_visit_is_not() {
    let silent = |sample: &mut Sample, _| {
        (sample.finished, sample.busy, sample.in_flight) = (Some(0), 0, 0);
        (sample.median_us, sample.percentile_95_us) = (None, None);
    };
    let entries = window(silent, Vec::new());
    let found = explain(&entries, "web", None, BEGIN + 120_000);
    assert_eq!(found.causes.first().map(|cause| cause.id), Some("traffic-stopped"), "{found:#?}");
    assert!(explain(&entries, "web", None, BEGIN + 81_000).causes.is_empty(), "too early");
    let mut few = entries;
    for entry in &mut few {
        if let Entry::Sample(sample) = entry {
            sample.finished = sample.finished.map(|_| u64::from(sample.at_unix_ms % 30_000 == 0));
        }
    }
    assert!(explain(&few, "web", None, BEGIN + 200_000).causes.is_empty());
}

#[test]
fn the_trouble_that_is_nearest_to_the_moment_is_explained() {
    let mut entries = window(|sample, second| stuck(sample, second, "GET /report", WaitsFor::Lock, None), Vec::new());
    entries.extend((81..=200).map(|second| Entry::Sample(Box::new(calm(second)))));
    entries.push(event(190, EventKind::ReloadRefused, None, "reload refused"));
    let at = |second: u64| explain(&entries, "web", Some(BEGIN + second * 1000), BEGIN + 201_000);
    let id = |second| at(second).causes.first().map(|cause| cause.id);
    assert_eq!(id(65), Some("stuck-lock"));
    assert_eq!(id(100), Some("stuck-lock"), "what is near");
    assert_eq!(id(188), Some("broken-deploy"));
    assert_eq!(explain(&entries, "web", None, BEGIN + 201_000).causes[0].id, "broken-deploy", "the last one");
    assert!(at(5000).causes.is_empty() && !at(5000).is_recorded);
    entries.retain(|entry| matches!(entry, Entry::Sample(_)));
    let calm = explain(&entries, "web", Some(BEGIN + 10_000), BEGIN + 201_000);
    assert!(!calm.is_trouble || calm.from_unix_ms > BEGIN + 10_000, "{calm:#?}");
}
