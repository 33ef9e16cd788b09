//! A site's everyday life and its accidents, on a booted machine with visitors who come all the time.
//!
//! Owns: a small site under the guide's own unit or our better one, and what must hold when its processes are killed,
//! its code is broken and fixed, its units are reloaded and restarted, or somebody only looks.
//! Must never: take a count of lost requests for given: what may be lost is said at each accident.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::guide;
use crate::load::{Accident, Load, Record, Visit, list};
use crate::machine::{Machine, list_processes};

/// How `sockd status` exits while it runs and no visitor gets a page.
const NOBODY_SERVED: i32 = 150;
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PROJECT: &str = "/home/sammy/myprojectdir";
pub const SOCKET: &str = "/run/gunicorn.sock";
/// The unit of units/examples/better.
pub const BETTER: &str = include_str!("../../units/examples/better/gunicorn.service");
/// How many workers either unit has; each has one request in its hands at most.
pub const WORKERS: usize = 3;
/// After its code is fixed the site serves within this time, in seconds, while visitors come.
const FIXED_SECONDS: f64 = 3.0;

/// A page that says hello, and that talks on request.
const APPLICATION: &str = "\
import os, sys, time

def application(environ, start_response):
    time.sleep(0.02)
    if environ['PATH_INFO'] == '/talk':
        print('said to stdout by', os.getpid(), flush=True)
        print('said to stderr by', os.getpid(), file=sys.stderr, flush=True)
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])
    return [b'hello']
";

pub fn application(machine: &Machine, text: &str) {
    machine.write_file_as("sammy", &format!("{PROJECT}/myproject/wsgi.py"), 0o644, text);
}

/// A site in the environment of the Django guide, under this service unit; its socket listens.
pub fn site(machine: &Machine, service: &str) {
    application(machine, APPLICATION);
    machine.write_file("/etc/systemd/system/gunicorn.socket", 0o644, guide::SOCKET_UNIT);
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, service);
    machine.run("systemctl daemon-reload; systemctl enable --now gunicorn.socket").succeeded();
}

/// An addition to the service unit, as `systemctl edit` makes it.
pub fn edit(machine: &Machine, lines: &str) {
    let text = format!("[Service]\n{lines}\n");
    machine.write_file("/etc/systemd/system/gunicorn.service.d/override.conf", 0o644, &text);
    machine.run("systemctl daemon-reload").succeeded();
}

/// Waits until every slot has a worker that serves, and returns what `sockd status --json` says of the supervisor.
pub fn complete(machine: &Machine) -> Value {
    machine.wait_until("three workers that serve, and nothing else under way", PATIENCE, || {
        let json = machine.run("sockd status --json gunicorn");
        let status: Value = serde_json::from_str(&json.stdout).ok()?;
        let status = &status[0]["sockd"];
        let workers = status["workers"].as_array()?;
        let ready = workers.len() == WORKERS && workers.iter().all(|worker| worker["state"] == "ready");
        (ready && status["reload"]["state"] == "idle").then(|| status.clone())
    })
}

pub fn workers(status: &Value) -> BTreeSet<u64> {
    status["workers"].as_array().expect("a list").iter().map(|worker| worker["pid"].as_u64().expect("a pid")).collect()
}

/// Every process in the unit's control group.
fn processes(machine: &Machine) -> BTreeSet<u64> {
    let all = list_processes("system.slice/gunicorn.service");
    machine.run(&all).succeeded().lines().map(|pid| pid.parse().expect("a pid")).collect()
}

/// The template and its spare: of the unit's processes the two that are neither sockd nor a worker. The template leads
/// the process group of both.
fn template_and_spare(machine: &Machine, status: &Value) -> [u64; 2] {
    let known = workers(status);
    let leader = |pid: u64| machine.run(&format!("ps -o pgid= {pid}")).stdout.trim().parse().unwrap_or(0);
    machine.wait_until("one template and its spare", PATIENCE, || {
        let main = status["pid"].as_u64().expect("a pid");
        let others: Vec<u64> =
            processes(machine).into_iter().filter(|pid| *pid != main && !known.contains(pid)).collect();
        let &[one, other] = others.as_slice() else { return None };
        match (leader(one), leader(other)) {
            (a, b) if a != b => None,
            (a, _) if a == one => Some([one, other]),
            (a, _) if a == other => Some([other, one]),
            (_, _) => None,
        }
    })
}

pub fn property(machine: &Machine, name: &str) -> String {
    machine.run(&format!("systemctl show --property {name} --value gunicorn")).succeeded().trim().to_owned()
}

/// Now, in seconds since 1970, by the machine's clock.
pub fn now(machine: &Machine) -> f64 {
    machine.run("date +%s.%N").succeeded().trim().parse().expect("a time")
}

/// Kills a process, which may cost so many requests.
fn kill(machine: &Machine, signal: &str, pid: u64, most: usize) -> Accident {
    let said = machine.run(&format!("date +%s.%N; kill -{signal} {pid}; date +%s.%N")).succeeded();
    let mut moments = said.lines().map(|line| line.parse().expect("a time"));
    let mut next = || moments.next().expect("two lines");
    Accident { span: (next(), next()), most }
}

/// Nobody may have gone without the page but those whom these accidents explain.
fn judge(record: &Record, accidents: &[Accident], what: &str) {
    let unexplained = record.unexplained(accidents);
    let summary = format!(
        "{what}: {} requests, {} failed, {} of them unexplained; longest {:.0} ms",
        record.visits.len(),
        record.failed().count(),
        unexplained.len(),
        record.longest(&[]).took * 1000.0,
    );
    eprintln!("{summary}");
    assert!(unexplained.is_empty(), "{summary}; accidents: {accidents:?}; failed:\n{}", list(record.failed()));
}

/// What systemd shows, what sockd shows and what the journal holds are one story.
pub fn everybody_tells_the_same_story(machine: &Machine) {
    site(machine, BETTER);

    // Started by hand: up at once, without a worker.
    machine.run("systemctl start gunicorn").succeeded();
    assert_eq!(property(machine, "StatusText"), "waiting for the first connection");
    machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost/talk")).says("hello").succeeded();
    let status = complete(machine);
    let line = status["status_line"].as_str().expect("a text");
    assert_eq!(line, "serving, 3 of 3 workers, generation 1");
    assert_eq!(property(machine, "StatusText"), line);
    assert_eq!(property(machine, "MainPID"), status["pid"].to_string());
    assert_eq!(status["unit"], "gunicorn.service");
    let mut ours = workers(&status);
    ours.insert(status["pid"].as_u64().unwrap_or(0));
    ours.extend(template_and_spare(machine, &status));
    assert_eq!(processes(machine), ours, "the unit's processes and those that sockd knows");
    let shown = machine.run("systemctl status gunicorn").says(line).says(&format!("Main PID: {}", status["pid"]));
    let shown = shown.succeeded();
    // systemctl writes the numbers of one control group one below the other.
    let is_of = |line: &str, pid: &u64| {
        line.rsplit_once('─').is_some_and(|(_, rest)| rest.trim_start().starts_with(&format!("{pid} ")))
    };
    ours.iter().for_each(|pid| assert!(shown.lines().any(|line| is_of(line, pid)), "{pid} is not there:\n{shown}"));
    machine.run("sockd status gunicorn").says(line).says("Workers: 3 of 3 ready").succeeded();

    who_may_look(machine, line);
    the_journal(machine);

    // Ready means proven where the first worker is started at once, however long it takes.
    application(machine, &format!("import time\ntime.sleep(1.5)\n{APPLICATION}"));
    let at_once = BETTER.replace("sockd run -- ", "sockd run --start at-once -- ");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &at_once);
    let started = machine.run("systemctl daemon-reload; systemctl restart gunicorn; sockd status --json gunicorn");
    let started: Value = serde_json::from_str(&started.succeeded()).expect("JSON");
    let first = &started[0]["sockd"]["workers"][0];
    assert_eq!(first["state"], "ready", "systemctl came back before a worker was ready: {started:#}");

    machine.run("systemctl stop gunicorn.socket gunicorn").succeeded();
    assert_eq!(processes(machine), BTreeSet::new(), "left behind");
    machine.run("pgrep -l -u sammy || true").says("").succeeded();
    assert_eq!(property(machine, "Result"), "success");
    machine.run("systemctl --failed --plain --no-legend").succeeded();
}

/// The service's user sees all, others what systemd tells everybody; all of it without D-Bus, too.
fn who_may_look(machine: &Machine, line: &str) {
    machine.run_as("sammy", "sockd status gunicorn").says(line).says("Workers: 3 of 3 ready").succeeded();
    let other = machine.run("setpriv --reuid postgres --regid postgres --clear-groups sockd status gunicorn");
    let other = other.says("Active: active (running)").succeeded();
    assert!(!other.contains("Workers: "), "a stranger was shown the workers:\n{other}");
    let reload = machine.run("setpriv --reuid postgres --regid postgres --clear-groups sockd reload gunicorn");
    assert_eq!((reload.code, reload.stderr.as_str()), (1, "sockd: error: cannot reload: only root and sammy may\n"));

    machine.run("systemctl stop dbus.socket dbus.service").succeeded();
    machine.run("sockd status gunicorn").says("systemd: not reachable").says(line).says("Workers: 3 of 3").succeeded();
    machine.run("sockd status").says("gunicorn.service").says(line).succeeded();
    machine.run("systemctl start dbus.socket dbus.service").succeeded();
    machine.run("sockd status").says("Active: active (running)").says(line).succeeded();
}

/// Fields, priorities and units are right, for sockd's lines and for those of the workers.
fn the_journal(machine: &Machine) {
    let entries = |matches: &str| -> Vec<Value> {
        let lines = machine.run(&format!("journalctl --sync; journalctl -q -o json {matches}")).succeeded();
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let status = complete(machine);
    // MESSAGE_ID of a worker that is ready.
    for worker in status["workers"].as_array().expect("a list") {
        let id = &worker["id"];
        let ready = entries(&format!("MESSAGE_ID=9d63b0f8af2c03ca0c78e12343f9aa78 SOCKD_WORKER={id}"));
        assert_eq!(ready.len(), 1, "worker {id} was ready once: {ready:#?}");
        for (field, value) in [
            ("SOCKD_UNIT", "gunicorn.service"),
            ("SOCKD_EVENT", "worker-ready"),
            ("SOCKD_GENERATION", "1"),
            ("_SYSTEMD_UNIT", "gunicorn.service"),
            ("PRIORITY", "6"),
        ] {
            assert_eq!(ready[0][field], value, "{field} of {:#}", ready[0]);
        }
        assert_eq!(ready[0]["_PID"], status["pid"].to_string());
    }

    // Of the two lines of /talk the one to stdout is the worker's own, the one to stderr passes through sockd.
    let said = |to: &str| -> Value {
        let found = |entry: &Value| entry["MESSAGE"].as_str().is_some_and(|m| m.starts_with(&format!("said to {to}")));
        machine.wait_until("a line in the journal", PATIENCE, || {
            entries("_SYSTEMD_UNIT=gunicorn.service").into_iter().find(found)
        })
    };
    let speaker = |entry: &Value| {
        let message = entry["MESSAGE"].as_str().expect("a text").to_owned();
        message.rsplit(' ').next().expect("the last word is the pid").to_owned()
    };
    let stdout = said("stdout");
    assert_eq!(stdout["_PID"], speaker(&stdout), "{stdout:#}");
    let stderr = said("stderr");
    assert_eq!(stderr["MESSAGE_ID"], "8f86f7cae8a791453ecc0386c91a5b47", "{stderr:#}");
    let workers = status["workers"].as_array().expect("a list");
    let worker =
        workers.iter().find(|worker| speaker(&stderr) == worker["pid"].to_string().as_str()).expect("a worker's pid");
    assert_eq!(stderr["SOCKD_WORKER"], worker["id"].to_string(), "{stderr:#}");
    assert_eq!(stderr["SOCKD_GENERATION"], "1", "{stderr:#}");
}

/// Under our unit every process of it is killed in turn, and sockd is stopped dead, while visitors come.
pub fn any_process_of_our_unit_may_die(machine: &Machine) {
    site(machine, BETTER);
    edit(machine, "WatchdogSec=2s");
    let load = Load::begin(machine, &[SOCKET]);
    let mut accidents = workers_and_template_die(machine, &load);

    // sockd itself: ExecStop= lets its workers finish before systemd kills what is left, and starts it again.
    let status = complete(machine);
    accidents.push(kill(machine, "KILL", status["pid"].as_u64().expect("a pid"), 0));
    restarted(machine, &status);

    // A sockd that does nothing any more is found out by the watchdog, and the workers serve until then.
    let status = complete(machine);
    kill(machine, "STOP", status["pid"].as_u64().expect("a pid"), 0);
    load.wait_for_visits(30);
    restarted(machine, &status);
    assert_eq!(property(machine, "NRestarts"), "2");
    let journal = machine.journal("gunicorn");
    assert!(journal.contains("Watchdog timeout (limit 2s)!"), "{journal}");

    load.wait_for_visits(30);
    let record = load.finish();
    // systemd says in the journal when it found out, as far as journald was quick; the kill follows within moments.
    let found_out = machine.run(
        "journalctl -q -o json -u gunicorn | python3 -c \"
import json, sys
for entry in map(json.loads, sys.stdin):
    if 'Watchdog timeout' in entry['MESSAGE']:
        print(int(entry['__REALTIME_TIMESTAMP']) / 1e6)\"",
    );
    let found_out: f64 = found_out.succeeded().trim().parse().expect("one time");
    accidents.push(Accident { span: (found_out - 1.0, found_out + 1.0), most: WORKERS });
    judge(&record, &accidents, "processes of our unit killed");
}

/// The spare, the template and the workers die, one after the other; returns what that may have cost.
fn workers_and_template_die(machine: &Machine, load: &Load) -> Vec<Accident> {
    let mut accidents = Vec::new();
    let status = complete(machine);
    // Neither holds a request: nothing may be lost with them.
    let [template, spare] = template_and_spare(machine, &status);
    accidents.push(kill(machine, "KILL", spare, 0));
    machine.wait_until("another spare", PATIENCE, || {
        let [same, other] = template_and_spare(machine, &status);
        (same == template && other != spare).then_some(())
    });
    accidents.push(kill(machine, "KILL", template, 0));
    load.wait_for_visits(30);
    machine.wait_until("another template", PATIENCE, || {
        (template_and_spare(machine, &status)[0] != template).then_some(())
    });
    for pid in workers(&status) {
        accidents.push(kill(machine, "KILL", pid, 1));
        machine.wait_until("a successor", PATIENCE, || (!workers(&complete(machine)).contains(&pid)).then_some(()));
        load.wait_for_visits(10);
    }
    assert_eq!(complete(machine)["pid"], status["pid"], "sockd has lived through all of it");
    accidents
}

/// Another sockd than before serves with all its workers.
fn restarted(machine: &Machine, before: &Value) {
    machine.wait_until("another sockd", PATIENCE, || {
        let pid = property(machine, "MainPID");
        (pid != "0" && before["pid"].to_string().as_str() != pid).then_some(())
    });
    complete(machine);
}

/// The same under the guide's own unit. When sockd is killed the unit fails, as nothing says Restart=; the next visitor
/// starts it again.
pub fn any_process_of_the_guides_unit_may_die(machine: &Machine) {
    site(machine, &guide::service_unit(crate::PREFIX, ""));
    let load = Load::begin(machine, &[SOCKET]);
    let mut accidents = workers_and_template_die(machine, &load);
    let status = complete(machine);
    // systemd sends the workers SIGTERM, at which they finish the request in their hands.
    accidents.push(kill(machine, "KILL", status["pid"].as_u64().expect("a pid"), 0));
    restarted(machine, &status);
    load.wait_for_visits(30);
    machine.run("systemctl is-active gunicorn.socket gunicorn.service").says("active\nactive\n").succeeded();
    judge(&load.finish(), &accidents, "processes of the guide's unit killed");
}

/// Broken code under the guide's own unit: a page that says so through Nginx, no limit that makes the socket fail, and
/// within seconds of the fix the site is back, with nobody having typed anything.
pub fn a_broken_application_is_answered_for(machine: &Machine) {
    site(machine, &guide::service_unit(crate::PREFIX, ""));
    application(machine, "import no_such_module\n");
    guide::nginx_site(
        machine,
        "    location / {\n        include proxy_params;\n        proxy_pass http://unix:/run/gunicorn.sock;\n    }\n    \
         location /uwsgi {\n        include uwsgi_params;\n        uwsgi_pass unix:/run/gunicorn.sock;\n    }\n",
    );
    let load = Load::begin(machine, &[SOCKET]);
    machine
        .run("curl -sS -i -H 'Host: example.com' 127.0.0.1")
        .says("HTTP/1.1 503 Service Unavailable")
        .says("Retry-After: ")
        .succeeded();
    // By either protocol of Nginx, in the language of the request.
    for path in ["/", "/uwsgi"] {
        let ask = format!("curl -sS -i -H 'Host: example.com' 127.0.0.1{path}");
        let page = machine.run(&format!("{ask} -H 'Accept: text/html'")).says("HTTP/1.1 503 ").says("Retry-After: ");
        page.says("Content-Type: text/html").says("right back</h1>").succeeded();
        machine.run(&format!("{ask} -H 'Accept: application/json'")).says("\"status\":503").succeeded();
        machine.run(&format!("{ask} -I")).says("HTTP/1.1 503 ").says("Retry-After: ").succeeded();
    }
    let status = machine.run("sockd status gunicorn").says("answering 503").says("No module named 'no_such_module'");
    assert_eq!(status.code, NOBODY_SERVED, "{status}");
    // The start limit counts 5 starts in 10 s, the trigger limit 20 in 2 s: after more than the longer time it is plain
    // that neither counts anything here.
    load.wait_for_span(12.0);
    machine.run("systemctl is-active gunicorn.socket gunicorn.service").says("active\nactive\n").succeeded();
    assert_eq!(property(machine, "NRestarts"), "0");

    let fixed: f64 = machine.run("date +%s.%N").succeeded().trim().parse().expect("a time");
    application(machine, APPLICATION);
    machine.wait_for("the page", PATIENCE, &format!("[ \"$(curl -sS --unix-socket {SOCKET} localhost)\" = hello ]"));
    complete(machine);
    load.wait_for_visits(50);
    machine.run(&guide::visit("/")).says("hello").succeeded();
    let record = load.finish();
    let served = record.visits.iter().find(|visit| !visit.failed()).expect("somebody was served");
    eprintln!("fixed and served after {:.0} ms", (served.ended() - fixed) * 1000.0);
    assert!(served.ended() - fixed < FIXED_SECONDS, "fixed at {fixed}, first served {served}");
    let lost: Vec<_> = record.visits.iter().filter(|visit| !matches!(visit.status, 200 | 503)).collect();
    assert!(lost.is_empty(), "neither the page nor a 503:\n{}", list(lost));
    let late = |visit: &&Visit| visit.failed() && visit.began > served.ended() + 1.0;
    let late: Vec<_> = record.visits.iter().filter(late).collect();
    assert!(late.is_empty(), "turned away although the site serves:\n{}", list(late));
}

/// Somebody removes the socket file: what everybody says names the command that fixes it, while sockd runs and after a
/// restart of the service alone, which brings nothing back.
pub fn a_socket_file_is_removed(machine: &Machine) {
    let visit = format!("curl -sS --unix-socket {SOCKET} localhost");
    for (unit, cause) in
        [(guide::service_unit(crate::PREFIX, ""), ""), (BETTER.to_owned(), "systemctl restart gunicorn")]
    {
        site(machine, &unit);
        machine.run(&visit).says("hello").succeeded();
        machine.run(&format!("rm {SOCKET}; {cause}")).succeeded();
        let alarm = machine.wait_until("the alarm", PATIENCE, || {
            let status: Value = serde_json::from_str(&machine.run("sockd status --json gunicorn").stdout).ok()?;
            Some(status[0]["sockd"]["listeners"][0]["alarm"].as_str()?.to_owned())
        });
        assert!(alarm.starts_with(&format!("nothing is left at unix:{SOCKET}: ")), "{alarm}");
        let status = machine.run("sockd status gunicorn").says("nothing is left at");
        assert_eq!(status.code, NOBODY_SERVED, "{status}");
        // A client that asks gets it at once; the journal and STATUS show it after the next look.
        machine.wait_until("the journal's alarm", PATIENCE, || {
            let journal = machine.run("journalctl -q -u gunicorn SOCKD_EVENT=path-lost -o cat").stdout;
            let status = property(machine, "StatusText");
            let shown = property(machine, "Type") != "notify" || status.starts_with(&format!("{alarm} ("));
            (journal.contains(&alarm) && shown).then_some(())
        });
        let (_, command) = alarm.split_once("to fix it: ").expect("it names a command");
        machine.run(command).succeeded();
        machine.run(&visit).says("hello").succeeded();
        machine.run("systemctl is-active gunicorn.socket gunicorn.service").says("active\nactive\n").succeeded();
        machine.run("systemctl stop gunicorn.socket gunicorn.service").succeeded();
    }
}

/// What an administrator types, while visitors come: none of it may refuse anybody.
pub fn what_an_administrator_types(machine: &Machine) {
    site(machine, BETTER);
    let load = Load::begin(machine, &[SOCKET]);
    let status = complete(machine);
    machine.run("systemctl daemon-reload").succeeded();
    load.wait_for_visits(20);
    assert_eq!(workers(&complete(machine)), workers(&status), "daemon-reload touched the workers");
    // A changed setting holds after daemon-reload and a restart, and a stop is but a pause.
    edit(machine, "Environment=COLOUR=blue");
    machine.run("systemctl restart gunicorn").succeeded();
    let status = complete(machine);
    for pid in workers(&status) {
        machine.run(&format!("tr '\\0' '\\n' </proc/{pid}/environ | grep COLOUR=blue")).succeeded();
    }
    machine.run("systemctl stop gunicorn").succeeded();
    complete(machine);
    judge(&load.finish(), &[], "daemon-reload, restart and stop");

    machine.run("systemctl stop gunicorn.socket; systemctl is-active gunicorn || true").says("inactive").succeeded();
}

/// The guide's step 7 with its own unit: more workers and another address; the latter is not sockd's to give, and it says
/// so. Nobody is refused.
pub fn changed_settings_hold_after_a_restart(machine: &Machine) {
    let service = guide::service_unit(crate::PREFIX, "");
    site(machine, &service);
    let load = Load::begin(machine, &[SOCKET]);
    complete(machine);
    let changed =
        service.replace("--workers 3 --bind unix:/run/gunicorn.sock", "--workers 5 --bind unix:/run/web.sock");
    assert_ne!(changed, service);
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &changed);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    machine.wait_for("five workers", PATIENCE, "sockd status gunicorn | grep -F 'Workers: 5 of 5 ready'");
    let warned = machine.journal("gunicorn");
    let line = "--bind unix:/run/web.sock is ignored: sockd serves gunicorn.socket (unix:/run/gunicorn.sock)";
    assert!(warned.contains(line), "{line:?} is missing in\n{warned}");
    load.wait_for_visits(50);
    judge(&load.finish(), &[], "daemon-reload and a restart with other settings");
}

/// On a terminal it tells each step; when it goes away, or does not wait, the rollout goes on.
pub fn who_asks_for_a_reload(machine: &Machine) {
    site(machine, BETTER);
    machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost")).says("hello").succeeded();
    complete(machine);
    let said = machine.run("script -qec 'sockd reload gunicorn' /dev/null").succeeded();
    let steps: Vec<&str> = said.lines().map(str::trim).collect();
    let at = |wanted: &dyn Fn(&str) -> bool| steps.iter().position(|step| wanted(step));
    let begun = at(&|step| step == "preparing generation 2").unwrap_or_else(|| panic!("{said}"));
    let proven = at(&|step| step == "the new code is proven").unwrap_or_else(|| panic!("{said}"));
    let worker = |step: &&&str| step.starts_with("worker ") && step.contains(" is ready after ");
    assert_eq!(steps[proven..].iter().filter(worker).count(), WORKERS, "{said}");
    assert!(begun < proven, "{said}");
    assert_eq!(steps.last(), Some(&"generation 2 serves"), "{said}");
    // Elsewhere only the outcome.
    let said = machine.run("sockd reload gunicorn 2>&1").succeeded();
    assert_eq!(said, "generation 3 serves\n");

    // An import of two seconds: there is time to go away.
    application(machine, &format!("import time\ntime.sleep(2)\n{APPLICATION}"));
    let generation = || complete(machine)["generation"].as_u64().expect("a number");
    let client = machine.spawn("exec sockd reload gunicorn");
    machine.wait_for("the rollout to begin", PATIENCE, "sockd status gunicorn | grep -F '(reload: '");
    machine.run(&format!("systemctl kill --signal KILL {}", client.unit())).succeeded();
    assert_ne!(client.finish().code, 0);
    machine.wait_until("the rollout of a client that is gone", PATIENCE, || (generation() == 4).then_some(()));

    machine.run("sockd reload --no-wait gunicorn").says("the reload has begun").succeeded();
    machine.run("sockd status gunicorn | grep -F '(reload: '").succeeded();
    machine.wait_until("the rollout that nobody waits for", PATIENCE, || (generation() == 5).then_some(()));

    // A stop ends the command of ExecReload=; it is no failure of the unit.
    machine.run("systemctl reload --no-block gunicorn").succeeded();
    machine.wait_for("the rollout to begin", PATIENCE, "sockd status gunicorn | grep -F '(reload: '");
    machine.run("systemctl stop gunicorn").succeeded();
    assert_eq!(property(machine, "Result"), "success");
    let stopped = machine.run("sockd reload gunicorn");
    let next = "gunicorn.service does not run; `systemctl start gunicorn.service` starts it";
    assert!(stopped.code == 1 && stopped.stderr.contains(next), "{stopped}");
}

/// The socket goes and comes again while visitors come: a visitor in its queue at that moment is reset, and nobody else
/// is refused for longer than it takes. So it is under our unit and under the guide's, whose Requires= stops the service
/// first. A unit without it keeps its socket: the command fails, and nobody notices.
pub fn a_socket_may_be_restarted(machine: &Machine) {
    site(machine, BETTER);
    visitors_during_a_socket_restart(machine, true, "our unit");
    let guide = guide::service_unit(crate::PREFIX, "");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &guide);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    visitors_during_a_socket_restart(machine, true, "the guide's unit");
    let alone = guide.replace("Requires=gunicorn.socket\n", "");
    assert_ne!(alone, guide);
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &alone);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    visitors_during_a_socket_restart(machine, false, "a unit without Requires=");
}

fn visitors_during_a_socket_restart(machine: &Machine, works: bool, unit: &str) {
    let load = Load::begin(machine, &[SOCKET]);
    complete(machine);
    load.wait_for_visits(50);
    let restart = machine.run("systemctl restart gunicorn.socket");
    let after = now(machine);
    assert_eq!(restart.code == 0, works, "{unit}: {restart}");
    complete(machine);
    load.wait_for_visits(50);
    let state = machine.run("systemctl is-active gunicorn.socket gunicorn.service || true");
    state.says(if works { "active\nactive\n" } else { "inactive\nactive\n" }).succeeded();
    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    eprintln!("{unit}: {} requests, {} failed when the socket was restarted", record.visits.len(), failed.len());
    assert!(works || failed.is_empty(), "{unit}:\n{}", list(failed));
    assert!(failed.iter().all(|visit| visit.began < after), "{unit}: refused after the restart:\n{}", list(failed));
    // systemd closes the socket and listens again within moments.
    let ends = failed.iter().map(|visit| visit.ended());
    let span = ends.clone().fold(f64::NEG_INFINITY, f64::max) - ends.fold(f64::INFINITY, f64::min);
    assert!(failed.is_empty() || span < 1.0, "{unit}: refused for {span:.1} s:\n{}", list(failed));
}

/// The Flask guide's unit, which has no socket unit and a socket of relative name and mode 007: its reload loses nothing.
pub fn a_socket_of_our_own(machine: &Machine) {
    application(machine, APPLICATION);
    machine.write_file(
        "/etc/systemd/system/myproject.service",
        0o644,
        &format!(
            "[Service]\nUser=sammy\nGroup=www-data\nWorkingDirectory={PROJECT}\n\
             Environment=\"PATH={PROJECT}/myprojectenv/bin\"\n\
             ExecStart={}{PROJECT}/myprojectenv/bin/gunicorn --workers 3 --bind unix:myproject.sock -m 007 \
             myproject.wsgi\n",
            crate::PREFIX
        ),
    );
    machine.run("systemctl daemon-reload; systemctl start myproject").succeeded();
    let socket = format!("{PROJECT}/myproject.sock");
    machine.wait_for("the socket", PATIENCE, &format!("test -S {socket}"));
    let load = Load::begin(machine, &[&socket]);
    let inode = format!("stat --format '%A %U %G %i' {socket}");
    let before = machine.run(&inode).says("srwxrwx--- sammy www-data ").succeeded();
    for generation in 2..3 {
        machine.run("systemctl kill --signal HUP --kill-whom main myproject").succeeded();
        machine.wait_for(
            "the end of the rollout",
            PATIENCE,
            &format!("journalctl -q -u myproject SOCKD_EVENT=reload-finished SOCKD_GENERATION={generation} | grep ."),
        );
    }
    assert_eq!(machine.run(&inode).succeeded(), before, "the socket is another one");
    judge(&load.finish(), &[], "reloads with a socket of our own");
    // Somebody removes the file: sockd binds the socket again, and a reload brings it to the workers.
    let names = format!("stat --format '%A %U %G' {socket}");
    let before = machine.run(&names).succeeded();
    machine.run(&format!("rm {socket}")).succeeded();
    machine.wait_for("another socket file", PATIENCE, &format!("test -S {socket}"));
    machine.run(&format!("curl -sS --unix-socket {socket} localhost")).says("hello").succeeded();
    assert_eq!(machine.run(&names).succeeded(), before);
    machine.run("journalctl -q -u myproject SOCKD_EVENT=path-rebound -o cat").says("bound it again").succeeded();
    machine.run(&format!("systemctl stop myproject; test ! -e {socket}")).succeeded();
}
