//! A pause: visitors wait while a command runs that needs the application to stand still.

use rustix::process::{Pid, Signal};
use sockd::control::message::Worker;
use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use super::http::{Connection, Response, read_response, send_get};
use super::instance::Instance;
use super::processes;
use super::transcript::PATIENCE;

/// /slow is answered once the file "go" is there.
fn code(text: &str) -> String {
    format!(
        r#"
import os, time

def application(environ, start_response):
    while environ["PATH_INFO"] == "/slow" and not os.path.exists("go"):
        time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "{}")])
    return [b"{text}"]
"#,
        text.len()
    )
}

/// Says that it runs, and ends with this code once the file "gate" is there.
fn gated(code: u8) -> Vec<String> {
    let script = format!("echo begun; until [ -e gate ]; do sleep 0.01; done; exit {code}");
    ["sh", "-c", &script].map(str::to_owned).to_vec()
}

fn serving(backlog: i32) -> Instance {
    let web = Instance::builder().unix_with_backlog("web.sock", backlog).file("myproject.py", &code("first"));
    let web = web.gunicorn(&["--workers", "3"]);
    web.get("/");
    web.status("serving, 3 of 3 workers, generation 1");
    web
}

/// What a person types, with its output piped.
fn sockd(web: &Instance, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockd"));
    command.args(words).env("MAINPID", web.pid.as_raw_nonzero().get().to_string()).current_dir(web.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn pause(web: &Instance, max: &str, command: &[String]) -> Child {
    sockd(web, &["pause", "--max", max, "--"]).args(command).spawn().expect("it starts")
}

/// Waits until the command of a pause runs.
fn wait_begun(child: &mut Child) {
    let mut line = [0; 6];
    child.stdout.as_mut().expect("piped").read_exact(&mut line).expect("it begins");
    assert_eq!(&line, b"begun\n");
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Visitors who have sent their request and wait for the answer.
fn visitors(web: &Instance, count: usize) -> Vec<JoinHandle<Response>> {
    let visit = |_| {
        let mut connection = web.addresses[0].connect(PATIENCE).expect("nobody is refused");
        send_get(&mut connection, "/").expect("sent");
        std::thread::spawn(move || read_response(&mut connection).expect("an answer"))
    };
    (0..count).map(visit).collect()
}

/// One that a worker is at until the file "go" is there.
fn slow_request(web: &Instance) -> Box<dyn Connection> {
    let mut slow = web.addresses[0].connect(PATIENCE).expect("connected");
    send_get(&mut slow, "/slow").expect("sent");
    let is_busy = |worker: &Worker| worker.requests.as_ref().is_some_and(|requests| requests.busy == 1);
    web.until("it is served", || web.report().workers.iter().any(is_busy).then_some(()));
    slow
}

fn answers(visitors: Vec<JoinHandle<Response>>) -> Vec<(u16, String)> {
    visitors.into_iter().map(|visitor| visitor.join().expect("no panic")).map(|r| (r.status, r.body)).collect()
}

#[test]
fn two_hundred_visitors_wait_for_a_migration_and_are_served() {
    let web = serving(1024);
    let mut migration = pause(&web, "60s", &gated(7));
    wait_begun(&mut migration);
    assert!(web.workers().is_empty(), "one serves beside the migration");
    let visitors = visitors(&web, 200);
    web.until("all wait", || (web.report().listeners[0].waiting == Some(200)).then_some(()));
    let status = web.report();
    assert_eq!(status.status_line, "paused, visitors wait");
    assert!(status.pause.is_some_and(|pause| pause.is_empty && pause.left_ms > 0), "{:?}", status.pause);
    web.write("gate", "");
    let output = migration.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(answers(visitors).iter().all(|answer| *answer == (200, "first".to_owned())));
    web.status("serving, 3 of 3 workers, generation 1");
    assert_eq!(web.report().pause, None);
    web.stop();
}

#[test]
fn a_reload_meanwhile_is_proven_out_of_sight_and_serves_afterwards() {
    let web = serving(1024);
    let mut migration = pause(&web, "60s", &gated(0));
    wait_begun(&mut migration);
    let visitors = visitors(&web, 3);
    web.write("myproject.py", "raise RuntimeError('no such table')");
    let (_, refused) = web.reload();
    assert!(!refused.ok && refused.message.contains("refused"), "{refused:?}");
    web.write("myproject.py", &code("second"));
    let (_, proven) = web.reload();
    assert_eq!(proven.message, "generation 3 is proven and serves when workers start again");
    assert_eq!(web.report().listeners[0].waiting, Some(3), "one has been answered");
    web.write("gate", "");
    let output = migration.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(answers(visitors).iter().all(|answer| *answer == (200, "second".to_owned())));
    web.stop();
}

#[test]
fn from_half_a_queue_on_visitors_get_the_page() {
    let web = serving(20);
    let mut migration = pause(&web, "60s", &gated(0));
    wait_begun(&mut migration);
    let mark = web.mark();
    let visitors = visitors(&web, 12);
    assert!(answers(visitors).iter().all(|(status, _)| *status == 503));
    web.log_since(mark, "answering 503: the site is paused, and half of the queue is full");
    web.log_since(mark, "visitors wait in the queue, no more 503");
    let patient = self::visitors(&web, 1);
    web.write("gate", "");
    let output = migration.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(answers(patient), [(200, "first".to_owned())]);
    web.stop();
}

#[test]
fn one_that_is_forgotten_ends_by_itself() {
    let web = serving(1024);
    let mark = web.mark();
    let output = sockd(&web, &["pause", "--max", "3s"]).output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("sockd resume ends it"), "{}", said(&output));
    assert_eq!(answers(visitors(&web, 1)), [(200, "first".to_owned())]);
    web.log_since(mark, "the time of the pause is over, and nobody has resumed it: workers start");
    // A command that takes longer hears of it.
    let mut late = pause(&web, "3s", &gated(0));
    wait_begun(&mut late);
    assert_eq!(answers(visitors(&web, 1)), [(200, "first".to_owned())]);
    web.write("gate", "");
    let output = late.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("the pause was over after 3s, before the command had ended"), "{}", said(&output));
    let output = sockd(&web, &["resume"]).output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("there is no pause and no maintenance"), "{}", said(&output));
    web.stop();
}

#[test]
fn a_worker_that_does_not_finish_in_time_is_not_ended_and_the_command_does_not_run() {
    let web = serving(1024);
    let mut slow = slow_request(&web);
    let output = sockd(&web, &["pause", "--max", "1s", "--", "touch", "ran"]).output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("was still at its last requests when the time was over"), "{}", said(&output));
    assert!(!web.path().join("ran").exists());
    assert_eq!(web.get("/").body, "first");
    web.write("go", "");
    assert_eq!(read_response(&mut slow).expect("an answer").status, 200);
    web.stop();
}

#[test]
fn a_command_that_is_not_there_ends_the_pause() {
    let web = serving(1024);
    let output = sockd(&web, &["pause", "--", "./no-such-migration"]).output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot run ./no-such-migration: No such file"), "{}", said(&output));
    assert_eq!(web.report().pause, None);
    assert_eq!(web.get("/").body, "first");
    web.stop();
}

#[test]
fn who_is_interrupted_leaves_no_pause_behind() {
    let web = serving(1024);
    // While a worker is still at its last request.
    let mut slow = slow_request(&web);
    let mark = web.mark();
    let waiting = pause(&web, "10min", &gated(0));
    web.log_since(mark, "pausing, for ");
    processes::signal(Pid::from_child(&waiting), Signal::INT);
    let output = waiting.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("interrupted: nothing is paused"), "{}", said(&output));
    web.write("go", "");
    assert_eq!(read_response(&mut slow).expect("an answer").status, 200);
    assert_eq!(web.get("/").body, "first");
    // While the command runs: it hears of it, and ends first.
    web.status("serving, 3 of 3 workers, generation 1");
    let script = "trap 'echo ended; exit 9' TERM; echo begun; while :; do sleep 0.01; done";
    let mut running = pause(&web, "10min", &["sh", "-c", script].map(str::to_owned));
    wait_begun(&mut running);
    processes::signal(Pid::from_child(&running), Signal::TERM);
    let output = running.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &*output.stdout), (Some(9), &b"ended\n"[..]), "{}", said(&output));
    assert_eq!(web.get("/").body, "first");
    web.stop();
}

#[test]
fn a_second_pause_and_one_during_a_reload_are_refused_and_a_stop_ends_one() {
    let web = serving(1024);
    let paused = sockd(&web, &["pause"]).output().expect("it ends");
    assert_eq!(paused.status.code(), Some(0), "{}", said(&paused));
    let again = sockd(&web, &["pause"]).output().expect("it ends");
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("it is paused already; sockd resume ends that"), "{}", said(&again));
    let wrong = sockd(&web, &["pause", "--max", "61min"]).output().expect("it ends");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("no pause lasts longer than an hour"), "{}", said(&wrong));
    let nothing = sockd(&web, &["pause", "--max", "0s"]).output().expect("it ends");
    assert_eq!(nothing.status.code(), Some(2));
    let mut patient = web.addresses[0].connect(PATIENCE).expect("connected");
    patient.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    // It ends at once: nobody is there who would have to finish.
    web.stop();
}
