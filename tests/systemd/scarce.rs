//! What a site lives without: files that cleaners remove, descriptors and processes that limits keep from it.
//!
//! Owns: the removals and the limits, and what must hold meanwhile and afterwards: those who serve go on, what cannot be
//! done is said once and truly, and is done when it can be.
//! Must never: raise a limit on the way; that a limit is lifted is a step of its own.

use std::time::Duration;

use crate::guide;
use crate::life;
use crate::load::{Load, list};
use crate::machine::{Machine, list_processes};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn a_site_lives_without(machine: &Machine) {
    life::site(machine, &guide::service_unit("", ""));
    machine.run("sockd adopt --write gunicorn").succeeded();
    let load = Load::begin(machine, &[life::SOCKET]);
    let status = life::complete(machine);
    let mut accidents = Vec::new();

    // All that a cleaner may take for old, and more.
    let rules = "d /tmp 1777 root root 0\nd /run/sockd-gunicorn 0700 sammy www-data 0\n";
    machine.write_file("/etc/tmpfiles.d/all.conf", 0o644, rules);
    machine.run("systemd-tmpfiles --clean --prefix=/tmp --prefix=/run; rm -rf /tmp/* /run/sockd*").succeeded();
    for seed in 0..3 {
        accidents.extend(load.kill_a_worker("gunicorn", seed, life::WORKERS));
        life::complete(machine);
    }
    machine.run("systemctl reload gunicorn; rm -rf /tmp/* /run/sockd*").succeeded();
    assert_eq!(life::complete(machine)["generation"], 2);

    // No descriptor is left to it, then no process.
    let main = format!("MAIN={}", status["pid"]);
    let limits = [
        ("--nofile=$(($(ls /proc/$MAIN/fd | wc -l) + 1))", "Too many open files", "$MAIN"),
        (
            "--nproc=1",
            "Resource temporarily unavailable",
            &format!("$({})", list_processes("system.slice/gunicorn.service")),
        ),
    ];
    for (limit, reason, processes) in limits {
        // Who may change them: the very user and group, without more rights.
        let set = |limit: &str| {
            let each = format!("setpriv --reuid sammy --regid www-data --clear-groups prlimit --pid $process {limit}:");
            format!("{main}; for process in {processes}; do {each} || true; done")
        };
        machine.run(&set(limit)).succeeded();
        let refused = machine.run("sockd reload gunicorn");
        assert!(refused.code == 1 && refused.stderr.contains(reason), "{refused}");
        let state = life::property(machine, "StatusText");
        assert!(state.starts_with("serving, 3 of 3 workers, generation ") && state.contains(reason), "{state}");
        load.wait_for_visits(30);
        if limit == "--nproc=1" {
            accidents.extend(load.kill_a_worker("gunicorn", 3, life::WORKERS));
            machine.wait_for("two that serve", PATIENCE, "sockd status gunicorn | grep '2 of 3 ready'");
            load.wait_for_visits(30);
        }
        let (name, _) = limit.split_once('=').expect("a limit");
        machine.run(&set(&format!("{name}=1000"))).succeeded();
        life::complete(machine);
        machine.run("sockd reload gunicorn").succeeded();
        assert_eq!(life::complete(machine)["pid"], status["pid"], "sockd lives through it");
    }
    let record = load.finish();
    let unexplained = record.unexplained(&accidents);
    eprintln!("{} requests, {} failed", record.visits.len(), record.failed().count());
    assert!(unexplained.is_empty(), "{accidents:?}\n{}", list(unexplained));

    few_descriptors_from_the_start(machine);
}

/// Too few for a worker, and for the process that answers 503: visitors wait, and nobody says that they are answered.
fn few_descriptors_from_the_start(machine: &Machine) {
    machine.run("journalctl --rotate --vacuum-time=1s").succeeded();
    life::edit(machine, "LimitNOFILE=21");
    machine.run("systemctl restart gunicorn").succeeded();
    let visitor = machine.spawn(&format!("curl -fsS -m 110 --unix-socket {} localhost", life::SOCKET));
    machine.wait_until("its word on it", PATIENCE, || {
        life::property(machine, "StatusText").starts_with("cannot answer 503: ").then_some(())
    });
    let attempt = "journalctl --sync; journalctl -q -o cat -u gunicorn | grep -c 'trying again in' | grep '[3-9]'";
    machine.wait_for("some attempts", PATIENCE, attempt);
    let journal = machine.journal("gunicorn");
    assert_eq!(journal.matches("cannot answer 503: ").count(), 1, "{journal}");
    let status = machine.run("sockd status gunicorn").says("Too many open files");
    assert!(status.code == 150 && !status.stdout.contains("answers 503"), "{status}");
    let doctor = machine.run("sockd doctor gunicorn").says("Too many open files");
    assert!(!doctor.stdout.contains("answers 503"), "{doctor}");

    machine.run("rm /etc/systemd/system/gunicorn.service.d/override.conf; systemctl daemon-reload").succeeded();
    machine.run("systemctl restart gunicorn").succeeded();
    visitor.finish().says("hello").succeeded();
    life::complete(machine);
}
