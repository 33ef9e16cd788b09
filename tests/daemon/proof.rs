//! Silence proves nothing: a program of which sockd knows nothing must answer, or at least accept, before it takes anybody's
//! place, however long that takes, and no later than start-timeout.

use std::time::Duration;

use rustix::process::Signal;

use super::instance::Instance;
use super::python::{Hammer, application, bin, project};
use super::transcript::{PATIENCE, START};

const QUICK: &str = "[reload]\nsoak = \"200ms\"\n[health]\ntimeout = \"1s\"\n";
/// It hides from sockd what it starts.
const WRAPPER: &str = "#!/bin/sh\n# An agent, perhaps.\nexec \"$@\"\n";
/// Longer than an answer may take, and than a silent program is left in peace.
const IMPORT: &str = "3";

/// Serves without a word to anybody; what it does stands in files.
fn silent(options: &str) -> Instance {
    let options = format!("--ready-after 300ms {options}");
    let behaviour = ["silent", "imports=imports", "exit-if=broken", "protocol=protocol"];
    Instance::on_unix().config(QUICK).options(&options).worker("service.py", &behaviour)
}

/// The longest that anybody waited, beside what [`Hammer`] finds.
fn longest_wait(web: &Instance, until: impl FnOnce()) -> Duration {
    let (address, (stop, stopped)) = (web.addresses[0].clone(), std::sync::mpsc::channel::<()>());
    let client = std::thread::spawn(move || {
        let mut longest = Duration::ZERO;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let begun = std::time::Instant::now();
            assert_eq!(address.get("/").expect("an answer").status, 200);
            longest = longest.max(begun.elapsed());
        }
        longest
    });
    until();
    drop(stop);
    client.join().expect("every request was answered")
}

#[test]
fn a_server_behind_a_wrapper_whose_new_code_fails_late_is_refused() {
    let wrapper = project().config(QUICK).file("wrapper", WRAPPER);
    let (path, gunicorn) = (wrapper.path().join("wrapper"), bin("gunicorn"));
    let web = wrapper.command(&["/bin/sh", path.to_str().expect("UTF-8"), &gunicorn, "myproject:application"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    let old = web.ready();
    let broken = format!("import time\ntime.sleep({IMPORT})\nimport a_module_that_is_missing\n{}", application("x"));
    web.write("myproject.py", &broken);
    let hammer = Hammer::start(&web.addresses[0], 2);
    let (_, outcome) = web.reload();
    assert!(!outcome.ok, "{outcome:?}");
    assert!(outcome.details.iter().any(|line| line.contains("a_module_that_is_missing")), "{outcome:?}");
    assert!(hammer.finish(&web).iter().flatten().all(|body| body.starts_with("hello from")));
    assert_eq!(web.ready(), old);
    // Good code that takes as long is waited for, and nobody waits with us.
    web.write("myproject.py", &format!("import time\ntime.sleep({IMPORT})\n{}", application("slow")));
    let longest = longest_wait(&web, || assert!(web.reload().1.ok));
    assert!(longest < Duration::from_secs(2), "somebody waited for {longest:?}");
    web.until("the new code serves alone", || web.get("/").body.starts_with("slow").then_some(()));
    web.stop();
}

#[test]
fn a_silent_program_whose_import_takes_long_takes_over_when_it_serves() {
    let web = silent("--workers 2");
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    web.write("imports", IMPORT);
    web.write("broken", "");
    let longest = longest_wait(&web, || {
        let (_, outcome) = web.reload();
        assert!(!outcome.ok, "{outcome:?}");
        assert!(outcome.message.contains("RuntimeError: broken while broken is there"), "{outcome:?}");
        std::fs::remove_file(web.path().join("broken")).expect("removed");
        assert!(web.reload().1.ok);
    });
    assert!(longest < Duration::from_secs(2), "somebody waited for {longest:?}");
    web.stop();
}

#[test]
fn each_protocol_is_replaced_by_its_like_and_never_by_less() {
    // From the most to the least that a visitor hears.
    let protocols = ["http", "banner", "close", "silent"];
    for (index, old) in protocols.iter().enumerate() {
        let builder = Instance::on_unix().config(QUICK).file("protocol", old);
        let options = "--ready-after 300ms --start at-once --start-timeout 4s";
        let web = builder.options(options).worker("service.py", &["silent", "protocol=protocol"]);
        web.status("serving, 1 of 1 worker, generation 1");
        let (_, outcome) = web.reload();
        assert!(outcome.ok, "{old} after {old}: {outcome:?}");
        // It has read what it speaks.
        web.output(&format!("worker {} runs", web.ready_worker()));
        for less in &protocols[index + 1..] {
            web.write("protocol", less);
            let (_, outcome) = web.reload();
            assert!(!outcome.ok, "{less} after {old}: {outcome:?}");
            assert!(outcome.message.contains("where the serving workers"), "{outcome:?}");
        }
        web.stop();
    }
}

#[test]
fn a_program_that_does_not_accept_on_its_canarys_socket_is_not_proven() {
    let options = "--ready-after 300ms --start at-once --start-timeout 3s";
    let web = Instance::on_unix().config(QUICK).options(options).command(&["sleep", "infinity"]);
    web.status("serving, 1 of 1 worker, generation 1");
    let (_, outcome) = web.reload();
    assert!(!outcome.ok, "{outcome:?}");
    assert!(
        outcome.message.contains("it has not accepted a connection on the socket that it was given"),
        "{outcome:?}"
    );
    web.stop();
}

#[test]
fn a_first_worker_is_ready_when_it_accepts_and_fails_when_it_never_does() {
    let web = silent("");
    web.write("imports", IMPORT);
    assert_eq!(web.get("/").status, 200);
    let (started, ready) = (web.log("worker 1 started"), web.log("worker 1 is ready after"));
    assert!(ready.at.duration_since(started.at) >= Duration::from_secs(2), "ready before it could accept");
    web.stop();
    let options = "--ready-after 300ms --start-timeout 2s";
    let web = Instance::on_unix().config(QUICK).options(options).command(&["sleep", "infinity"]);
    assert_eq!(web.get("/").status, 503);
    assert!(web.logged(START, "is ready").is_empty(), "nobody accepted");
    web.stop();
}

#[test]
fn a_health_command_is_run_until_a_program_that_says_nothing_is_well() {
    let health = "[health]\ncommand = [\"test\", \"-e\", \"served\"]\n[reload]\nsoak = \"200ms\"\n";
    let builder = Instance::on_unix().config(health).options("--ready-after 300ms --start at-once --start-timeout 20s");
    let web = builder.worker("service.py", &["silent"]);
    web.status("serving, 1 of 1 worker, generation 1");
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.output_since(mark, "runs");
    web.write("served", "");
    web.log_since(mark, "has taken over");
    web.stop();
}

#[test]
fn a_worker_that_holds_the_socket_and_serves_another_one_is_named() {
    // As `bash -c 'source venv/bin/activate && gunicorn ...; echo ended'`: LISTEN_PID names the shell.
    let server = "python3 -m http.server --bind 127.0.0.1 0; echo ended";
    let options = "--ready-after 300ms --start-timeout 20s";
    let web = Instance::on_unix().options(options).command(&["sh", "-c", server]);
    let visitor = web.addresses[0].connect(PATIENCE).expect("it waits in the queue");
    let line = web.log("nobody accepts from unix:");
    assert!(line.text.contains("the workers listen on 127.0.0.1:"), "{}", line.text);
    assert!(web.logged(START, "is ready").is_empty(), "nobody has accepted");
    let alarm = web.report().listeners[0].alarm.clone().expect("an alarm");
    assert!(alarm.contains("LISTEN_FDS") && alarm.contains("without a shell"), "{alarm}");
    // What `systemctl status` shows.
    let (_, place) = line.text.split_once("nobody accepts from ").expect("the log has said it");
    web.status_like(START, &format!("nobody accepts from {place}"));
    drop(visitor);
    web.stop();
}

/// Serves without a word, and opens another port where `side-port` is there. The queue is looked at each 5 s, and it
/// takes two looks to see that nobody accepts.
fn with_side_port(options: &str) -> Instance {
    let options = format!("--ready-after 300ms {options}");
    let behaviour = ["silent", "imports=imports", "side-port=side-port"];
    Instance::on_unix().config(QUICK).options(&options).worker("service.py", &behaviour)
}

#[test]
fn a_worker_that_loads_with_another_port_open_does_not_serve_elsewhere() {
    let web = with_side_port("--start-timeout 60s");
    web.write("side-port", "");
    web.write("imports", "11");
    assert_eq!(web.get("/").status, 200);
    web.output("opens a side port");
    assert!(web.logged(START, "nobody accepts").is_empty(), "{}", web.transcript.show());
    web.stop();
}

#[test]
fn nobody_with_another_port_is_said_to_serve_there_where_a_worker_is_stuck_and_a_canary_loads() {
    let web = with_side_port("--start-timeout 20s");
    web.write("side-port", "");
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    // It takes nobody, for longer than two looks.
    let worker = web.ready_worker();
    super::processes::signal(worker, Signal::STOP);
    let visitor = web.addresses[0].connect(PATIENCE).expect("it waits in the queue");
    web.write("imports", "18");
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.output_since(mark, "opens a side port");
    web.write("imports", "0");
    web.log_since(mark, "generation 2 is proven on a canary");
    assert!(web.logged(START, "nobody accepts").is_empty(), "{}", web.transcript.show());
    super::processes::signal(worker, Signal::CONT);
    web.log_since(mark, "generation 2 has taken over");
    drop(visitor);
    web.stop();
}
