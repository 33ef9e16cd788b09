//! Workers that die, hang, do not start or do not leave.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::http;
use super::instance::Instance;
use super::processes;
use super::transcript::{PATIENCE, START, Source};

/// The wait in `…; trying again in 1.2 s`.
fn wait_of(line: &str) -> Duration {
    let (_, wait) = line.split_once("; trying again ").expect("it says when");
    let Some(wait) = wait.strip_prefix("in ") else { return Duration::ZERO };
    let (number, unit) = wait.split_once(' ').expect("a number and a unit");
    let number: f64 = number.parse().expect("a number");
    match unit {
        "ms" => Duration::from_secs_f64(number / 1000.0),
        "s" => Duration::from_secs_f64(number),
        other => panic!("{other}?"),
    }
}

/// Visitors come one after the other until one is served; returns how long that took.
fn visitors_until_served(web: &Instance) -> Duration {
    let began = Instant::now();
    web.until("a visitor is served", || (web.get("/").status == 200).then_some(()));
    began.elapsed()
}

#[test]
fn a_killed_worker_is_replaced_at_once_while_the_others_serve() {
    let web = Instance::on_unix().options("--workers 2 --start at-once").worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    let before = web.ready();
    let mark = web.mark();
    processes::signal(before[0], Signal::KILL);
    assert!(processes::ended(before[0], PATIENCE));
    assert_eq!(web.get("/").status, 200);
    let died = web.log_since(mark, "worker 1 died after");
    assert!(died.text.contains("killed by SIGKILL; trying again at once"), "{}", died.text);
    let one = web.status_since(mark, "serving, 1 of 2 workers, generation 1");
    web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");
    let after = web.ready();
    assert!(after.contains(&before[1]) && !after.contains(&before[0]), "{before:?} {after:?}");
    let restarts: Vec<u64> = web.workers().iter().map(|worker| worker.restarts).collect();
    assert_eq!(restarts.iter().sum::<u64>(), 1, "{restarts:?}");
    web.stop();
}

#[test]
fn a_broken_application_answers_503_and_is_tried_again_after_longer_and_longer_waits() {
    let web = Instance::on_unix().options("--workers 2").file("broken", "").worker("service.py", &["exit-if=broken"]);
    let response = web.get("/");
    assert_eq!(response.status, 503);
    let retry: u64 = response.header("Retry-After").expect("it has one").parse().expect("seconds");
    assert!((1..=60).contains(&retry), "{retry}");
    let mut waits = Vec::new();
    let mut mark = START;
    for _ in 0..4 {
        let failed = web.log_since(mark, "could not start: exit 1: RuntimeError: broken while broken is there");
        waits.push((wait_of(&failed.text), failed.at));
        mark = failed.mark();
    }
    assert_eq!(waits[0].0, Duration::ZERO);
    for pair in waits.windows(2) {
        let ((wait, at), (longer, next)) = (pair[0], pair[1]);
        assert!(longer > wait, "{waits:?}");
        // What it says it does. On a busy machine the first of two lines may be read late.
        assert!(next.duration_since(at) + Duration::from_millis(500) >= wait, "{waits:?}");
    }
    assert!(web.ready().is_empty());
    let death = web.report().slots[0].last_death.clone().expect("it is reported");
    assert!(death.reason.contains("RuntimeError"), "{death:?}");
    assert!(death.last_lines.iter().any(|line| line.starts_with("Traceback")), "{death:?}");
    web.stop();
}

/// The log holds the report of a start that fails once, and then how often it came; a worker that starts is written in
/// full.
#[test]
fn the_same_report_at_every_attempt_is_written_once_and_counted() {
    let web = Instance::on_unix().file("broken", "").worker("service.py", &["exit-if=broken"]);
    assert_eq!(web.get("/").status, 503);
    let counted = web.log("worker 2 wrote the same");
    assert!(counted.text.contains(" lines as worker 1 (once so far)"), "{}", counted.text);
    web.log("worker 4 wrote the same");
    web.log(" lines as worker 1 (3 times so far)");
    // Its traceback; the sentences about each attempt name the error alone.
    let raised = web.logged(START, "raise RuntimeError(");
    assert!(raised.len() == 1 && raised[0].text.contains("worker 1: "), "{raised:?}");
    let death = web.report().slots[0].last_death.clone().expect("it is reported");
    assert!(death.last_lines.iter().any(|line| line.contains("raise RuntimeError(")), "{death:?}");

    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    visitors_until_served(&web);
    web.stop();
}

#[test]
fn fixed_code_serves_within_three_seconds_while_visitors_come() {
    let web = Instance::on_unix().file("broken", "").worker("service.py", &["exit-if=broken"]);
    assert_eq!(web.get("/").status, 503);
    // The back-off is longer than a visitor shall wait.
    web.wait_log(START, "a wait of more than three seconds", |line| {
        line.contains("could not start") && wait_of(line) > Duration::from_secs(3)
    });
    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    let took = visitors_until_served(&web);
    assert!(took < Duration::from_secs(3), "it took {took:?}\n{}", web.transcript.show());
    web.log("a worker serves, no more 503");
    web.stop();
}

#[test]
fn the_survivors_go_on_while_a_slot_cannot_be_filled() {
    let web = Instance::on_unix().options("--workers 2 --start at-once").worker("service.py", &["exit-if=broken"]);
    web.status("serving, 2 of 2 workers, generation 1");
    web.write("broken", "");
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    let failed = web.log_since(mark, "could not start");
    web.log_since(failed.mark(), "could not start");
    assert_eq!(web.get("/").status, 200);
    assert_eq!(web.report().status_line, "serving, 1 of 2 workers, generation 1");
    assert!(web.logged(mark, "503").is_empty());
    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    web.status_since(failed.mark(), "serving, 2 of 2 workers, generation 1");
    web.stop();
}

/// Its worker has spoken, so that silence is no proof; it is killed, and its successor hangs.
fn with_a_hanging_successor(behaviour: &[&str]) -> Instance {
    let options = "--ready-after 4s --start-timeout 5s --start at-once";
    let web = Instance::on_unix().options(options).worker("service.py", &[behaviour, &["hang-if=hang"]].concat());
    web.status("serving, 1 of 1 worker, generation 1");
    assert_eq!(web.get("/").status, 200);
    web.write("hang", "");
    processes::signal(web.ready_worker(), Signal::KILL);
    web.output("hangs");
    web
}

#[test]
fn a_worker_that_hangs_before_it_is_ready_is_aborted_and_the_log_says_so() {
    let web = with_a_hanging_successor(&[]);
    let mut connection = web.addresses[0].connect(PATIENCE).expect("it waits");
    http::send_get(&mut connection, "/").expect("sent");
    let hangs = web.log("worker 2 hangs: not ready within 5s; sending SIGABRT");
    assert!(hangs.text.contains("error: "), "{}", hangs.text);
    web.log("worker 2 could not start: not ready within 5s");
    web.log("worker 2 has left (killed by SIGABRT)");
    // A visitor that waited meanwhile gets 503.
    assert_eq!(http::read_response(&mut connection).expect("answered").status, 503);
    web.stop();
}

#[test]
fn a_worker_that_ignores_the_abort_is_killed() {
    let web = with_a_hanging_successor(&["ignore-abort"]);
    let hangs = web.log("worker 2 hangs");
    let killed = web.log_since(hangs.mark(), "worker 2 did not leave in time: killed");
    web.log_since(killed.mark(), "worker 2 has left (killed by SIGKILL)");
    web.stop();
}

#[test]
fn a_worker_that_ignores_term_is_killed_after_the_stop_timeout() {
    let options = "--stop-timeout 1500ms --start at-once";
    let mut web = Instance::on_unix().options(options).worker("service.py", &["ignore-term"]);
    web.status("serving, 1 of 1 worker, generation 1");
    web.signal(Signal::TERM);
    let refused = web.output("TERM? no");
    assert_eq!(web.end().code(), Some(0));
    let killed = web.log_since(refused.mark(), "worker 1 did not leave in time: killed");
    let waited = killed.at.duration_since(web.log("sockd: stopping").at);
    assert!(waited >= Duration::from_secs(1), "killed after {waited:?}");
    web.assert_nothing_left();
}

#[test]
fn a_stop_finishes_the_requests_in_flight() {
    let web = Instance::on_unix().options("--workers 2 --start at-once").worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, "/slow?0.7").expect("sent");
    web.output("answering slowly");
    web.stop();
    let response = http::read_response(&mut connection).expect("answered");
    assert_eq!(response.status, 200);
}

#[test]
fn nothing_is_left_of_a_worker_that_forks_and_forsakes() {
    let web = Instance::on_unix().options("--workers 2 --start at-once").worker("service.py", &["grandchildren"]);
    web.status("serving, 2 of 2 workers, generation 1");
    let first = web.output("grandchild");
    // Two workers, and two of their descendants each.
    let mut mark = first.mark();
    for _ in 0..3 {
        mark = web.output_since(mark, "grandchild").mark();
    }
    // The one in between leaves when its child is already there.
    web.until("three processes of each worker are there", || (web.left().len() == 6).then_some(()));
    web.stop();
}

/// The processes that a worker has started and that say so.
fn subprocesses(web: &Instance, worker: Pid) -> Vec<Pid> {
    let said = |line: &str| {
        let (pid, session) = line.strip_prefix("subprocess ")?.split_once(" of ")?;
        let pid = Pid::from_raw(pid.parse().ok()?)?;
        (session.trim() == worker.to_string()).then_some(pid)
    };
    web.until("its two processes", || {
        let found: Vec<Pid> =
            web.transcript.all(START, Source::Output).iter().filter_map(|entry| said(&entry.text)).collect();
        (found.len() == 2).then_some(found)
    })
}

#[test]
fn what_a_dead_worker_had_started_ends_with_it_and_what_others_have_started_does_not() {
    let web = Instance::on_unix().options("--workers 2 --start at-once").worker("service.py", &["subprocess"]);
    web.status("serving, 2 of 2 workers, generation 1");
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", web.pid)).expect("readable").count();
    let kept = web.ready()[1];
    let theirs = subprocesses(&web, kept);
    let mut before = None;
    for _ in 0..3 {
        let ready = web.until("two are ready", || Some(web.ready()).filter(|ready| ready.len() == 2));
        let victim = *ready.iter().find(|pid| **pid != kept).expect("the other one");
        let orphans = subprocesses(&web, victim);
        let mark = web.mark();
        processes::signal(victim, Signal::KILL);
        web.log_since(mark, "has left processes behind (");
        for orphan in &orphans {
            assert!(processes::ended(*orphan, PATIENCE), "{} stays", processes::describe(*orphan));
        }
        web.until("two are ready", || (web.ready().len() == 2).then_some(()));
        let before = *before.get_or_insert_with(descriptors);
        web.until("no descriptor stays", || (descriptors() <= before).then_some(()));
    }
    assert!(web.ready().contains(&kept));
    for process in theirs {
        assert!(!processes::is_zombie(process), "it was ended with another's worker");
    }
    web.stop();
}

/// sockd reaps both at once, and looks once for what they have left.
#[test]
fn what_workers_had_started_that_die_at_once_ends_with_each_of_them() {
    let web = Instance::on_unix().options("--workers 2 --start at-once").worker("service.py", &["subprocess"]);
    web.status("serving, 2 of 2 workers, generation 1");
    let victims = web.ready();
    let orphans: Vec<_> = victims.iter().flat_map(|victim| subprocesses(&web, *victim)).collect();
    let mark = web.mark();
    web.signal(Signal::STOP);
    for victim in victims {
        processes::signal(victim, Signal::KILL);
        assert!(processes::ended(victim, PATIENCE));
    }
    web.signal(Signal::CONT);
    web.log_since(mark, "worker 1 has left processes behind (");
    web.log_since(mark, "worker 2 has left processes behind (");
    for orphan in &orphans {
        assert!(processes::ended(*orphan, PATIENCE), "{} stays", processes::describe(*orphan));
    }
    web.until("two are ready", || (web.ready().len() == 2).then_some(()));
    web.stop();
}

/// In a container sockd may be the first process, in a session of which it sees no leader (its number is 0).
#[test]
fn the_first_process_of_a_container_lives_through_deaths() {
    let web = Instance::on_unix().options("--start at-once").in_pid_namespace().worker("service.py", &["subprocess"]);
    web.status("serving, 1 of 1 worker, generation 1");
    // Its subprocess, and the child of that.
    let first = web.output("subprocess ");
    web.output_since(first.mark(), "subprocess ");
    let worker = *sockd::process::children(web.pid).first().expect("a worker");
    let mark = web.mark();
    processes::signal(worker, Signal::KILL);
    web.log_since(mark, "has left processes behind (");
    web.log_since(mark, "worker 2 is ready");
    assert_eq!(web.get("/").status, 200);
    // Who asks from outside knows it by another number.
    assert_eq!(web.report().pid, 1);
    assert!(web.reload().1.ok);
    web.stop();
}

/// One stop may be two signals: ExecStop= sends one, and systemd KillSignal=.
#[test]
fn an_interrupt_hurries_a_stop_and_the_second_signal_of_a_stop_does_not() {
    for (of_the_unit, of_systemd) in [
        (Signal::TERM, Signal::TERM),
        (Signal::QUIT, Signal::QUIT),
        (Signal::INT, Signal::INT),
        (Signal::TERM, Signal::QUIT),
    ] {
        let mut web = Instance::on_unix().options("--stop-timeout 600s --start at-once").worker("service.py", &[]);
        web.status("serving, 1 of 1 worker, generation 1");
        let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
        http::send_get(&mut connection, "/slow?600").expect("sent");
        web.output("answering slowly");
        web.signal(of_the_unit);
        web.log("sockd: stopping");
        web.signal(of_systemd);
        let hurried = |web: &Instance| web.logged(START, "hurrying").len();
        web.log("asked to stop again while it stops");
        assert_eq!(hurried(&web), 0, "{of_the_unit:?}, {of_systemd:?}");
        web.signal(Signal::INT);
        web.log("hurrying");
        assert_eq!(web.end().code(), Some(0));
        web.log("worker 1 did not leave in time: killed");
        assert_eq!(hurried(&web), 1);
        web.assert_nothing_left();
    }
}

#[test]
fn workers_leave_when_sockd_is_killed() {
    let mut web = Instance::on_unix().options("--workers 3 --start at-once").worker("service.py", &[]);
    web.status("serving, 3 of 3 workers, generation 1");
    let workers: Vec<Pid> = web.ready();
    assert_eq!(workers.len(), 3);
    web.signal(Signal::KILL);
    web.end();
    for worker in workers {
        assert!(processes::ended(worker, PATIENCE), "{} stays", processes::describe(worker));
    }
}

#[test]
fn the_helper_that_answers_503_leaves_when_sockd_is_killed_and_comes_back_when_it_is_killed_itself() {
    let mut web = Instance::on_unix().file("broken", "").worker("service.py", &["exit-if=broken"]);
    assert_eq!(web.get("/").status, 503);
    let helper = |web: &Instance| {
        sockd::process::descendants(web.pid).into_iter().find(|pid| processes::describe(*pid).contains("fallback"))
    };
    let first = web.until("the helper is there", || helper(&web));
    processes::signal(first, Signal::KILL);
    web.log("the helper that answers 503 ended (killed by SIGKILL)");
    assert_eq!(web.get("/").status, 503);
    let second = web.until("another helper is there", || helper(&web));
    assert_ne!(first, second);
    web.signal(Signal::KILL);
    web.end();
    assert!(processes::ended(second, PATIENCE), "{} stays", processes::describe(second));
}

#[test]
fn a_helper_that_ends_at_once_is_tried_once_a_second_and_not_taken_for_one_that_answers() {
    let web = Instance::on_unix().file("broken", "").worker("service.py", &["exit-if=broken"]);
    assert_eq!(web.get("/").status, 503);
    let mut killed = Vec::new();
    let began = Instant::now();
    for _ in 0..5 {
        let helper = web.until("a helper that lives", || {
            let mut all = sockd::process::descendants(web.pid).into_iter().filter(|pid| !killed.contains(pid));
            all.find(|pid| processes::describe(*pid).contains("fallback"))
        });
        processes::signal(helper, Signal::KILL);
        killed.push(helper);
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "four were started within {:?}", began.elapsed());
    assert_eq!(web.logged(START, "cannot answer 503: ").len(), 1, "{}", web.transcript.show());
    assert!(web.logged(START, "visitors are answered 503 again").is_empty(), "{}", web.transcript.show());
    web.log("visitors are answered 503 again");
    web.stop();
}
