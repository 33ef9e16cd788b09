//! Requests of a real site, as the log tells of them.

use std::time::Duration;

use crate::guide;
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(30);

/// A page that asks the database for too much: the journal names it, and the line of the application that waits.
pub fn a_slow_query(machine: &Machine) {
    machine
        .run_as(
            "sammy",
            "cat >>myprojectdir/myproject/urls.py <<'END'
from django.db import connection

def report(request):
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_sleep(3)')
    return HttpResponse('reported')

urlpatterns = [path('report/', report)] + urlpatterns
END",
        )
        .succeeded();
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[requests]\nslow = \"1s\"\n");
    let unit = guide::service_unit("/usr/bin/sockd run --config /etc/sockd/gunicorn.toml -- ", "");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &unit);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    machine.run(&guide::visit("/report/?token=secret")).says("reported").succeeded();
    let entry = machine.wait_for(
        "the slow request in the journal",
        PATIENCE,
        "journalctl -o cat -u gunicorn SOCKD_EVENT=slow-request SOCKD_REQUEST='GET /report/' | grep .",
    );
    assert!(entry.contains(" serves GET /report/ since 1."), "{entry}");
    let frame = |line: &&str| line.contains("/myproject/urls.py\"") && line.ends_with(" in report");
    assert_eq!(entry.lines().filter(frame).count(), 1, "{entry}");
    assert!(entry.contains("/django/db/backends/utils.py\""), "what waits is not named: {entry}");
    assert!(!entry.contains("secret"), "{entry}");
}

/// Scraped from the instance and by command, under the name of the unit; a unit that is stopped is not down.
pub fn metrics_of_a_unit(machine: &Machine) {
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[status]\nlisten = \"127.0.0.1:9394\"\n");
    machine.run("sockd reload gunicorn").succeeded();
    for command in ["curl -s http://127.0.0.1:9394/metrics", "sockd metrics gunicorn", "sockd metrics"] {
        machine
            .run(command)
            .says("sockd_up{unit=\"gunicorn.service\"} 1\n")
            .says("sockd_reloads_total{unit=\"gunicorn.service\",result=\"ok\"} 1\n")
            .says("sockd_responses_total{unit=\"gunicorn.service\",code=\"2xx\",generation=\"1\"} 1\n")
            .says("sockd_queue_limit{unit=\"gunicorn.service\",listener=\"0\",name=\"gunicorn.socket\"} ")
            .succeeded();
    }
    machine.run("systemctl stop gunicorn.socket gunicorn.service").succeeded();
    let stopped = machine.run("sockd metrics gunicorn");
    assert_eq!((stopped.code, stopped.stdout.as_str()), (3, "# EOF\n"), "{stopped}");
    machine.run("systemctl start gunicorn.socket").succeeded();
}
