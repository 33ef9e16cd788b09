//! What others send to sockd's sockets: descriptors, floods, and nothing of it holds the event loop up.

use super::instance::Instance;
use super::transcript::START;

/// As the watchdog is fed: twice a second.
fn watched() -> super::instance::Builder {
    Instance::on_unix().env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "{pid}").options("--start at-once")
}

fn descriptors(web: &Instance) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", web.pid)).expect("readable").count()
}

#[test]
fn a_client_that_waits_for_a_barrier_goes_on_once_all_was_heard() {
    let web = watched().worker("service.py", &["barrier"]);
    web.output("the barrier is closed");
    web.status("serving, 1 of 1 worker, generation 1");
    web.stop();
}

#[test]
fn descriptors_that_come_with_notifications_are_closed_and_hold_nobody_up() {
    let builder = watched();
    let gate = builder.path().join("gate");
    rustix::fs::mknodat(rustix::fs::CWD, &gate, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("made");
    let web = builder.worker("service.py", &["gate=gate", "descriptors=2000"]);
    web.output("waits at the gate");
    let before = descriptors(&web);
    std::fs::write(gate, "").expect("the gate opens");
    web.status("serving, 1 of 1 worker, generation 1");
    web.output("the barrier is closed");
    assert!(descriptors(&web) <= before + 2, "{before} before, {} after", descriptors(&web));
    let mark = web.output("the last one takes an hour to close").mark();
    let fed = web.notified_since(mark, "WATCHDOG=1");
    web.notified_since(fed.mark(), "WATCHDOG=1");
    assert!(web.logged(START, "is refused").is_empty());
    web.stop();
}

#[test]
fn notifications_that_are_refused_are_a_few_lines_however_many_they_are() {
    let web = watched().options("--workers 4").worker("service.py", &["nonsense=3000"]);
    web.status("serving, 4 of 4 workers, generation 1");
    let mut mark = START;
    for _ in 0..4 {
        mark = web.output_since(mark, "the nonsense ends").mark();
    }
    let lines = |text| web.logged(START, text).len();
    assert!(lines("sent a notification that is refused") <= 4 * 5, "{}", web.transcript.show());
    let fed = web.notified_since(mark, "WATCHDOG=1");
    super::processes::signal(web.ready_worker(), rustix::process::Signal::KILL);
    web.log_since(fed.mark(), "2995 more notifications of worker");
    web.stop();
}

/// The task that reads the configuration waits for it, and nobody else does.
#[test]
fn a_file_that_cannot_be_read_in_time_holds_nobody_up() {
    let builder = watched();
    let variables = builder.path().join("variables");
    let builder = builder.file("variables", "A=1\n").config(&format!("environment-files = [{variables:?}]\n"));
    let web = builder.worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    std::fs::remove_file(&variables).expect("it was there");
    // Reading it ends when somebody writes to it.
    rustix::fs::mknodat(rustix::fs::CWD, &variables, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .expect("made");
    let mark = web.mark();
    web.signal(rustix::process::Signal::HUP);
    let mut last = web.notified_since(mark, "RELOADING=1");
    for _ in 0..4 {
        last = web.notified_since(last.mark(), "WATCHDOG=1");
    }
    let worker = web.ready_worker();
    assert_eq!(web.get("/").status, 200);
    super::processes::signal(worker, rustix::process::Signal::KILL);
    web.log_since(last.mark(), "worker 2 is ready");
    web.stop();
}

#[test]
fn a_worker_that_stands_still_holds_nobody_up() {
    let web = watched().options("--workers 2").worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    let workers = web.ready();
    super::processes::signal(workers[0], rustix::process::Signal::STOP);
    let mut last = web.notified_since(web.mark(), "WATCHDOG=1");
    for _ in 0..3 {
        last = web.notified_since(last.mark(), "WATCHDOG=1");
    }
    assert_eq!(web.report().workers.len(), 2, "the status is answered");
    super::processes::signal(workers[1], rustix::process::Signal::KILL);
    web.log_since(last.mark(), "worker 3 is ready");
    super::processes::signal(workers[0], rustix::process::Signal::CONT);
    web.stop();
}
