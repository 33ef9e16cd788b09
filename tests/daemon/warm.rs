//! A warm template: a copy of it answers requests before it makes workers, which have learned from them.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use rustix::process::{Pid, Signal};

use super::instance::Instance;
use super::processes;
use super::python::project;
use super::transcript::START;

const WARM: &str =
    "[workers]\nstart = \"at-once\"\ncount = 2\npreload = true\nwarm = [\"/\"]\n[reload]\nsoak = \"200ms\"\n";

/// Says how many requests its process has answered, with those that it was forked from, and does what is planted.
fn source(text: &str, planted: &str) -> String {
    format!(
        r#"
import os, socket, subprocess, sys, threading, time
answered, kept = 0, []

def application(environ, start_response):
    global answered
    answered += 1
    {planted}
    body = ("{text} from %d after %d" % (os.getpid(), answered)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#
    )
}

fn site(planted: &str, config: &str) -> Instance {
    Instance::on_unix().file("myproject.py", &source("hello", planted)).config(config).gunicorn(&[])
}

/// What one of the workers says: its text, and after how many requests.
fn answer(web: &Instance) -> (String, u32) {
    let body = web.get("/").body;
    let (text, after) = body.rsplit_once(" after ").unwrap_or_else(|| panic!("{body}"));
    let text = text.split(" from ").next().expect("a text").to_owned();
    (text, after.parse().expect("a number"))
}

/// Waits until two workers serve that the warm template has made, and nobody else is there.
fn wait_until_warm(web: &Instance, text: &str) {
    web.log("the template is warm");
    web.until("warm workers alone", || {
        let report = web.report();
        let warm = report.templates.len() == 1 && report.templates[0].warm;
        let (said, after) = answer(web);
        (warm && report.workers.len() == 2 && said == text && after > 20).then_some(())
    });
}

#[test]
fn gunicorn_site_lives_with_it() {
    let web = project()
        .file("myproject.py", &source("hello", ""))
        .config("[workers]\nwarm = [\"/\"]\n[reload]\nsoak = \"200ms\"\n");
    let web = web.gunicorn(&["--preload", "--workers", "2"]);
    assert_eq!(answer(&web), ("hello".to_owned(), 1), "the first visitor waits for nothing");
    web.log("the template is warm: a copy of it has answered requests");
    wait_until_warm(&web, "hello");
    // One that dies is followed by one that has learned as much.
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    let one = web.status_like(mark, "serving, 1 of 2 workers");
    web.status_like(one.mark(), "serving, 2 of 2 workers");
    for _ in 0..10 {
        assert!(answer(&web).1 > 20);
    }
    // Broken code is refused by a canary that nothing was warmed for, and the warm template stays.
    web.write("myproject.py", "import a_module_that_is_missing\n");
    let (_, outcome) = web.reload();
    assert!(!outcome.ok, "{outcome:?}");
    wait_until_warm(&web, "hello");
    web.write("myproject.py", &source("new words", ""));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    wait_until_warm(&web, "new words");
    assert!(
        web.logged(START, "ended").iter().all(|entry| !entry.text.contains("killed")),
        "{:?}",
        web.logged(START, "ended")
    );
    web.stop();
}

#[test]
fn what_workers_cannot_share_is_refused_with_the_reason() {
    for (planted, why) in [
        (
            "threading.Thread(target=threading.Event().wait, name='metrics', daemon=True).start()",
            "the requests started the thread metrics, which workers would be without",
        ),
        ("kept.append(socket.socketpair())", "open, which workers would share"),
        ("kept.append(subprocess.Popen(['sleep', '60']))", "the requests started a child process"),
        ("environ['HTTP_USER_AGENT'] == 'sockd (probe)' and os._exit(3)", "ended with exit code 3"),
        ("1 / (answered < 3)", "ended with ZeroDivisionError"),
    ] {
        let web = site(planted, WARM);
        web.status("serving, 2 of 2 workers, generation 1");
        let before = web.ready();
        let refused = web.log("the template is not warm, and makes the workers as it was loaded");
        assert!(refused.text.contains(why), "{}", refused.text);
        let report = web.report();
        assert!(!report.templates[0].warm);
        assert!(report.templates[0].not_warm.as_ref().is_some_and(|reason| reason.contains(why)), "{report:?}");
        assert_eq!(web.ready(), before, "the workers are untouched");
        web.stop();
    }
}

#[test]
fn a_copy_that_hangs_delays_nothing() {
    // The probe is answered by workers, and the copy by nobody.
    let planted = "environ.get('REMOTE_PORT') == '0' and time.sleep(600)";
    let web = site(planted, WARM);
    assert_eq!(answer(&web).0, "hello");
    web.until("a copy", || (children_of_template(&web).len() == 1).then_some(()));
    web.write("myproject.py", &source("new words", ""));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    web.until("the new code", || (answer(&web).0 == "new words").then_some(()));
    web.stop();
}

/// The direct children of the serving template: its copy, if there is one, or for a moment a process that makes another.
fn children_of_template(web: &Instance) -> Vec<Pid> {
    let template = web.report().templates[0].pid;
    sockd::process::children(Pid::from_raw(template.cast_signed()).expect("a process"))
}

#[test]
fn workers_that_cannot_start_from_it_send_it_back() {
    // The warm requests leave something behind that no worker survives.
    let planted = "os.register_at_fork(after_in_child=lambda: threading.Timer(0, os._exit, [9]).start())";
    let web = site(planted, WARM);
    web.status("serving, 2 of 2 workers, generation 1");
    let back = web.log("which it had made, did not get ready");
    processes::signal(web.ready_worker(), Signal::KILL);
    let one = web.status_like(back.mark(), "serving, 1 of 2 workers");
    web.status_like(one.mark(), "serving, 2 of 2 workers");
    assert_eq!(answer(&web).0, "hello");
    web.stop();
}

#[test]
fn a_copy_that_is_killed_leaves_the_template() {
    let web = site("", WARM);
    wait_until_warm(&web, "hello");
    let (before, mark) = (web.ready(), web.mark());
    for copy in children_of_template(&web) {
        processes::signal(copy, Signal::KILL);
    }
    web.log_since(mark, "the copy of the template was killed by SIGKILL");
    assert_eq!(web.ready(), before);
    processes::signal(web.ready_worker(), Signal::KILL);
    let one = web.status_like(mark, "serving, 1 of 2 workers");
    web.status_like(one.mark(), "serving, 2 of 2 workers");
    web.stop();
}

#[test]
fn who_has_not_asked_for_it_has_none() {
    let web = site("", &WARM.replace("warm = [\"/\"]\n", ""));
    web.status("serving, 2 of 2 workers, generation 1");
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    let report = web.report();
    assert!(!report.templates[0].warm && report.templates[0].not_warm.is_none());
    assert!(web.logged(START, "warm").is_empty());
    web.stop();
}

#[test]
fn what_cannot_be_warmed_is_said_if_it_was_asked_for() {
    let web = Instance::on_unix().file("myproject.py", super::python::ASGI);
    let web = web.config("[workers]\npreload = true\nwarm = [\"/\"]\n");
    let web = web.command(&[&super::python::bin("uvicorn"), "myproject:application"]);
    web.log("workers.warm is ignored: only WSGI applications are warmed");
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

/// Whether a process has these bytes somewhere in its memory.
fn holds(pid: Pid, secret: &[u8]) -> bool {
    let directory = format!("/proc/{}", pid.as_raw_nonzero());
    let maps = fs::read_to_string(format!("{directory}/maps")).unwrap_or_default();
    let Ok(mut memory) = fs::File::open(format!("{directory}/mem")) else { return false };
    maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with('r'))).any(|line| {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).expect("a number"));
        let mut bytes = Vec::new();
        // The kernel's own pages cannot be read.
        let read =
            memory.seek(SeekFrom::Start(from)).and_then(|_| (&mut memory).take(to - from).read_to_end(&mut bytes));
        let _ = read;
        bytes.windows(secret.len()).any(|window| window == secret)
    })
}

#[test]
fn what_a_visitor_sends_is_in_no_worker_but_the_one_that_served_it() {
    let web = site("kept.append(environ.get('PATH_INFO'))", WARM);
    wait_until_warm(&web, "hello");
    // Not as a text in this program, whose memory nobody looks at.
    let secret = format!("{}-{}", "S3cr3t".repeat(3), std::process::id());
    let body = web.get(&format!("/{secret}")).body;
    let served: i32 = body.split(' ').nth(2).and_then(|pid| pid.parse().ok()).expect("a process");
    let served = Pid::from_raw(served).expect("a process");
    assert!(holds(served, secret.as_bytes()), "the search finds what is there");
    let mark = web.mark();
    let other = web.ready().into_iter().find(|pid| *pid != served).expect("there are two");
    processes::signal(other, Signal::KILL);
    let one = web.status_like(mark, "serving, 1 of 2 workers");
    web.status_like(one.mark(), "serving, 2 of 2 workers");
    let others = sockd::process::descendants(web.pid).into_iter().filter(|pid| *pid != served);
    let holders: Vec<_> = others.filter(|pid| holds(*pid, secret.as_bytes())).map(processes::describe).collect();
    assert!(holders.is_empty(), "{holders:?}");
    web.stop();
}
