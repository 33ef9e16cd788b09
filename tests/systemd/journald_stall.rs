//! Others stand still, and sockd does not: journald and the bus are stopped while workers die, code is deployed and visitors
//! come.
//!
//! Owns: the stall, and what must hold during and after it.
//! Must never: ask the journal while nobody writes it: that waits as long as the stall.

use std::time::Duration;

use crate::life;
use crate::load::{Load, list};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);
/// Three times WatchdogSec=: a loop that waits for journald is found out.
const STANDSTILL_SECONDS: f64 = 6.0;

/// It writes a line for each visitor, to stderr: that goes through sockd. (What a worker writes to stdout goes to
/// journald by itself, and waits for it as without sockd.)
const APPLICATION: &str = "\
import sys, time

def application(environ, start_response):
    time.sleep(0.02)
    print('somebody came', 'x' * 200, file=sys.stderr, flush=True)
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])
    return [b'hello']
";

/// Stops or continues journald and the bus.
fn others(machine: &Machine, signal: &str) {
    machine
        .run(&format!("kill -{signal} $(systemctl show --property MainPID --value systemd-journald dbus)"))
        .succeeded();
}

/// Kills a worker and waits until its successor serves.
fn a_worker_dies(load: &Load) -> crate::load::Accident {
    let machine = load.machine();
    let before = life::workers(&life::complete(machine));
    let accident = load.kill_a_worker("gunicorn", 7, life::WORKERS).expect("all of them serve");
    machine.wait_until("a successor", PATIENCE, || (life::workers(&life::complete(machine)) != before).then_some(()));
    accident
}

/// journald takes nothing for a while, and nobody is reached over the bus; the site is as ever, and the journal says what it lacks.
pub fn journald_is_not_waited_for(machine: &Machine) {
    let service = life::BETTER.replace("--access-logfile - ", "");
    assert_ne!(service, life::BETTER);
    life::site(machine, &service);
    life::application(machine, APPLICATION);
    life::edit(machine, "WatchdogSec=2s");
    let load = Load::begin(machine, &[life::SOCKET]);
    let status = life::complete(machine);

    others(machine, "STOP");
    let began = life::now(machine);
    let mut accidents = vec![a_worker_dies(&load)];
    machine.run("systemctl reload gunicorn").succeeded();
    assert_eq!(life::complete(machine)["generation"], 2);
    accidents.push(a_worker_dies(&load));
    machine.wait_until("the stall to be long enough", PATIENCE, || {
        load.wait_for_visits(50);
        (life::now(machine) > began + STANDSTILL_SECONDS).then_some(())
    });
    assert_eq!(life::complete(machine)["pid"], status["pid"], "sockd lives on");
    assert_eq!(life::property(machine, "NRestarts"), "0");
    others(machine, "CONT");

    let lost = machine.wait_for(
        "the count of what is missing",
        PATIENCE,
        "journalctl --sync; journalctl -q -o cat -u gunicorn | grep 'messages of the log were lost'",
    );
    let count: u64 = lost.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
    assert!(count > 0, "{lost}");
    // From here on nothing is missing.
    let died = "journalctl --sync; journalctl -q -u gunicorn SOCKD_EVENT=worker-died -o cat | wc -l";
    let before: u32 = machine.run(died).succeeded().trim().parse().expect("a number");
    accidents.push(a_worker_dies(&load));
    assert_eq!(machine.run(died).succeeded().trim(), (before + 1).to_string());
    let record = load.finish();
    let unexplained = record.unexplained(&accidents);
    eprintln!("{} requests, {count} messages lost", record.visits.len());
    assert!(unexplained.is_empty(), "{accidents:?}\n{}", list(unexplained));
}
