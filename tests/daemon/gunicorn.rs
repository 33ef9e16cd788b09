//! gunicorn's own line under sockd: how it is called, what it is configured with, what its workers do.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{Pid, Signal};

use super::http::{self, Address};
use super::instance::Instance;
use super::processes;
use super::python::{ASGI, Hammer, application, bin, has, project, venv};
use super::transcript::{PATIENCE, START, Source};

/// The template, and after it its spare: descendants that are no workers.
fn templates(web: &Instance) -> Vec<Pid> {
    let workers: Vec<_> = web.workers().iter().filter_map(|worker| worker.pid).collect();
    let all = sockd::process::descendants(web.pid);
    all.into_iter().filter(|pid| !workers.contains(&pid.as_raw_nonzero().get().unsigned_abs())).collect()
}

#[test]
fn the_guides_line_serves_with_three_workers() {
    let project = project();
    let bind = format!("unix:{}", project.path().join("web.sock").display());
    let web = project.gunicorn(&["--access-logfile", "-", "--workers", "3", "--bind", &bind]);
    web.notified("READY=1");
    assert_eq!(web.workers().len(), 0, "a worker before the first connection");
    assert!(web.get("/").body.starts_with("hello from"));
    web.status("serving, 3 of 3 workers, generation 1");
    assert!(web.logged(START, "is ignored").is_empty(), "--bind names the very socket");
    // The access log goes where the service's stdout goes.
    web.output("\"GET / HTTP/1.1\" 200");
    let parents: BTreeSet<u32> = web.ready().into_iter().map(parent).collect();
    assert_eq!(parents, BTreeSet::from([web.pid.as_raw_nonzero().get().unsigned_abs()]), "not its own children");
    web.stop();
}

fn parent(pid: Pid) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a line").trim().parse().expect("a number")
}

#[test]
fn python_with_the_module_is_gunicorn_too() {
    let python = bin("python");
    let command = [python.as_str(), "-u", "-m", "gunicorn", "-w", "2", "myproject:application"];
    let web = project().command(&command);
    assert!(web.get("/").body.starts_with("hello from"));
    web.status("serving, 2 of 2 workers, generation 1");
    web.stop();
}

#[test]
fn gunicorns_variables_count() {
    for (name, value) in [("GUNICORN_CMD_ARGS", "--workers=2"), ("WEB_CONCURRENCY", "2")] {
        let web = project().env(name, value).gunicorn(&[]);
        assert_eq!(web.get("/").status, 200);
        web.status("serving, 2 of 2 workers, generation 1");
        web.stop();
    }
}

#[test]
fn gunicorns_own_configuration_file_counts_down_to_the_socket() {
    let text = "workers = 2\nbind = ['unix:configured.sock']\ntimeout = 77\ngraceful_timeout = 3\n";
    let mut web =
        Instance::builder().file("myproject.py", &application("hello")).file("gunicorn.conf.py", text).gunicorn(&[]);
    web.status("serving, 2 of 2 workers, generation 1");
    web.addresses.push(Address::Unix(web.path().join("configured.sock")));
    assert!(web.get("/").body.starts_with("hello from"));
    let path = web.path().join("configured.sock");
    web.signal(Signal::TERM);
    assert_eq!(web.end().code(), Some(0));
    assert!(!path.exists(), "the socket is left behind");
    web.assert_nothing_left();
}

#[test]
fn a_socket_that_we_bind_has_the_mode_that_gunicorn_would_give_it() {
    // The Flask guide's line: `--bind unix:myproject.sock -m 007`.
    for (options, mode) in [(&["-m", "007"][..], 0o770), (&[][..], 0o777)] {
        let mut web = Instance::builder()
            .file("myproject.py", &application("hello"))
            .gunicorn(&[&["--workers", "2", "--bind", "unix:bound.sock"], options].concat());
        web.status("serving, 2 of 2 workers, generation 1");
        let path = web.path().join("bound.sock");
        let found = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{found:o} is not {mode:o}");
        web.addresses.push(Address::Unix(path));
        assert_eq!(web.get("/").status, 200);
        web.stop();
    }
}

/// Serves, replaces a killed worker, drains on TERM.
fn serves(class: &str, source: &str) {
    let web = Instance::on_unix().tcp4().tcp6().file("myproject.py", source).gunicorn(&["-k", class, "--workers", "2"]);
    for socket in 0..3 {
        assert!(web.get_at(socket, "/").body.starts_with("hello from"), "{class}");
    }
    web.status("serving, 2 of 2 workers, generation 1");
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    let one = web.status_since(mark, "serving, 1 of 2 workers, generation 1");
    web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");
    assert_eq!(web.get("/").status, 200, "{class}");
    web.stop();
}

#[test]
fn worker_class_sync_serves() {
    serves("sync", &application("hello"));
}

#[test]
fn worker_class_gthread_serves() {
    serves("gthread", &application("hello"));
}

#[test]
fn worker_class_asgi_serves() {
    serves("asgi", ASGI);
}

#[test]
fn worker_class_gevent_serves_if_it_is_installed() {
    if has("gevent") {
        serves("gevent", &application("hello"));
    }
}

#[test]
fn worker_class_eventlet_serves_if_it_is_installed() {
    if has("eventlet") && has("gunicorn.workers.geventlet") {
        serves("eventlet", &application("hello"));
    }
}

#[test]
fn worker_class_tornado_serves_if_it_is_installed() {
    if has("tornado") {
        serves("tornado", &application("hello"));
    }
}

#[test]
fn worker_class_uvicorn_serves_if_it_is_installed() {
    if has("uvicorn_worker") {
        serves("uvicorn_worker.UvicornWorker", ASGI);
    }
}

#[test]
fn max_requests_replaces_a_worker_before_it_leaves_and_loses_no_request() {
    let web = project().gunicorn(&["--workers", "2", "--max-requests", "50"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    let hammer = Hammer::start(&web.addresses[0], 3);
    let mut mark = START;
    for _ in 0..3 {
        let retires = web.log_since(mark, "has served its number of requests; its successor is started first");
        let drains = web.log_since(retires.mark(), "finishes its requests");
        assert!(!web.logged(retires.mark(), "is ready after").is_empty(), "no successor was ready before it left");
        mark = drains.mark();
    }
    let answers = hammer.finish(&web);
    let pids: BTreeSet<_> = answers.iter().flatten().map(|body| body.rsplit(' ').next()).collect();
    assert!(pids.len() > 2, "{pids:?}");
    let fewer = web.transcript.all(START, Source::Manager);
    let complete = fewer.iter().position(|entry| entry.text.contains("serving, 2 of 2"));
    assert!(
        !fewer[complete.expect("it was complete")..].iter().any(|entry| entry.text.contains("serving, 1 of 2")),
        "it had fewer workers for a while"
    );
    web.stop();
}

#[test]
fn a_request_longer_than_the_timeout_aborts_its_worker_with_the_stack_in_the_log_while_the_others_serve() {
    let web = project().gunicorn(&["--workers", "2", "--timeout", "2"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, "/hang").expect("sent");
    let hanging = web.output("hanging");
    assert_eq!(web.get("/").status, 200);
    let hangs = web.log_since(hanging.mark(), "hangs: no heartbeat for");
    assert!(hangs.text.contains("; it serves GET /hang since "), "{}", hangs.text);
    assert!(hangs.text.contains("sending SIGABRT"), "{}", hangs.text);
    let stack = web.log_since(hangs.mark(), "in hang_for_ever");
    assert!(stack.text.contains("myproject.py"), "{}", stack.text);
    assert_eq!(web.get("/").status, 200);
    let one = web.status_since(hanging.mark(), "serving, 1 of 2 workers, generation 1");
    web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");
    web.stop();
}

#[test]
fn an_import_that_hangs_is_aborted_and_its_stack_is_in_the_log() {
    let text =
        format!("import time\ndef import_something():\n    time.sleep(3600)\nimport_something()\n{}", application("x"));
    let web = Instance::on_unix()
        .file("myproject.py", &text)
        .options("--start-timeout 2s --start at-once --ready-after 1s")
        .gunicorn(&[]);
    let hangs = web.log("worker 1 hangs: not ready within 2s; sending SIGABRT");
    web.log_since(hangs.mark(), "in import_something");
    web.log_since(hangs.mark(), "worker 1 could not start: not ready within 2s");
    web.status_like(START, "answering 503: no worker could start: not ready within 2s");
    assert_eq!(web.get("/").status, 503);
    // While the next attempt hangs nothing is lost, and the fixed code serves.
    web.write("myproject.py", &application("fixed"));
    web.until("a visitor is served", || (web.get("/").status == 200).then_some(()));
    web.stop();
}

#[test]
fn when_the_template_dies_the_workers_live_on_and_the_next_one_comes() {
    let web = project().gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    let before = web.ready();
    let template = templates(&web)[0];
    let mark = web.mark();
    processes::signal(template, Signal::KILL);
    web.log_since(mark, "the template ended: killed by SIGKILL");
    assert_eq!(web.ready(), before);
    assert_eq!(web.get("/").status, 200);
    processes::signal(before[0], Signal::KILL);
    let one = web.status_since(mark, "serving, 1 of 2 workers, generation 1");
    web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");
    assert!(web.ready().contains(&before[1]));
    assert_ne!(templates(&web)[0], template);
    web.stop();
}

#[test]
fn workers_and_template_leave_when_sockd_is_killed() {
    let mut web = project().gunicorn(&["--workers", "2", "--timeout", "4"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    let all = web.until("two workers, the template and its spare", || {
        Some(sockd::process::descendants(web.pid)).filter(|all| all.len() == 4)
    });
    // A sync worker looks for its parent at least every timeout / 2.
    web.signal(Signal::KILL);
    web.end();
    for pid in all {
        assert!(processes::ended(pid, PATIENCE), "{} stays", processes::describe(pid));
    }
}

#[test]
fn a_bind_that_disagrees_with_the_inherited_socket_is_a_warning() {
    let web = project().gunicorn(&["--bind", "unix:/run/another.sock"]);
    assert_eq!(web.get("/").status, 200);
    let line = web.log("--bind unix:/run/another.sock is ignored");
    assert!(line.text.starts_with("sockd: warning: ") && line.text.contains("web.sock"), "{}", line.text);
    web.stop();
}

/// gunicorn does not look at it then.
#[test]
fn a_bind_that_cannot_be_read_is_a_warning_beside_an_inherited_socket() {
    for bind in ["no-such-host.invalid:8000", "[::zz]:80"] {
        let web = project().gunicorn(&["--bind", bind]);
        assert_eq!(web.get("/").status, 200, "{bind}");
        let line = web.log(&format!("--bind {bind}: "));
        assert!(line.text.starts_with("sockd: warning: ") && line.text.contains("web.sock"), "{}", line.text);
        web.stop();
    }
}

/// As in `--bind "$(hostname):8000"`, whether sockd or the template has to look it up.
#[test]
fn a_name_in_a_bind_is_looked_up() {
    let command_line = Instance::builder().file("myproject.py", &application("hello"));
    let file = Instance::builder()
        .file("myproject.py", &application("hello"))
        .file("gunicorn.conf.py", "import socket\nbind = socket.gethostname() + ':0'\n");
    let name = rustix::system::uname().nodename().to_str().expect("a name").to_owned();
    for mut web in [command_line.gunicorn(&["--bind", &format!("{name}:0")]), file.gunicorn(&[])] {
        let line = web.log("listening on ");
        let address = line.text.split_once("listening on ").expect("the address").1;
        web.addresses.push(Address::Tcp(address.parse().expect("in numbers")));
        assert!(web.get("/").body.starts_with("hello from"));
        web.stop();
    }
}

#[test]
fn a_missing_gunicorn_is_a_clear_message_and_503_and_serves_once_it_is_there() {
    let project = project();
    let missing = project.path().join("venv/bin/gunicorn").display().to_string();
    let web = project.command(&[&missing, "myproject:application"]);
    assert_eq!(web.get("/").status, 503);
    let line = web.log("error: ");
    assert!(line.text.contains(&missing) && line.text.contains("does not exist"), "{}", line.text);
    web.status_like(START, "answering 503: no worker could start: ");
    assert!(web.report().status_line.contains("venv"), "{}", web.report().status_line);
    std::os::unix::fs::symlink(venv(), web.path().join("venv")).expect("repaired");
    web.until("a visitor is served", || (web.get("/").status == 200).then_some(()));
    web.stop();
}

#[test]
fn a_missing_interpreter_is_a_clear_message_and_503() {
    let web = project().file("gunicorn", "#!/nowhere/venv/bin/python3\nimport gunicorn\n");
    let path = web.path().join("gunicorn");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let web = web.command(&["./gunicorn", "myproject:application"]);
    assert_eq!(web.get("/").status, 503);
    let line = web.log("its first line names /nowhere/venv/bin/python3: /nowhere does not exist");
    assert!(line.text.contains("virtual environment"), "{}", line.text);
    web.status_like(START, "its first line names /nowhere/venv/bin/python3");
    web.stop();
}

#[test]
fn an_environment_without_gunicorn_says_so() {
    let web = project().command(&["python3", "-I", "-S", "-m", "gunicorn", "myproject:application"]);
    assert_eq!(web.get("/").status, 503);
    web.status_like(START, "No module named");
    web.stop();
}

#[test]
fn options_that_gunicorn_does_not_know_are_reported_in_its_own_words() {
    let web = project().gunicorn(&["--nonsense"]);
    assert_eq!(web.get("/").status, 503);
    web.log("unrecognized arguments: --nonsense");
    web.status_like(START, "unrecognized arguments: --nonsense");
    web.stop();
}

#[test]
fn a_configuration_file_that_fails_is_quoted() {
    let web = project().file("gunicorn.conf.py", "workers = 2\nraise RuntimeError('not today')\n").gunicorn(&[]);
    assert_eq!(web.get("/").status, 503);
    web.status_like(START, "RuntimeError: not today");
    web.stop();
}

#[test]
fn a_stop_before_the_first_connection_takes_the_template_along() {
    let web = project().gunicorn(&["--workers", "2"]);
    web.notified("READY=1");
    web.until("the template is there, and its spare", || (web.left().len() == 2).then_some(()));
    web.stop();
}

#[test]
fn a_stop_while_the_configuration_file_hangs_does_not_wait_for_it() {
    let text = "import time\nprint('hanging here', flush=True)\ntime.sleep(3600)\n";
    let web = project().file("gunicorn.conf.py", text).gunicorn(&[]);
    web.output("hanging here");
    web.stop();
}

#[test]
fn a_worker_starts_with_a_clean_slate_of_signals() {
    let text = format!(
        "{}\nmask = [l for l in open('/proc/self/status') if l.startswith('SigBlk')][0]\n\
                        print('mask', mask, flush=True)\n",
        application("hello")
    );
    let web = Instance::on_unix().file("myproject.py", &text).gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    let mask = web.output("mask SigBlk:");
    // Nothing is held back but the signal of which sockd alone makes use, SIGRTMAX - 2 (62).
    assert!(mask.text.ends_with(&format!("{:016x}", 1_u64 << 61)), "{}", mask.text);
    web.stop();
}

/// We do not speak TLS: new code is greeted in it, and the log is not filled with our questions. gunicorn's own classes
/// read the certificate only for the first visitor.
#[test]
fn workers_that_speak_tls_are_proven_by_a_greeting_and_not_asked() {
    for class in ["gthread", "uvicorn_worker.UvicornWorker"] {
        let application = if class == "gthread" { application("hello from") } else { ASGI.to_owned() };
        let project = project().file("myproject.py", &application).config("[health]\npath = \"/\"\ninterval = 1\n");
        let openssl = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", "key", "-out"])
            .arg("certificate")
            .current_dir(project.path())
            .output()
            .expect("openssl is installed");
        assert!(openssl.status.success(), "{openssl:?}");
        let web = project.gunicorn(&["-k", class, "--certfile", "certificate", "--keyfile", "key"]);
        let ask = || {
            let curl = std::process::Command::new("curl")
                .args(["-sSk", "https://localhost/", "--unix-socket"])
                .arg(web.path().join("web.sock"))
                .output()
                .expect("curl is installed");
            assert!(curl.status.success(), "{curl:?}");
            String::from_utf8(curl.stdout).expect("text")
        };
        assert!(ask().starts_with("hello"), "{class}");
        web.log("health.path is not asked for: the workers speak TLS");
        let (_, outcome) = web.reload();
        assert!(outcome.ok, "{class}: {outcome:?}");
        assert!(ask().starts_with("hello"), "{class}");
        assert!(web.logged(START, "SSL").is_empty() && web.logged(START, "nvalid").is_empty(), "{class}");
        std::fs::remove_file(web.path().join("certificate")).expect("it is there");
        let (_, outcome) = web.reload();
        assert!(!outcome.ok && outcome.message.contains("FileNotFoundError: "), "{class}: {outcome:?}");
        assert_eq!(outcome.message.contains("TLS handshake: "), class == "gthread", "{outcome:?}");
        web.stop();
    }
}
