//! `sockd adopt` on the guides' sites: there and back again while visitors come.
//!
//! Owns: what an administrator types, taken from what sockd says, and what must hold after each step.
//! Must never: type a command that the output before it did not name, or let a visitor go away without the page.

use std::time::Duration;

use crate::guide;
use crate::load::{Load, list};
use crate::machine::Machine;
use crate::units;

const PATIENCE: Duration = Duration::from_secs(60);
/// The requests that must have come to an end before the next step.
const SOME_VISITS: u64 = 40;

/// The command of a "Next:" list that begins so.
pub fn next_command(said: &str, start: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix("  ").filter(|line| line.starts_with(start)));
    let line = line.unwrap_or_else(|| panic!("no command {start:?} in:\n{said}"));
    line.split("  ").next().expect("split gives one").to_owned()
}

/// The process that systemd takes for the service's own.
fn main_process(machine: &Machine, unit: &str) -> String {
    machine.run(&format!("ps -o args= -p $(systemctl show --value --property MainPID {unit})")).succeeded()
}

/// The Django guide's site: adopted, reloaded and given back.
pub fn there_and_back(machine: &Machine) {
    guide::django(machine, "");
    let page = machine.run(&guide::visit("/")).succeeded();
    let before = main_process(machine, "gunicorn");
    assert!(before.contains("gunicorn") && !before.contains("sockd"), "{before}");

    let load = Load::begin(machine, &["/run/gunicorn.sock"]);
    let alone = machine.run_as("sammy", "sockd").says("Running a server by itself:\n").succeeded();
    next_command(&alone, "sockd adopt gunicorn.service");
    // Looking needs no root and changes nothing; writing needs it and says so.
    let shown = machine.run_as("sammy", "sockd adopt gunicorn").says("+ ExecStart=/usr/bin/sockd run -- ").succeeded();
    let refused = machine.run_as("sammy", "sockd adopt --write gunicorn");
    assert!(refused.code == 1 && refused.stderr.contains("; try it with sudo"), "{refused}");
    machine.run("test ! -e /etc/systemd/system/gunicorn.service.d").succeeded();
    let write = next_command(&shown, "sudo sockd adopt --write gunicorn.service");

    let written = machine.run(&write).says("wrote /etc/systemd/system/gunicorn.service.d/sockd.conf").succeeded();
    machine.run("stat -c '%a %U' /etc/systemd/system/gunicorn.service.d/sockd.conf").says("644 root").succeeded();
    units::verify(machine, "gunicorn.service");
    // Nothing was restarted, and systemd knows of the change.
    assert_eq!(main_process(machine, "gunicorn"), before);
    machine.run("systemctl show --property NeedDaemonReload gunicorn").says("=no").succeeded();
    load.wait_for_visits(SOME_VISITS);
    // What is asked of it until then says why there is no answer.
    let early = machine.run("sockd reload gunicorn");
    assert!(early.code == 1 && early.stderr.contains(" is gunicorn, not sockd; "), "{early}");
    machine
        .run("sockd status gunicorn")
        .says(" is gunicorn, not sockd; a unit that was adopted runs sockd once it is restarted");

    machine.run(&next_command(&written, "systemctl restart")).succeeded();
    machine.wait_for("sockd's three workers", PATIENCE, "sockd status gunicorn | grep '3 of 3 ready'");
    let alone = machine.run("sockd").says("Run by sockd:\n").says("serving, 3 of 3 workers").succeeded();
    next_command(&alone, "sockd reload gunicorn.service");
    assert!(!alone.contains("sockd adopt"), "{alone}");
    let adopted = main_process(machine, "gunicorn");
    assert!(adopted.starts_with("/usr/bin/sockd run -- /home/sammy"), "{adopted}");
    assert_eq!(machine.run(&guide::visit("/")).succeeded(), page);
    let settings = "Type,NotifyAccess,KillMode,OOMPolicy,Delegate,Restart,WatchdogUSec,StartLimitIntervalUSec,Requires";
    machine
        .run(&format!("systemctl show --property {settings} gunicorn"))
        .says("Type=notify\n")
        .says("KillMode=mixed\n")
        .says("OOMPolicy=continue\n")
        .says("Delegate=yes\n")
        .says("Restart=always\n")
        .says("WatchdogUSec=30s\n")
        .says("StartLimitIntervalUSec=0\n")
        .says("gunicorn.socket")
        .succeeded();
    load.wait_for_visits(SOME_VISITS);

    machine.run_as("sammy", "sed -i 's/Hello from/Greetings from/' myprojectdir/myproject/urls.py").succeeded();
    machine.run("systemctl reload gunicorn").succeeded();
    machine.run(&guide::visit("/")).says("Greetings from").succeeded();
    load.wait_for_visits(SOME_VISITS);

    // Again: nothing to do, and said so.
    machine.run("sockd adopt gunicorn").says("gunicorn.service is adopted already").succeeded();
    let again = machine.run("sockd adopt --write gunicorn").says("gunicorn.service is adopted already").succeeded();
    let undone =
        machine.run(&next_command(&again, "sockd adopt --undo")).says("removed /etc/systemd/system/").succeeded();
    machine.run(&next_command(&undone, "systemctl restart")).succeeded();
    machine.run(&guide::visit("/")).says("Greetings from").succeeded();
    assert_eq!(main_process(machine, "gunicorn"), before);
    machine.run("test ! -e /etc/systemd/system/gunicorn.service.d").succeeded();
    machine.run("sockd adopt --undo gunicorn").says("nothing to undo").succeeded();
    load.wait_for_visits(SOME_VISITS);

    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    assert!(failed.is_empty(), "of {} requests these failed:\n{}", record.visits.len(), list(failed));
    let longest = record.longest(&[]);
    eprintln!("{} requests, none failed; the longest: {longest}", record.visits.len());
}

/// A unit that runs sockd by the prefix alone gets the other lines, and stays what it was when they go.
pub fn the_prefix_is_completed(machine: &Machine) {
    let unit = "/etc/systemd/system/gunicorn.service";
    machine
        .run(&format!("sed -i 's|^ExecStart=|&/usr/bin/sockd run -- |; s|^\\[Service]|&\\nType=notify|' {unit}"))
        .succeeded();
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    machine.run(&guide::visit("/")).succeeded();
    let prefixed = main_process(machine, "gunicorn");
    assert!(prefixed.starts_with("/usr/bin/sockd run -- /home/sammy"), "{prefixed}");
    let written = machine.run("sockd adopt --write gunicorn").says("wrote ").succeeded();
    units::verify(machine, "gunicorn.service");
    machine.run(&next_command(&written, "systemctl restart")).succeeded();
    machine.run(&guide::visit("/")).succeeded();
    assert_eq!(main_process(machine, "gunicorn"), prefixed);
    machine
        .run("systemctl show --property Delegate,WatchdogUSec,ExecReload gunicorn")
        .says("Delegate=yes\n")
        .says("WatchdogUSec=30s\n")
        .says("argv[]=/usr/bin/sockd reload ;")
        .succeeded();
    machine.run("systemctl reload gunicorn; sockd adopt gunicorn").says("is adopted already").succeeded();
    machine.run(&next_command(&written, "sockd adopt --undo")).says("removed ").succeeded();
    machine
        .run("systemctl restart gunicorn; systemctl show --property Delegate gunicorn")
        .says("Delegate=no\n")
        .succeeded();
    machine.run(&guide::visit("/")).succeeded();
}

/// The Flask guide's site gets the socket unit that it lacks; then it is as it was.
pub fn a_missing_socket_is_made(machine: &Machine) {
    guide::flask(machine, "");
    let page = machine.run(&guide::visit("/")).succeeded();
    let socket = "stat --format '%A %U %G' /home/sammy/myproject/myproject.sock";
    let own = machine.run(socket).succeeded();

    let shown = machine.run("sockd adopt myproject").says("`sockd adopt --socket myproject.service`").succeeded();
    assert!(!shown.contains("[Socket]"), "{shown}");
    let shown = machine.run("sockd adopt --socket myproject").says("+ SocketMode=0770").succeeded();
    let written = machine.run(&next_command(&shown, "sockd adopt --write --socket")).succeeded();
    units::verify(machine, "myproject.service myproject.socket");
    machine.run(&next_command(&written, "systemctl stop myproject.service &&")).succeeded();
    assert_eq!(machine.run(socket).succeeded(), own);
    assert_eq!(machine.run(&guide::visit("/")).succeeded(), page);
    machine.run("systemctl is-enabled myproject.socket").says("enabled").succeeded();

    // A visitor that waits in the queue is served: that is what the socket unit is for.
    let load = Load::begin(machine, &["/home/sammy/myproject/myproject.sock"]);
    machine.run("systemctl restart myproject").succeeded();
    load.wait_for_visits(SOME_VISITS);
    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    assert!(failed.is_empty(), "of {} requests these failed:\n{}", record.visits.len(), list(failed));

    machine.run("sockd adopt --write myproject").says("is adopted already").succeeded();
    let undone = machine.run("sockd adopt --undo myproject").says("myproject.socket\n").succeeded();
    machine.run(&next_command(&undone, "systemctl stop myproject.socket &&")).succeeded();
    machine.wait_for("gunicorn's own socket", PATIENCE, &format!("{} | grep {}", guide::visit("/"), "Hello"));
    assert_eq!(machine.run(socket).succeeded(), own);
    let main = main_process(machine, "myproject");
    assert!(main.contains("gunicorn") && !main.contains("sockd"), "{main}");
    machine
        .run("find /etc/systemd -name 'myproject*' | sort")
        .says("/etc/systemd/system/myproject.service\n")
        .succeeded();
    machine.run("find /etc/systemd -name '*.socket' | grep -c myproject || true").says("0\n").succeeded();
}

/// What cannot be adopted is left alone, with a word that leads on.
pub fn what_is_refused(machine: &Machine) {
    let refused = |command: &str, part: &str| {
        let said = machine.run(&format!("sockd adopt {command}"));
        assert!(said.code == 1 && said.stderr.contains(part), "expected {part:?}: {said}");
    };
    refused("no-such-unit", "there is no unit no-such-unit.service");
    machine.write_file("/etc/systemd/user/mine.service", 0o644, "[Service]\nExecStart=/bin/true\n");
    refused("mine", "a unit of a user's own service manager (/etc/systemd/user/mine.service)");
    // systemd refuses to load this one; its file tells why.
    let relative = "[Service]\nWorkingDirectory=/srv\nExecStart=venv/bin/gunicorn web.wsgi\n";
    machine.write_file("/etc/systemd/system/relative.service", 0o644, relative);
    refused("relative", "/etc/systemd/system/relative.service:3: ");
    machine.run("ln -s /dev/null /etc/systemd/system/hidden.service; systemctl daemon-reload").succeeded();
    refused("hidden", "hidden.service is masked");
    // Somebody else's file at our drop-in's path.
    machine.write_file("/etc/systemd/system/web.service", 0o644, "[Service]\nExecStart=/usr/bin/gunicorn web.wsgi\n");
    machine.write_file("/etc/systemd/system/web.service.d/sockd.conf", 0o644, "[Service]\nNice=5\n");
    for option in ["", "--write ", "--undo "] {
        refused(&format!("{option}web"), "web.service.d/sockd.conf is not of sockd's making");
    }
    machine.run("cat /etc/systemd/system/web.service.d/sockd.conf").says("Nice=5").succeeded();
    refused("no-such.ini", "no-such.ini");

    // A template and its socket, which systemd has not loaded.
    let template = "[Service]\nExecStart=/usr/bin/gunicorn -b unix:/run/%i.sock site.wsgi\n";
    machine.write_file("/etc/systemd/system/site@.service", 0o644, template);
    machine.write_file("/etc/systemd/system/site@.socket", 0o644, "[Socket]\nListenStream=/run/%i.sock\n");
    machine.run("systemctl daemon-reload; sockd adopt site@.service").says("+ Requires=site@%i.socket\n").succeeded();
    machine.run("sockd adopt --write site@.service").says("systemctl restart 'site@*.service'").succeeded();
    units::verify(machine, "site@a.service site@a.socket");
    machine.run("sockd adopt --undo site@.service").says("removed").succeeded();

    // sockd written into a unit by hand, which systemd would wait for in vain.
    let forking = "[Service]\nType=forking\nExecStart=/usr/bin/sockd run -- /usr/bin/gunicorn site.wsgi\n";
    machine.write_file("/etc/systemd/system/forking.service", 0o644, forking);
    let said = machine.run("systemctl daemon-reload; sockd check forking");
    assert!(said.code == 78 && said.stdout.contains("forking.service is Type=forking: "), "{said}");
}

/// Whatever stands in a server's file becomes the setting that was meant, as systemd itself reads it, or nothing at all.
pub fn settings_are_what_was_meant(machine: &Machine) {
    machine.write_file("/opt/settings.py", 0o644, include_str!("settings.py"));
    for what in ["sites", "sockets $(ls /usr/sbin/php-fpm[0-9]*)"] {
        let said = machine.run(&format!("python3 /opt/settings.py {what}")).succeeded();
        let (count, wrong) =
            said.trim_end().rsplit_once('\n').map_or((said.trim_end(), ""), |(rest, last)| (last, rest));
        assert!(wrong.is_empty() && count.ends_with(" refused"), "{said}");
        assert!(!count.starts_with("0 ") && !count.contains(", 0 "), "{count}");
        eprintln!("{what}: {count}");
    }
}
