//! New code that visitors try on one worker before it takes every slot.

use rustix::process::{Pid, Signal};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::http::Address;
use super::instance::Instance;
use super::processes;

/// Its page says which one it is; /order fails where it is broken.
fn code(text: &str, order: &str) -> String {
    format!(
        r#"
def application(environ, start_response):
    status = "{order}" if environ["PATH_INFO"] == "/order" else "200 OK"
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", "{}")])
    return [b"{text}"]
"#,
        text.len()
    )
}

const BROKEN: &str = "500 Internal Server Error";
const SETTINGS: &str = "[workers]\ncount = 3\n[reload]\nsoak = \"200ms\"\ncanary-requests = 40\n";

/// Visitors of / and /order, by turns, until [`Visitors::leave`].
struct Visitors {
    leave: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
    all: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn come(address: &Address) -> Self {
        let (leave, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let visit = |_| {
            let (leave, failed, address) = (Arc::clone(&leave), Arc::clone(&failed), address.clone());
            std::thread::spawn(move || {
                for path in ["/", "/order"].iter().cycle() {
                    if leave.load(Ordering::Relaxed) {
                        return;
                    }
                    let well = address.get(path).is_ok_and(|response| response.status == 200);
                    failed.fetch_add(u64::from(!well), Ordering::Relaxed);
                }
            })
        };
        Self { all: (0..4).map(visit).collect(), leave, failed }
    }

    /// How many of their requests were not answered well.
    fn leave(self) -> u64 {
        self.leave.store(true, Ordering::Relaxed);
        self.all.into_iter().for_each(|visitor| visitor.join().expect("no panic"));
        self.failed.load(Ordering::Relaxed)
    }
}

fn serving(settings: &str) -> Instance {
    let web = Instance::on_unix().file("myproject.py", &code("first", "200 OK")).config(settings);
    let web = web.gunicorn(&["--workers", "3"]);
    web.get("/");
    web.status("serving, 3 of 3 workers, generation 1");
    web
}

/// `sockd reload`, as a person types it.
fn command(web: &Instance, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockd"));
    command.arg("reload").args(options).env("MAINPID", web.pid.as_raw_nonzero().get().to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn code_that_fails_at_what_nobody_has_asked_before_is_taken_back_by_itself() {
    let web = serving(SETTINGS);
    let visitors = Visitors::come(&web.addresses[0]);
    web.write("myproject.py", &code("second", BROKEN));
    let mark = web.mark();
    let output = command(&web, &["--canary", "1", "--requests", "400"]).output().expect("it ends");
    let failed = visitors.leave();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(" requests failed with the new code (500 to 599), 0 of "), "{said}");
    assert!(said.contains(" with the old; the last one was GET /order\n"), "{said}");
    web.log_since(mark, "visitors try generation 2 on 1 worker: 400 requests decide, within 5 min");
    web.log_since(mark, "reload to generation 2 refused: ");
    // The worker goes on until it is counted.
    assert!(failed > 4, "nobody has tried it");
    assert_eq!(web.get("/").body, "first");
    assert_eq!(web.get("/order").status, 200);
    web.stop();
}

#[test]
fn good_code_takes_every_slot_once_so_many_have_tried_it() {
    let web = serving(&format!("{SETTINGS}canary-workers = \"50%\"\n"));
    let visitors = Visitors::come(&web.addresses[0]);
    web.write("myproject.py", &code("second", "200 OK"));
    let mark = web.mark();
    let (steps, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(visitors.leave(), 0, "{}", web.transcript.show());
    web.log_since(mark, "visitors try generation 2 on 2 workers: 40 requests decide");
    web.log_since(mark, "nothing speaks against generation 2 after ");
    assert!(steps.iter().any(|step| step.contains(" of 40 requests answered, 0 of them with 500 to 599")), "{steps:?}");
    assert_eq!(web.get("/").body, "second");
    web.stop();
}

#[test]
fn a_person_ends_a_trial_well_or_calls_it_off() {
    let web = serving(SETTINGS);
    let nothing = command(&web, &["--promote"]).output().expect("it ends");
    assert!(said(&nothing).contains("no generation is tried"), "{}", said(&nothing));
    assert_eq!(nothing.status.code(), Some(1));
    for (decision, page) in [("--abort", "first"), ("Ctrl-C", "first"), ("--promote", "second")] {
        web.write("myproject.py", &code("second", "200 OK"));
        let mark = web.mark();
        let reload = command(&web, &["--canary", "34%", "--for", "1h"]).spawn().expect("started");
        web.log_since(mark, "visitors try generation");
        let status = web.report();
        assert_eq!(status.reload.tried.map(|tried| (tried.answers, tried.wanted)), Some((0, 40)), "{status:?}");
        if decision == "Ctrl-C" {
            processes::signal(Pid::from_child(&reload), Signal::INT);
        } else {
            let decided = command(&web, &[decision]).output().expect("it ends");
            assert_eq!(decided.status.code(), Some(0), "{}", said(&decided));
        }
        let output = reload.wait_with_output().expect("it ends");
        let code = if decision == "--promote" { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{decision}: {}", said(&output));
        assert_eq!(code == 1, said(&output).contains("refused: somebody has called it off"), "{}", said(&output));
        assert_eq!(web.get("/").body, page, "{decision}");
    }
    web.stop();
}

#[test]
fn what_cannot_be_compared_is_not_tried_on_request() {
    let web = serving(&format!("{SETTINGS}[requests]\nshow = false\n"));
    let output = command(&web, &["--canary", "1"]).output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot reload: its workers do not show their requests"), "{}", said(&output));
    web.stop();
}
