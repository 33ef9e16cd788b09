//! Metrics: the status of instances as text for Prometheus, and for whatever else reads its format.
//!
//! Owns: which metrics there are, their names, labels and units. They are what dashboards and alerts are written for: a name
//! or a label that was once released stays. No label holds a path of a visitor or a worker's number: how many series there
//! are is bounded by the sockets of an instance.
//! Never: asks anyone anything.
#![forbid(unsafe_code)]

mod text;

pub use self::text::Format;
use self::text::{Family, Kind, Samples, Unit};
use crate::control::Status;
use crate::control::message::{Listener, ReloadState, Worker, WorkerState};

/// An instance, as it is measured.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    /// The label `unit`; empty where there is no unit: then there is no label.
    pub unit: String,
    /// What it says of itself; `None` where it could not be asked.
    pub status: Option<&'a Status>,
}

/// The metrics of these instances.
pub fn text(instances: &[Instance<'_>], format: Format) -> String {
    let mut text = text::Writer::new(format);
    for (family, read) in &FAMILIES {
        let mut samples = Samples::of(family);
        for instance in instances {
            samples.of_unit(&instance.unit);
            match read {
                Read::Reachable => samples.add(&[], u8::from(instance.status.is_some())),
                Read::Status(read) => instance.status.iter().for_each(|status| read(status, &mut samples)),
            }
        }
        text.write(family, samples);
    }
    text.finish()
}

/// Where the samples of a family come from.
enum Read {
    /// Whether the instance answered.
    Reachable,
    /// What it answered.
    Status(fn(&Status, &mut Samples)),
}

const fn gauge(name: &'static str, unit: Unit, help: &'static str, read: fn(&Status, &mut Samples)) -> (Family, Read) {
    (Family { name, kind: Kind::Gauge, unit, help }, Read::Status(read))
}

const fn counter(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    read: fn(&Status, &mut Samples),
) -> (Family, Read) {
    (Family { name, kind: Kind::Counter, unit, help }, Read::Status(read))
}

/// Every family, in the order of the text. Counters begin at the start of the instance's sockd, and survive everything but
/// its end.
const FAMILIES: [(Family, Read); 31] = [
    (
        Family { name: "sockd_up", kind: Kind::Gauge, unit: Unit::None, help: "Whether the instance could be asked." },
        Read::Reachable,
    ),
    gauge("sockd_start_time_seconds", Unit::Seconds, "When sockd started, since 1970.", |status, samples| {
        samples.add(&[], thousandths(status.started_unix_ms));
    }),
    gauge("sockd_generation", Unit::None, "The number of the generation that serves.", |status, samples| {
        samples.add(&[], status.generation);
    }),
    gauge("sockd_workers_wanted", Unit::None, "How many workers are wanted at this moment.", |status, samples| {
        samples.add(&[], status.wanted_workers);
    }),
    gauge("sockd_workers", Unit::None, "Workers by where they are in their life.", workers),
    gauge(
        "sockd_slots_backing_off",
        Unit::None,
        "Places in the pool whose worker died and is tried again later.",
        |status, samples| samples.add(&[], status.slots.iter().filter(|slot| slot.retry_in_ms.is_some()).count()),
    ),
    gauge(
        "sockd_workers_memory_bytes",
        Unit::Bytes,
        "Memory of all workers, where it can be read.",
        |status, samples| {
            let memory = status.workers.iter().filter_map(|worker| worker.memory_bytes);
            samples.add(&[], memory.fold(0, u64::saturating_add));
        },
    ),
    gauge("sockd_workers_busy", Unit::None, "Workers that serve a request.", |status, samples| {
        if status.requests.is_some() {
            samples.add(&[], served(status).filter(|requests| **requests > 0).count());
        }
    }),
    gauge("sockd_requests_in_flight", Unit::None, "Requests that are served, WebSockets aside.", |status, samples| {
        if status.requests.is_some() {
            samples.add(&[], served(status).fold(0, |sum: u64, busy| sum.saturating_add(*busy)));
        }
    }),
    gauge("sockd_websockets", Unit::None, "WebSockets that are open.", |status, samples| {
        if status.requests.is_some() {
            let open = status.workers.iter().filter_map(|worker| Some(worker.requests.as_ref()?.websockets));
            samples.add(&[], open.fold(0, u64::saturating_add));
        }
    }),
    counter(
        "sockd_responses",
        Unit::None,
        "Requests that workers finished, by the hundreds of the status (none: the visitor left, unknown: the server does not \
         tell) and the generation; 1-4: generations 1 to 4 together.",
        responses,
    ),
    (
        Family {
            name: "sockd_response_seconds",
            kind: Kind::Histogram,
            unit: Unit::Seconds,
            help: "How long the requests took that workers finished.",
        },
        Read::Status(durations),
    ),
    counter("sockd_worker_starts", Unit::None, "Workers that were started, canaries among them.", |status, samples| {
        status.counts.iter().for_each(|counts| samples.add(&[], counts.worker_starts));
    }),
    counter(
        "sockd_worker_restarts",
        Unit::None,
        "Workers that were started because the one before had died.",
        |status, samples| status.counts.iter().for_each(|counts| samples.add(&[], counts.worker_restarts)),
    ),
    counter(
        "sockd_worker_exits",
        Unit::None,
        "Workers that ended, by the reason: asked, retired, unhealthy, hang, oom, signal, exit, start.",
        worker_exits,
    ),
    counter(
        "sockd_worker_kills",
        Unit::None,
        "Workers that did not leave in time and were killed.",
        |status, samples| status.counts.iter().for_each(|counts| samples.add(&[], counts.worker_kills)),
    ),
    counter("sockd_reloads", Unit::None, "Reloads that ended, by the result: ok, refused.", |status, samples| {
        if let Some(counts) = &status.counts {
            samples.add(&[("result", "ok")], counts.reloads.ok);
            samples.add(&[("result", "refused")], counts.reloads.refused);
        }
    }),
    gauge("sockd_reloading", Unit::None, "Whether a reload is under way.", |status, samples| {
        samples.add(&[], u8::from(status.reload.state != ReloadState::Idle));
    }),
    gauge(
        "sockd_reload_refused",
        Unit::None,
        "Whether the last reload was refused: what lies on the disk is not what serves.",
        |status, samples| samples.add(&[], u8::from(status.reload.last_refused.is_some())),
    ),
    gauge(
        "sockd_fallback",
        Unit::None,
        "Whether sockd itself answers visitors with 503, because no worker can serve.",
        |status, samples| samples.add(&[], u8::from(status.fallback)),
    ),
    gauge(
        "sockd_drained",
        Unit::None,
        "Whether balancers hear that the instance takes no visitors, because somebody wants so.",
        |status, samples| samples.add(&[], u8::from(status.balancers.is_drained)),
    ),
    gauge(
        "sockd_maintenance",
        Unit::None,
        "Whether somebody has switched maintenance on: visitors get 503.",
        |status, samples| samples.add(&[], u8::from(status.maintenance.is_some())),
    ),
    gauge(
        "sockd_paused",
        Unit::None,
        "Whether visitors wait because somebody has paused the instance.",
        |status, samples| samples.add(&[], u8::from(status.pause.is_some())),
    ),
    counter("sockd_fallback_responses", Unit::None, "Answers of 503 by sockd itself.", |status, samples| {
        status.counts.iter().for_each(|counts| samples.add(&[], counts.fallback_responses));
    }),
    gauge(
        "sockd_queue_connections",
        Unit::None,
        "Connections that wait to be accepted, by the socket.",
        |status, samples| listeners(status, samples, |listener| listener.waiting.map(u64::from)),
    ),
    gauge("sockd_queue_limit", Unit::None, "How many connections may wait, by the socket.", |status, samples| {
        listeners(status, samples, |listener| listener.backlog.map(u64::from));
    }),
    gauge(
        "sockd_connections",
        Unit::None,
        "Connections that are accepted and not closed, by the socket.",
        |status, samples| listeners(status, samples, |listener| listener.in_flight.map(u64::from)),
    ),
    gauge(
        "sockd_listener_lost",
        Unit::None,
        "Whether the path of a socket leads elsewhere, so that nobody can connect.",
        |status, samples| listeners(status, samples, |listener| Some(listener.alarm.is_some().into())),
    ),
    gauge("sockd_templates_memory_bytes", Unit::Bytes, "Memory of the templates.", |status, samples| {
        let memory = status.templates.iter().filter_map(|template| template.memory_bytes);
        samples.add(&[], memory.fold(0, u64::saturating_add));
    }),
    gauge("sockd_supervisor_memory_bytes", Unit::Bytes, "Memory of sockd itself.", |status, samples| {
        status.supervisor.memory_bytes.iter().for_each(|memory| samples.add(&[], memory));
    }),
    counter("sockd_supervisor_cpu_seconds", Unit::Seconds, "Processor time of sockd itself.", |status, samples| {
        status.supervisor.cpu_ms.iter().for_each(|cpu| samples.add(&[], thousandths(*cpu)));
    }),
];

fn workers(status: &Status, samples: &mut Samples) {
    for (state, name) in [
        (WorkerState::Starting, "starting"),
        (WorkerState::Ready, "ready"),
        (WorkerState::Draining, "draining"),
        (WorkerState::Terminating, "terminating"),
        (WorkerState::Killing, "killing"),
    ] {
        let in_state = |worker: &&Worker| worker.state == state;
        samples.add(&[("state", name)], status.workers.iter().filter(in_state).count());
    }
}

fn worker_exits(status: &Status, samples: &mut Samples) {
    let Some(exits) = status.counts.map(|counts| counts.worker_exits) else { return };
    for (reason, count) in [
        ("asked", exits.asked),
        ("retired", exits.retired),
        ("unhealthy", exits.unhealthy),
        ("hang", exits.hang),
        ("oom", exits.oom),
        ("signal", exits.signal),
        ("exit", exits.exit),
        ("start", exits.start),
    ] {
        samples.add(&[("reason", reason)], count);
    }
}

/// How many requests each worker serves that shows them.
fn served(status: &Status) -> impl Iterator<Item = &u64> {
    status.workers.iter().filter_map(|worker| Some(&worker.requests.as_ref()?.busy))
}

/// A generation that is not distinguished any more moves into a series that was not there before, with the ones before it: no
/// series jumps, so that `sum by (code) (rate(…))` is right, and the sum over all never falls.
fn responses(status: &Status, samples: &mut Samples) {
    for row in status.requests.iter().flat_map(|requests| &requests.by_generation) {
        let generation = match row.and_before && row.generation > 1 {
            true => format!("1-{}", row.generation),
            false => row.generation.to_string(),
        };
        if let Some(count) = row.unclassified {
            samples.add(&[("code", "unknown"), ("generation", &generation)], count);
        }
        let known =
            row.informational | row.successful | row.redirected | row.client_errors | row.server_errors | row.aborted;
        // What is not known is not 0.
        if row.unclassified.is_some() && known == 0 {
            continue;
        }
        for (code, count) in [
            ("1xx", row.informational),
            ("2xx", row.successful),
            ("3xx", row.redirected),
            ("4xx", row.client_errors),
            ("5xx", row.server_errors),
            ("none", row.aborted),
        ] {
            samples.add(&[("code", code), ("generation", &generation)], count);
        }
    }
}

fn durations(status: &Status, samples: &mut Samples) {
    let Some(durations) = status.requests.as_ref().and_then(|requests| requests.durations.as_ref()) else { return };
    for bucket in &durations.buckets {
        samples.add_part("_bucket", &[("le", &(bucket.up_to_ns as f64 / 1e9).to_string())], bucket.count);
    }
    samples.add_part("_bucket", &[("le", "+Inf")], durations.count);
    samples.add_part("_count", &[], durations.count);
    samples.add_part("_sum", &[], durations.sum_us as f64 / 1e6);
}

/// A value of each socket: by its place in the order they were received, as several may have one name, and by its name where
/// that is none of sockd's own making, which is the address.
fn listeners(status: &Status, samples: &mut Samples, value: fn(&Listener) -> Option<u64>) {
    for (place, listener) in status.listeners.iter().enumerate() {
        let Some(value) = value(listener) else { continue };
        let place = place.to_string();
        let name = if listener.name == listener.address { "" } else { &listener.name };
        samples.add(&[("listener", &place), ("name", name)], value);
    }
}

/// Milliseconds as seconds.
fn thousandths(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::{Counts, Reloads, Slot, WorkerExits};
    use crate::control::requests::{Bucket, Durations, GenerationRequests, Requests, WorkerRequests};

    fn status() -> Status {
        let worker = |state, busy| Worker {
            state,
            memory_bytes: Some(1 << 20),
            requests: Some(WorkerRequests { busy, ..WorkerRequests::default() }),
            ..Worker::default()
        };
        let listener = |name: &str, address: &str, waiting| Listener {
            name: name.to_owned(),
            address: address.to_owned(),
            waiting,
            backlog: Some(4096),
            ..Listener::default()
        };
        Status {
            started_unix_ms: 1_700_000_000_250,
            generation: 5,
            wanted_workers: 2,
            workers: vec![
                worker(WorkerState::Ready, 3),
                worker(WorkerState::Ready, 0),
                worker(WorkerState::Draining, 0),
            ],
            slots: vec![Slot { retry_in_ms: Some(5), ..Slot::default() }],
            listeners: vec![
                listener("web.socket", "unix:/run/web.sock", Some(7)),
                listener("unix:/run/own.sock", "unix:/run/own.sock", None),
            ],
            requests: Some(Requests {
                by_generation: vec![
                    GenerationRequests { generation: 3, and_before: true, successful: 9, ..Default::default() },
                    GenerationRequests { generation: 5, server_errors: 2, aborted: 1, ..Default::default() },
                ],
                durations: Some(Durations {
                    buckets: vec![Bucket { up_to_ns: 1 << 18, count: 4 }, Bucket { up_to_ns: 1 << 36, count: 12 }],
                    count: 12,
                    sum_us: 2_500_000,
                }),
                ..Requests::default()
            }),
            counts: Some(Counts {
                worker_starts: 8,
                worker_exits: WorkerExits { oom: 1, ..WorkerExits::default() },
                reloads: Reloads { ok: 4, refused: 2 },
                ..Counts::default()
            }),
            ..Status::default()
        }
    }

    fn of(unit: &str, status: &Status, format: Format) -> String {
        text(&[Instance { unit: unit.to_owned(), status: Some(status) }], format)
    }

    #[test]
    fn every_family_has_its_labels() {
        let text = of("web.service", &status(), Format::OpenMetrics);
        for line in [
            "sockd_up{unit=\"web.service\"} 1",
            "sockd_start_time_seconds{unit=\"web.service\"} 1700000000.25",
            "sockd_workers{unit=\"web.service\",state=\"ready\"} 2",
            "sockd_workers{unit=\"web.service\",state=\"killing\"} 0",
            "sockd_workers_busy{unit=\"web.service\"} 1",
            "sockd_requests_in_flight{unit=\"web.service\"} 3",
            "sockd_workers_memory_bytes{unit=\"web.service\"} 3145728",
            "sockd_slots_backing_off{unit=\"web.service\"} 1",
            "sockd_responses_total{unit=\"web.service\",code=\"2xx\",generation=\"1-3\"} 9",
            "sockd_responses_total{unit=\"web.service\",code=\"5xx\",generation=\"5\"} 2",
            "sockd_responses_total{unit=\"web.service\",code=\"none\",generation=\"5\"} 1",
            "sockd_response_seconds_bucket{unit=\"web.service\",le=\"0.000262144\"} 4",
            "sockd_response_seconds_bucket{unit=\"web.service\",le=\"68.719476736\"} 12",
            "sockd_response_seconds_bucket{unit=\"web.service\",le=\"+Inf\"} 12",
            "sockd_response_seconds_count{unit=\"web.service\"} 12",
            "sockd_response_seconds_sum{unit=\"web.service\"} 2.5",
            "sockd_worker_starts_total{unit=\"web.service\"} 8",
            "sockd_worker_exits_total{unit=\"web.service\",reason=\"oom\"} 1",
            "sockd_reloads_total{unit=\"web.service\",result=\"refused\"} 2",
            "sockd_queue_connections{unit=\"web.service\",listener=\"0\",name=\"web.socket\"} 7",
            "sockd_queue_limit{unit=\"web.service\",listener=\"1\"} 4096",
            "# TYPE sockd_responses counter",
            "# TYPE sockd_response_seconds histogram",
            "# UNIT sockd_response_seconds seconds",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n") && !text.contains("/run/"), "{text}");
        // What the kernel does not tell is not 0.
        assert!(!text.contains("sockd_queue_connections{unit=\"web.service\",listener=\"1\""), "{text}");
    }

    #[test]
    fn each_family_stands_in_one_piece_with_the_samples_of_all_instances() {
        let (status, silent) = (status(), Instance { unit: "silent.service".to_owned(), status: None });
        let instance = |unit: &str| Instance { unit: unit.to_owned(), status: Some(&status) };
        let text = text(&[instance("a.service"), silent, instance("b.service")], Format::Prometheus);
        assert!(text.contains("sockd_up{unit=\"silent.service\"} 0\n"), "{text}");
        assert_eq!(text.matches("silent.service").count(), 1, "nothing else is known of it: {text}");
        let mut heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let count = heads.len();
        heads.sort_unstable();
        heads.dedup();
        assert!(count > 20 && heads.len() == count, "{text}");
        assert!(text.contains("# TYPE sockd_reloads_total counter\n"), "{text}");
    }

    #[test]
    fn a_supervisor_that_counts_nothing_has_no_zeros() {
        let text = of("", &Status::default(), Format::Prometheus);
        assert!(text.contains("\nsockd_up 1\n"), "{text}");
        for absent in ["sockd_responses", "sockd_response_seconds", "sockd_worker_exits", "sockd_workers_busy"] {
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
    }

    #[test]
    fn what_a_server_does_not_tell_is_no_zero() {
        let row = |unclassified| GenerationRequests { generation: 2, unclassified, ..GenerationRequests::default() };
        let of_row = |row| {
            let requests = Some(Requests { by_generation: vec![row], ..Requests::default() });
            of("web.service", &Status { requests, ..Status::default() }, Format::Prometheus)
        };
        for count in [0, 7] {
            let text = of_row(row(Some(count)));
            let said: Vec<_> = text.lines().filter(|line| line.starts_with("sockd_responses_total")).collect();
            let labels = "unit=\"web.service\",code=\"unknown\",generation=\"2\"";
            assert_eq!(said, [format!("sockd_responses_total{{{labels}}} {count}")]);
            assert!(!text.contains("sockd_response_seconds_"), "{text}");
        }
        assert!(of_row(row(None)).contains("code=\"5xx\""));
    }

    #[test]
    fn a_name_cannot_end_its_quotes() {
        let text = of("a\"b\\c\nd", &Status::default(), Format::Prometheus);
        assert!(text.contains("\nsockd_up{unit=\"a\\\"b\\\\c\\nd\"} 1\n"), "{text}");
    }

    /// What is bounded: series by reasons, states, codes, generations and sockets, and by nothing that visitors or the number
    /// of workers decide.
    #[test]
    fn a_thousand_workers_make_no_more_series_than_three() {
        let mut many = status();
        many.workers = (0..1000).map(|id| Worker { id, ..many.workers[0].clone() }).collect();
        assert_eq!(
            of("", &many, Format::Prometheus).lines().count(),
            of("", &status(), Format::Prometheus).lines().count()
        );
    }

    #[test]
    fn names_are_as_openmetrics_wants_them() {
        for (family, _) in &FAMILIES {
            let ends = match family.unit {
                Unit::None => "",
                Unit::Seconds => "_seconds",
                Unit::Bytes => "_bytes",
            };
            assert!(family.name.starts_with("sockd_") && family.name.ends_with(ends), "{}", family.name);
            assert!(!family.name.ends_with("_total") && !family.help.contains(['\\', '\n']), "{}", family.name);
        }
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::wanted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::wanted("*/*"), Format::Prometheus);
        assert_eq!(Format::wanted(""), Format::Prometheus);
    }

    /// Rules and dashboard that are shipped name no metric that there is not.
    #[test]
    fn what_is_shipped_for_prometheus_names_what_there_is() {
        let shipped = [
            include_str!("../../packaging/monitoring/sockd.rules.yml"),
            include_str!("../../packaging/monitoring/sockd.rules.test.yml"),
            include_str!("../../packaging/monitoring/sockd-dashboard.json"),
        ];
        let mut seen = 0;
        for word in shipped.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')) {
            if word.starts_with("sockd_") {
                let is_of = |family: &Family| match family.kind {
                    Kind::Gauge => word == family.name,
                    Kind::Counter => word.strip_suffix("_total") == Some(family.name),
                    Kind::Histogram => {
                        ["_bucket", "_count", "_sum"].iter().any(|end| word.strip_suffix(end) == Some(family.name))
                    }
                };
                assert!(FAMILIES.iter().any(|(family, _)| is_of(family)), "{word}");
                seen += 1;
            }
        }
        assert!(seen > 50, "{seen}");
    }
}
