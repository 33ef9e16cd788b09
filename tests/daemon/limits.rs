//! Many workers.

use std::collections::BTreeSet;
use std::process::Command;

use rustix::process::Signal;

use super::instance::Instance;
use super::processes;

#[test]
fn two_hundred_workers_come_up_die_and_end() {
    let options = "--workers 200 --ready-after 200ms --start at-once";
    let web = Instance::on_unix().options(options).command(&["sleep", "infinity"]);
    web.status("serving, 200 of 200 workers, generation 1");
    let report = web.report();
    assert_eq!((report.workers.len(), report.slots.len(), report.wanted_workers), (200, 200, 200));
    let before: BTreeSet<_> = web.ready().iter().map(|pid| pid.as_raw_nonzero()).collect();
    assert_eq!(before.len(), 200);
    // A hundred at a time.
    let mark = web.mark();
    web.ready().into_iter().take(100).for_each(|pid| processes::signal(pid, Signal::KILL));
    let fewer = web.status_like(mark, "serving, 1");
    web.status_since(fewer.mark(), "serving, 200 of 200 workers, generation 1");
    let after: BTreeSet<_> = web.ready().iter().map(|pid| pid.as_raw_nonzero()).collect();
    assert_eq!(after.intersection(&before).count(), 100);
    web.stop();
}

#[test]
fn a_low_soft_limit_of_descriptors_does_not_limit_the_workers_and_stays_as_it_is_for_them() {
    let options = "--workers 100 --ready-after 200ms --start at-once";
    let web = Instance::on_unix().most_descriptors(128).options(options).command(&["sleep", "infinity"]);
    web.status("serving, 100 of 100 workers, generation 1");
    // select(2) knows descriptors up to 1023 alone: programs rely on the low soft limit.
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", web.ready_worker())).expect("readable");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(line.split_whitespace().nth(3), Some("128"), "{line}");
    web.stop();
}

/// LimitNOFILE=, the hard limit: not even the helper that answers 503 can be made.
#[test]
fn too_few_descriptors_for_anything_are_reported_once_and_nobody_is_said_to_answer() {
    let web = Instance::on_unix().hard_limit_of_descriptors(20).options("--start at-once").worker("service.py", &[]);
    web.log("cannot answer 503: ");
    // The log has a thread of its own: either may come first.
    let status = web.status_like(super::transcript::START, "cannot answer 503: ");
    assert!(status.text.contains("Too many open files"), "{}", status.text);
    // It is tried again every second.
    let began = std::time::Instant::now();
    web.until("some attempts later", || (began.elapsed().as_secs() >= 4).then_some(()));
    assert_eq!(web.logged(super::transcript::START, "cannot answer 503: ").len(), 1, "{}", web.transcript.show());
    assert!(web.logged(super::transcript::START, "answering 503").is_empty(), "{}", web.transcript.show());
    web.stop();
}

/// TasksMax=, or LimitNPROC=, which root is not subject to.
#[test]
fn no_thread_to_be_had_at_the_start_is_one_line_that_names_the_limit() {
    // Where everybody may run it; a copy has the permissions of the original.
    let program = std::env::temp_dir().join(format!("sockd-daemon-test-limit-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_sockd"), &program).expect("a copy");
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "prlimit"]);
        command
    } else {
        Command::new("prlimit")
    };
    command.arg("--nproc=1").arg(&program).args(["run", "--listen", "127.0.0.1:0", "--", "sleep", "infinity"]);
    let output = command.current_dir("/").output();
    std::fs::remove_file(&program).expect("it is ours");
    let output = output.expect("util-linux is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.contains("TasksMax=")), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
