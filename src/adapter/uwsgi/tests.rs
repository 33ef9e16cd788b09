//! A site's files and command lines, read without a uWSGI.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::*;

const GUIDE: &str = "[uwsgi]
project = firstsite
uid = sammy
base = /home/%(uid)

chdir = %(base)/%(project)
home = %(base)/Env/%(project)
module = %(project).wsgi:application

master = true
processes = 5

socket = /run/uwsgi/%(project).sock
chown-socket = %(uid):www-data
chmod-socket = 660
vacuum = true
";

/// Reads a command line with these files and variables.
fn read(line: &str, files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<LaunchPlan, String> {
    let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    let environment: BTreeMap<OsString, OsString> =
        variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    plan(&ServerInputs {
        command: &command,
        environment: &environment,
        directory: Path::new("/srv"),
        processors: 4,
        read: &|path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| format!("cannot read {}", path.display()))
        },
        names: &|directory| Err(format!("cannot read {}", directory.display())),
    })
}

/// What a worker is executed with, its notification socket being `@n`.
fn arguments(plan: &LaunchPlan, line: &str, listeners: &[&Address], private_socket: Option<usize>) -> String {
    let command = Command {
        launcher: Vec::new(),
        program: "/usr/bin/uwsgi".into(),
        arguments: line.split_whitespace().map(OsString::from).collect(),
        directory: "/srv".into(),
        environment: BTreeMap::from([("UWSGI_SOCKET".into(), "/x".into()), ("A".into(), "1".into())]),
    };
    let fds = WorkerFds { listeners, private_socket, files: 9, stats_socket: None, notify: "@n" };
    let execution = plan.execution(&command, &fds);
    assert!(!execution.listen_fds && !execution.notify_socket);
    let words = execution.command.arguments.iter().map(|word| word.to_str().expect("UTF-8"));
    words.collect::<Vec<_>>().join(" ")
}

/// What follows the file with the hooks.
const OURS: &str = "--hook-accepting !call:uwsgi_systemd_init @n \
    --hook-accepting !call:uwsgi_systemd_notify_ready --hook-master-start unix_signal:15 gracefully_kill_them_all \
    --need-app --die-on-term";

#[test]
fn a_worker_is_silent_when_busy_unless_it_serves_several_at_a_time() {
    let silent =
        |line: &str| read(line, &[("/a.ini", "[uwsgi]\nn = 8\nthreads = %(n)\n")], &[]).expect("read").silent_when_busy;
    for line in ["uwsgi -s x", "uwsgi -s x --threads 1", "uwsgi -s x --enable-threads"] {
        assert!(silent(line), "{line}");
    }
    for line in ["uwsgi -s x --threads 2", "uwsgi -s x --gevent=100", "uwsgi --ini /a.ini"] {
        assert!(!silent(line), "{line}");
    }
}

#[test]
fn the_guide_s_site_keeps_its_application_and_gives_up_its_socket() {
    let line = "/usr/local/bin/uwsgi --ini /etc/uwsgi/sites/firstsite.ini";
    let plan = read(line, &[("/etc/uwsgi/sites/firstsite.ini", GUIDE)], &[]).expect("read");
    assert_eq!(plan.workers, Some(5));
    assert_eq!(plan.mode, Some(0o660));
    let path = Address::Unix("/run/uwsgi/firstsite.sock".into());
    assert_eq!(plan.listen, std::slice::from_ref(&path));
    assert_eq!(
        plan.files[0],
        "[uwsgi]
project = firstsite
uid = sammy
base = /home/%(uid)
chdir = %(base)/%(project)
home = %(base)/Env/%(project)
module = %(project).wsgi:application
"
    );
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    let serving = arguments(&plan, line, &[&path], Some(4));
    assert_eq!(
        serving,
        format!(
            "/usr/local/bin/uwsgi --ini /proc/self/fd/9 --socket fd://3 --http-socket fd://4 --ini /proc/self/fd/10 {OURS}"
        )
    );
    // A canary has no public socket.
    let canary = arguments(&plan, line, &[], Some(3));
    assert_eq!(
        canary,
        format!("/usr/local/bin/uwsgi --ini /proc/self/fd/9 --http-socket fd://3 --ini /proc/self/fd/10 {OURS}")
    );
}

#[test]
fn each_socket_is_taken_by_the_option_that_names_it() {
    let line = "uwsgi --http-socket :8000 -s/run/x.sock --http=[::1]:81,more --module m -Mp 3 --die-on-term";
    let plan = read(line, &[], &[]).expect("read");
    let tcp: Address = "0.0.0.0:8000".parse().expect("an address");
    let unix = Address::Unix("/run/x.sock".into());
    let other: Address = "[::1]:81".parse().expect("an address");
    assert_eq!(plan.listen, [tcp.clone(), unix.clone(), other.clone()]);
    assert_eq!(plan.workers, Some(3));
    let elsewhere = Address::Unix("/elsewhere".into());
    assert_eq!(
        arguments(&plan, line, &[&unix, &tcp, &other, &elsewhere], None),
        format!(
            "uwsgi --module m --socket fd://3 --http-socket fd://4 --http-socket fd://5 --http-socket fd://6 --ini /proc/self/fd/9 {OURS}"
        )
    );
}

#[test]
fn files_within_files_and_sections_are_put_in_their_place() {
    let files = [
        ("/srv/a.ini", "[uwsgi]\nini = :base\ninherit = sub/last.ini\nmodule = a\n[base]\nthreads = 2\nlisten = 9\n"),
        ("/srv/sub/last.ini", "[uwsgi]\nenv = FROM=%n-%N\nsocket = /run/%N.sock\n"),
    ];
    let plan = read("uwsgi a.ini", &files, &[]).expect("read");
    assert_eq!(plan.files[0], "[uwsgi]\nthreads = 2\nmodule = a\nenv = FROM=last-a\n");
    assert_eq!(plan.listen, [Address::Unix("/run/a.sock".into())]);
}

#[test]
fn variables_are_options_and_leave_with_them() {
    let variables = [("UWSGI_SOCKET", "site.sock"), ("UWSGI_WORKERS", "%k"), ("UWSGI_THREADS", "2"), ("X", "y")];
    let plan = read("uwsgi --chdir /home/x", &[], &variables).expect("read");
    assert_eq!(plan.workers, Some(4));
    assert_eq!(plan.listen, [Address::Unix("/home/x/site.sock".into())]);
    let command = Command {
        launcher: Vec::new(),
        program: PathBuf::new(),
        arguments: vec!["uwsgi".into()],
        directory: PathBuf::new(),
        environment: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    let fds = WorkerFds { listeners: &[], private_socket: None, files: 3, stats_socket: None, notify: "@n" };
    let environment = plan.execution(&command, &fds).command.environment;
    let names: Vec<_> = environment.keys().map(|name| name.to_str().expect("UTF-8")).collect();
    assert_eq!(names, ["PYTHONFAULTHANDLER", "UWSGI_THREADS", "X"]);
}

#[test]
fn what_cannot_be_right_is_refused_with_its_place() {
    let cron = [("/srv/a.ini", "[uwsgi]\nmodule = a\n\ncron = 0 0 -1 -1 -1 backup\n")];
    let why = read("uwsgi a.ini", &cron, &[]).expect_err("refused");
    assert!(why.starts_with("/srv/a.ini:4: uWSGI's cron is refused: ") && why.contains("timer"), "{why}");
    for (line, expected) in [
        ("uwsgi --emperor /etc/uwsgi/sites", "the command line: uWSGI's emperor is refused: sockd runs one site"),
        ("uwsgi --yaml x.yaml", "sockd reads .ini files"),
        ("uwsgi x.xml", "sockd reads .ini files"),
        ("uwsgi --ini none.ini", "cannot read /srv/none.ini"),
        ("uwsgi --ini a.ini:b", "/srv/a.ini has no section [b]"),
        ("uwsgi --ini exec://./x", "sockd reads files alone"),
        ("uwsgi --ini", "--ini has no value"),
        ("uwsgi -p", "-p has no value"),
        ("uwsgi --processes many", "cannot tell how many workers processes = many means"),
        ("uwsgi --processes %(none)", "workers.count"),
        ("uwsgi -C789", "no permissions"),
        ("uwsgi --http-socket example.com:80", "http-socket = example.com:80: "),
    ] {
        let why = read(line, &cron, &[]).expect_err(line);
        assert!(why.contains(expected), "{line}: {why}");
    }
}

#[test]
fn files_that_include_each_other_come_to_an_end() {
    let files = [("/srv/a.ini", "[uwsgi]\nini = b.ini\n"), ("/srv/b.ini", "[uwsgi]\nini = a.ini\n")];
    assert!(read("uwsgi a.ini", &files, &[]).expect_err("refused").contains("include each other"));
    let holds_itself = [("/srv/a.ini", "[uwsgi]\nx = %(x)\nprocesses = %(x)\n")];
    assert!(read("uwsgi a.ini", &holds_itself, &[]).is_err());
}

#[test]
fn what_sockd_does_otherwise_is_reported() {
    let plan = read(
        "uwsgi --stats 127.0.0.1:9191 --daemonize /var/log/x --touch-reload=x --pidfile /run/x.pid --module m",
        &[],
        &[],
    );
    let plan = plan.expect("read");
    assert_eq!(plan.warnings.len(), 4, "{:?}", plan.warnings);
    assert!(plan.warnings[0].contains("stats is left out: `sockd status`"), "{:?}", plan.warnings);
    assert!(plan.warnings[3].contains("pidfile is left out: signal the unit"), "{:?}", plan.warnings);
    assert!(
        arguments(&plan, "uwsgi", &[], None).starts_with("uwsgi --module m --ini /proc/self/fd/9 --hook-accepting")
    );
}

#[test]
fn a_uwsgi_that_would_break_off_a_request_is_stopped_otherwise() {
    let plan = read("uwsgi --module m", &[], &[]).expect("read");
    let hooks = &plan.files[0];
    let at = |text: &str| hooks.find(text).unwrap_or_else(|| panic!("no {text:?} in {hooks}"));
    let rude =
        at("if-opt = sockd-uwsgi-version=2.0.21-debian\nhook-accepting = !unix_signal:15 gracefully_kill\nendif");
    assert!(at("unix_signal:15 goodbye_cruel_world") < rude);
    assert!(!hooks.contains("2.0.25"));
}

#[test]
fn only_uwsgi_is_recognised() {
    let is = |line: &str| runs(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
    for line in ["uwsgi", "/usr/local/bin/uwsgi --ini x", "uwsgi_python3", "/usr/bin/uwsgi-core"] {
        assert!(is(line), "{line}");
    }
    for line in ["", "uwsgitop", "myuwsgi", "python uwsgi"] {
        assert!(!is(line), "{line}");
    }
}
