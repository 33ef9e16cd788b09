//! `sockd adopt` on programs of Debian's supervisord: there and back again while visitors come.
//!
//! Owns: what an administrator types, taken from what sockd says, and what must hold after each step.
//! Must never: type a command that the output before it did not name, or lose a request outside the one switch.

use std::time::Duration;

use crate::adopt::next_command;
use crate::life::now;
use crate::load::{Load, Span, list};
use crate::machine::Machine;
use crate::units;

const PATIENCE: Duration = Duration::from_secs(60);
/// The requests that must have come to an end before the next step.
const SOME_VISITS: u64 = 40;
/// Where the program's server listens.
const PLACE: &str = "127.0.0.1:8000";
const VISIT: &str = "curl -sS --fail 127.0.0.1:8000";
const FILE: &str = "/etc/supervisor/conf.d/shop.conf";
/// Its page says what adopting must keep: who it runs as, where, and with which variables.
const APPLICATION: &str = "\
import grp, os, pwd
groups = ' '.join(sorted(grp.getgrgid(gid).gr_name for gid in os.getgroups()))
umask = os.umask(0)
os.umask(umask)
PAGE = '%s:%s (%s) in %s, umask %03o, %s, %s\\n' % (pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name,
    groups, os.getcwd(), umask, os.environ.get('SECRET_KEY'), os.environ.get('SITE'))
def application(environ, start_response):
    page = PAGE.encode()
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(page)))])
    return [page]
";
const PROGRAM: &str = "\
; the shop
[program:shop]
command=/home/sammy/myprojectdir/myprojectenv/bin/gunicorn --workers 3 --bind 127.0.0.1:8000 %(program_name)s:application
directory=/home/sammy/shop
user=sammy
autostart=true
autorestart=true
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=/var/log/supervisor/shop.log ; rotated
environment=SECRET_KEY=\"a \\b, 100%%; $x `c` é#\",SITE='the shop'
";

/// A program that supervisord runs, with its page.
fn begin(machine: &Machine) -> String {
    units::install(machine);
    machine.run_as("sammy", "mkdir shop").succeeded();
    machine.write_file_as("sammy", "/home/sammy/shop/shop.py", 0o644, APPLICATION);
    machine.write_file(FILE, 0o644, PROGRAM);
    machine.run("systemctl enable --now supervisor").succeeded();
    machine.wait_for("the page", PATIENCE, VISIT);
    machine.run(VISIT).succeeded()
}

/// Types a command under load, and gives the span that it took.
fn typed(machine: &Machine, command: &str) -> Span {
    let from = now(machine);
    machine.run(command).succeeded();
    machine.wait_for("the page", PATIENCE, VISIT);
    (from, now(machine))
}

/// No visitor went away without the page but within these spans.
fn served(load: Load<'_>, switches: &[Span]) {
    load.wait_for_visits(SOME_VISITS);
    let record = load.finish();
    let lost = record.failed().filter(|visit| !switches.iter().any(|span| visit.touches(*span)));
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "of {} requests these failed:\n{}", record.visits.len(), list(lost));
    let failed = record.failed().count();
    let spans: Vec<String> = switches.iter().map(|(from, to)| format!("{:.1} s", to - from)).collect();
    eprintln!("{} requests, {failed} failed in the switches of {}", record.visits.len(), spans.join(", "));
}

/// A program is adopted by its name, reloaded, and given back; its file has every byte that it had.
pub fn there_and_back(machine: &Machine) {
    let page = begin(machine);
    assert!(
        page.starts_with("sammy:sammy (sammy sudo www-data) in /home/sammy/shop, umask 022, a \\b, 100%; "),
        "{page}"
    );
    let before = machine.run(&format!("sha256sum {FILE}; stat -c '%a %U %Y' {FILE}")).succeeded();
    let load = Load::begin(machine, &[PLACE]);

    // Looking needs no root, changes nothing and shows no secret.
    let shown = machine.run_as("sammy", "sockd adopt shop").says("+ ListenStream=127.0.0.1:8000").succeeded();
    assert!(!shown.contains("100%") && shown.contains("+ Environment=\"SECRET_KEY=(not shown)\""), "{shown}");
    let by_file = machine.run_as("sammy", "cd /etc/supervisor/conf.d; sockd adopt shop.conf").succeeded();
    assert_eq!(by_file, shown);
    let refused = machine.run_as("sammy", "sockd adopt --write shop");
    assert!(refused.code == 1 && refused.stderr.contains("; try it with sudo"), "{refused}");
    machine.run("test ! -e /etc/sockd/shop.toml").succeeded();

    let written = machine.run(&next_command(&shown, "sudo sockd adopt --write shop")).succeeded();
    units::verify(machine, "sockd@shop.service sockd@shop.socket");
    // Nothing has changed for supervisord, whatever it reads again.
    machine.run("supervisorctl update").succeeded();
    machine.run("supervisorctl status shop").says("RUNNING").succeeded();
    load.wait_for_visits(SOME_VISITS);

    let switch = typed(machine, &next_command(&written, "mv "));
    assert_eq!(machine.run(VISIT).succeeded(), page);
    let status = next_command(&written, "sockd status sockd@shop");
    machine.wait_for("all workers", PATIENCE, &format!("{status} | grep '3 of 3 ready'"));
    let gone = machine.run("supervisorctl status");
    assert!(!gone.stdout.contains("shop"), "{gone}");
    machine.run("pgrep --uid sammy -x -c gunicorn || true").succeeded();
    load.wait_for_visits(SOME_VISITS);
    machine.run("sockd check sockd@shop").succeeded();
    machine.run_as("sammy", "sed -i 's/umask %03o/mask %03o/' shop/shop.py").succeeded();
    machine.run(&next_command(&written, "systemctl reload sockd@shop")).succeeded();
    machine.run(VISIT).says("mask 022").succeeded();
    // A restart of both: supervisord leaves the port alone, and visitors wait in the queue.
    machine.run("systemctl restart supervisor sockd@shop").succeeded();
    machine.run("systemctl is-enabled sockd@shop.socket").says("enabled").succeeded();
    load.wait_for_visits(SOME_VISITS);

    // Again: nothing to do, and said so; the file is found under its new name.
    machine.run("sockd adopt shop").says("shop is adopted already").succeeded();
    machine.run(&format!("sockd adopt {FILE}")).says("shop is adopted already").succeeded();
    let again = machine.run("sockd adopt --write shop").says("shop is adopted already").succeeded();
    let begun = now(machine);
    let undone = machine.run(&next_command(&again, "sockd adopt --undo shop")).succeeded();
    let (_, end) = typed(machine, &next_command(&undone, "mv "));
    machine.run(VISIT).says("mask 022").succeeded();
    // It calls a program STARTING for its first second (startsecs).
    machine.wait_for("supervisord's word", PATIENCE, "supervisorctl status shop | grep RUNNING");
    assert_eq!(machine.run(&format!("sha256sum {FILE}; stat -c '%a %U %Y' {FILE}")).succeeded(), before);
    machine.run("find /etc/systemd /etc/sockd /etc/supervisor -name '*shop*'").says(&format!("{FILE}\n")).succeeded();
    machine.run("sockd adopt --undo shop").says("nothing to undo").succeeded();
    served(load, &[switch, (begun, end)]);
}

/// Three single processes with a unix socket each, and variables that root alone may read.
pub fn processes_and_secrets(machine: &Machine) {
    begin(machine);
    let program = PROGRAM
        .replace("shop]", "many]")
        .replace(
            "--workers 3 --bind 127.0.0.1:8000 %(program_name)s",
            "--bind unix:/run/many/%(process_num)d.sock shop",
        )
        .replace("user=sammy", "user=sammy\nnumprocs=3\nprocess_name=%(process_num)d\numask=027\nstopwaitsecs=15");
    machine.run("install -d -o sammy /run/many").succeeded();
    machine.write_file("/etc/supervisor/conf.d/many.conf", 0o600, &program);
    machine.run("supervisorctl update many").succeeded();
    let visit = |number: u32| format!("curl -sS --fail --unix-socket /run/many/{number}.sock localhost");
    for number in 0..3 {
        machine.wait_for("each process", PATIENCE, &visit(number));
    }
    let page = machine.run(&visit(0)).says("umask 027").succeeded();
    let modes = machine.run("stat -c '%A %U %G %n' /run/many/*").succeeded();

    let refused = machine.run_as("sammy", "sockd adopt many");
    assert!(refused.code == 1 && refused.stderr.contains("many.conf: Permission denied"), "{refused}");
    let written = machine.run("sockd adopt --write many").says("wrote /etc/sockd/many.env").succeeded();
    machine.run("stat -c '%a %U' /etc/sockd/many.env").says("600 root\n").succeeded();
    let others = machine.run_as("sammy", "grep -rs 100 /etc/sockd /etc/systemd/system; systemctl show sockd@many");
    assert!(!others.stdout.contains("100%;"), "{others}");
    machine.run(&next_command(&written, "mv ")).succeeded();
    for number in 0..3 {
        assert_eq!(machine.run(&visit(number)).succeeded(), page);
    }
    assert_eq!(machine.run("stat -c '%A %U %G %n' /run/many/*").succeeded(), modes);
    machine.wait_for("all workers", PATIENCE, "sockd status sockd@many | grep '3 of 3 ready'");

    let undone = machine.run(&next_command(&written, "sockd adopt --undo many")).succeeded();
    machine.run(&next_command(&undone, "mv ")).succeeded();
    for number in 0..3 {
        machine.wait_for("each process", PATIENCE, &visit(number));
    }
    machine.run("test ! -e /etc/sockd/many.env && supervisorctl status").says("many:2").succeeded();
    // One that was never handed over is not taken from supervisord by the undoing.
    machine.run("sockd adopt --write many").succeeded();
    let kept = machine.run("sockd adopt --undo many").succeeded();
    machine.run(&next_command(&kept, "supervisorctl status 'many:*'")).succeeded();
    machine.run(&visit(1)).succeeded();

    // All of it goes, too, when supervisord has gone before.
    machine.run("sockd adopt --write many").succeeded();
    machine.run("systemctl stop supervisor; rm -r /etc/supervisor").succeeded();
    machine.run("sockd adopt --undo many").says("removed /etc/sockd/many.toml\n").succeeded();
    machine.run("find /etc/systemd /etc/sockd -name '*many*' | wc -l").says("0\n").succeeded();
}

/// What cannot be adopted is left alone, with a word that leads on.
pub fn what_is_refused(machine: &Machine) {
    begin(machine);
    let program = |lines: &str| PROGRAM.replace("user=sammy", lines);
    for (text, mode, part) in [
        (program("user=nobody-here"), 0o644, "there is no user nobody-here here"),
        (program(""), 0o644, "there is no user=, and supervisord runs it as root"),
        (
            program("user=sammy").replace("/myprojectenv", "/myprojectenw"),
            0o644,
            "is not adopted, because sockd could not run it",
        ),
        (program("user=sammy"), 0o666, "everybody may write /etc/supervisor/conf.d/shop.conf"),
        (program("user=sammy\n[program:other]\ncommand=/bin/cat"), 0o644, "has several programs: name one"),
        (PROGRAM.replace("%%", "%"), 0o644, "a % that is no %(NAME)s is written %%"),
    ] {
        machine.write_file(FILE, mode, &text);
        let said = machine.run(&format!("sockd adopt --write {FILE}"));
        assert!(said.code == 1 && said.stderr.contains(part), "expected {part:?}: {said}");
    }
    machine.write_file_as("sammy", "/home/sammy/shop.conf", 0o644, &program("user=root"));
    machine.run(&format!("ln -sf /home/sammy/shop.conf {FILE}")).succeeded();
    let said = machine.run("sockd adopt --write shop");
    assert!(said.code == 1 && said.stderr.contains("user=root: sammy may write the file"), "{said}");
    machine.run(&format!("rm {FILE}; mkfifo {FILE}")).succeeded();
    let said = machine.run("sockd adopt shop");
    assert!(said.code == 1 && said.stderr.contains("no regular file"), "{said}");
    machine.run("test ! -e /etc/sockd/shop.toml -a ! -e /etc/systemd/system/sockd@shop.service.d").succeeded();
}
