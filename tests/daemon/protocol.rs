//! What sockd tells systemd, and when.

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::instance::Instance;
use super::processes;
use super::transcript::{Entry, START, Source};

/// A configuration whose reload is not watched for long.
const QUICK: &str = "[reload]\nsoak = \"100ms\"\n[workers]\ncount = 2\n";

fn monotonic_usec() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

#[test]
fn ready_comes_at_once_while_nobody_has_connected() {
    let web = Instance::on_unix().worker("service.py", &["never-ready"]);
    let ready = web.notified("READY=1");
    assert_eq!(ready.value("STATUS"), Some("waiting for the first connection"));
    web.stop();
}

#[test]
fn ready_comes_with_the_503_answers_when_no_worker_can_start() {
    let web = Instance::on_unix()
        .options("--start at-once --workers 2")
        .file("broken", "")
        .worker("service.py", &["exit-if=broken"]);
    web.log("worker 1 could not start");
    // It answers 503 itself: that, too, is a service that does its job.
    let ready = web.notified("READY=1");
    assert!(ready.value("STATUS").is_some_and(|status| status.starts_with("answering 503: ")), "{}", ready.text);
    assert_eq!(web.get("/").status, 503);
    web.stop();
}

#[test]
fn the_status_tells_the_story_in_plain_words() {
    let web = Instance::on_unix().options("--workers 3").worker("service.py", &["exit-if=broken"]);
    let waiting = web.status("waiting for the first connection");
    web.get("/");
    let starting = web.status_since(waiting.mark(), "starting the first worker");
    let one = web.status_since(starting.mark(), "serving, 1 of 3 workers, generation 1");
    web.status_since(one.mark(), "serving, 3 of 3 workers, generation 1");
    web.write("broken", "");
    let mark = web.mark();
    web.ready().into_iter().for_each(|pid| processes::signal(pid, Signal::KILL));
    let answering = "answering 503: no worker could start: exit 1: RuntimeError: broken while broken is there";
    let answering = web.status_since(mark, answering);
    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    web.get("/");
    web.status_since(answering.mark(), "serving, 3 of 3 workers, generation 1");
    let transcript = web.stop();
    transcript.wait(answering.mark(), Source::Manager, "stopping", |text| {
        text.lines().any(|line| line.starts_with("STATUS=stopping"))
    });
}

#[test]
fn the_watchdog_is_fed_from_the_loop_and_starves_when_it_stands_still() {
    let web = Instance::on_unix()
        .env("WATCHDOG_USEC", "400000")
        .env("WATCHDOG_PID", "{pid}")
        .options("--start at-once")
        .worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    let mut last = web.notified("WATCHDOG=1");
    for _ in 0..3 {
        last = web.notified_since(last.mark(), "WATCHDOG=1");
    }
    web.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", web.pid);
    web.until("it is stopped", || std::fs::read_to_string(&stat).ok()?.contains(") T ").then_some(()));
    let mark = web.mark();
    // The worker needs nobody: its answer comes after five periods of the watchdog.
    assert_eq!(web.get("/slow?1").status, 200);
    assert!(web.heard(mark, "WATCHDOG=1").is_empty(), "a loop that stands still fed the watchdog");
    web.signal(Signal::CONT);
    web.notified_since(mark, "WATCHDOG=1");
    web.stop();
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_fed() {
    let web = Instance::on_unix()
        .env("WATCHDOG_USEC", "200000")
        .env("WATCHDOG_PID", "1")
        .options("--start at-once")
        .worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    assert_eq!(web.get("/slow?0.5").status, 200);
    assert!(web.heard(START, "WATCHDOG=1").is_empty());
    web.stop();
}

#[test]
fn a_good_reload_is_reported_from_its_beginning_to_its_end() {
    let web = Instance::on_unix().config(QUICK).worker("service.py", &[]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let old = web.ready();
    let (mark, before) = (web.mark(), monotonic_usec());
    web.signal(Signal::HUP);
    let reloading = web.notified_since(mark, "RELOADING=1");
    let at: i64 = reloading.value("MONOTONIC_USEC").expect("in the same datagram").parse().expect("a number");
    assert!((before..=monotonic_usec()).contains(&at), "{at}");
    web.status_since(reloading.mark(), "serving, 2 of 2 workers, generation 2");
    web.notified_since(reloading.mark(), "READY=1");
    web.log_since(mark, "reload: generation 2 has taken over");
    let new = web.ready();
    assert!(new.len() == 2 && new.iter().all(|pid| !old.contains(pid)), "{old:?} {new:?}");
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn a_refused_reload_is_reported_to_its_end_and_changes_nothing() {
    let web = Instance::on_unix().config(QUICK).worker("service.py", &["exit-if=broken"]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let old = web.ready();
    // First broken code, then a broken configuration.
    web.write("broken", "");
    for (generation, why) in [(2, "RuntimeError: broken while broken is there"), (3, "unknown key")] {
        let mark = web.mark();
        web.signal(Signal::HUP);
        let reloading = web.notified_since(mark, "RELOADING=1");
        assert!(reloading.value("MONOTONIC_USEC").is_some());
        let ready = web.notified_since(reloading.mark(), "READY=1");
        let status = ready.value("STATUS").expect("with the outcome");
        let beginning = format!("serving, 2 of 2 workers, generation 1 (reload to {generation} refused: ");
        assert!(status.starts_with(&beginning) && status.contains(why), "{status}");
        web.log_since(mark, "the old workers serve on");
        assert_eq!(web.ready(), old);
        assert_eq!(web.get("/").status, 200);
        web.write("sockd.toml", &format!("{QUICK}nonsense = 1\n"));
    }
    web.stop();
}

#[test]
fn a_reload_before_the_first_connection_is_reported_to_its_end_too() {
    let web = Instance::on_unix().config(QUICK).worker("service.py", &[]);
    let mark = web.notified("READY=1").mark();
    web.signal(Signal::HUP);
    let reloading = web.notified_since(mark, "RELOADING=1");
    let ready = web.notified_since(reloading.mark(), "READY=1");
    assert_eq!(ready.value("STATUS"), Some("waiting for the first connection"));
    web.log("reload: generation 2 has taken over");
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 2");
    web.stop();
}

#[test]
fn a_stop_in_the_middle_of_a_reload_ends_it() {
    let web = Instance::on_unix().config(QUICK).worker("service.py", &["silent-if=silent"]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    web.write("silent", "");
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.notified_since(mark, "RELOADING=1");
    web.output_since(mark, "runs");
    let transcript = web.stop();
    let all = transcript.all(mark, Source::Manager);
    let after = |line: &str| all.iter().position(|entry| entry.text.lines().any(|l| l == line));
    let stopping = after("STOPPING=1").expect("said");
    assert!(after("READY=1").is_none_or(|ready| ready < stopping), "{}", transcript.show());
}

/// systemd stops the supervisor first, and then the command of ExecReload=, which hears of it in between: that is no failed
/// reload, which would leave the unit \"failed\". A supervisor that somebody else ends is one.
#[test]
fn a_stop_that_overtakes_the_signal_for_execreload_is_no_failure() {
    for by_systemd in [true, false] {
        let mut web = Instance::on_unix().config(QUICK).worker("service.py", &["silent-if=silent"]);
        web.get("/");
        web.status("serving, 2 of 2 workers, generation 1");
        web.write("silent", "");
        let mark = web.mark();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sockd"));
        command.arg("reload").env("MAINPID", web.pid.as_raw_nonzero().get().to_string());
        let mut client = command.stderr(std::process::Stdio::piped()).spawn().expect("started");
        web.output_since(mark, "runs");
        web.signal(Signal::TERM);
        assert!(web.end().success());
        assert!(client.try_wait().expect("its state").is_none(), "it did not wait for systemd");
        if by_systemd {
            processes::signal(rustix::process::Pid::from_child(&client), Signal::TERM);
        }
        let output = client.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(if by_systemd { 0 } else { 1 }), "{said}");
        assert_eq!(said.contains("error: "), !by_systemd, "{said}");
    }
}

#[test]
fn the_manager_is_asked_for_more_time_while_something_takes_long() {
    let web = Instance::on_unix()
        .options("--start at-once --start-timeout 100s --stop-timeout 200s")
        .worker("service.py", &["gate=gate"]);
    // While it starts: as long as a start may take, and some more, so that sockd's own limit comes first.
    let asked =
        |entry: &Entry| -> u64 { entry.value("EXTEND_TIMEOUT_USEC").expect("it is there").parse().expect("a number") };
    web.transcript.wait(START, Source::Manager, "time for the start", |text| {
        text.lines().any(|line| {
            line.strip_prefix("EXTEND_TIMEOUT_USEC=")
                .is_some_and(|usec| usec.parse::<u64>().is_ok_and(|u| u > 100_000_000))
        })
    });
    let mark = web.mark();
    let transcript = web.stop();
    let asking =
        transcript.wait(mark, Source::Manager, "time for the stop", |text| text.contains("EXTEND_TIMEOUT_USEC="));
    assert!(asked(&asking) > 200_000_000, "{}", asking.text);
}
