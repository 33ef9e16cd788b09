//! Two services that share one RuntimeDirectory=, which systemd makes for the first and removes with either.
//!
//! Owns: the two sites, what happens to the one, and that the other does not notice. Must never: have them share more
//! than that directory and the user.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::load::{Accident, Load, Record, list};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);
const WORKERS: usize = 2;
const SITES: [&str; 2] = ["first", "second"];

fn socket(site: &str) -> String {
    format!("/run/{site}.sock")
}

/// A page that says whose it is. Where it is asked about its health it knows its own path alone: a question that gets to
/// the other one's worker fails.
fn install(machine: &Machine, site: &str) {
    let text = format!(
        "import time\n\
         def application(environ, start_response):\n    time.sleep(0.02)\n    path = environ['PATH_INFO']\n    \
         start_response('200 OK' if path in ('/', '/{site}') else '404 Not Found', [('Content-Length', '{}')])\n    \
         return [b'{site}']\n",
        site.len()
    );
    machine.write_file_as("sammy", &format!("/home/sammy/{site}/wsgi.py"), 0o644, &text);
    let configuration =
        format!("[health]\npath = \"/{site}\"\ninterval = \"1s\"\nfailures = 2\n[reload]\nsoak = \"100ms\"\n");
    machine.write_file(&format!("/etc/sockd/{site}.toml"), 0o644, &configuration);
    let service = format!(
        "[Service]\nType=notify\nUser=sammy\nGroup=www-data\nRuntimeDirectory=shared\nKillMode=mixed\nRestart=always\n\
         RestartSec=100ms\nWorkingDirectory=/home/sammy/{site}\nExecReload=/usr/bin/sockd reload\nDelegate=yes\n\
         ExecStart=/usr/bin/sockd run --config /etc/sockd/{site}.toml -- \
         /home/sammy/myprojectdir/myprojectenv/bin/gunicorn --workers {WORKERS} wsgi\n"
    );
    machine.write_file(&format!("/etc/systemd/system/{site}.service"), 0o644, &service);
    let unit = format!("[Socket]\nListenStream={}\n", socket(site));
    machine.write_file(&format!("/etc/systemd/system/{site}.socket"), 0o644, &unit);
    machine.run(&format!("systemctl daemon-reload; systemctl start {site}.socket {site}.service")).succeeded();
}

/// What `sockd status` says of a site whose workers all serve.
fn complete(machine: &Machine, site: &str) -> Value {
    machine.wait_until(&format!("the workers of {site}"), PATIENCE, || {
        let json = machine.run(&format!("sockd status --json {site}"));
        let status: Value = serde_json::from_str(&json.stdout).ok()?;
        let status = &status[0]["sockd"];
        let workers = status["workers"].as_array()?;
        let ready = workers.len() == WORKERS && workers.iter().all(|worker| worker["state"] == "ready");
        (ready && status["reload"]["state"] == "idle").then(|| status.clone())
    })
}

/// Everything that differs where one was touched: main process, generation, workers.
fn identity(status: &Value) -> String {
    let workers = status["workers"].as_array().expect("a list").iter();
    let workers: Vec<String> = workers.map(|worker| format!("{}:{}", worker["id"], worker["pid"])).collect();
    format!("{} {} {}", status["pid"], status["generation"], workers.join(" "))
}

/// The first visitor has a service start its workers.
fn begun(machine: &Machine, site: &str) {
    machine.run(&format!("curl -fsS -m 60 --unix-socket {} localhost", socket(site))).says(site).succeeded();
    complete(machine, site);
}

/// The command finds each by its name, and both without one.
fn are_named_rightly(machine: &Machine) {
    let json = machine.run("sockd status --json").succeeded();
    let all: Value = serde_json::from_str(&json).expect("JSON");
    let found: BTreeMap<&str, &Value> = all
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| Some((one["sockd"]["unit"].as_str()?, &one["sockd"]["pid"])))
        .collect();
    assert_eq!(found.len(), SITES.len(), "{json}");
    for site in SITES {
        let main = machine.run(&format!("systemctl show --property MainPID --value {site}")).succeeded();
        let unit = format!("{site}.service");
        assert_eq!(found[unit.as_str()].to_string(), main.trim(), "{json}");
        assert_eq!(complete(machine, site)["unit"], unit, "by its name");
        machine.run(&format!("curl -fsS --unix-socket {} localhost", socket(site))).says(site).succeeded();
    }
}

fn judge(record: &Record, accidents: &[Accident]) {
    let unexplained = record.unexplained(accidents);
    eprintln!("{} requests, {} failed", record.visits.len(), record.failed().count());
    assert!(unexplained.is_empty(), "{accidents:?}\n{}", list(unexplained));
    let strange = record.visits.iter().filter(|visit| !visit.failed() && socket(&visit.text) != visit.place);
    assert_eq!(list(strange), "", "answered by the other one");
}

pub fn two_services_share_a_directory(machine: &Machine) {
    SITES.iter().for_each(|site| install(machine, site));
    let places = SITES.map(socket);
    let load = Load::begin(machine, &[&places[0], &places[1]]);
    SITES.iter().for_each(|site| drop(complete(machine, site)));
    are_named_rightly(machine);

    // Workers die and code is loaded, of the one and of the other in turn.
    let mut accidents = Vec::new();
    for turn in 0..6 {
        let (site, other) = (SITES[turn % 2], SITES[(turn + 1) % 2]);
        let before = complete(machine, other);
        accidents.extend(load.kill_a_worker(site, turn, WORKERS));
        let generation = complete(machine, site)["generation"].as_u64();
        machine.run(&format!("systemctl reload {site}")).succeeded();
        assert_eq!(complete(machine, site)["generation"].as_u64(), generation.map(|generation| generation + 1));
        load.wait_for_visits(20);
        assert_eq!(identity(&complete(machine, other)), identity(&before), "{other} noticed");
        are_named_rightly(machine);
    }
    judge(&load.finish(), &accidents);

    // The one is killed and started again by systemd, then it ends, and systemd takes the directory away.
    let load = Load::begin(machine, &[&places[0]]);
    let before = complete(machine, "first");
    machine.run("systemctl kill --kill-whom=main --signal=KILL second").succeeded();
    machine.wait_for("the restart", PATIENCE, "systemctl show --property NRestarts second | grep =1");
    begun(machine, "second");
    are_named_rightly(machine);
    machine.run("systemctl stop second.socket second.service; test ! -e /run/shared").succeeded();
    load.wait_for_visits(20);
    assert_eq!(identity(&complete(machine, "first")), identity(&before), "the first noticed");
    let status = machine.run("sockd status second").says("inactive");
    assert_ne!(status.code, 0, "{status}");

    // What the first needs again it gets without the directory, and beside the second's new one.
    let mut accidents = Vec::from_iter(load.kill_a_worker("first", 6, WORKERS));
    complete(machine, "first");
    machine.run("systemctl reload first; sockd reload first").succeeded();
    let before = complete(machine, "first");
    machine.run("systemctl start second.socket second.service").succeeded();
    begun(machine, "second");
    assert_eq!(identity(&complete(machine, "first")), identity(&before), "the first noticed");
    accidents.extend(load.kill_a_worker("first", 7, WORKERS));
    are_named_rightly(machine);
    judge(&load.finish(), &accidents);
    let journal = machine.run("journalctl --sync; journalctl -q -o cat -u first -u second").succeeded();
    assert!(!journal.contains("unhealthy") && !journal.contains("refused"), "{journal}");
    machine.run("systemctl stop first.socket second.socket first second").succeeded();
}
