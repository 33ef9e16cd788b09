//! The flight recorder, and what `sockd explain` makes of it: faults of real workers are named right.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use sockd::control::recording::{Entry, EventKind};
use sockd::control::{self, Recording};
use sockd::explain::{Explanation, explain};
use sockd::recording;

use super::http::{Address, read_response, send_get};
use super::instance::{Builder, Instance, runtime};
use super::processes;
use super::transcript::{PATIENCE, START};

/// An application with one path for each fault.
const APPLICATION: &str = r#"
import os, socket, threading, time

lock, leak, database = threading.Lock(), [], None

def application(environ, start_response):
    path, status = environ["PATH_INFO"], "200 OK"
    if path == "/report":
        ask_the_database()
    elif path == "/export":
        lock.acquire()
        lock.acquire()
    elif path == "/image":
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
    elif path == "/retry":
        time.sleep(1.5)
    elif path == "/short":
        time.sleep(0.1)
    elif path == "/broken":
        status = "500 Internal Server Error"
    elif path == "/crash":
        os.abort()
    start_response(status, [("Content-Length", "2")])
    return [b"ok"]

def ask_the_database():
    global database
    if database is None:
        database = socket.socket(socket.AF_UNIX)
        database.connect(".s.PGSQL.5432")
    database.sendall(b"Q")
    database.recv(1)
"#;

const QUIET: &str = "[health]\nprobe = false\n";

fn site() -> Builder {
    Instance::on_unix().config(QUIET).file("myproject.py", APPLICATION)
}

impl Instance {
    /// What `sockd explain` is given.
    fn recording(&self) -> Recording {
        match runtime().block_on(control::ask_recording(&self.control())) {
            Ok(recording) => recording,
            Err(error) => panic!("no recording: {error}\n{}", self.transcript.show()),
        }
    }

    /// Visitors come, and all is well.
    fn calm(&self) {
        let shows = |entry: &Entry| match entry {
            Entry::Sample(sample) => sample.finished.is_some_and(|finished| finished > 3),
            Entry::Event(_) => false,
        };
        self.until("a calm time", || {
            for _ in 0..5 {
                assert_eq!(self.get("/").status, 200);
            }
            std::thread::sleep(Duration::from_millis(50));
            (self.recording().entries.iter().filter(|entry| shows(entry)).count() >= 3).then_some(())
        });
    }

    /// Waits until this is the first cause.
    fn explained(&self, id: &str) -> Explanation {
        let mut last = None;
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            let found = explained(&self.recording().entries);
            if found.causes.first().is_some_and(|cause| cause.id == id) {
                return found;
            }
            last = Some(found);
            std::thread::sleep(Duration::from_millis(100));
        }
        let recorded: Vec<String> =
            self.recording().entries.iter().map(|entry| serde_json::to_string(entry).expect("JSON")).collect();
        panic!("not {id}: {last:#?}\n{}\n{}", recorded.join("\n"), self.transcript.show());
    }
}

fn explained(entries: &[Entry]) -> Explanation {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    explain(entries, "web", None, now)
}

fn evidence(found: &Explanation) -> String {
    found.causes[0].evidence.join("\n")
}

/// Visitors of one path who come again and again, whatever becomes of them.
struct Visitors {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn of(address: &Address, path: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, address, path) = (Arc::clone(&stop), address.clone(), path.to_owned());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // One that waits for ever is left behind.
                    if let Ok(mut connection) = address.connect(Duration::from_secs(10)) {
                        let _ = send_get(&mut connection, &path).and_then(|()| read_response(&mut connection));
                    }
                }
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.clients);
    }
}

fn tempdir(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sockd-explain-test-{name}-{}", std::process::id()));
    std::fs::create_dir(&path).expect("made");
    path
}

#[test]
fn a_database_that_is_slow_is_named() {
    let builder = site();
    // Nothing is asked of it but to be known by its name and to be late.
    let database = UnixListener::bind(builder.path().join(".s.PGSQL.5432")).expect("bound");
    std::thread::spawn(move || {
        for connection in database.incoming().flatten() {
            std::thread::spawn(move || {
                let mut connection = connection;
                while std::io::Read::read(&mut connection, &mut [0; 1]).is_ok_and(|read| read == 1) {
                    std::thread::sleep(Duration::from_millis(1500));
                    let _ = std::io::Write::write_all(&mut connection, b"A");
                }
            });
        }
    });
    let web = builder.gunicorn(&["--workers", "3"]);
    web.calm();
    let visitors = Visitors::of(&web.addresses[0], "/report", 4);
    let found = web.explained("slow-database");
    assert!(found.causes[0].what.contains("PostgreSQL"), "{found:?}");
    assert!(evidence(&found).contains("GET /report: seen on"), "{found:?}");
    assert!(
        found.before.as_ref().is_some_and(|before| before.percentile_95_ms.is_some_and(|ms| ms < 500.0)),
        "{found:?}"
    );
    visitors.leave();
    web.stop();
}

#[test]
fn a_lock_that_is_not_released_is_named() {
    for threads in ["1", "4"] {
        let web = site().gunicorn(&["--workers", "2", "--threads", threads, "--timeout", "120"]);
        web.calm();
        let visitors = Visitors::of(&web.addresses[0], "/export", 2);
        let found = web.explained("stuck-lock");
        assert!(evidence(&found).contains("GET /export: seen on"), "{found:?}");
        visitors.leave();
        web.signal(Signal::KILL);
    }
}

#[test]
fn an_application_that_computes_is_named() {
    let web = site().gunicorn(&["--workers", "2"]);
    web.calm();
    let visitors = Visitors::of(&web.addresses[0], "/image", 2);
    let found = web.explained("application-cpu");
    assert!(evidence(&found).contains("GET /image") && evidence(&found).contains("processors"), "{found:?}");
    visitors.leave();
    web.stop();
}

#[test]
fn an_application_that_sleeps_is_named() {
    let web = site().gunicorn(&["--workers", "2"]);
    web.calm();
    let visitors = Visitors::of(&web.addresses[0], "/retry", 1);
    assert!(evidence(&web.explained("sleeping")).contains("GET /retry"));
    visitors.leave();
    web.stop();
}

#[test]
fn memory_that_leaks_is_named() {
    let application = APPLICATION.replace(
        "path == \"/short\":",
        "path == \"/leak\":\n        leak.append(b\"x\" * 2_000_000)\n    elif path == \"/short\":",
    );
    let builder = Instance::on_unix().config(&format!("[workers]\nmax-memory = \"120M\"\n{QUIET}"));
    let web = builder.file("myproject.py", &application).gunicorn(&["--workers", "1"]);
    web.calm();
    let mut grown = 0;
    let found = web.until("an explanation", || {
        assert_eq!(web.get("/leak").status, 200);
        grown += 1;
        std::thread::sleep(Duration::from_millis(50));
        if grown % 10 > 0 {
            return None;
        }
        let found = explained(&web.recording().entries);
        found.causes.first().is_some_and(|cause| cause.id == "memory-leak").then_some(found)
    });
    assert!(evidence(&found).contains("worker 1 grew from "), "{found:?}");
    web.stop();
}

#[test]
fn one_url_that_fails_is_named() {
    let web = site().gunicorn(&["--workers", "2"]);
    web.calm();
    let visitors = [("/", 1), ("/broken", 1)].map(|(path, clients)| Visitors::of(&web.addresses[0], path, clients));
    let found = web.explained("failing-url");
    assert_eq!(found.causes[0].what, "GET /broken fails");
    visitors.into_iter().for_each(Visitors::leave);
    web.stop();
}

#[test]
fn workers_that_crash_are_named_with_what_they_served() {
    let web = site().gunicorn(&["--workers", "2"]);
    web.calm();
    let visitors = Visitors::of(&web.addresses[0], "/crash", 1);
    let found = web.explained("workers-crash");
    assert!(evidence(&found).contains("SIGABRT"), "{found:?}");
    visitors.leave();
    web.signal(Signal::KILL);
}

#[test]
fn workers_that_are_stopped_are_named() {
    let web = site().gunicorn(&["--workers", "4", "--timeout", "120"]);
    web.calm();
    let visitors = Visitors::of(&web.addresses[0], "/short", 6);
    web.until("workers", || (web.ready().len() == 4).then_some(()));
    let half = web.ready().into_iter().take(2).collect::<Vec<_>>();
    half.iter().for_each(|pid| processes::signal(*pid, Signal::STOP));
    let found = web.explained("workers-hang");
    assert!(found.causes[0].what.ends_with("of 4 workers hung"), "{found:?}");
    half.iter().for_each(|pid| processes::signal(*pid, Signal::CONT));
    visitors.leave();
    web.stop();
}

#[test]
fn more_visitors_than_workers_are_named() {
    let web = site().gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").status, 200);
    let before = Visitors::of(&web.addresses[0], "/short", 1);
    let is_calm =
        |entry: &Entry| matches!(entry, Entry::Sample(sample) if sample.finished.is_some_and(|finished| finished > 2));
    web.until("a calm time", || (web.recording().entries.iter().filter(|e| is_calm(e)).count() >= 4).then_some(()));
    let visitors = Visitors::of(&web.addresses[0], "/short", 12);
    let mut found = None;
    web.until("an explanation", || {
        let now = explained(&web.recording().entries);
        let first = now.causes.first().map(|cause| cause.id);
        found = matches!(first, Some("traffic-spike" | "too-few-workers")).then_some(now);
        found.as_ref().map(|_| ())
    });
    assert!(evidence(&found.expect("it was found")).contains("visitors waited"));
    before.leave();
    visitors.leave();
    web.stop();
}

#[test]
fn new_code_that_fails_is_named_and_so_is_code_that_was_refused() {
    let web = site().gunicorn(&["--workers", "2"]);
    web.calm();
    web.write("myproject.py", "import a_module_that_is_missing\n");
    assert!(!web.reload().1.ok);
    let found = web.explained("broken-deploy");
    assert!(evidence(&found).contains("a_module_that_is_missing"), "{found:?}");
    web.write("myproject.py", &APPLICATION.replace("path == \"/broken\"", "path in (\"/broken\", \"/shop\")"));
    assert!(web.reload().1.ok);
    let visitors = [("/", 1), ("/shop", 1)].map(|(path, clients)| Visitors::of(&web.addresses[0], path, clients));
    web.until("an explanation", || {
        let found = explained(&web.recording().entries);
        found.causes.first().filter(|cause| cause.what.contains("new code does not work as")).map(|_| ())
    });
    visitors.into_iter().for_each(Visitors::leave);
    web.stop();
}

#[test]
fn it_outlives_a_sockd_that_was_killed_and_goes_on() {
    let state = tempdir("state");
    let start = || site().env("STATE_DIRECTORY", state.display().to_string()).gunicorn(&["--workers", "2"]);
    let mut web = start();
    web.calm();
    let visitors = Visitors::of(&web.addresses[0], "/broken", 1);
    web.explained("failing-url");
    assert!(!web.recording().in_memory);
    visitors.leave();
    web.signal(Signal::KILL);
    web.end();
    let kept = recording::read(&state);
    let found = explained(&kept.entries);
    assert_eq!((found.causes[0].id, kept.problem), ("failing-url", None), "{found:?}");
    let web = start();
    assert_eq!(web.get("/").status, 200);
    web.until("a start after it", || {
        let entries = web.recording().entries;
        let starts =
            entries.iter().filter(|entry| matches!(entry, Entry::Event(event) if event.kind == EventKind::Started));
        (starts.count() == 2).then_some(())
    });
    let found = web.explained("sockd-ended");
    assert!(found.is_trouble);
    web.stop();
    let entries = recording::read(&state).entries;
    let last =
        entries.iter().rev().find_map(|entry| if let Entry::Event(event) = entry { Some(event.kind) } else { None });
    assert_eq!(last, Some(EventKind::Stopping));
    std::fs::remove_dir_all(state).expect("removed");
}

#[test]
fn a_file_that_cannot_be_used_costs_one_line_each() {
    let state = tempdir("unusable");
    std::fs::write(state.join(recording::FILE_NAME), "{\"sockd_recording\":99}\nx\n").expect("written");
    let web = site().env("STATE_DIRECTORY", state.display().to_string()).gunicorn(&[]);
    web.log("it is of version 99");
    web.calm();
    web.stop();
    assert!(state.join("sockd-recording.aside").exists());
    std::fs::remove_dir_all(&state).expect("removed");

    // A directory that is not there stands for a disk that is full, or read-only, which root would not notice.
    let web = site().env("STATE_DIRECTORY", state.display().to_string()).gunicorn(&[]);
    web.log("the last 300 entries of the recording are kept in memory, ignoring");
    web.calm();
    assert_eq!(web.logged(START, "of the recording are kept in memory").len(), 1);
    std::fs::create_dir(&state).expect("made");
    assert_eq!(web.get("/").status, 200);
    web.until("the file", || (recording::read(&state).entries.len() > 3).then_some(()));
    web.stop();
    std::fs::remove_dir_all(state).expect("removed");
}

#[test]
fn without_a_state_directory_it_is_in_memory_and_the_command_says_so() {
    let web = site().in_network_namespace().gunicorn(&["--workers", "1"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    web.until("an answer of the command", || {
        assert_eq!(web.get("/").status, 200);
        let output = web.beside(env!("CARGO_BIN_EXE_sockd")).arg("explain").output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.contains("the unit has no StateDirectory=") && text.contains("Nothing was wrong then.");
        said.then_some(())
    });
    let explain =
        |words: &[&str]| web.beside(env!("CARGO_BIN_EXE_sockd")).arg("explain").args(words).output().expect("run");
    let json: serde_json::Value = serde_json::from_slice(&explain(&["--json"]).stdout).expect("JSON");
    assert_eq!(json[0]["in_memory"], true);
    assert_eq!(json[0]["explanation"]["is_trouble"], false);
    let long_ago = explain(&["1970-01-02 10:42"]);
    assert!(String::from_utf8_lossy(&long_ago.stdout).contains("nothing is recorded of that time"), "{long_ago:?}");
    let wrong = explain(&["web", "tomorrow"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    web.stop();
}
