//! Workers that are not well: found by a question of their own, named, and replaced before they go.

use std::time::Instant;

use rustix::process::{Pid, Signal};
use sockd::control::message::Worker;

use super::instance::{Builder, Instance};
use super::processes;
use super::python::{Hammer, application, project};
use super::transcript::{PATIENCE, START};

/// Asks often, so that a test need not wait long.
const OFTEN: &str = "[health]\ninterval = 1\ntimeout = \"500ms\"\n";

/// With `/stick`, which keeps a thread for ever, and `/healthz`, which is ill while the file `ill` is there.
fn healthz() -> String {
    application("hello").replace(
        "    body = (",
        r#"    if path == "/stick":
        time.sleep(3600)
    if path == "/healthz" and os.path.exists("ill-%d" % os.getpid()) or os.path.exists("all-ill"):
        start_response("500 Internal Server Error", [("Content-Length", "0")])
        return []
    body = ("#,
    )
}

fn patient(config: &str) -> Builder {
    project().file("myproject.py", &healthz()).config(config)
}

/// Sends a request and does not wait for its answer.
fn ask_and_wait_for_nothing(web: &Instance, path: &str) -> std::os::unix::net::UnixStream {
    use std::io::Write;
    let mut stream = std::os::unix::net::UnixStream::connect(web.path().join("web.sock")).expect("connected");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    stream
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

#[test]
fn a_worker_whose_every_thread_is_stuck_is_found_by_its_probe_and_replaced_first() {
    let web = patient(OFTEN).gunicorn(&["--worker-class", "gthread", "--threads", "2", "--timeout", "3"]);
    web.get("/");
    let stuck = web.ready_worker();
    let _visitors: Vec<_> = (0..2).map(|_| ask_and_wait_for_nothing(&web, "/stick")).collect();
    let unhealthy = web.log("worker 1 is not well: GET /: no answer within 500ms");
    let text = &unhealthy.text;
    assert!(
        text.contains("2 times in a row); it serves GET /stick since ") && text.contains(", and 1 more; its"),
        "{text}"
    );
    web.log_since(unhealthy.mark(), "worker 2 is ready after");
    // One that the old worker accepted before it closed its socket is lost with it; the next is served.
    web.until("a visitor is served", || web.addresses[0].get("/").ok().filter(|response| response.status == 200));
    assert_ne!(web.ready(), [stuck]);
    let hangs = web.log_since(unhealthy.mark(), "worker 1 hangs: it does not leave; it serves GET /stick since ");
    // Where it hangs is in the log.
    web.log_since(unhealthy.mark(), "most recent call first");
    web.log_since(unhealthy.mark(), "in application");
    assert!(processes::ended(stuck, PATIENCE));
    assert!(web.logged(hangs.mark(), "worker 2 is not well").is_empty());
    web.stop();
}

/// drain-timeout is half a minute; gunicorn's --timeout counts for the last request as for any other.
#[test]
fn a_sync_worker_that_hangs_when_it_is_replaced_is_found_by_its_own_timeout() {
    let web = patient("[reload]\ncanary = false\nsoak = 0\n").gunicorn(&["--timeout", "5"]);
    web.get("/");
    let stuck = web.ready_worker();
    let _visitor = ask_and_wait_for_nothing(&web, "/stick");
    let serves = |worker: &Worker| worker.requests.as_ref().is_some_and(|requests| requests.busy == 1);
    web.until("it is served", || web.workers().iter().any(serves).then_some(()));
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.log_since(mark, "reload: generation 2 has taken over");
    let hangs = web.log_since(mark, "worker 1 hangs: it does not leave; it serves GET /stick since ");
    web.log_since(hangs.mark(), "in application");
    assert!(processes::ended(stuck, PATIENCE));
    web.stop();
}

#[test]
fn a_worker_whose_threads_are_busy_is_not_taken_for_stuck() {
    // Ten visitors at a time for two threads, each served in half a second: a question waits its turn for too long.
    let slow = application("hello").replace("    body = (", "    time.sleep(0.5)\n    body = (");
    let web = Instance::on_unix().file("myproject.py", &slow).config(OFTEN).gunicorn(&[
        "-k",
        "gthread",
        "--threads",
        "2",
        "--timeout",
        "4",
    ]);
    web.get("/");
    let load = Hammer::start(&web.addresses[0], 10);
    let failed = |worker: &Worker| worker.last_probe.as_ref().is_some_and(|probe| probe.failure.is_some());
    web.until("a question is not answered in time", || web.workers().iter().any(failed).then_some(()));
    let began = Instant::now();
    web.until("some more questions", || (began.elapsed().as_secs() >= 6).then_some(()));
    load.finish(&web);
    assert!(web.logged(START, "is not well").is_empty(), "{}", web.transcript.show());
    assert_eq!(web.workers()[0].id, 1);
    web.stop();
}

#[test]
fn an_idle_application_is_not_asked_for_its_start_page() {
    let web = patient(OFTEN).gunicorn(&["-k", "gthread", "--threads", "2", "--access-logfile", "-"]);
    web.get("/first");
    web.output("\"GET /first HTTP/1.1\" 200");
    // A heartbeat or two: the questions that were due meanwhile would be in the access log.
    web.until("it was asked", || web.workers()[0].last_probe.clone().filter(|probe| probe.failure.is_none()));
    web.get("/second");
    web.output("\"GET /second HTTP/1.1\" 200");
    let asked = web.transcript.all(START, super::transcript::Source::Output);
    assert!(!asked.iter().any(|line| line.text.contains("(probe)")), "{asked:?}");
    web.stop();
}

#[test]
fn a_sync_worker_in_a_long_request_is_busy_and_not_sick() {
    let config = format!("{OFTEN}path = \"/healthz\"\n");
    let web = patient(&config).gunicorn(&["--workers", "1", "--timeout", "600"]);
    web.get("/");
    web.until("it was asked", || web.workers()[0].last_probe.clone());
    let (mark, began) = (web.mark(), Instant::now());
    let _visitor = ask_and_wait_for_nothing(&web, "/stick");
    // It is asked again and again meanwhile, and cannot answer: a question is older than the last one's limit.
    web.until("some questions later", || {
        let asked: Vec<_> = web.workers().into_iter().filter_map(|worker| worker.last_probe).collect();
        assert!(asked.iter().all(|probe| probe.failure.is_none()), "{asked:?}");
        (began.elapsed().as_secs() >= 5).then_some(())
    });
    assert!(web.logged(mark, "is not well").is_empty(), "{}", web.transcript.show());
    let mut web = web;
    web.signal(Signal::TERM);
    web.notified("STOPPING=1");
    // The second may be of the same stop; the third hurries.
    web.signal(Signal::INT);
    web.log_since(mark, "asked to stop again while it stops");
    web.signal(Signal::INT);
    assert_eq!(web.end().code(), Some(0));
}

/// The application makes the queue of its worker's private socket as short as the kernel allows: two questions fill it.
#[test]
fn a_private_socket_whose_queue_is_full_holds_nobody_up_and_is_not_asked_again() {
    let short = healthz().replace(
        "        time.sleep(3600)",
        r#"        import socket, stat
        for number in map(int, os.listdir("/proc/self/fd")):
            try:
                if not stat.S_ISSOCK(os.fstat(number).st_mode):
                    continue
            except OSError:
                continue
            listening = socket.socket(fileno=os.dup(number))
            name = listening.family == socket.AF_UNIX and listening.getsockname() or b""
            if listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and b"probe" in os.fsencode(name):
                listening.listen(0)
            listening.close()
        print("stuck", flush=True)
        while not os.path.exists("go-on"):
            time.sleep(0.01)"#,
    );
    let config = format!("{OFTEN}path = \"/healthz\"\n");
    let builder = project().file("myproject.py", &short).config(&config);
    let builder = builder.env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "{pid}");
    let web = builder.gunicorn(&["--workers", "1", "--timeout", "600", "--access-logfile", "-"]);
    web.get("/");
    web.until("it was asked", || web.workers()[0].last_probe.clone());
    let visitor = ask_and_wait_for_nothing(&web, "/stick");
    let mark = web.output("stuck").mark();
    let began = Instant::now();
    let mut last = web.notified_since(mark, "WATCHDOG=1");
    while began.elapsed().as_secs() < 6 {
        last = web.notified_since(last.mark(), "WATCHDOG=1");
    }
    web.write("go-on", "");
    drop(visitor);
    web.output_since(last.mark(), "GET /stick");
    let probed = web.workers()[0].last_probe.clone();
    web.until("it is asked again", || {
        web.workers()[0].last_probe.clone().filter(|probe| probed.as_ref().is_none_or(|old| probe.ago_ms < old.ago_ms))
    });
    let answered = web.transcript.all(mark, super::transcript::Source::Output);
    let questions = answered.iter().filter(|line| line.text.contains("(probe)")).count();
    assert!(questions <= 3, "{questions} questions waited for the worker\n{}", web.transcript.show());
    web.stop();
}

#[test]
fn one_that_answers_its_health_path_badly_is_replaced_and_stays_if_nobody_would_answer_better() {
    let config = format!("{OFTEN}path = \"/healthz\"\nfailures = 2\n");
    let web = patient(&config).gunicorn(&["--workers", "2"]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let before = web.ready();
    web.write(&format!("ill-{}", number(before[0])), "");
    let unhealthy = web.log("is not well: GET /healthz answers 500, not 2xx (2 times in a row)");
    assert!(processes::ended(before[0], PATIENCE), "{}", web.transcript.show());
    assert!(web.logged(START, "hangs").is_empty(), "it answers: it need not tell its stack");
    assert!(web.heard(unhealthy.mark(), "STATUS=serving, 1 of 2 workers, generation 1").is_empty(), "replaced first");
    assert_eq!(web.ready().len(), 2);
    let mark = web.mark();
    web.write("all-ill", "");
    web.log_since(mark, "is not well: GET /healthz answers 500");
    web.log_since(mark, "could not start: GET /healthz answers 500, not 2xx");
    assert_eq!(web.ready().len(), 2, "those that serve stay");
    assert_eq!(web.get("/elsewhere").status, 500, "as ill as the application makes them");
    std::fs::remove_file(web.path().join("all-ill")).expect("it was there");
    let well = |worker: &Worker| worker.last_probe.as_ref().is_some_and(|probe| probe.failure.is_none());
    web.until("all are well again, or followed by others that are", || web.workers().iter().all(well).then_some(()));
    web.stop();
}

#[test]
fn a_program_of_the_owner_tells_whether_a_worker_is_well() {
    let check = "#!/bin/sh
        [ -e \"sick-$SOCKD_WORKER_PID\" ] || exit 0
        echo \"worker $SOCKD_WORKER has a fever\" >&2
        exit 7\n";
    let config = "[health]\ncommand = [\"sh\", \"check\"]\ninterval = 1\nfailures = 2\n";
    let web = Instance::on_unix().file("check", check).config(config).options("--workers 2 --start at-once");
    let web = web.worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    let before = web.ready();
    web.write(&format!("sick-{}", number(before[1])), "");
    let unhealthy = web.log("worker 2 is not well: health.command: exit 7: worker 2 has a fever (2 times in a row)");
    assert!(processes::ended(before[1], PATIENCE));
    assert!(web.logged(unhealthy.mark(), "worker 1 is not well").is_empty());
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}: the canary is well");
    web.stop();
}

#[test]
fn a_program_that_does_not_end_is_a_failure_and_is_killed() {
    let config = "[health]\ncommand = [\"sleep\", \"3600\"]\ninterval = 1\ntimeout = \"200ms\"\nfailures = 1\n";
    let web = Instance::on_unix().config(config).options("--start at-once").worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    web.log("worker 1 is not well: health.command did not end within 200ms; its successor is started first");
    assert_eq!(web.ready().len(), 1, "nobody is better");
    web.stop();
}

#[test]
fn a_program_that_is_missing_is_reported_before_anything_starts() {
    let config = "[health]\ncommand = [\"./no-such-check\"]\n";
    let web = Instance::on_unix().config(config).options("--start at-once").worker("service.py", &[]);
    let failed = web.log("generation 1 cannot be made ready: health.command:");
    assert!(failed.text.contains("no-such-check"), "{}", failed.text);
    web.stop();
}

#[test]
fn an_old_worker_is_replaced_by_its_successor() {
    let web = Instance::on_unix()
        .config("[workers]\nmax-age = \"2s\"\n")
        .options("--start at-once")
        .worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    let first = web.ready_worker();
    let retires = web.log("worker 1 has been there for");
    assert!(retires.text.ends_with("its successor is started first"), "{}", retires.text);
    assert!(processes::ended(first, PATIENCE));
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn a_worker_that_grows_too_big_is_replaced_by_its_successor() {
    let leak = application("hello")
        .replace("    body = (", "    if path == \"/leak\":\n        kept.append(os.urandom(90 << 20))\n    body = (");
    let web = Instance::on_unix()
        .file("myproject.py", &(leak + "\nkept = []\n"))
        .config("[workers]\nmax-memory = \"80M\"\n")
        .gunicorn(&["--workers", "2"]);
    web.get("/");
    web.status("serving, 2 of 2 workers, generation 1");
    let before = web.ready();
    assert_eq!(web.get("/leak").status, 200);
    let retires = web.log("of memory, more than 80.0M; its successor is started first");
    web.until("one is replaced, and only one", || {
        let now = web.ready();
        (now.len() == 2 && before.iter().filter(|pid| now.contains(pid)).count() == 1).then_some(())
    });
    assert!(web.heard(retires.mark(), "STATUS=serving, 1 of 2 workers, generation 1").is_empty(), "replaced first");
    web.stop();
}
