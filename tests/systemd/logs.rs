//! `sockd logs` and `sockd status --watch` on a running instance.
//!
//! Owns: an application that writes to both of its outputs, and what of it is shown to whom.
//! Must never: take another unit's lines, or another worker's, for its own.

use std::time::Duration;

use crate::machine::{Machine, quote};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two workers that tell on stdout and on stderr who they are; a neighbour with the same words.
pub fn each_worker_has_its_own_lines(machine: &Machine) {
    let application = "\
import os, sys
print('stderr of', os.getpid(), file=sys.stderr, flush=True)
print('stdout of', os.getpid(), flush=True)
def app(environ, start_response):
    start_response('200 OK', [])
    return [b'fine\\n']
";
    machine.write_file("/srv/web/web.py", 0o644, application);
    for name in ["web", "other"] {
        let configuration = "command = [\"/home/sammy/myprojectdir/myprojectenv/bin/gunicorn\", \"web:app\"]\n\
                             directory = \"/srv/web\"\n[workers]\ncount = 2\n";
        machine.write_file(&format!("/etc/sockd/{name}.toml"), 0o644, configuration);
        machine.run(&format!("systemctl start sockd@{name}.socket")).succeeded();
        machine.run(&format!("curl -fsS --unix-socket /run/sockd/{name}.sock localhost")).says("fine").succeeded();
        let ready = format!("sockd status sockd@{name} | grep '2 of 2 ready'");
        machine.wait_for("both workers", PATIENCE, &ready);
    }
    // All of them in a line each.
    let all = machine.run("sockd status").says("UNIT").succeeded();
    let lines = |name: &str| all.lines().filter(|line| line.contains(&format!("sockd@{name}.service"))).count();
    assert_eq!((lines("web"), lines("other"), all.contains("Active:")), (1, 1, false), "{all}");
    // A shell completes their names, for whom it may be.
    let complete = "SOCKD_COMPLETE=bash _CLAP_COMPLETE_INDEX=2 sockd -- sockd reload ''";
    machine.run_as("sammy", complete).says("other").says("web").succeeded();
    // An instance has a short name, and what there is not has a number of its own.
    machine.run("sockd status web").says("sockd@web.service").succeeded();
    machine.run("sockd logs --lines 1 web").succeeded();
    assert_eq!(machine.run("sockd logs nosuch").code, 4);
    let pids = "sockd status --json sockd@web | python3 -c \
                'import json, sys; print(*(w[\"pid\"] for w in json.load(sys.stdin)[0][\"sockd\"][\"workers\"]))'";
    let pids: Vec<String> = machine.run(pids).succeeded().split_whitespace().map(str::to_owned).collect();
    let [first, second] = &pids[..] else { panic!("two workers, not {pids:?}") };
    let lines = |pid: &str| [format!("stdout of {pid}"), format!("stderr of {pid}")];
    machine.run("journalctl --sync").succeeded();

    let all = machine.run("sockd logs sockd@web").says("Started sockd@web.service").succeeded();
    for line in [lines(first), lines(second)].concat() {
        assert!(all.contains(&line), "{line:?} is not in\n{all}");
    }
    assert!(!all.contains("sockd@other"), "{all}");
    let one = machine.run("sockd logs sockd@web.service --worker 1").says("worker 1 started").succeeded();
    for line in lines(first) {
        assert!(one.contains(&line), "{line:?} is not in\n{one}");
    }
    for line in lines(second) {
        assert!(!one.contains(&line), "{line:?} is in\n{one}");
    }
    let last = machine.run("sockd logs sockd@web -n 1").succeeded();
    assert_eq!(last.lines().filter(|line| !line.starts_with("-- ")).count(), 1, "{last}");
    let none = machine.run("sockd logs sockd@web --worker 4711");
    assert!(none.code == 1 && none.stderr.contains("no worker 4711 of sockd@web.service"), "{none}");

    // The very last word of sockd, too, which the journal may meet when its process is gone.
    let follower = machine.spawn("exec sockd logs sockd@web --follow -n 0 >/run/followed");
    machine.run("systemctl restart sockd@web; curl -fsS --unix-socket /run/sockd/web.sock localhost").succeeded();
    machine.wait_for("the next run", PATIENCE, "sockd logs sockd@web | grep -c 'worker 1 started' | grep 2");
    let again = machine.run("journalctl --sync; sockd logs sockd@web --worker 1").succeeded();
    assert!(!again.contains(&format!("stdout of {first}")), "a worker of the run before in\n{again}");
    machine.wait_for("the follower", PATIENCE, "grep 'worker 1 started' /run/followed");
    machine.run("grep 'stopped$' /run/followed").says("]: stopped").succeeded();
    follower.stop();
}

/// A screen that is drawn again and again, and is no wider than the terminal.
pub fn a_status_is_watched(machine: &Machine) {
    let watch = "stty rows 30 cols 70; timeout 3 sockd status --watch sockd@web";
    let shown = machine.run(&format!("script -qec {} /dev/null || true", quote(watch))).succeeded();
    let screens: Vec<&str> = shown.split("\x1b[H").skip(1).collect();
    assert!(screens.len() >= 2, "{shown}");
    for screen in screens {
        assert!(screen.contains("of 2 ready"), "{screen}");
        assert!(screen.lines().count() <= 30, "{screen}");
    }
    let plain = machine.run(&format!("NO_COLOR=1 script -qec {} /dev/null || true", quote(watch))).succeeded();
    assert!(!plain.contains("\x1b[1;3") && shown.contains("\x1b[1;32m"), "{plain}\n{shown}");
}
