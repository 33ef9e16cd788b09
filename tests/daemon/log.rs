//! A log that nobody reads: sockd goes on.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Signal;

use super::instance::Instance;
use super::processes;
use super::python::application;
use super::transcript::{START, Source};

/// A pipe that is full: its reading and its writing end. The writing end may block, as a service's stderr may.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = rustix::pipe::pipe().expect("a pipe");
    rustix::io::ioctl_fionbio(&write, true).expect("set");
    let mut file = File::from(write.try_clone().expect("a copy"));
    loop {
        match file.write(&[b'.'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    rustix::io::ioctl_fionbio(&write, false).expect("set");
    (read, write)
}

fn is_non_blocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).expect("its flags").contains(rustix::fs::OFlags::NONBLOCK)
}

#[test]
fn nothing_waits_for_a_log_that_nobody_reads_and_what_was_lost_is_logged() {
    let (read, write) = full_pipe();
    let shared = write.try_clone().expect("a copy");
    let web = Instance::on_unix()
        .log_to(write)
        .env("WATCHDOG_USEC", "2000000")
        .env("WATCHDOG_PID", "{pid}")
        .config("[reload]\nsoak = \"100ms\"\n[workers]\ncount = 2\nstart = \"at-once\"\n")
        .worker("service.py", &["flood=2"]);
    web.status("serving, 2 of 2 workers, generation 1");
    assert!(!is_non_blocking(&shared), "its flags are everybody's who writes to it");

    // A death, a reload and the visitors are all as ever, though two workers write megabytes meanwhile.
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    let one = web.status_since(mark, "serving, 1 of 2 workers, generation 1");
    web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(web.get("/").status, 200);
    assert_eq!(web.report().generation, 2);
    // And systemd hears that the loop turns.
    let mark = web.mark();
    let first = web.notified_since(mark, "WATCHDOG=1");
    web.notified_since(first.mark(), "WATCHDOG=1");

    // Somebody reads again: the oldest lines come, and how many are missing.
    web.transcript.follow(Source::Log, File::from(read));
    web.log("worker 1 started");
    let lost = web.log(" messages of the log were lost: nobody read them in time");
    let count = lost.text.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a number");
    assert!(count > 0, "{}", lost.text);
    // From here on everything is logged.
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    web.log_since(mark, " died after ");
    drop(shared);
    let transcript = web.stop();
    transcript.wait(START, Source::Log, "the last line", |line| line.ends_with("sockd: stopped"));
}

#[test]
fn what_a_process_writes_before_it_dies_is_logged_whole() {
    // As much as a pipe holds, and the end with it.
    let program = "import os; os.write(2, b''.join(b'line %04d of a long report, as tracebacks are\\n' % n \
                   for n in range(1400))); os._exit(3)";
    let web = Instance::on_unix().command(&["python3", "-c", program]);
    assert_eq!(web.get("/").status, 503);
    let death = web.log("could not start: exit 3");
    let lines = web.logged(START, "of a long report");
    let numbers: Vec<&str> = lines.iter().filter_map(|line| line.text.split("line ").nth(1)?.get(..4)).collect();
    let wanted: Vec<String> = (0..1400).map(|number| format!("{number:04}")).collect();
    assert_eq!(numbers[..1400], wanted);
    assert!(lines[1399].at <= death.at, "before the sentence about it");
    assert!(web.logged(START, "were lost").is_empty());
    web.stop();
}

/// As the first process of a container, with a collector that reads objects.
#[test]
fn each_line_of_a_log_for_programs_is_an_object_with_the_fields_of_the_journal() {
    let text = "import sys\nprint('\\x1b[2J \\u202e two\\nlines \"quoted\"', file=sys.stderr)\n";
    let web = Instance::on_unix()
        .file("myproject.py", &format!("{text}{}", application("hello")))
        .options("--log-format json --start at-once")
        .in_pid_namespace()
        .gunicorn(&[]);
    web.log("\"SOCKD_EVENT\":\"serving\"");
    processes::signal(web.pid, Signal::HUP);
    web.log("\"SOCKD_EVENT\":\"reload-finished\"");
    let transcript = web.stop();
    let objects: Vec<serde_json::Value> = transcript
        .all(START, Source::Log)
        .iter()
        .map(|line| serde_json::from_str(&line.text).unwrap_or_else(|error| panic!("{error}: {:?}", line.text)))
        .collect();
    for object in &objects {
        let keys = ["timestamp", "level", "message", "SOCKD_EVENT"];
        assert!(keys.iter().all(|key| object[key].as_str().is_some_and(|text| !text.is_empty())), "{object}");
    }
    let ready = objects.iter().find(|object| object["SOCKD_EVENT"] == "worker-ready").expect("a worker");
    assert_eq!((&ready["level"], &ready["SOCKD_WORKER"]), (&"INFO".into(), &1.into()));
    let written: Vec<_> = objects.iter().filter_map(|object| object["message"].as_str()).collect();
    assert!(written.contains(&"lines \"quoted\""), "{written:?}");
    let lines = transcript.all(START, Source::Log);
    assert!(lines.iter().all(|line| !line.text.contains(['\u{1b}', '\u{202e}'])), "a letter acts on the terminal");
}
