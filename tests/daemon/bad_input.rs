//! Bad input to sockd, by systemd, by workers and by strangers.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::process::Command;

use rustix::process::Signal;

use super::instance::{Builder, Instance};
use super::processes;
use super::transcript::{PATIENCE, START, Source};

/// It refuses to start: says why, and runs nothing.
fn refuses(builder: Builder, why: &[&str]) {
    let mut web = builder.worker("service.py", &[]);
    let status = web.end();
    assert_eq!(status.code(), Some(1), "{status}\n{}", web.transcript.show());
    for text in why {
        web.log(text);
    }
    assert!(web.heard(START, "READY=1").is_empty());
    web.assert_nothing_left();
}

#[test]
fn more_sockets_promised_than_handed_over() {
    refuses(Instance::on_unix().env("LISTEN_FDS", "3"), &["descriptor 4 (number 2 of LISTEN_FDS) is closed"]);
}

#[test]
fn a_number_of_sockets_that_is_none() {
    for number in ["many", "-1", "99999999999999999999"] {
        refuses(Instance::on_unix().env("LISTEN_FDS", number), &["LISTEN_FDS", number]);
    }
}

#[test]
fn names_that_do_not_match_the_sockets() {
    refuses(Instance::on_unix().names("web:admin"), &["LISTEN_FDNAMES"]);
}

#[test]
fn descriptors_that_are_no_listening_sockets() {
    let file = std::fs::File::open("/dev/null").expect("opened");
    refuses(
        Instance::on_unix().descriptor(file.into()),
        &["descriptor 4 (number 2 of LISTEN_FDS) is the file /dev/null"],
    );
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
    refuses(
        Instance::builder().descriptor(udp.into()),
        &["descriptor 3 (number 1 of LISTEN_FDS) is a datagram socket", "use ListenStream="],
    );
    let (connected, _other) = UnixStream::pair().expect("a pair");
    refuses(Instance::builder().descriptor(connected.into()), &["is a connected socket"]);
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    refuses(Instance::on_unix().env("LISTEN_PID", "1"), &["there is nothing to listen on"]);
}

/// The address of the first worker's notification socket.
fn notify_socket(web: &Instance) -> std::path::PathBuf {
    let pid = web.workers()[0].pid.expect("it runs");
    let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).expect("readable");
    environment.split('\0').find_map(|variable| variable.strip_prefix("NOTIFY_SOCKET=")).expect("it has one").into()
}

#[test]
fn a_stranger_cannot_speak_for_a_worker() {
    let web = Instance::on_unix().options("--start at-once").worker("service.py", &["never-ready"]);
    web.output("hangs");
    let stranger = UnixDatagram::unbound().expect("a socket");
    for text in ["READY=1", "WATCHDOG=trigger"] {
        let mark = web.mark();
        stranger.send_to(text.as_bytes(), notify_socket(&web)).expect("sent");
        let line = web.log_since(mark, "which is not its own, ignoring");
        assert!(line.text.contains(&format!("process {} spoke", std::process::id())), "{}", line.text);
    }
    assert!(web.ready().is_empty());
    assert!(web.heard(START, "READY=1").is_empty());
    web.stop();
}

#[test]
fn a_worker_that_sends_rubbish_is_refused_and_serves_on() {
    let rubbish = [
        "notify=no equals sign",
        "notify=\u{ff}\u{fe}",
        // systemd would take each line for an assignment.
        "notify=STATUS=fine\\nSTOPPING=1\\nMAINPID=1\\nERRNO=5",
        "notify=FDSTORE=1\\nFDNAME=x",
        "long-notification",
    ];
    let web = Instance::on_unix().options("--start at-once").worker("service.py", &rubbish);
    for why in ["a line has no equals sign", "it is not UTF-8", "it is longer than 4096 bytes"] {
        web.log(&format!("worker 1 sent a notification that is refused: {why}, ignoring"));
    }
    assert_eq!(web.get("/").status, 200);
    for line in ["STOPPING=1", "MAINPID=1", "ERRNO=5", "FDSTORE=1"] {
        assert!(web.heard(START, line).is_empty(), "{line} reached the manager");
    }
    web.ready_worker();
    web.stop();
}

#[test]
fn a_worker_that_says_ready_twice_is_ready_once() {
    let web = Instance::on_unix()
        .options("--start at-once")
        .worker("service.py", &["notify=READY=1", "notify=READY=1\\nREADY=1", "notify=?"]);
    web.log("a line has no equals sign");
    assert_eq!(web.logged(START, "is ready after").len(), 1);
    web.notified("READY=1");
    assert_eq!(web.get("/").status, 200);
    let transcript = web.stop();
    let said = transcript.all(START, Source::Manager);
    assert_eq!(said.iter().filter(|entry| entry.text.contains("READY=1")).count(), 1);
}

#[test]
fn a_worker_that_ends_as_soon_as_it_is_ready_leads_to_503_and_longer_waits() {
    let web = Instance::on_unix().worker("service.py", &["exit-after-ready"]);
    assert_eq!(web.get("/").status, 503);
    web.log("trying again at once");
    web.log("trying again in");
    web.status_like(START, "answering 503");
    web.stop();
}

#[test]
fn a_worker_that_cannot_be_executed_is_reported() {
    let web = Instance::on_unix().file("text", "no program").command(&["./text"]);
    assert_eq!(web.get("/").status, 503);
    let line = web.log("error: ");
    assert!(line.text.contains("text"), "{}", line.text);
    web.stop();
}

#[test]
fn a_program_that_is_missing_is_looked_for_again_while_visitors_come() {
    let web = Instance::on_unix().options("--ready-after 100ms").command(&["./server"]);
    assert_eq!(web.get("/").status, 503);
    web.status_like(START, "answering 503: no worker could start: ");
    assert!(web.report().status_line.contains("server"), "{}", web.report().status_line);
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/workers/service.py");
    let text = format!("#!/bin/sh\nexec python3 -IS {} \"$@\"\n", script.display());
    let path = web.path().join("server.new");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    std::fs::rename(&path, web.path().join("server")).expect("there");
    web.until("a visitor is served", || (web.get("/").status == 200).then_some(()));
    web.stop();
}

/// Where it will listen its configuration says, which only the program reads: until then nobody can be answered.
#[test]
fn a_program_that_is_missing_and_knows_the_address_is_waited_for() {
    let web = Instance::builder()
        .file("myproject.py", &super::python::application("hello"))
        .file("gunicorn.conf.py", "bind = 'unix:web.sock'\n")
        .command(&["./venv/bin/gunicorn", "myproject:application"]);
    let missing = format!("cannot execute {0}/venv/bin/gunicorn: {0}/venv does not exist", web.path().display());
    let line = web.log("no worker can serve");
    assert!(line.text.contains(&missing) && !line.text.contains("503"), "{}", line.text);
    web.signal(rustix::process::Signal::HUP);
    let refused = web.log("refused");
    assert!(!refused.text.contains("serve on"), "nobody does: {}", refused.text);
    std::os::unix::fs::symlink(super::python::venv(), web.path().join("venv")).expect("linked");
    web.log("worker 1 is ready");
    assert!(web.path().join("web.sock").exists());
    assert!(web.logged(START, "the helper that answers 503").is_empty());
    web.stop();
}

#[test]
fn a_worker_without_stderr_serves() {
    let web = Instance::on_unix().worker("service.py", &["close-stderr"]);
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn fifty_megabytes_on_stderr_neither_fill_the_memory_nor_stop_the_loop() {
    let web = Instance::on_unix().options("--workers 2").worker("service.py", &["flood=25"]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    // What it has allocated: how much of the program itself counts depends on who else runs it.
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", web.pid)).expect("readable");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
        line.trim().strip_suffix(" kB").and_then(|count| count.trim().parse::<u64>().ok()).expect("a number") >> 10
    };
    let before = memory();
    // The loop turns: it answers while the flood lasts.
    web.log("zzzz");
    for _ in 0..3 {
        assert_eq!(web.report().workers.len(), 2);
    }
    let mut marks = [START; 2];
    for megabyte in 1..=25 {
        for (worker, mark) in (1..).zip(&mut marks) {
            *mark = web.log_since(*mark, &format!("worker {worker}: flood, megabyte {megabyte}.")).mark();
        }
    }
    for (worker, mark) in (1..).zip(marks) {
        web.log_since(mark, &format!("worker {worker}: the flood ends"));
    }
    let after = memory();
    assert!(after < before + 4, "{before} MiB before, {after} MiB after");
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn a_line_of_a_megabyte_is_cut_and_the_next_one_is_whole() {
    let web = Instance::on_unix().worker("service.py", &["long-line"]);
    assert_eq!(web.get("/").status, 200);
    let end = web.log("the long line ends");
    assert!(end.text.len() < 100, "{}", end.text.len());
    let pieces = web.logged(START, "yyyyyyyy");
    assert!(pieces.iter().all(|piece| piece.text.len() < 10_000));
    let letters: usize = pieces.iter().map(|piece| piece.text.matches('y').count()).sum();
    assert!(letters >= 1_000_000, "{letters}");
    web.stop();
}

#[test]
fn the_control_socket_survives_rubbish() {
    let web = Instance::on_unix().worker("service.py", &[]);
    web.notified("READY=1");
    let text = std::fs::read_to_string("/proc/net/unix").expect("readable");
    let pid = web.pid.as_raw_nonzero();
    let name = text.lines().filter_map(|line| line.split_once(" @")).map(|(_, name)| name.trim());
    let name = name.into_iter().find(|name| name.starts_with(&format!("sockd/{pid}/"))).expect("it has one");
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    let connect = || {
        let stream = UnixStream::connect_addr(&address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
    };
    let _silent = connect();
    let mut garbage = connect();
    garbage.write_all(b"\x00\xff{}\n").expect("sent");
    let mut answer = String::new();
    garbage.read_to_string(&mut answer).expect("answered");
    assert!(answer.contains("error"), "{answer}");
    let mut huge = connect();
    // It may hang up in the middle.
    let _ = huge.write_all(&vec![b'x'; 1 << 20]);
    assert_eq!(web.report().pid, pid.get().unsigned_abs());
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn signals_that_mean_nothing_to_a_supervisor_do_not_end_it() {
    let web = Instance::on_unix().worker("service.py", &[]);
    assert_eq!(web.get("/").status, 200);
    // A reload while nothing has changed, many times over: they share rollouts.
    for _ in 0..20 {
        web.signal(Signal::HUP);
    }
    web.log("has taken over");
    assert_eq!(web.get("/").status, 200);
    // A stopped worker is not a dead one.
    let worker = web.ready_worker();
    processes::signal(worker, Signal::STOP);
    processes::signal(worker, Signal::CONT);
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn a_program_that_goes_to_the_background_is_reported_and_gone_in_the_end() {
    let web = Instance::on_unix().worker("service.py", &["daemon"]);
    let mut connection = web.addresses[0].connect(PATIENCE).expect("it waits");
    super::http::send_get(&mut connection, "/").expect("sent");
    // Whether its child spoke in time or not, sockd sees that its worker has left, and tries again later and later.
    for worker in 1..=3 {
        web.wait_log(START, "the worker has left", |line| {
            line.contains(&format!("worker {worker} ")) && line.contains("exit 0; trying again")
        });
    }
    let _ = super::http::read_response(&mut connection);
    // What went to the background ends when its worker has left: one for each attempt would pile up.
    web.log("has left processes behind (");
    web.until("no more than the last of them is there", || (web.left().len() <= 2).then_some(()));
    web.stop();
}

#[test]
fn a_missing_proc_is_named() {
    let script = "mount -t tmpfs none /proc && exec \"$0\" run --config /nowhere -- sleep 1";
    let unshare = ["--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_sockd")];
    let output = Command::new("unshare").args(unshare).output().expect("unshare starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/proc is not mounted here"), "{said}");
}
