//! A real Prometheus that scrapes real instances: what it takes in, and that each alert of packaging/monitoring is fired by
//! its fault. The one by the kernel's OOM killer needs a machine of its own; promtool plays it (`packaging/monitoring`).

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::http::{Address, Connection};
use super::instance::{Builder, Instance};
use super::metrics::{STATUS, served_on};
use super::processes;
use super::programs;
use super::python::project;
use super::transcript::{PATIENCE, START};

/// An application with server errors on request.
const APPLICATION: &str = r#"
import time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hang":
        time.sleep(3600)
    start_response("500 Broken" if path == "/error" else "200 OK", [("Content-Length", "0")])
    return []
"#;

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/monitoring")
}

/// A Prometheus that scrapes and judges once a second, and waits with no alert.
struct Prometheus {
    child: Child,
    address: Address,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(directory: &Path, targets: &[&Instance]) -> Self {
        let targets: Vec<String> = targets
            .iter()
            .map(|web| match served_on(web, START) {
                Address::Tcp(address) => address.to_string(),
                Address::Unix(path) => panic!("Prometheus scrapes no {}", path.display()),
            })
            .collect();
        let rules = std::fs::read_to_string(monitoring().join("sockd.rules.yml")).expect("the rules");
        let patience = |line: &&str| !line.trim_start().starts_with("for: ");
        let rules: String = rules.lines().filter(patience).flat_map(|line| [line, "\n"]).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\nscrape_configs:\n  - job_name: sockd\n    \
             static_configs: [{{targets: {targets:?}}}]\n"
        );
        std::fs::write(directory.join("rules.yml"), rules).expect("written");
        std::fs::write(directory.join("prometheus.yml"), config).expect("written");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let log = std::fs::File::create(directory.join("prometheus.log")).expect("a log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it starts");
        Self { child, address: Address::Tcp(address) }
    }

    fn ask(&self, path: &str) -> Option<serde_json::Value> {
        let response = self.address.get(path).ok().filter(|response| response.status == 200)?;
        serde_json::from_str(&response.body).ok()
    }

    /// The first value of a query without blanks.
    fn value(&self, query: &str) -> Option<f64> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        self.ask(&format!("/api/v1/query?query={query}"))?["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// The alerts that are fired.
    fn alerts(&self) -> Vec<String> {
        let answer = self.ask("/api/v1/alerts").unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect()
    }

    fn fires(&self, web: &Instance, alert: &str) {
        web.until(alert, || self.alerts().iter().any(|firing| firing == alert).then_some(()));
    }
}

fn quiet(builder: Builder, arguments: &[&str]) -> Instance {
    builder.file("myproject.py", APPLICATION).options(STATUS).config("[reload]\nsoak = \"100ms\"\n").gunicorn(arguments)
}

#[test]
fn it_scrapes_over_a_reload_and_a_death_and_its_rates_are_what_was_sent() {
    if !programs::there("prometheus") {
        return;
    }
    let web = quiet(project(), &["--workers", "2"]);
    web.status("serving, 2 of 2 workers, generation 1");
    let prometheus = Prometheus::start(web.path(), &[&web]);
    web.until("the first scrape", || prometheus.value("sockd_up").filter(|up| *up == 1.0));
    for round in 1..=5 {
        (0..10).for_each(|_| assert_eq!(web.get("/").status, 200));
        // What is counted was scraped before its generation goes.
        let sum = f64::from(round * 10);
        web.until("what was sent", || {
            prometheus.value("sum(sockd_responses_total{code=\"2xx\"})").filter(|seen| *seen == sum)
        });
        assert!(web.reload().1.ok);
        processes::signal(web.ready_worker(), Signal::KILL);
        let (workers, ready) = (f64::from(round), "sockd_workers{state=\"ready\"}");
        web.until("two workers", || prometheus.value("sockd_worker_restarts_total").filter(|seen| *seen == workers));
        web.until("two workers", || prometheus.value(ready).filter(|seen| *seen == 2.0));
    }
    for (query, most) in [
        // No counter fell, of whichever label.
        ("max(resets(sockd_responses_total[10m]))", 0.0),
        ("max(resets(sockd_response_seconds_bucket[10m]))", 0.0),
        ("max(resets(sockd_worker_exits_total[10m]))", 0.0),
        // No series took over what another had: that would be counted twice.
        ("sum(increase(sockd_responses_total{code=\"2xx\"}[10m]))", 65.0),
    ] {
        let value = prometheus.value(query).unwrap_or_else(|| panic!("no answer to {query}"));
        assert!(value <= most, "{query} is {value}");
    }
    assert_eq!(prometheus.value("sockd_response_seconds_count"), Some(50.0));
    for expression in expressions_of_the_dashboard() {
        // What shows an event alone shows nothing without one.
        let shown = prometheus.value(&expression).is_some();
        assert!(shown || expression.ends_with("> 0"), "the dashboard shows nothing of {expression}");
    }
    assert!(
        prometheus
            .value("histogram_quantile(0.95,sockd_response_seconds_bucket)")
            .is_some_and(|seconds| seconds < 60.0)
    );
    web.stop();
}

#[test]
fn each_alert_is_fired_by_its_fault_and_by_nothing_else() {
    if !programs::there("prometheus") {
        return;
    }
    let well = quiet(project(), &["--workers", "2", "--timeout", "2"]);
    let broken = project().file("myproject.py", "raise RuntimeError('broken')\n").options(STATUS);
    let broken = broken.gunicorn(&["--workers", "1"]);
    broken.log("answering 503");
    well.status("serving, 2 of 2 workers, generation 1");
    let crowded = Instance::builder().unix_with_backlog("web.sock", 4).options(STATUS);
    let crowded = crowded.options("--ready-after 200ms").command(&["sleep", "infinity"]);
    let doomed = quiet(project(), &["--workers", "1"]);
    let prometheus = Prometheus::start(well.path(), &[&well, &broken, &crowded, &doomed]);
    let up = "sum(up)";
    well.until("all are scraped", || prometheus.value(up).filter(|up| *up == 4.0));

    prometheus.fires(&broken, "SockdNobodyServed");
    prometheus.fires(&broken, "SockdWorkersMissing");

    let of_well = |alert: &str| prometheus.alerts().iter().filter(|firing| *firing == alert).count();
    assert_eq!(of_well("SockdServerErrors"), 0);
    (0..20).for_each(|_| assert_eq!(well.get("/").status, 200));
    well.until("a first rate", || {
        prometheus.value("sum(sockd_responses_total{code=\"2xx\"})").filter(|seen| *seen >= 20.0)
    });
    (0..20).for_each(|_| assert_eq!(well.get("/error").status, 500));
    prometheus.fires(&well, "SockdServerErrors");

    assert_eq!(of_well("SockdWorkerHung"), 0);
    let mut connection = well.addresses[0].connect(PATIENCE).expect("connected");
    super::http::send_get(&mut connection, "/hang").expect("sent");
    prometheus.fires(&well, "SockdWorkerHung");

    assert_eq!(of_well("SockdReloadRefused"), 0);
    well.write("myproject.py", "raise RuntimeError('broken')\n");
    assert!(!well.reload().1.ok);
    prometheus.fires(&well, "SockdReloadRefused");

    assert_eq!(of_well("SockdQueueLong"), 0);
    let _waiting: Vec<Box<dyn Connection>> =
        (0..3).map(|_| crowded.addresses[0].connect(PATIENCE).expect("it waits in the queue")).collect();
    prometheus.fires(&crowded, "SockdQueueLong");

    assert_eq!(of_well("SockdListenerLost"), 0);
    let Address::Unix(path) = &crowded.addresses[0] else { panic!("a unix socket") };
    std::fs::remove_file(path).expect("it is lost");
    prometheus.fires(&crowded, "SockdListenerLost");

    let mark = doomed.mark();
    for _ in 0..5 {
        let worker = doomed.ready_worker();
        processes::signal(worker, Signal::KILL);
        processes::ended(worker, PATIENCE);
    }
    doomed.log_since(mark, "killed by SIGKILL");
    prometheus.fires(&doomed, "SockdWorkersDie");

    assert_eq!(of_well("SockdDown"), 0);
    doomed.stop();
    prometheus.fires(&well, "SockdDown");
    assert_eq!(of_well("SockdWorkerOutOfMemory"), 0);
    drop(prometheus);
    well.stop();
}

/// The expressions of rules and dashboard are PromQL, and the rules do what their own tests say.
#[test]
fn promtool_finds_nothing_wrong_with_rules_and_dashboard() {
    if !programs::there("promtool") {
        return;
    }
    let web = Instance::on_unix().worker("service.py", &[]);
    let record = |expression: &String| serde_json::json!({"record": "test", "expr": expression});
    let rules: Vec<_> = expressions_of_the_dashboard().iter().map(record).collect();
    // JSON is YAML.
    let rules = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string();
    let file = web.path().join("dashboard.yml");
    std::fs::write(&file, rules).expect("written");
    let run = |arguments: &[&str], path: &Path| {
        let output = Command::new("promtool").args(arguments).arg(path).output().expect("it starts");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?} {}: {text}", path.display());
    };
    run(&["check", "rules"], &file);
    run(&["check", "rules"], &monitoring().join("sockd.rules.yml"));
    run(&["test", "rules"], &monitoring().join("sockd.rules.test.yml"));
    web.stop();
}

/// With Grafana's variables filled in.
fn expressions_of_the_dashboard() -> Vec<String> {
    let dashboard = std::fs::read_to_string(monitoring().join("sockd-dashboard.json")).expect("the dashboard");
    let mut found = Vec::new();
    expressions_in(&serde_json::from_str(&dashboard).expect("JSON"), &mut found);
    assert!(found.len() >= 10, "{found:?}");
    found.iter().map(|one| one.replace("$__rate_interval", "1m").replace("$unit", ".*")).collect()
}

/// What stands under `expr`, wherever.
fn expressions_in(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(serde_json::Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| expressions_in(value, found));
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| expressions_in(value, found)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}
