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
