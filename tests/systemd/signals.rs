//! What tools send to a whole unit: log rotation, `systemctl kill` with every signal there is, and `systemctl freeze`.
//!
//! Owns: the guide's unit as adopted, with log files of its own, and what must hold after each.
//! Must never: send what stops a service on purpose: SIGTERM, SIGINT, SIGQUIT, SIGKILL.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::guide;
use crate::life;
use crate::load::{Load, list};
use crate::machine::{Machine, list_processes};

const PATIENCE: Duration = Duration::from_secs(60);
const LOGS: &str = "/var/log/gunicorn";

/// What gunicorn's users have in /etc/logrotate.d.
const ROTATION: &str = "\
/var/log/gunicorn/*.log {
    daily
    rotate 7
    missingok
    notifempty
    create 0640 sammy www-data
    sharedscripts
    postrotate
        systemctl kill -s USR1 gunicorn.service
    endscript
}
";

/// How long workers may be silent, and sockd; between the two is how long the main process is stopped, and beyond both how
/// long the unit is frozen. There is no event to wait for but the time.
const WORKER_SECONDS: &str = "3";
const STOPPED: &str = "sleep 4.5";
const WATCHDOG: &str = "WatchdogSec=6s";
const FROZEN: &str = "sleep 7.5";

/// All that neither stop a service on purpose (INT, QUIT, KILL, TERM, STOP), nor tell a process of its own faults and limits,
/// nor are kept by the C library (32, 33).
fn harmless() -> String {
    let others = BTreeSet::from([2, 3, 9, 15, 19, 32, 33]);
    let signals = (1..=64).filter(|number| !others.contains(number) && !FATAL.contains(number));
    signals.map(|number: i32| format!("{number} ")).collect()
}

/// The same to every process of the unit within moments, without systemctl, which would send some to what comes after it.
pub fn all_at_once(unit: &str) -> String {
    format!(
        "processes=$({})
         [ \"$processes\" ]
         for signal in {}; do kill -$signal $processes 2>/dev/null || true; done",
        list_processes(&format!("system.slice/{unit}.service")),
        harmless()
    )
}

/// ILL, TRAP, ABRT, BUS, FPE, SEGV, XCPU, XFSZ, SYS.
const FATAL: [i32; 9] = [4, 5, 6, 7, 8, 11, 24, 25, 31];
const ABRT: i32 = 6;

/// The guide's unit with log files, adopted; and its visitors.
pub fn a_unit_is_sent_everything(machine: &Machine) {
    let options =
        format!("--access-logfile {LOGS}/access.log --error-logfile {LOGS}/error.log --timeout {WORKER_SECONDS}");
    let unit = guide::service_unit("", "").replace("--access-logfile -", &options);
    assert!(unit.contains(&options), "{unit}");
    life::site(machine, &unit);
    machine.run(&format!("install -d -o sammy -g www-data {LOGS}; sockd adopt --write gunicorn")).succeeded();
    life::edit(machine, WATCHDOG);
    machine.write_file("/etc/logrotate.d/gunicorn", 0o644, ROTATION);

    let load = Load::begin(machine, &[life::SOCKET]);
    life::complete(machine);
    logs_are_rotated(&load);
    everybody_stands_still(&load);
    signals_are_sent(&load);
    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    eprintln!("{} requests, none may fail; the longest: {}", record.visits.len(), record.longest(&[]));
    assert!(failed.is_empty(), "{}", list(failed));
    // Each visitor has left a line, in one file or another.
    let lines =
        machine.run(&format!("cat {LOGS}/access.log* | grep -c '\"GET / HTTP/1.1\" 200 5 \"-\" \"-\"'")).succeeded();
    assert_eq!(lines.trim(), record.visits.len().to_string());

    faults_are_sent(machine);
}

/// Twice: the files that logrotate makes grow, the old ones do not, and no process keeps one of them open.
fn logs_are_rotated(load: &Load) {
    let machine = load.machine();
    let status = life::complete(machine);
    for rotation in 1..=2 {
        machine.run("logrotate --force /etc/logrotate.d/gunicorn").succeeded();
        let old = format!("find /proc/[0-9]*/fd -lname '{LOGS}/*.log.*' -printf '%p %l\\n' 2>/dev/null || true");
        machine.wait_for("the old files to be left", PATIENCE, &format!("! ({old}) | grep ."));
        let sizes = format!("stat -c '%s %i' {LOGS}/access.log.* {LOGS}/error.log.*");
        let before = machine.run(&sizes).succeeded();
        // A later worker writes to the new files, too: what it is forked from has opened them afresh.
        let mut grow = vec!["access.log"];
        if rotation == 1 {
            machine.run("systemctl reload gunicorn").succeeded();
            // Its new workers say so there; who serves only has nothing to say.
            grow.push("error.log");
        }
        load.wait_for_visits(50);
        assert_eq!(machine.run(&sizes).succeeded(), before, "rotation {rotation}");
        for new in grow {
            machine.run(&format!("test -s {LOGS}/{new}")).succeeded();
        }
    }
    assert_eq!(life::complete(machine)["pid"], status["pid"], "sockd has lived through it");
}

/// Nobody's time runs out while the unit is frozen, or sockd is stopped. systemd's watchdog does not count the time of a
/// frozen unit either.
fn everybody_stands_still(load: &Load) {
    let machine = load.machine();
    let status = life::complete(machine);
    for pause in [
        format!("systemctl freeze gunicorn; {FROZEN}; systemctl thaw gunicorn"),
        format!(
            "systemctl kill -s STOP --kill-whom=main gunicorn; {STOPPED}; systemctl kill -s CONT --kill-whom=main gunicorn"
        ),
    ] {
        let seen = "journalctl --sync; journalctl -q -o cat -u gunicorn | grep -c '^sockd stood still, for ' || true";
        let before = machine.run(seen).succeeded();
        machine.run(&pause).succeeded();
        machine.wait_until("sockd's word on it", PATIENCE, || (machine.run(seen).stdout != before).then_some(()));
        // Whose time runs out only now is found out within it.
        let thawed = life::now(machine);
        let seconds: f64 = WORKER_SECONDS.parse().expect("a number");
        machine.wait_until("some time to pass", PATIENCE, || {
            load.wait_for_visits(50);
            (life::now(machine) > thawed + seconds + 1.0).then_some(())
        });
        let after = life::complete(machine);
        assert_eq!((&after["pid"], life::workers(&after)), (&status["pid"], life::workers(&status)), "after `{pause}`");
    }
    assert_eq!(life::property(machine, "NRestarts"), "0");
}

/// To every process of the unit, while it serves, while it reloads and while it stops.
fn signals_are_sent(load: &Load) {
    let machine = load.machine();
    let status = life::complete(machine);
    let generation = status["generation"].as_u64().expect("a number");
    machine.run(&format!("for signal in {}; do systemctl kill -s $signal gunicorn; done", harmless())).succeeded();
    machine.wait_until("the reload that SIGHUP asks for", PATIENCE, || {
        (life::complete(machine)["generation"] == generation + 1).then_some(())
    });

    let slow = "\
import time
time.sleep(2)

def application(environ, start_response):
    time.sleep(2 if environ['PATH_INFO'] == '/slow' else 0.02)
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])
    return [b'hello']
";
    life::application(machine, slow);
    machine.run("systemctl reload --no-block gunicorn").succeeded();
    machine.wait_for("the rollout to begin", PATIENCE, "sockd status gunicorn | grep -F '(reload: '");
    machine.run(&all_at_once("gunicorn")).succeeded();
    machine.wait_until("the reload and the next one", PATIENCE, || {
        (life::complete(machine)["generation"].as_u64()? > generation + 1).then_some(())
    });
    load.wait_for_visits(50);
    assert_eq!(life::complete(machine)["pid"], status["pid"], "sockd has lived through it");

    let visitor = machine.spawn(&format!("curl -fsS --unix-socket {} localhost/slow", life::SOCKET));
    machine.wait_for("a request of some length", PATIENCE, "sockd status gunicorn | grep -E '[1-9][0-9]* in flight'");
    machine.run("systemctl stop --no-block gunicorn").succeeded();
    machine.wait_for("the stop", PATIENCE, "systemctl show -p ActiveState gunicorn | grep deactivating");
    machine.run(&all_at_once("gunicorn")).succeeded();
    visitor.finish().says("hello").succeeded();
    let after = life::complete(machine);
    assert_ne!(after["pid"], status["pid"], "it was stopped");
    load.wait_for_visits(50);
    assert_eq!(life::property(machine, "Result"), "success");
    assert_eq!(life::property(machine, "NRestarts"), "0");
}

/// What tells a process of its own faults ends workers. sockd makes others, and itself ends only by SIGABRT, by which
/// systemd's watchdog ends a service; then systemd starts it again.
fn faults_are_sent(machine: &Machine) {
    let others: Vec<i32> = FATAL.into_iter().filter(|number| *number != ABRT).collect();
    for signals in [others, vec![ABRT]] {
        let status = life::complete(machine);
        let send: String =
            signals.iter().map(|number| format!("systemctl kill -s {number} gunicorn; sleep 0.2\n")).collect();
        machine.run(&send).succeeded();
        let visit = format!("curl -fsS --unix-socket {} localhost", life::SOCKET);
        machine.wait_for("the page", PATIENCE, &format!("[ \"$({visit})\" = hello ]"));
        let after = machine.wait_until("other workers", PATIENCE, || {
            let after = life::complete(machine);
            life::workers(&after).is_disjoint(&life::workers(&status)).then_some(after)
        });
        let lives = !signals.contains(&ABRT);
        assert_eq!(after["pid"] == status["pid"], lives, "sockd after {signals:?}");
        assert_eq!(life::property(machine, "NRestarts"), if lives { "0" } else { "1" });
    }
}
