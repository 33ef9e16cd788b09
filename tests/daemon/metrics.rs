//! What is answered on the status socket, and to whom: over reloads and deaths, to scrapers that misbehave, and where its
//! address is taken.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::http::Address;
use super::instance::Instance;
use super::processes;
use super::programs;
use super::python::{bin, project};
use super::transcript::{Mark, PATIENCE, START};
use sockd::status_socket::{MAX_CLIENTS, MIN_PLACE_TIME};

/// The first worker starts with sockd; the port is the kernel's choice.
pub const STATUS: &str = "--start at-once --status-listen 127.0.0.1:0";

/// Where the log says that the status socket is.
pub fn served_on(web: &Instance, since: Mark) -> Address {
    let line = web.log_since(since, "metrics are served on ").text;
    let (_, rest) = line.split_once("metrics are served on ").expect("it is in it");
    let address = rest.split(' ').next().expect("an address");
    match address.strip_prefix("unix:") {
        Some(path) => Address::Unix(path.into()),
        None => Address::Tcp(address.parse().expect("an address")),
    }
}

/// The samples of a text, by name and labels.
#[derive(Clone, Debug)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub fn scrape(address: &Address) -> Self {
        let response = address.get("/metrics").expect("an answer");
        assert_eq!(response.status, 200, "{}", response.body);
        let samples = response.body.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(samples.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect())
    }

    /// The sum of all samples of this name that have this in their labels.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let of_name =
            |sample: &str| sample.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
        self.0.iter().filter(|(sample, _)| of_name(sample) && sample.contains(label)).map(|(_, value)| value).sum()
    }

    /// No counter and no bucket is less than it was, and neither is the sum over the generations.
    fn assert_grown_from(&self, before: &Self) {
        let counts = |sample: &str| {
            let name = sample.split('{').next().unwrap_or_default();
            ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end))
        };
        for (sample, value) in before.0.iter().filter(|(sample, _)| counts(sample)) {
            // A generation that is folded into those before it has no series any more.
            if let Some(now) = self.0.get(sample) {
                assert!(now >= value, "{sample} fell from {value} to {now}");
            } else {
                assert!(sample.starts_with("sockd_responses_total"), "{sample} is gone");
            }
        }
        for code in ["1xx", "2xx", "3xx", "4xx", "5xx", "none"] {
            let label = format!("code=\"{code}\"");
            assert!(self.sum("sockd_responses_total", &label) >= before.sum("sockd_responses_total", &label), "{code}");
        }
    }
}

/// Scrapes until it is as it should be; whatever is seen meanwhile has grown.
fn scrape_until(web: &Instance, address: &Address, what: &str, mut is: impl FnMut(&Samples) -> bool) -> Samples {
    let mut last: Option<Samples> = None;
    web.until(what, || {
        let now = Samples::scrape(address);
        last.iter().for_each(|last| now.assert_grown_from(last));
        last = Some(now.clone());
        is(&now).then_some(now)
    })
}

#[test]
fn counters_only_grow_and_their_sums_are_what_was_sent_over_reloads_and_deaths() {
    let web = project().options(STATUS).config("[reload]\nsoak = \"100ms\"\n");
    let web = web.gunicorn(&["--workers", "2"]);
    let address = served_on(&web, START);
    let mut sent = 0.0;
    let mut before =
        scrape_until(&web, &address, "two workers", |now| now.sum("sockd_workers", "state=\"ready\"") == 2.0);
    for round in 1..=5_u32 {
        for _ in 0..round {
            assert_eq!(web.get("/").status, 200);
            sent += 1.0;
        }
        let (_, outcome) = web.reload();
        assert!(outcome.ok, "{outcome:?}");
        let now = scrape_until(&web, &address, "the reload and what was sent before it", |now| {
            now.sum("sockd_reloads_total", "result=\"ok\"") == f64::from(round)
                && now.sum("sockd_responses_total", "code=\"2xx\"") == sent
        });
        now.assert_grown_from(&before);
        assert_eq!(now.sum("sockd_response_seconds_count", ""), sent);
        assert_eq!(now.sum("sockd_response_seconds_bucket", "le=\"+Inf\""), sent);
        assert!(now.sum("sockd_response_seconds_sum", "") > 0.0, "{now:?}");
        before = now;
    }
    // The three newest that have served, and those before them together.
    let generations: std::collections::BTreeSet<&str> = before
        .0
        .keys()
        .filter_map(|sample| sample.strip_prefix("sockd_responses_total{")?.split("generation=").nth(1))
        .collect();
    assert!(generations.len() == 4 && generations.iter().any(|name| name.starts_with("\"1-")), "{generations:?}");

    let died = before.sum("sockd_worker_exits_total", "reason=\"signal\"");
    processes::signal(web.ready_worker(), Signal::KILL);
    let now = scrape_until(&web, &address, "a death", |now| {
        now.sum("sockd_worker_exits_total", "reason=\"signal\"") == died + 1.0
            && now.sum("sockd_workers", "state=\"ready\"") == 2.0
    });
    now.assert_grown_from(&before);
    assert_eq!(now.sum("sockd_worker_restarts_total", ""), 1.0);
    assert_eq!(now.sum("sockd_responses_total", ""), sent, "what the dead had served is not forgotten");
    // Each that was started lives or is counted once.
    let living = now.sum("sockd_workers", "");
    assert_eq!(now.sum("sockd_worker_starts_total", ""), now.sum("sockd_worker_exits_total", "") + living, "{now:?}");
    web.stop();
}

#[test]
fn workers_that_do_not_start_and_hang_are_counted_by_that() {
    let web = project().options(STATUS).gunicorn(&["--workers", "1", "--timeout", "2"]);
    let address = served_on(&web, START);
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    super::http::send_get(&mut connection, "/hang").expect("sent");
    scrape_until(&web, &address, "a hang", |now| now.sum("sockd_worker_exits_total", "reason=\"hang\"") == 1.0);
    web.write("myproject.py", "raise RuntimeError('broken')\n");
    let (_, outcome) = web.reload();
    assert!(!outcome.ok, "{outcome:?}");
    let now = scrape_until(&web, &address, "a refused reload", |now| {
        now.sum("sockd_reloads_total", "result=\"refused\"") == 1.0
            && now.sum("sockd_worker_exits_total", "reason=\"start\"") > 0.0
    });
    assert_eq!(now.sum("sockd_reload_refused", ""), 1.0);
    assert_eq!(now.sum("sockd_reloads_total", "result=\"ok\""), 0.0);
    web.stop();
}

#[test]
fn answers_of_503_are_counted() {
    let web = project().file("myproject.py", "raise RuntimeError('broken')\n").options(STATUS).gunicorn(&[]);
    let address = served_on(&web, START);
    web.log("answering 503");
    (0..3).for_each(|_| assert_eq!(web.get("/").status, 503));
    scrape_until(&web, &address, "three answers", |now| now.sum("sockd_fallback_responses_total", "") == 3.0);
    assert_eq!(Samples::scrape(&address).sum("sockd_fallback", ""), 1.0);
    web.stop();
}

#[test]
fn promtool_finds_nothing_wrong_with_either_way_to_the_text() {
    if !programs::there("promtool") {
        return;
    }
    let web = project().options(STATUS).gunicorn(&["--workers", "1"]);
    let address = served_on(&web, START);
    assert_eq!(web.get("/").status, 200);
    let scraped = address.get("/metrics").expect("an answer").body;
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_sockd")).arg("metrics").output().expect("it runs");
    let command = String::from_utf8(command.stdout).expect("UTF-8");
    for text in [scraped, command] {
        assert!(text.contains("sockd_responses_total{"), "{text}");
        let mut promtool = std::process::Command::new("promtool");
        let mut promtool =
            promtool.args(["check", "metrics"]).stdin(std::process::Stdio::piped()).spawn().expect("starts");
        promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        assert!(promtool.wait().expect("it ends").success(), "{text}");
    }
    web.stop();
}

/// Prometheus reads OpenMetrics leniently; its Python client does not.
#[test]
fn the_text_is_openmetrics_by_the_letter() {
    if !super::python::has("prometheus_client") {
        return;
    }
    let web = project().options(STATUS).gunicorn(&["--workers", "1"]);
    served_on(&web, START);
    assert_eq!(web.get("/").status, 200);
    let command = std::process::Command::new(env!("CARGO_BIN_EXE_sockd")).args(["metrics", "--openmetrics"]).output();
    let text = command.expect("it runs").stdout;
    let script = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                  print(*sorted({sample.name for family in parse(sys.stdin.read()) for sample in family.samples}))";
    let mut parser = std::process::Command::new(bin("python"));
    let parser = parser.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut parser = parser.spawn().expect("python starts");
    parser.stdin.take().expect("a pipe").write_all(&text).expect("it reads");
    let parsed = parser.wait_with_output().expect("it ends");
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&text));
    for name in ["sockd_responses_total", "sockd_response_seconds_bucket", "sockd_response_seconds_sum", "sockd_up"] {
        assert!(String::from_utf8_lossy(&parsed.stdout).split_whitespace().any(|found| found == name), "{name}");
    }
    web.stop();
}

/// Connects and says this, and reads nothing.
fn client(address: &Address, says: &[u8]) -> TcpStream {
    let Address::Tcp(address) = address else { panic!("a TCP socket") };
    let mut client = TcpStream::connect(address).expect("connected");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    client.write_all(says).expect("sent");
    client
}

#[test]
fn scrapers_that_say_nothing_or_read_nothing_are_cut_off_and_hold_up_nobody_but_scrapers() {
    let web = project().options(STATUS).gunicorn(&["--workers", "1"]);
    let address = served_on(&web, START);
    web.status("serving, 1 of 1 worker, generation 1");
    let workers = web.ready();
    let _unread: Vec<TcpStream> =
        (0..16).map(|_| client(&address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    let silent: Vec<TcpStream> = (0..16).map(|_| client(&address, b"")).collect();
    let slow: Vec<TcpStream> = (0..16).map(|_| client(&address, b"GET /metrics HTTP/1.1\r\nHost: ")).collect();
    // They have every place that there is.
    let mut late = client(&address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(web.get("/").status, 200);
    }
    assert_eq!(web.report().workers.len(), 1, "sockd status has a socket of its own");
    assert!(began.elapsed() < Duration::from_secs(5), "the site waits for scrapers");
    let mut answer = String::new();
    late.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for mut client in silent.into_iter().chain(slow) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = client.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(web.ready(), workers, "no worker was touched");
    web.stop();
}

#[test]
fn a_flood_of_scrapers_is_slowed_down() {
    let web = project().options(STATUS).gunicorn(&["--workers", "1"]);
    let address = served_on(&web, START);
    let (began, end) = (Instant::now(), Instant::now() + Duration::from_secs(2));
    let flood = |_| {
        let address = address.clone();
        std::thread::spawn(move || {
            let mut answers = 0;
            while Instant::now() < end {
                assert_eq!(address.get("/metrics").expect("an answer").status, 200);
                answers += 1;
            }
            answers
        })
    };
    let flood: Vec<_> = (0..32).map(flood).collect();
    let answers: u128 = flood.into_iter().map(|client| client.join().expect("no panic")).sum();
    let most = MAX_CLIENTS as u128 * (began.elapsed().as_millis() / MIN_PLACE_TIME.as_millis() + 1);
    assert!(answers <= most, "{answers} answers, where {most} are the most");
    web.stop();
}

#[test]
fn nonsense_is_refused_and_bounded() {
    let web = project().options(STATUS).gunicorn(&["--workers", "1"]);
    let address = served_on(&web, START);
    let long = [b"GET /metrics HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 20 << 10], b"\r\n\r\n"].concat();
    let encoded = b"POST /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n";
    for (says, status) in [
        (b"GET / HTTX/1.1\r\n\r\n".as_slice(), "400"),
        (b"GET /metrics?x HTTP/1.0\r\n\r\n", "200"),
        (b"GET /%6detrics HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        (encoded, "405"),
        (&long, "431"),
    ] {
        let mut client = client(&address, says);
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap_or_else(|error| panic!("{status}: {error}"));
        assert_eq!(
            String::from_utf8_lossy(&head[9..]),
            status,
            "{}",
            String::from_utf8_lossy(&says[..says.len().min(40)])
        );
    }
    let openmetrics =
        client(&address, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n");
    let response = super::http::read_response(&mut { openmetrics }).expect("an answer");
    assert_eq!(response.header("Content-Type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(response.body.ends_with("# EOF\n") && response.body.contains("# TYPE sockd_reloads counter\n"));
    web.stop();
}

#[test]
fn a_taken_port_is_one_line_in_the_log_and_the_next_reload_tries_again() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port: SocketAddr = taken.local_addr().expect("its address");
    let web = project().options(&format!("--status-listen {port}")).config("[reload]\nsoak = \"100ms\"\n");
    let web = web.gunicorn(&["--workers", "1"]);
    let line = web.log(&format!("status.listen: cannot listen on {port}: ")).text;
    assert!(line.contains("listens there already; metrics are not served there; the site is"), "{line}");
    assert_eq!(web.get("/").status, 200);
    assert_eq!(web.logged(START, "status.listen: ").len(), 1);
    drop(taken);
    let mark = web.mark();
    assert!(web.reload().1.ok);
    let address = served_on(&web, mark);
    assert_eq!(address, Address::Tcp(port));
    assert_eq!(Samples::scrape(&address).sum("sockd_up", ""), 1.0);
    web.stop();
}

#[test]
fn the_status_socket_moves_with_a_reload_that_succeeds_and_no_worker_gets_it() {
    let without = "[reload]\nsoak = \"100ms\"\n";
    let at = |name: &str| format!("{without}[status]\nlisten = \"unix:{name}\"\n");
    let builder = project();
    let (one, two) = (builder.path().join("one.sock"), builder.path().join("two.sock"));
    let web = builder.config(&at(one.to_str().expect("UTF-8"))).options("--start at-once");
    let web = web.gunicorn(&["--workers", "1"]);
    web.status("serving, 1 of 1 worker, generation 1");
    let address = served_on(&web, START);
    assert_eq!(address, Address::Unix(one.clone()));
    let inode = std::fs::metadata(&one).expect("its file").ino();

    assert!(web.reload().1.ok);
    assert_eq!(web.logged(START, "metrics are served on").len(), 1, "it stays where it is");
    assert_eq!(std::fs::metadata(&one).expect("its file").ino(), inode);

    // A reload that is refused moves nothing.
    web.write("sockd.toml", &at(two.to_str().expect("UTF-8")));
    web.write("myproject.py", "raise RuntimeError('broken')\n");
    assert!(!web.reload().1.ok);
    assert!(one.exists() && !two.exists());
    assert_eq!(Samples::scrape(&address).sum("sockd_up", ""), 1.0);

    web.write("myproject.py", &super::python::application("again"));
    let mark = web.mark();
    assert!(web.reload().1.ok);
    assert_eq!(served_on(&web, mark), Address::Unix(two.clone()));
    web.until("the file of the old one is gone", || (!one.exists()).then_some(()));
    let descriptors = |pid: u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("readable").flatten();
        let links: Vec<String> =
            fds.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.display().to_string())).collect();
        links
    };
    let table = std::fs::read_to_string("/proc/net/unix").expect("readable");
    let line = table.lines().find(|line| line.ends_with(two.to_str().expect("UTF-8"))).expect("it listens");
    let socket = format!("socket:[{}]", line.split_whitespace().nth(6).expect("an inode"));
    let sockd = web.pid.as_raw_nonzero().get().unsigned_abs();
    assert!(descriptors(sockd).contains(&socket));
    let workers: Vec<u32> = web.ready().iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).collect();
    let templates = web.report().templates;
    assert!(workers.len() == 1 && templates.len() == 1, "{workers:?} {templates:?}");
    for pid in workers.into_iter().chain(templates.iter().map(|template| template.pid)) {
        assert!(!descriptors(pid).contains(&socket), "process {pid} has it");
    }

    // Without one there is none.
    web.write("sockd.toml", without);
    assert!(web.reload().1.ok);
    web.until("it is gone", || (!two.exists()).then_some(()));
    web.stop();
}

/// By what cleans directories.
#[test]
fn a_file_that_is_removed_is_made_again() {
    let builder = project();
    let directory = builder.path().join("monitoring");
    let path = directory.join("status.sock");
    let served = Address::Unix(path.clone());
    std::fs::create_dir(&directory).expect("made");
    let options = format!("--start at-once --status-listen unix:{}", path.display());
    let web = builder.config("[reload]\nsoak = \"100ms\"\n").options(&options).gunicorn(&["--workers", "1"]);
    web.status("serving, 1 of 1 worker, generation 1");
    std::fs::remove_file(&path).expect("it was there");
    let removed = web.log(&format!("the file of unix:{} was removed, binding it again", path.display()));
    assert_eq!(served_on(&web, removed.mark()), served);
    assert_eq!(Samples::scrape(&served).sum("sockd_up", ""), 1.0);

    // Said once, and tried again with the next reload.
    std::fs::remove_dir_all(&directory).expect("it was there");
    let failed = web.log_since(removed.mark(), "metrics are not served there; the site is");
    std::fs::create_dir(&directory).expect("made");
    assert!(web.reload().1.ok);
    assert_eq!(served_on(&web, failed.mark()), served);
    assert_eq!(Samples::scrape(&served).sum("sockd_up", ""), 1.0);
    web.stop();
}

#[test]
fn the_file_goes_with_sockd() {
    let builder = project();
    let path = builder.path().join("status.sock");
    let web = builder.options(&format!("--status-listen unix:{}", path.display()));
    let web = web.command(&[&bin("gunicorn"), "myproject:application"]);
    assert_eq!(served_on(&web, START), Address::Unix(path.clone()));
    assert!(path.exists());
    web.stop();
    assert!(!path.exists());
}
