//! Slow requests: the log names them and shows where their thread stands; nobody is disturbed.

use std::process::Command;

use rustix::process::Signal;

use super::http::{self, Connection};
use super::instance::{Builder, Instance};
use super::processes;
use super::python::{bin, has, project};
use super::transcript::{PATIENCE, Source};

/// Half a second is slow, and nobody is taken for hung.
const SLOW: &str = "[requests]\nslow = \"500ms\"\n[health]\nprobe = false\n";

fn visit(web: &Instance, path: &str) -> Box<dyn Connection> {
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, path).expect("sent");
    connection
}

/// An application that waits in a function of its own until a file is there.
fn waiting() -> Builder {
    project().config(SLOW).file(
        "myproject.py",
        "import os, time\n\n\
         def application(environ, start_response):\n    \
             if environ['PATH_INFO'].startswith('/report'):\n        \
                 wait_for_the_report()\n    \
             start_response('200 OK', [('Content-Length', '2')])\n    \
             return [b'ok']\n\n\
         def wait_for_the_report():\n    \
             while not os.path.exists('report.done'):\n        \
                 time.sleep(0.01)\n",
    )
}

#[test]
fn a_slow_request_is_written_once_with_the_stack_of_its_thread_and_goes_on() {
    let web = waiting().gunicorn(&["--workers", "1", "--threads", "4"]);
    assert_eq!(web.get("/").status, 200);
    let mut slow = visit(&web, "/report?token=secret");
    let line = web.log("worker 1 serves GET /report since 0.");
    assert!(line.text.ends_with(" s; its thread:"), "{}", line.text);
    let innermost = web.log_since(line.mark(), "  File ");
    assert!(innermost.text.contains("myproject.py\", line 1") && innermost.text.ends_with("in wait_for_the_report"));
    // A second one is written, and the first one not again.
    let mut other = visit(&web, "/report/2");
    web.log_since(line.mark(), "worker 1 serves GET /report/2 since 0.");
    assert_eq!(web.logged(line.mark(), "GET /report since").len(), 0);
    web.write("report.done", "");
    for connection in [&mut slow, &mut other] {
        assert_eq!(http::read_response(connection).expect("an answer").status, 200);
    }
    let transcript = web.stop();
    assert!(!transcript.show().contains("secret"));
}

#[test]
fn many_slow_requests_are_counted() {
    let web = waiting().gunicorn(&["--workers", "1", "--threads", "12"]);
    assert_eq!(web.get("/").status, 200);
    let slow: Vec<_> = (0..9).map(|number| visit(&web, &format!("/report/{number}"))).collect();
    let begun = |web: &Instance| web.workers().first().and_then(|one| one.requests.clone()).map(|r| r.busy);
    web.until("nine requests", || (begun(&web) == Some(9)).then_some(()));
    for _ in 0..5 {
        web.log(" s; its thread:");
    }
    web.write("report.done", "");
    drop(slow);
    let transcript = web.stop();
    let log = transcript.all(super::transcript::START, Source::Log);
    assert_eq!(log.iter().filter(|entry| entry.text.contains("worker 1 serves GET /report/")).count(), 5);
    assert!(log.iter().any(|entry| entry.text.contains("4 more slow requests were not written")), "{log:?}");
}

/// An event loop serves many requests in one thread, and has others do what blocks.
#[test]
fn where_the_thread_is_not_known_all_are_shown() {
    let web = Instance::on_unix().config(SLOW).file(
        "myproject.py",
        "import asyncio, time\n\n\
         async def application(scope, receive, send):\n    \
             assert scope['type'] == 'http'\n    \
             if scope['path'] == '/report':\n        \
                 await asyncio.get_running_loop().run_in_executor(None, ask_the_database)\n    \
             await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n    \
             await send({'type': 'http.response.body', 'body': b'ok'})\n\n\
         def ask_the_database():\n    \
             time.sleep(2)\n",
    );
    let web = web.command(&[&bin("uvicorn"), "myproject:application"]);
    let mut slow = visit(&web, "/report");
    let line = web.log("worker 1 serves GET /report since 0.");
    assert!(line.text.ends_with(" s; all threads:"), "{}", line.text);
    web.log_since(line.mark(), "in ask_the_database");
    assert_eq!(http::read_response(&mut slow).expect("an answer").status, 200);
    web.stop();
}

/// The worker is stopped, so that it writes nothing itself.
#[test]
fn a_worker_that_writes_no_stack_is_described_by_the_kernel() {
    let web = waiting().gunicorn(&["--workers", "1"]);
    assert_eq!(web.get("/").status, 200);
    let pid = web.ready_worker();
    let threads = web.stacks(1).expect("stacks").threads;
    assert!(threads.iter().any(|thread| thread.lines.iter().any(|line| line.contains("/gunicorn/"))), "{threads:?}");
    processes::signal(pid, Signal::STOP);
    let threads = web.stacks(1).expect("stacks").threads;
    processes::signal(pid, Signal::CONT);
    let lines: Vec<&str> = threads.iter().flat_map(|thread| &thread.lines).map(String::as_str).collect();
    assert!(lines[0].starts_with(&format!("Thread {pid} [")) && lines[1].starts_with("  is stopped"), "{lines:?}");
    let refused = web.stacks(99).expect_err("there is none");
    assert_eq!(refused.to_string(), "there is no worker 99");
    web.stop();
}

#[test]
fn gevent_and_waitress_write_theirs() {
    for command in [&["gunicorn", "-w", "1", "-k", "gevent"][..], &["waitress-serve"]] {
        let module = if command[0] == "gunicorn" { "gevent" } else { "waitress" };
        if !has(module) {
            continue;
        }
        let script = bin(command[0]);
        let words: Vec<&str> = [&script[..]].into_iter().chain(command[1..].iter().copied()).collect();
        let web = waiting().command(&[&words[..], &["myproject:application"]].concat());
        let mut slow = visit(&web, "/report");
        let line = web.log("worker 1 serves GET /report since 0.");
        web.log_since(line.mark(), "  File ");
        web.write("report.done", "");
        assert_eq!(http::read_response(&mut slow).expect("an answer").status, 200, "{command:?}");
        web.stop();
    }
}

/// Any program may show its requests: this one is the example of sockd-scoreboard(5).
#[test]
fn a_compiled_program_shows_its_requests() {
    let source = include_str!("workers/scoreboard.c");
    let builder = Instance::on_unix().config(SLOW).file("server.c", source);
    let mut build = Command::new("cc");
    build.args(["-Wall", "-Wextra", "-Werror", "-o", "server", "server.c"]).current_dir(builder.path());
    assert!(build.status().expect("a compiler").success());
    let server = builder.path().join("server");
    let web = builder.command(&[&server.display().to_string()]);
    for _ in 0..3 {
        assert_eq!(web.get("/").status, 200);
    }
    let finished = || web.report().requests.map(|requests| requests.finished);
    web.until("three requests", || (finished() == Some(3)).then_some(()));
    let _slow = visit(&web, "/wait?token=secret");
    let line = web.log("worker 1 serves GET /wait since 0.");
    assert!(line.text.ends_with(" s; all threads:"), "{}", line.text);
    web.log_since(line.mark(), "  waits");
    let status = web.report();
    let requests = status.workers[0].requests.as_ref().expect("shown");
    assert_eq!((requests.busy, requests.in_flight[0].request.as_str()), (1, "GET /wait"));
    web.stop();
}
