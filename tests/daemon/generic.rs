//! The generic adapter: what a worker is given, and when it counts as ready.

use rustix::process::Signal;
use serde_json::Value;

use super::http;
use super::instance::Instance;
use super::processes;
use super::transcript::{PATIENCE, START};

fn facts(instance: &Instance) -> Value {
    serde_json::from_str(&instance.get("/facts").body).expect("JSON")
}

#[test]
fn each_worker_gets_the_sockets_as_systemd_would_pass_them() {
    let web = Instance::on_unix().tcp4().names("web:admin").options("--workers 2").worker("service.py", &[]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let facts = facts(&web);
    let environment = &facts["environment"];
    assert_eq!(environment["LISTEN_FDS"], "2");
    assert_eq!(environment["LISTEN_FDNAMES"], "web:admin");
    assert_eq!(environment["LISTEN_PID"], facts["pid"].to_string());
    assert_eq!(facts["ppid"].to_string(), web.pid.to_string());
    assert_eq!(facts["directory"], web.path().to_str().expect("UTF-8"));
    let notify = environment["NOTIFY_SOCKET"].as_str().expect("it has one");
    // Not a path that a cleaner of directories, or another instance with the same one, could take away.
    assert!(notify.starts_with(&format!("/proc/{}/fd/", web.pid)), "not its own: {notify}");
    let files = std::fs::read_dir(web.path().join("run")).expect("readable").flatten();
    let mut others = files.filter(|file| !file.file_name().to_string_lossy().contains(sockd::history::FILE_NAME));
    assert!(others.next().is_none());
    assert_eq!(web.ready().len(), 2);
    web.stop();
}

#[test]
fn no_variable_that_is_meant_for_sockd_reaches_a_worker() {
    let foreign = [
        ("WATCHDOG_USEC", "20000000"),
        ("WATCHDOG_PID", "{pid}"),
        ("MAINPID", "{pid}"),
        ("MAINPIDFDID", "7"),
        ("MANAGERPID", "1"),
        ("JOURNAL_STREAM", "8:1234"),
        ("FDSTORE", "64"),
        ("LISTEN_PIDFDID", "7"),
        ("CPU_PRESSURE_WATCH", "/sys/fs/cgroup/x/cpu.pressure"),
        ("IO_PRESSURE_WRITE", "c29tZSAyMDAwMDAgMjAwMDAwMAA="),
        ("MEMORY_PRESSURE_WATCH", "/sys/fs/cgroup/x/memory.pressure"),
        ("MEMORY_PRESSURE_WRITE", "c29tZSAyMDAwMDAgMjAwMDAwMAA="),
        ("SYSTEMD_EXEC_PID", "{pid}"),
    ];
    let builder = foreign.iter().fold(Instance::on_unix(), |b, (name, value)| b.env(name, *value));
    let web = builder.env("KEPT", "yes").worker("service.py", &[]);
    let facts = facts(&web);
    for (name, _) in foreign {
        assert_eq!(facts["environment"][name], Value::Null, "{name} reached the worker");
    }
    assert_eq!(facts["environment"]["KEPT"], "yes");
    assert_ne!(facts["environment"]["NOTIFY_SOCKET"], web.path().join("notify").to_str().expect("UTF-8"));
    web.stop();
}

#[test]
fn a_worker_has_the_sockets_from_3_on_its_scoreboard_and_nothing_else() {
    let web = Instance::on_unix().tcp4().tcp6().options("--workers 2").worker("service.py", &[]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let facts = facts(&web);
    let descriptors = facts["descriptors"].as_object().expect("a map");
    let target = |number: &str| descriptors[number].as_str().expect("a link").to_owned();
    assert_eq!(target("0"), "/dev/null");
    for (number, descriptor) in (3..).zip(&web.descriptors) {
        let inode = rustix::fs::fstat(descriptor).expect("stat").st_ino;
        assert_eq!(target(&number.to_string()), format!("socket:[{inode}]"), "descriptor {number}");
    }
    let mut numbers: Vec<u32> = descriptors.keys().filter_map(|number| number.parse().ok()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6], "{descriptors:?}");
    // Where it may show its requests.
    assert_eq!(facts["environment"]["SOCKD_SCOREBOARD"], "6");
    assert_eq!(target("6"), "/memfd:sockd-scoreboard (deleted)");
    web.stop();
}

#[test]
fn nothing_runs_before_the_first_connection_which_then_waits_and_is_answered() {
    let web = Instance::on_unix().worker("service.py", &[]);
    web.notified("READY=1");
    web.status("waiting for the first connection");
    assert!(web.workers().is_empty());
    assert!(web.left().is_empty(), "{:?}", web.left());
    assert!(web.get("/").body.starts_with("hello"));
    web.log("a first connection arrived");
    web.stop();
}

#[test]
fn at_once_starts_without_a_connection_and_ready_follows_the_first_proven_worker() {
    let gate = "gate";
    let builder = Instance::on_unix().options("--start at-once");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        builder.path().join(gate),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a named pipe");
    let web = builder.worker("service.py", &["gate=gate"]);
    web.output("waits at the gate");
    assert!(web.heard(START, "READY=1").is_empty(), "READY=1 before any worker was proven");
    std::fs::write(web.path().join(gate), "").expect("the gate opens");
    let ready = web.notified("READY=1");
    assert_eq!(ready.value("STATUS"), Some("serving, 1 of 1 worker, generation 1"));
    assert!(web.get("/").body.starts_with("hello"));
    web.stop();
}

#[test]
fn several_sockets_of_every_family_are_served_with_and_without_names() {
    for names in [None, Some("web:admin:api")] {
        let mut builder = Instance::on_unix().tcp4().tcp6().options("--workers 2");
        if let Some(names) = names {
            builder = builder.names(names);
        }
        let web = builder.worker("service.py", &[]);
        for socket in 0..3 {
            assert_eq!(web.get_at(socket, "/").status, 200, "socket {socket}");
        }
        let listeners = web.report().listeners;
        let listed: Vec<_> = listeners.iter().map(|l| l.name.as_str()).collect();
        match names {
            Some(names) => assert_eq!(listed.join(":"), names),
            None => assert_eq!(listed, listeners.iter().map(|l| l.address.as_str()).collect::<Vec<_>>()),
        }
        web.stop();
    }
}

#[test]
fn the_first_worker_is_proven_alone_and_answers_before_the_others_start() {
    let web = Instance::on_unix().options("--workers 3").worker("service.py", &[]);
    web.get("/");
    web.status("serving, 3 of 3 workers, generation 1");
    let ready = web.log("worker 1 is ready after");
    for other in ["worker 2 started", "worker 3 started"] {
        assert!(web.log(other).mark() > ready.mark(), "{other} before the first was ready");
    }
    web.stop();
}

#[test]
fn a_connection_that_waits_on_any_socket_starts_the_workers() {
    let web = Instance::on_unix().tcp4().tcp6().worker("service.py", &[]);
    web.notified("READY=1");
    let mut connection = web.addresses[2].connect(PATIENCE).expect("it waits in the queue");
    http::send_get(&mut connection, "/").expect("sent");
    assert_eq!(http::read_response(&mut connection).expect("answered").status, 200);
    web.stop();
}

#[test]
fn the_flags_of_a_shared_socket_stay_as_they_were() {
    let web = Instance::on_unix().tcp4().options("--workers 2");
    let web = web.worker("service.py", &["blocking"]);
    rustix::io::ioctl_fionbio(&web.descriptors[1], true).expect("set");
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let blocking = |index: usize| {
        let flags = rustix::fs::fcntl_getfl(&web.descriptors[index]).expect("readable");
        !flags.contains(rustix::fs::OFlags::NONBLOCK)
    };
    assert!(blocking(0), "O_NONBLOCK was set");
    assert!(!blocking(1), "O_NONBLOCK was cleared");
    web.stop();
}

#[test]
fn the_backlog_is_restored_after_a_worker_that_listens_with_5() {
    let web = Instance::on_unix().tcp4().worker("service.py", &["backlog=5"]);
    web.notified("READY=1");
    let before: Vec<_> = web.report().listeners.iter().map(|listener| listener.backlog).collect();
    assert!(before[0] > Some(5), "{before:?}");
    web.get("/");
    web.status("serving, 1 of 1 worker, generation 1");
    let after: Vec<_> = web.report().listeners.iter().map(|listener| listener.backlog).collect();
    assert_eq!(before, after);
    web.stop();
}

#[test]
fn a_silent_program_is_ready_after_it_has_lived_for_a_while() {
    let web = Instance::on_unix().options("--ready-after 300ms").worker("service.py", &["silent"]);
    assert!(web.get("/").body.starts_with("hello"));
    web.status("serving, 1 of 1 worker, generation 1");
    // By sockd's own clock: its lines may be read late.
    let ready = web.log("worker 1 is ready after ").text;
    let (_, after) = ready.split_once("ready after ").expect("it was looked for");
    let early = after.strip_suffix(" ms").and_then(|ms| ms.parse().ok()).is_some_and(|ms: u32| ms < 300);
    assert!(!early, "{ready}");
    web.stop();
}

#[test]
fn once_a_worker_has_spoken_silence_proves_nothing() {
    let options = "--ready-after 4s --start-timeout 5s --start at-once";
    let web = Instance::on_unix().options(options).worker("service.py", &["silent-if=silent"]);
    web.status("serving, 1 of 1 worker, generation 1");
    // The log may come later than the status.
    web.log("worker 1 is ready");
    assert_eq!(web.get("/").status, 200);
    web.write("silent", "");
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    web.output_since(mark, "runs");
    web.log_since(mark, "worker 2 hangs: not ready within 5s");
    assert!(web.logged(mark, "is ready").is_empty(), "its silence was taken for a proof");
    web.stop();
}

#[test]
fn a_worker_that_closed_its_sockets_or_listens_elsewhere_is_reported_in_plain_words() {
    for behaviour in ["close", "elsewhere"] {
        let web = Instance::on_unix().options("--start at-once").worker("service.py", &[behaviour]);
        let line = web.log("holds none of the sockets it was given");
        assert!(line.text.contains("warning: worker 1"), "{}", line.text);
        assert!(line.text.contains("listens elsewhere") && line.text.contains("--bind"), "{}", line.text);
        web.stop();
    }
}

#[test]
fn a_silent_program_without_our_socket_is_never_ready() {
    let options = "--ready-after 2s --start-timeout 2500ms --start at-once";
    let web = Instance::on_unix().options(options).worker("service.py", &["silent", "close"]);
    web.log("worker 1 could not start: not ready within 2.5s");
    assert!(web.logged(START, "is ready").is_empty());
    assert_eq!(web.get("/").status, 503);
    web.stop();
}

#[test]
fn without_a_runtime_directory_the_workers_notify_all_the_same() {
    let web = Instance::on_unix().env("RUNTIME_DIRECTORY", "").worker("service.py", &[]);
    web.get("/");
    web.status("serving, 1 of 1 worker, generation 1");
    web.stop();
}

#[test]
fn without_systemd_it_binds_and_starts_at_once_and_removes_its_socket_at_the_end() {
    let mut web = Instance::builder().options("--listen unix:own.sock --workers 2").worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    let path = web.path().join("own.sock");
    web.addresses.push(http::Address::Unix(path.clone()));
    assert!(web.get("/").body.starts_with("hello"));
    let socket = path.clone();
    web.signal(Signal::TERM);
    assert_eq!(web.end().code(), Some(0));
    assert!(!socket.exists(), "the socket file is left behind");
    web.assert_nothing_left();
}

#[test]
fn a_worker_starts_with_no_signal_blocked_and_only_sigpipe_ignored() {
    let web = Instance::on_unix().options("--start at-once --ready-after 100ms").command(&["sleep", "infinity"]);
    web.status("serving, 1 of 1 worker, generation 1");
    let status = std::fs::read_to_string(format!("/proc/{}/status", web.ready_worker())).expect("readable");
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    assert_eq!(mask("SigBlk:"), 0);
    // The C library keeps 32 and 33 to itself; the program that started the tests may have left them ignored.
    assert_eq!(mask("SigIgn:") & 0x7fff_ffff, 1 << (Signal::PIPE.as_raw() - 1), "as systemd has it for every service");
    web.stop();
}

#[test]
fn a_child_of_the_worker_may_speak_for_it() {
    let web = Instance::on_unix().options("--start at-once").worker("service.py", &["child-speaks"]);
    web.status("serving, 1 of 1 worker, generation 1");
    assert!(web.get("/").body.starts_with("hello"));
    web.stop();
}
