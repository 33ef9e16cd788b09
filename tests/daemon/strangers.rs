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
fn whoever_waits_for_a_barrier_goes_on_once_all_was_heard() {
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
    let fed = web.told_since(mark, "WATCHDOG=1");
    web.told_since(fed.mark(), "WATCHDOG=1");
    assert!(web.logged(START, "is refused").is_empty());
    web.stop();
}
