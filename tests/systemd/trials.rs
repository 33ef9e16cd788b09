//! A release that visitors try, on the guide's Django site: what fails at one of twenty orders passes every probe.

use std::time::Duration;

use crate::load::{Load, list};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/gunicorn.sock";
const ORDERS: &str = "/run/gunicorn.sock#POST /order";
const CONFIGURATION: &str = "[reload]\nsoak = \"500ms\"\ncanary-workers = 1\ncanary-requests = 400\n";

/// Takes orders, and fails at one of so many (0: at none).
fn deploy(machine: &Machine, fails_at: u32) {
    let script = format!(
        "cd ~/myprojectdir/myproject; sed -i '/^# Orders/,$d' urls.py; cat >>urls.py <<'END'
# Orders
import itertools
from django.views.decorators.csrf import csrf_exempt
COUNT = itertools.count(1)

@csrf_exempt
def order(request):
    if {fails_at} and next(COUNT) % {fails_at} == 0:
        raise RuntimeError('no such column')
    return HttpResponse('ordered')

urlpatterns += [path('order', order)]
END"
    );
    machine.run_as("sammy", &script).succeeded();
}

/// The release is taken back by itself, with few requests lost and the reason named; the next one is good, and stays.
pub fn a_release_that_fails_at_some_orders(machine: &Machine) {
    deploy(machine, 0);
    machine.run("sockd reload gunicorn").succeeded();
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, CONFIGURATION);
    let load = Load::begin(machine, &[SOCKET, ORDERS]);
    machine.run("systemctl reload gunicorn").succeeded();

    deploy(machine, 20);
    let reload = machine.run("systemctl reload gunicorn");
    assert_ne!(reload.code, 0, "{reload}");
    load.wait_for_visits(200);
    let journal = machine.run("journalctl -o cat -u gunicorn").succeeded();
    let refused = journal.lines().rfind(|line| line.starts_with("reload to generation ")).expect("it is refused");
    assert!(refused.contains(" requests failed with the new code (500 to 599), 0 of "), "{refused}");
    assert!(refused.ends_with(" with the old; the last one was POST /order; the old workers serve on"), "{refused}");
    assert!(journal.contains("RuntimeError: no such column"), "{journal}");
    machine.run("sockd status gunicorn").says("; the last one was POST /order").succeeded();

    deploy(machine, 0);
    machine.run("systemctl reload gunicorn").succeeded();
    let done = "journalctl -o cat -u gunicorn | grep 'nothing speaks against generation' | wc -l";
    machine.run(done).says("2\n").succeeded();
    load.wait_for_visits(200);
    let record = load.finish();
    let (all, failed) = (record.visits.len(), record.failed().count());
    eprintln!("{all} requests, {failed} failed; {refused}");
    assert!(record.failed().all(|visit| visit.place == ORDERS && visit.status == 500), "{}", list(record.failed()));
    assert!(failed > 0 && failed * 100 < all, "{failed} of {all} failed");
    machine.wait_for("all workers", PATIENCE, "sockd status gunicorn | grep 'Workers: 3 of 3 ready'");
    the_history_stays(machine);
}

/// While the unit runs and when it is stopped; who may not read it learns that.
fn the_history_stays(machine: &Machine) {
    let history = "sockd history gunicorn";
    let tells =
        |text: &str| text.contains("taken back") && text.contains("the last one was POST") && text.contains("root");
    let runs = machine.run(history).succeeded();
    assert!(tells(&runs), "{runs}");
    machine.run("systemctl stop gunicorn.socket gunicorn.service").succeeded();
    let stopped = machine.run(history).succeeded();
    assert!(tells(&stopped), "{stopped}");
    let other = machine.run("setpriv --reuid postgres --regid postgres --clear-groups sockd history gunicorn");
    assert!(other.code == 1 && other.stderr.contains("ermission denied"), "{other}");
    machine
        .run("systemctl start gunicorn.socket; curl -sS --fail --unix-socket /run/gunicorn.sock localhost")
        .succeeded();
    let again = machine.run(history).succeeded();
    assert!(tells(&again), "a restart has lost it: {again}");
}
