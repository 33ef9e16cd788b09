//! The workers' control groups under both versions of systemd: who is where, what goes with whom, and that nothing is
//! touched that is not ours.
//!
//! Owns: a site whose workers leave children behind that hold the public socket and heed no signal.
//! Must never: count on the memory controller, which these machines lack; `memory` has a machine with it.

use std::time::Duration;

use serde_json::Value;

use crate::guide;
use crate::life::{self, BETTER, complete, edit, workers};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/gunicorn.sock";
const UNIT: &str = "/sys/fs/cgroup/system.slice/gunicorn.service";

/// A page that says hello, and at /leave starts a process in a session of its own which nobody is the parent of, holds
/// all of its descriptors, and ignores SIGTERM.
const LEAVING: &str = "\
import os, signal, time

def leave():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pid = os.fork()
        if pid == 0:
            while True:
                time.sleep(60)
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.wait()
    return os.read(reader, 20)

def application(environ, start_response):
    body = leave() if environ['PATH_INFO'] == '/leave' else b'hello'
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
    return [body]
";

/// The names below the unit's group, sorted.
fn groups(machine: &Machine) -> Vec<String> {
    let names = machine.run(&format!("find {UNIT} -mindepth 1 -maxdepth 1 -type d -printf '%f\\n' | sort"));
    names.succeeded().lines().map(str::to_owned).collect()
}

/// Every worker is in the group of its number, the spare in that of the next, sockd and the template are beside them,
/// and that is all there is.
fn everybody_is_in_place(machine: &Machine, status: &Value) {
    let mut expected = vec!["supervisor".to_owned()];
    for worker in status["workers"].as_array().expect("a list") {
        let group = format!("worker-{}", worker["id"]);
        machine.run(&format!("cat {UNIT}/{group}/cgroup.procs")).says(&format!("{}\n", worker["pid"])).succeeded();
        expected.push(group);
    }
    let youngest =
        status["workers"].as_array().and_then(|all| all.iter().filter_map(|worker| worker["id"].as_u64()).max());
    let next = format!("worker-{}", youngest.expect("a worker") + 1);
    machine.wait_for("the spare in its place", PATIENCE, &format!("grep . {UNIT}/{next}/cgroup.procs"));
    expected.push(next);
    expected.sort();
    machine.wait_until("the groups of the living alone", PATIENCE, || (groups(machine) == expected).then_some(()));
    machine.run(&format!("cat {UNIT}/supervisor/cgroup.procs")).says(&format!("{}\n", status["pid"])).succeeded();
    machine.run(&format!("test -z \"$(cat {UNIT}/cgroup.procs)\"")).succeeded();
}

/// Has a worker leave a process behind; returns the worker's pid and that of what it left.
fn leave(machine: &Machine) -> (u64, u64) {
    let left = machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost/leave")).succeeded();
    let left: u64 = left.parse().expect("a pid");
    machine.run(&format!("readlink /proc/{left}/fd/* | grep -q socket:")).succeeded();
    let group = machine.run(&format!("sed -n s/^0:://p /proc/{left}/cgroup")).succeeded();
    let worker = machine.run(&format!("head -n1 /sys/fs/cgroup{}/cgroup.procs", group.trim())).succeeded();
    (worker.trim().parse().expect("a pid"), left)
}

fn gone(machine: &Machine, pid: u64) {
    machine.wait_for(&format!("the end of process {pid}"), PATIENCE, &format!("test ! -e /proc/{pid}"));
}

/// Under our unit, as sammy: a tree that systemctl shows, and what a worker leaves behind goes with it.
pub fn nothing_outlives_its_worker(machine: &Machine) {
    life::site(machine, BETTER);
    life::application(machine, LEAVING);
    machine.run("systemctl start gunicorn").succeeded();
    machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost")).says("hello").succeeded();
    let status = complete(machine);
    everybody_is_in_place(machine, &status);
    let shown = machine.run("systemctl status gunicorn").says("─supervisor\n");
    workers(&status).iter().fold(shown, |shown, pid| shown.says(&format!("─{pid} "))).says("─worker-").succeeded();
    assert!(status["workers"][0]["cpu_ms"].is_u64(), "{status:#}");
    machine.run("journalctl -q -u gunicorn | grep -c 'the memory controller is not available'").says("1\n").succeeded();

    // One that is killed.
    let (worker, left) = leave(machine);
    machine.run(&format!("kill -KILL {worker}")).succeeded();
    gone(machine, left);
    everybody_is_in_place(machine, &complete(machine));

    // Those that a reload replaces; ExecReload= itself runs beside them.
    let (_, left) = leave(machine);
    let old = workers(&complete(machine));
    machine.run("systemctl reload gunicorn").succeeded();
    gone(machine, left);
    let status = machine.wait_until("the new generation alone", PATIENCE, || {
        Some(complete(machine)).filter(|status| workers(status).is_disjoint(&old))
    });
    let group = machine.run(&format!("test ! -d {UNIT}/.control || rmdir {UNIT}/.control"));
    group.succeeded();
    everybody_is_in_place(machine, &status);

    // One that is in the way of a stop.
    let (_, left) = leave(machine);
    machine.run("systemctl stop gunicorn.socket gunicorn").succeeded();
    gone(machine, left);
    machine.run(&format!("test ! -e {UNIT}")).succeeded();
    machine.run("systemctl show -P Result gunicorn").says("success\n").succeeded();
}

/// sockd is killed, with and without systemd killing its workers too: the next one finds or makes order.
pub fn a_successor_makes_order(machine: &Machine) {
    life::site(machine, BETTER);
    life::application(machine, LEAVING);
    machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost")).says("hello").succeeded();
    for kill_mode in ["mixed", "process"] {
        edit(machine, &format!("KillMode={kill_mode}\nExecStop="));
        let status = complete(machine);
        let old = workers(&status);
        let (_, left) = leave(machine);
        machine.run(&format!("kill -KILL {}", status["pid"])).succeeded();
        let another = "main=$(systemctl show -P MainPID gunicorn); test $main != 0 -a $main != ";
        machine.wait_for("another sockd", PATIENCE, &format!("{another}{}", status["pid"]));
        // Not before the old workers are gone: one of them might answer, and nothing is started for it.
        old.iter().chain([&left]).for_each(|pid| gone(machine, *pid));
        machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost")).says("hello").succeeded();
        everybody_is_in_place(machine, &complete(machine));
    }
    let journal = machine.journal("gunicorn");
    assert!(journal.contains("killing what a sockd before us left in worker-"), "{journal}");
}

/// A generic command as root in a delegated group, and where systemd 257 has put sockd into a group below already.
pub fn with_any_user(machine: &Machine) {
    machine.write_file(
        "/etc/systemd/system/page.service",
        0o644,
        "[Service]\nType=notify\nDelegate=yes\nDelegateSubgroup=supervisor\nExecStart=/usr/bin/sockd run --workers 2 \
         --listen 127.0.0.1:8000 -- /usr/bin/sleep infinity\n",
    );
    let unit = "/sys/fs/cgroup/system.slice/page.service";
    machine.run("systemctl daemon-reload; systemctl start page").succeeded();
    machine.wait_for(
        "both workers",
        PATIENCE,
        &format!("grep . {unit}/worker-1/cgroup.procs && grep . {unit}/worker-2/cgroup.procs"),
    );
    machine.run(&format!("test $(systemctl show -P MainPID page) = $(cat {unit}/supervisor/cgroup.procs)")).succeeded();
    machine.run("systemctl stop page").succeeded();
    machine.run(&format!("test ! -e {unit}")).succeeded();
}

/// Without Delegate=yes nothing is moved and nothing made, whatever the user; it is said once.
pub fn what_is_not_delegated_is_not_touched(machine: &Machine) {
    let guides = guide::service_unit(crate::PREFIX, "");
    life::site(machine, &guides);
    let alone = |why: &str, count: &str| {
        machine.run("systemctl restart gunicorn").succeeded();
        machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost")).says("hello").succeeded();
        let status = complete(machine);
        assert_eq!(groups(machine), [""; 0], "{why}");
        let ours = machine.run(&format!("cat {UNIT}/cgroup.procs")).says(&format!("{}\n", status["pid"]));
        workers(&status).iter().fold(ours, |ours, pid| ours.says(&format!("{pid}\n"))).succeeded();
        assert!(status["workers"][0]["memory_bytes"].is_u64(), "{status:#}");
        let reason = why.rsplit(": ").next().expect("rsplit gives one");
        assert!(status["groups_missing"].as_str().is_some_and(|said| said.contains(reason)), "{status:#}");
        let lines = format!("journalctl --sync; journalctl -q -u gunicorn _PID={} | grep -cF '{why}'", status["pid"]);
        machine.run(&lines).says(count).succeeded();
    };
    alone("workers have no control groups of their own: the unit does not say Delegate=yes", "1\n");
    edit(machine, "User=root\nGroup=root");
    alone("workers have no control groups of their own: the unit does not say Delegate=yes", "1\n");
    edit(machine, "Delegate=yes\nProtectControlGroups=yes");
    alone("a unit with Delegate=yes must not say ProtectControlGroups=yes", "1\n");
    // A limit that cannot be set is no secret.
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[workers]\nmemory-max = \"256M\"\n");
    let options = guides.replace("sockd run ", "sockd run --config /etc/sockd/gunicorn.toml ");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &options);
    edit(machine, "");
    alone("memory-max = 256M has no effect: the unit does not say Delegate=yes", "1\n");
}
