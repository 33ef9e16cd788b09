//! Every signal that can be caught, at every moment of an instance's life, to sockd and to all that it has started, as
//! `systemctl kill` sends it: visitors notice nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal};
use sockd::process::{concerns_the_unit, descendants, signal_by_number, signal_name};

use super::http;
use super::instance::{Builder, Instance};
use super::processes;
use super::python::project;
use super::transcript::{PATIENCE, Source};

/// What the kernel hands to a process (signal(7)), but for the numbers that the C library keeps, 32 and 33.
fn harmless() -> impl Iterator<Item = i32> {
    (1..=64).filter(|number| concerns_the_unit(*number) && signal_by_number(*number).is_some())
}

/// Those that change nothing: no reload, no other number of workers.
fn idle() -> impl Iterator<Item = i32> {
    harmless().filter(|number| !["SIGHUP", "SIGTTIN", "SIGTTOU"].map(Some).contains(&signal_name(*number)))
}

/// To every process of the instance; sockd first, as systemd has it.
fn send_to_all(web: &Instance, number: i32) {
    let signal = signal_by_number(number).expect("it is one");
    for pid in [vec![web.pid], descendants(web.pid)].concat() {
        processes::signal(pid, signal);
    }
}

/// All that change nothing, and waits until the last one has been taken.
fn send_all(web: &Instance) {
    let mark = web.mark();
    idle().for_each(|number| send_to_all(web, number));
    let last = idle().last().expect("there are some");
    if web.logged(super::transcript::START, &format!("signal {last} does nothing")).is_empty() {
        web.log_since(mark, &format!("signal {last} does nothing"));
    } else {
        // It says so once in a while; the next answer of its loop comes after the signals.
        web.report();
    }
}

/// What must hold of a server that has its own ways with signals: whatever it does at each of them, and also where it ends,
/// visitors are served by workers that sockd has proven, on sockets that they were given, and sockd lives. `web` serves
/// `hello from PID` with two workers; `deploy` changes the word.
pub fn is_sent_everything(mut web: Instance, deploy: impl Fn(&Instance, &str)) {
    web.status("serving, 2 of 2 workers, generation 1");
    assert_serves(&web, &["hello"]);
    let caught = mask(web.ready_worker(), "SigCgt:");
    let (known, others): (Vec<i32>, Vec<i32>) = idle().partition(|number| caught >> (number - 1) & 1 == 1);
    assert!(!known.is_empty(), "it catches no signal");
    for number in known {
        send_to_all(&web, number);
        assert_serves(&web, &["hello"]);
    }
    // Of these it dies as any program does.
    others.iter().for_each(|number| send_to_all(&web, *number));
    assert_serves(&web, &["hello"]);

    // From the canary to the old ones, who drain.
    for moment in ["canary", "is ready", "has taken over"] {
        deploy(&web, moment);
        let mark = web.mark();
        std::thread::scope(|scope| {
            // Its end comes, whichever.
            let reload = scope.spawn(|| web.reload());
            web.log_since(mark, moment);
            harmless().for_each(|number| send_to_all(&web, number));
            reload.join().expect("it ends");
        });
        // A successor of the old workers has the new code, too: it is executed afresh.
        assert_serves(&web, &["hello", "canary", "is ready", "has taken over"]);
    }
    deploy(&web, "at last");
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert_serves(&web, &["at last"]);

    let address = web.addresses[0].clone();
    let mark = web.mark();
    // It may go unanswered: there are servers that end in the middle of a request at some signal.
    let visitor = std::thread::spawn(move || drop(address.get("/slow")));
    web.until("a slow request", || {
        let said = [Source::Log, Source::Output].map(|source| web.transcript.all(mark, source)).concat();
        said.iter().any(|line| line.text.ends_with("slow")).then_some(())
    });
    web.signal(Signal::TERM);
    web.log("sockd: stopping");
    harmless().for_each(|number| send_to_all(&web, number));
    assert_eq!(web.end().code(), Some(0));
    web.assert_nothing_left();
    visitor.join().expect("no panic");
}

/// The signals that a process catches (`SigCgt:`) or ignores (`SigIgn:`), the first one in the lowest bit.
pub fn mask(pid: Pid, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is there");
    let mask = status.lines().find_map(|line| line.strip_prefix(which)).expect("proc(5)");
    u64::from_str_radix(mask.trim(), 16).expect("a mask")
}

/// In the end two workers serve; who answers is one of them and says one of these words; and they listen nowhere else.
fn assert_serves(web: &Instance, words: &[&str]) {
    let given = web.descriptors.iter().map(|socket| rustix::fs::fstat(socket).expect("a socket").st_ino).collect();
    let private = format!("unix:{}/run/sockd-", web.path().display());
    web.until("two workers serve", || {
        let (ready, response) = (web.ready(), web.get("/"));
        let (word, pid) = response.body.rsplit_once(" from ").unwrap_or_default();
        let of_ours = ready.iter().any(|ready| ready.to_string() == pid);
        (ready.len() == 2 && response.status == 200 && of_ours && words.contains(&word)).then_some(())
    });
    for worker in web.ready() {
        let mut places = sockd::process::listening(worker, &given);
        places.retain(|place| !place.starts_with(&private));
        assert!(places.is_empty(), "{} listens on {places:?}", processes::describe(worker));
    }
}

/// A named pipe: who reads it waits until somebody opens it for writing.
fn gate(web: &Instance, name: &str) -> PathBuf {
    let path = web.path().join(name);
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo starts").success());
    path
}

/// Lets the one pass who waits at the gate.
fn open(web: &Instance, gate: &Path) {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    web.until("somebody waits at the gate", || rustix::fs::open(gate, flags, Mode::empty()).ok());
}

/// An application that is imported only once the pipe `gate` is opened, if there is one, and answers /slow only once the
/// pipe `slow` is.
const APPLICATION: &str = r#"
import os, select, sys
try:
    gate = os.open("gate", os.O_RDONLY | os.O_NONBLOCK)
except FileNotFoundError:
    pass
else:
    # It is open by now, whatever becomes of its name.
    print("waits at the gate", file=sys.stderr, flush=True)
    select.select([gate], [], [])
    os.close(gate)

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        print("answering slowly", file=sys.stderr, flush=True)
        open("slow").close()
    body = ("hello from %d" % os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

fn gunicorn(builder: Builder) -> Instance {
    let config = "[workers]\ncount = 2\n[reload]\nsoak = \"200ms\"\n";
    builder.file("myproject.py", APPLICATION).config(config).gunicorn(&[])
}

fn serving() -> Instance {
    let web = gunicorn(project());
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    web
}

#[test]
fn while_it_starts_and_waits() {
    let web = gunicorn(project());
    // The launcher is Python: sockd is there, and has begun, once it holds signals back.
    let holds = || {
        let exe = std::fs::read_link(format!("/proc/{}/exe", web.pid)).unwrap_or_default();
        if exe.file_name().is_none_or(|name| name != "sockd") {
            return false;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", web.pid)).unwrap_or_default();
        status.lines().any(|line| line.starts_with("SigBlk:") && !line.ends_with("0000000000000000"))
    };
    while !holds() {
        std::thread::yield_now();
    }
    // It has no event loop yet.
    idle().for_each(|number| send_to_all(&web, number));
    web.notified("READY=1");
    send_all(&web);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    web.stop();
}

#[test]
fn while_it_serves() {
    let web = serving();
    let workers = web.ready();
    for number in idle() {
        let mark = web.mark();
        send_to_all(&web, number);
        let name = signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned);
        match name.as_str() {
            "SIGUSR1" => drop(web.log_since(mark, "log files are opened afresh, by 3 processes")),
            "SIGUSR2" => drop(web.log_since(mark, "SIGUSR2 does nothing: `kill -HUP ")),
            _ => drop(web.log_since(mark, &format!("{name} does nothing: "))),
        }
        assert_eq!(web.get("/").status, 200, "after {name}");
    }
    assert_eq!(web.ready(), workers);
    // It is said a few times only.
    let mark = web.mark();
    (0..50).for_each(|_| send_to_all(&web, idle().last().expect("there are some")));
    web.report();
    let said = web.logged(mark, "does nothing").len();
    assert!(said <= 5, "said {said} times");
    // Also where everybody gets it: gunicorn's own workers end by it.
    send_to_all(&web, 1);
    web.log_since(mark, "reload: generation 2 has taken over");
    assert!(web.logged(mark, "died").is_empty());
    web.stop();
}

#[test]
fn while_a_reload_prepares_and_proves() {
    for config in ["[workers]\ncount = 2\n", "[workers]\ncount = 2\npreload = true\n"] {
        let config = format!("{config}[reload]\nsoak = \"200ms\"\n");
        let web = project().file("myproject.py", APPLICATION).config(&config).gunicorn(&[]);
        assert_eq!(web.get("/").status, 200);
        web.status("serving, 2 of 2 workers, generation 1");
        let gate = gate(&web, "gate");
        let mark = web.mark();
        web.signal(Signal::HUP);
        // A template that has hardly begun.
        send_all(&web);
        web.log_since(mark, "waits at the gate");
        send_all(&web);
        let place = std::fs::rename(&gate, web.path().join("open")).map(|()| web.path().join("open"));
        open(&web, &place.expect("renamed"));
        web.log_since(mark, "reload: generation 2 has taken over");
        assert_eq!(web.get("/").status, 200);
        web.stop();
    }
}

/// A request that is being answered until the gate is opened.
fn slow_request(web: &Instance) -> (impl FnOnce() -> http::Response, PathBuf) {
    let slow = gate(web, "slow");
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, "/slow").expect("sent");
    web.log("answering slowly");
    (move || http::read_response(&mut connection).expect("answered"), slow)
}

#[test]
fn while_workers_drain_and_the_service_stops() {
    let web = serving();
    let (response, slow) = slow_request(&web);
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.log_since(mark, "reload: generation 2 has taken over");
    send_all(&web);
    open(&web, &slow);
    assert_eq!(response().status, 200);

    let mut web = serving();
    let (response, slow) = slow_request(&web);
    web.signal(Signal::TERM);
    web.log("sockd: stopping");
    send_all(&web);
    open(&web, &slow);
    assert_eq!(response().status, 200);
    assert_eq!(web.end().code(), Some(0));
    web.assert_nothing_left();
}

#[test]
fn while_visitors_get_503() {
    let web = Instance::on_unix().file("broken", "").worker("service.py", &["exit-if=broken"]);
    assert_eq!(web.get("/").status, 503);
    for number in idle() {
        send_to_all(&web, number);
    }
    web.report();
    assert_eq!(web.get("/").status, 503);
    assert!(web.logged(super::transcript::START, "the helper that answers 503 ended").is_empty());
    web.stop();
}

#[test]
fn a_health_command_that_the_signal_ends_is_run_again() {
    let config = "[health]\ncommand = [\"sh\", \"-c\", \"echo asked >&2; echo x >>asked; test -e fine || sleep 60\"]\n\
                  interval = \"1s\"\nfailures = 1\n[workers]\nstart = \"at-once\"\n";
    let web = Instance::on_unix().file("fine", "").config(config).worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    let worker = web.ready();
    std::fs::remove_file(web.path().join("fine")).expect("removed");
    let command = || {
        let asks = |pid: &rustix::process::Pid| processes::describe(*pid).contains("sleep 60");
        descendants(web.pid).into_iter().find(asks)
    };
    let asking = web.until("the command runs", command);
    web.write("fine", "");
    processes::signal(asking, Signal::USR1);
    let asked = || std::fs::read_to_string(web.path().join("asked")).unwrap_or_default().lines().count();
    let before = asked();
    web.until("it is asked again, and once more", || (asked() >= before + 2).then_some(()));
    assert_eq!(web.ready(), worker);
    assert!(web.logged(super::transcript::START, "is not well").is_empty());
    web.stop();
}

#[test]
fn one_worker_more_and_one_fewer_until_the_next_reload() {
    let web = serving();
    let old = web.ready();
    web.signal(Signal::TTIN);
    web.log("2 workers become 3, until the next reload");
    let more = web.status("serving, 3 of 3 workers, generation 1");
    for left in [2, 1] {
        web.signal(Signal::TTOU);
        let workers = if left == 1 { "worker" } else { "workers" };
        web.status_since(more.mark(), &format!("serving, {left} of {left} {workers}, generation 1"));
    }
    // Never none.
    web.signal(Signal::TTOU);
    web.log("it stays at 1 worker: there cannot be fewer");
    let left = web.ready();
    assert!(left.len() == 1 && old.contains(&left[0]), "{left:?} of {old:?}");
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.status_since(mark, "serving, 2 of 2 workers, generation 2");
    web.stop();
}

/// Longer than the workers of [`pausing`] may be silent: there is no event to wait for but the time.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(6);

/// Workers that may be silent for two seconds.
fn pausing(arguments: &[&str]) -> Instance {
    let arguments = [&["--workers", "2", "--timeout", "2"], arguments].concat();
    let web = project().file("myproject.py", APPLICATION).gunicorn(&arguments);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    web
}

/// The same workers serve on, and go on doing so for longer than they may be silent.
fn assert_nobody_fell(web: Instance, workers: &[Pid]) {
    let end = std::time::Instant::now() + PAUSE / 2;
    while std::time::Instant::now() < end {
        assert_eq!(web.get("/").status, 200);
        std::thread::sleep(PAUSE / 60);
    }
    assert_eq!(web.ready(), workers);
    for word in ["hangs", "died", "killed", "not well"] {
        assert!(web.logged(super::transcript::START, word).is_empty(), "{word}");
    }
    web.stop();
}

/// A request is under way while all of these stand still, and the same workers serve on.
fn assert_pause_is_survived(everybody: bool) {
    // A thread beats while others answer; a sync worker is silent until it has answered.
    for class in ["gthread", "sync"] {
        let web = pausing(&["-k", class]);
        let workers = web.ready();
        let (response, slow) = slow_request(&web);
        let others = if everybody { descendants(web.pid) } else { Vec::new() };
        let paused = [vec![web.pid], others].concat();
        paused.iter().for_each(|pid| processes::signal(*pid, Signal::STOP));
        std::thread::sleep(PAUSE);
        // sockd first: the others are not heard at once.
        paused.iter().for_each(|pid| processes::signal(*pid, Signal::CONT));
        web.log("sockd stood still, for ");
        open(&web, &slow);
        let response = response();
        assert_eq!(response.status, 200);
        let by = |pid: &Pid| response.body == format!("hello from {pid}");
        assert!(workers.iter().any(by), "{response:?} of {workers:?}");
        assert_nobody_fell(web, &workers);
    }
}

#[test]
fn while_sockd_stands_still_nobodys_time_runs_out() {
    assert_pause_is_survived(false);
}

#[test]
fn while_sockd_and_its_workers_stand_still_nobodys_time_runs_out() {
    assert_pause_is_survived(true);
}
