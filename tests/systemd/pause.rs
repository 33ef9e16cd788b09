//! A pause on the guide's Django site, behind Nginx: visitors wait for a migration of eight seconds in Postgres. And
//! maintenance, over a restart of the unit; and a drain.

use std::time::Duration;

use crate::guide;
use crate::machine::Machine;

const VISITORS: usize = 200;
/// What the migration takes at least: so long it sleeps in Postgres.
const MIGRATION: f64 = 8.0;
/// What a start may take beside two hundred visitors, on a slow machine.
const START: f64 = 12.0;

/// None is refused, and none waits longer than the migration and a start.
pub fn visitors_wait_for_a_migration(machine: &Machine) {
    let migrate = "cd ~sammy/myprojectdir && exec runuser -u sammy -- sh -c '\
                   touch /tmp/migrates && . myprojectenv/bin/activate && ./manage.py migrate --noinput && \
                   echo \"SELECT pg_sleep(8);\" | ./manage.py shell -c \"import sys; from django.db import connection; \
                   connection.cursor().execute(sys.stdin.read())\"'";
    let timed = format!("#!/bin/sh\ndate +%s.%N >/tmp/began\n({migrate}) || exit\ndate +%s.%N >/tmp/ended\n");
    machine.write_file("/root/migrate", 0o755, &timed);
    machine.write_file(
        "/root/visit",
        0o755,
        &format!(
            "#!/bin/sh\nuntil [ -e /tmp/migrates ]; do sleep 0.05; done\nseq {VISITORS} | xargs -P {VISITORS} -I N \
             curl -sS -o /dev/null -H 'Host: example.com' -w '%{{http_code}} %{{time_total}}\\n' http://127.0.0.1/\n"
        ),
    );
    let paused = machine
        .run("rm -f /tmp/migrates; /root/visit >/tmp/visits 2>&1 & sockd pause gunicorn --max 50s -- /root/migrate; code=$?; wait; exit $code")
        .says("No migrations to apply")
        .succeeded();
    eprintln!("{paused}");
    let visits = machine.run("cat /tmp/visits").succeeded();
    let waits: Vec<f64> = visits
        .lines()
        .map(|line| {
            let (status, seconds) = line.split_once(' ').expect("status and time");
            assert!(status == "200", "{visits}");
            seconds.parse().expect("seconds")
        })
        .collect();
    assert_eq!(waits.len(), VISITORS, "{visits}");
    let longest = waits.iter().copied().fold(0.0, f64::max);
    eprintln!("the longest wait of {VISITORS}: {longest} s");
    let moment =
        |file: &str| -> f64 { machine.run(&format!("cat {file}")).succeeded().trim().parse().expect("seconds") };
    let migration = moment("/tmp/ended") - moment("/tmp/began");
    assert!(longest < migration + START, "{longest} s, of which the migration took {migration} s");
    assert!(longest > MIGRATION / 2.0, "{longest} s: nobody has waited for the migration");
    machine
        .run("journalctl -o cat -u gunicorn")
        .says("paused: no worker is left, visitors wait in the queue")
        .succeeded();
    machine.wait_for("all workers", Duration::from_secs(60), "sockd status gunicorn | grep 'Workers: 3 of 3 ready'");
}

/// The page comes through Nginx, and a restart does not bring the site back before its owner does.
pub fn a_restart_ends_no_maintenance(machine: &Machine) {
    let visit = |path: &str| machine.run(&format!("{} -D -", guide::visit(path)));
    machine.run("sockd maintenance gunicorn on --message 'Back at eight.' --retry-after 1h").succeeded();
    visit("/").says("503 Service").says("Back at eight.").succeeded();
    machine.run("systemctl restart gunicorn.service; systemctl is-active gunicorn.service").says("active").succeeded();
    visit("/").says("503 Service").says("Retry-After: 3600").says("Back at eight.").succeeded();
    machine.run("sockd status gunicorn").says("maintenance, answering 503");
    // The helper may have taken the first visitor before sockd has seen him.
    machine.run("sockd maintenance gunicorn off").says("resumed: ").succeeded();
    visit("/").says("200 OK").succeeded();
    machine.run("systemctl restart gunicorn.socket gunicorn.service").succeeded();
    visit("/").says("200 OK").succeeded();
    machine.wait_for("all workers", Duration::from_secs(60), "sockd status gunicorn | grep 'Workers: 3 of 3 ready'");
}

/// Out of its balancer, idle, and back; a restart ends a drain, too.
pub fn a_balancer_hears_of_a_drain(machine: &Machine) {
    let unheard = machine.run("sockd drain gunicorn");
    assert!(unheard.code == 1 && unheard.stderr.contains("set status.listen"), "{unheard}");
    machine
        .run(
            "sed -i 's/sockd run /sockd run --status-listen 127.0.0.1:9394 /' \
             $(grep -rl 'sockd run' /etc/systemd/system/gunicorn.service*); \
             systemctl daemon-reload; systemctl restart gunicorn",
        )
        .succeeded();
    machine.run(&guide::visit("/")).succeeded();
    machine.wait_for("readiness", Duration::from_secs(30), "curl -fsS 127.0.0.1:9394/ready");
    // A balancer asks meanwhile.
    machine.write_file(
        "/root/ask",
        0o755,
        "#!/bin/sh\nwhile [ ! -e /tmp/drained ]; do curl -s 127.0.0.1:9394/ready; sleep 0.3; done >/tmp/heard\n",
    );
    let drained = machine
        .run("rm -f /tmp/drained; /root/ask & sockd drain gunicorn --until-idle; code=$?; touch /tmp/drained; wait; exit $code")
        .says("nothing is in flight")
        .succeeded();
    assert!(!drained.contains("no balancer"), "{drained}");
    machine.run("cat /tmp/heard").says("drained").succeeded();
    machine.run("curl -s -w '%{http_code}' 127.0.0.1:9394/ready").says("drained\n503").succeeded();
    machine
        .run("sockd status gunicorn")
        .says("Drained: balancers send nobody; sockd ready gunicorn.service ends it")
        .succeeded();
    machine.run(&guide::visit("/")).succeeded();
    machine.run("sockd ready gunicorn").says("it takes visitors").succeeded();
    machine.run("curl -fsS 127.0.0.1:9394/ready").says("ready").succeeded();
    machine.run("sockd drain gunicorn; systemctl restart gunicorn").succeeded();
    machine.run(&guide::visit("/")).succeeded();
    machine.wait_for("readiness", Duration::from_secs(30), "curl -fsS 127.0.0.1:9394/ready");
}
