//! What `sockd explain` says of a real site with real faults: a slow query in Postgres, memory that leaks, a deploy that breaks
//! a page, a sockd that is killed.

use std::time::Duration;

use crate::guide;
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(90);
const DROP_IN: &str = "[Service]\nStateDirectory=sockd-%N\nRestart=always\n";
/// A page that is well, one that asks the database for too much, one that keeps what it has made.
const VIEWS: &str = "cat >myprojectdir/myproject/urls.py <<'END'
from django.db import connection
from django.http import HttpResponse
from django.urls import path

KEPT = []

def home(request):
    return HttpResponse('home')

def report(request):
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_sleep(3)')
    return HttpResponse('reported')

def export(request):
    KEPT.append(b'x' * 4000000)
    return HttpResponse('exported')

urlpatterns = [path('', home), path('report/', report), path('export/', export)]
END";

/// Visitors of a page, until they are stopped.
fn visitors(machine: &Machine, name: &str, path: &str, pause: &str) {
    let visit = guide::visit(path);
    let script = format!("while :; do {visit} >/dev/null 2>&1; sleep {pause}; done");
    machine
        .run(&format!("systemd-run --quiet --collect --unit {name} bash -c {}", crate::machine::quote(&script)))
        .succeeded();
}

/// Waits until the first cause of the last trouble is this, and says how people read it.
fn explained(machine: &Machine, id: &str) -> String {
    machine.wait_for(
        id,
        PATIENCE,
        &format!("sockd explain gunicorn --json | grep -m 1 '\"id\": ' | grep -F '\"id\": \"{id}\"'"),
    );
    let text = machine.run("sockd explain gunicorn").succeeded();
    eprintln!("{text}");
    text
}

pub fn faults(machine: &Machine) {
    machine.run_as("sammy", VIEWS).succeeded();
    machine.run("mkdir -p /etc/systemd/system/gunicorn.service.d").succeeded();
    machine.write_file("/etc/systemd/system/gunicorn.service.d/state.conf", 0o644, DROP_IN);
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[workers]\nmax-memory = \"150M\"\n");
    let unit = guide::service_unit("/usr/bin/sockd run --config /etc/sockd/gunicorn.toml -- ", "");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &unit);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    machine.run(&guide::visit("/")).says("home").succeeded();
    visitors(machine, "visitors", "/", "0.2");
    let calm = "test $(grep -c '\"finished\":[1-9]' /var/lib/sockd-gunicorn/sockd-recording) -ge 8";
    machine.wait_for("a calm time", PATIENCE, calm);

    for number in 1..=3 {
        visitors(machine, &format!("reports-{number}"), "/report/", "0");
    }
    let text = explained(machine, "slow-database");
    assert!(text.contains("requests wait for PostgreSQL") && text.contains("GET /report/"), "{text}");
    machine.run("systemctl stop 'reports-*'").succeeded();
    // It is over once samples are calm again.
    machine.wait_for("a calm time", PATIENCE, "! sockd explain gunicorn now | grep -q 'until now'");

    visitors(machine, "exports", "/export/", "0.05");
    let text = explained(machine, "memory-leak");
    assert!(text.contains(" of memory, more than 150M") && text.contains(" grew from "), "{text}");
    machine.run("systemctl stop exports").succeeded();
    machine.wait_for("a calm time", PATIENCE, "! sockd explain gunicorn now | grep -q 'until now'");

    // A page that nobody has asked for breaks with the new code; the proof does not know it.
    let breaks = "sed -i \"s/return HttpResponse('exported')/raise RuntimeError('no such column')/\" \
                  myprojectdir/myproject/urls.py; sed -i '/KEPT.append/d' myprojectdir/myproject/urls.py";
    machine.run_as("sammy", breaks).succeeded();
    machine.run("sockd reload gunicorn").succeeded();
    visitors(machine, "exports", "/export/", "0.2");
    let text = explained(machine, "broken-deploy");
    assert!(text.contains("sockd rollback gunicorn"), "{text}");
    machine.run("systemctl stop exports visitors").succeeded();

    // What was recorded is read without sockd, and goes on after its end.
    machine.run("systemctl kill --kill-whom=main --signal=KILL gunicorn").succeeded();
    machine.wait_for("its successor", PATIENCE, &format!("{} | grep home", guide::visit("/")));
    // It may be close to the trouble before, and one with it.
    machine.wait_for("sockd-ended", PATIENCE, "sockd explain gunicorn --json | grep -F '\"id\": \"sockd-ended\"'");
    machine.run("systemctl stop gunicorn.socket gunicorn.service").succeeded();
    machine.run("sockd explain gunicorn").succeeded();
    machine.run("rm /etc/systemd/system/gunicorn.service.d/state.conf; systemctl daemon-reload").succeeded();
    machine.run("systemctl start gunicorn.socket").succeeded();
}
