//! Preloading: workers come from code in memory, new code from a new template.

use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::instance::Instance;
use super::processes;
use super::python::{ASGI, Hammer, application, bin, project};
use super::transcript::{PATIENCE, START};

const PRELOAD: &str = "[workers]\ncount = 2\npreload = true\n[reload]\nsoak = \"200ms\"\n";

/// Kills a worker and waits for its successor.
fn replaced(web: &Instance) {
    let mark = web.mark();
    processes::signal(web.ready_worker(), Signal::KILL);
    let one = web.status_like(mark, "serving, 1 of 2 workers");
    web.status_like(one.mark(), "serving, 2 of 2 workers");
}

/// Serves, replaces its dead from memory, refuses broken code with its traceback, takes good code.
fn lives(web: &Instance, source: &str) {
    assert!(web.get("/").body.starts_with("hello from"));
    web.status("serving, 2 of 2 workers, generation 1");
    web.write("myproject.py", &format!("import a_module_that_is_missing\n{source}"));
    replaced(web);
    let mark = web.mark();
    let (_, outcome) = web.reload();
    assert!(!outcome.ok, "{outcome:?}");
    let missing = "ModuleNotFoundError: No module named 'a_module_that_is_missing'";
    assert!(outcome.message.contains(missing), "{}", outcome.message);
    web.log_since(mark, "Traceback (most recent call last):");
    // The refusal stands, and what lies on disk is still broken.
    let mark = web.mark();
    replaced(web);
    assert!(web.logged(mark, "canary").is_empty(), "its code was doubted");
    assert!(web.get("/").body.starts_with("hello from"));

    let hammer = Hammer::start(&web.addresses[0], 2);
    web.write("myproject.py", &source.replace("hello", "new words"));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    web.until("the old workers have left", || (web.workers().len() == 2).then_some(()));
    let answers = hammer.finish(web);
    assert!(answers.iter().flatten().any(|body| body.starts_with("hello from")));
    web.write("myproject.py", "raise RuntimeError\n");
    replaced(web);
    assert!(web.get("/").body.starts_with("new words from"));
}

#[test]
fn gunicorn_lives_by_its_own_option() {
    let source = application("hello");
    let web = project().config("[reload]\nsoak = \"200ms\"\n").gunicorn(&["--preload", "--workers", "2"]);
    lives(&web, &source);
    web.stop();
}

#[test]
fn uvicorn_lives() {
    let script = bin("uvicorn");
    let web = Instance::on_unix().file("myproject.py", ASGI).config(PRELOAD);
    let web = web.command(&[&script, "myproject:application"]);
    lives(&web, ASGI);
    web.stop();
}

#[test]
fn the_configuration_wins_over_gunicorns_option() {
    let text = "[workers]\npreload = false\n[reload]\nsoak = \"200ms\"\n";
    let source = format!("import os\nprint('loaded by %d' % os.getpid(), flush=True)\n{}", application("hello"));
    let web = Instance::on_unix().file("myproject.py", &source).config(text);
    let web = web.gunicorn(&["--preload", "--workers", "2"]);
    assert!(web.get("/").body.starts_with("hello from"));
    web.status("serving, 2 of 2 workers, generation 1");
    for pid in web.ready() {
        web.output(&format!("loaded by {pid}"));
    }
    web.stop();
}

#[test]
fn broken_code_at_the_start_answers_503_and_serves_once_it_is_fixed() {
    let web = Instance::on_unix().file("myproject.py", "import a_module_that_is_missing\n").config(PRELOAD);
    let web = web.gunicorn(&[]);
    assert_eq!(web.get("/").status, 503);
    web.status_like(START, "ModuleNotFoundError: No module named 'a_module_that_is_missing'");
    web.write("myproject.py", &application("fixed"));
    web.until("a visitor is served", || (web.get("/").status == 200).then_some(()));
    web.stop();
}

#[test]
fn a_template_that_dies_comes_again_and_no_worker_is_touched() {
    let web = project().config(PRELOAD).gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    let before = web.ready();
    let mark = web.mark();
    for pid in sockd::process::descendants(web.pid).into_iter().filter(|pid| !before.contains(pid)) {
        processes::signal(pid, Signal::KILL);
    }
    web.log_since(mark, "the template ended");
    assert_eq!(web.ready(), before);
    replaced(&web);
    web.stop();
}

#[test]
fn threads_of_the_import_are_named_in_the_log() {
    let text = "import threading\nwaits = threading.Event().wait\n\
                threading.Thread(target=waits, name='metrics', daemon=True).start()\n";
    let web = Instance::on_unix().file("myproject.py", &format!("{text}{}", application("hello"))).config(PRELOAD);
    let web = web.gunicorn(&[]);
    web.log("the application started the thread metrics while it was imported");
    assert_eq!(web.get("/").status, 200);
    web.stop();
}

#[test]
fn a_server_without_a_template_says_that_preloading_is_ignored() {
    let web = Instance::on_unix().options("--preload").worker("service.py", &[]);
    assert_eq!(web.get("/").status, 200);
    web.log("preload is ignored: sockd has no template for this server (generic)");
    web.stop();
}

/// However long the application takes to import, the start timeout is what its owner has said of it.
#[test]
fn the_import_in_the_template_may_take_as_long_as_a_start() {
    let web = project()
        .file("myproject.py", "import time\nprint('importing', flush=True)\ntime.sleep(3600)\n")
        .options("--start at-once --start-timeout 100s")
        .config(PRELOAD)
        .gunicorn(&[]);
    web.output("importing");
    // The manager's own margin is added.
    web.notified("EXTEND_TIMEOUT_USEC=110000000");
    assert!(web.workers().is_empty());
    web.stop();
}

const STUCK: &str = "the template has not made a worker within 10s";

/// The process that waits to be the next worker: it is sockd's own child, and still of the template's group.
fn spare(web: &Instance) -> Option<Pid> {
    let of_another_group = |pid: &Pid| {
        let pid = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
        nix::unistd::getpgid(Some(pid)).is_ok_and(|group| group != pid)
    };
    let all = sockd::process::descendants(web.pid);
    all.into_iter().find(|pid| processes::parent(*pid) == Some(web.pid) && of_another_group(pid))
}

#[test]
fn the_template_and_the_process_that_becomes_the_next_worker_are_reported() {
    let web = project().config("[workers]\ncount = 1\npreload = true\n").gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    let spare = web.until("a spare", || web.report().templates.first()?.spare_pid);
    let report = web.report();
    let [template] = &report.templates[..] else { panic!("{report:?}") };
    assert_eq!((template.generation, template.spare_pid), (1, Some(spare)));
    // More than one interpreter takes, less than a test machine has.
    let memory = template.memory_bytes.expect("it can be read");
    assert!((1 << 20..1 << 30).contains(&memory), "{memory}");
    let before = web.ready();
    processes::signal(before[0], Signal::KILL);
    let after = web.until("a successor", || web.ready().first().copied().filter(|pid| *pid != before[0]));
    assert_eq!(after.as_raw_nonzero().get().unsigned_abs(), spare);
    web.stop();
}

#[test]
fn a_template_whose_next_worker_is_stopped_is_replaced() {
    let web = project().config("[workers]\ncount = 1\npreload = true\n").gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    let first = web.status("serving, 1 of 1 worker, generation 1");
    let spare = web.until("a spare", || spare(&web));
    processes::signal(spare, Signal::STOP);
    processes::signal(web.ready_worker(), Signal::KILL);
    let stuck =
        web.log_since(first.mark(), &format!("generation 1 cannot be made ready: {STUCK}; trying again at once"));
    let turned_away = web.log_since(first.mark(), &format!("no worker can serve, answering 503: {STUCK}"));
    assert!(turned_away.at - stuck.at < Duration::from_secs(1));
    web.status_since(stuck.mark(), "serving, 1 of 1 worker, generation 1");
    assert_eq!(web.get("/").status, 200);
    assert!(web.logged(START, "hang").is_empty(), "nobody was there to hang\n{}", web.transcript.show());
    assert!(processes::ended(spare, PATIENCE), "the spare is left");
    web.stop();
}

#[test]
fn visitors_are_answered_503_while_what_the_application_does_after_a_fork_hangs() {
    let hangs = "import os, time\n\
                 def wait():\n    while os.path.exists('hangs'):\n        time.sleep(0.01)\n\
                 os.register_at_fork(after_in_child=wait)\n";
    let web = Instance::on_unix()
        .file("hangs", "")
        .file("myproject.py", &format!("{hangs}{}", application("hello")))
        .config(PRELOAD)
        .gunicorn(&[]);
    let response = web.get("/");
    assert_eq!(response.status, 503, "{}", web.transcript.show());
    web.log(STUCK);
    std::fs::remove_file(web.path().join("hangs")).expect("it was there");
    web.until("a visitor is served", || (web.get("/").status == 200).then_some(()));
    assert!(web.logged(START, "hangs").is_empty(), "nobody was there to hang\n{}", web.transcript.show());
    web.stop();
}

/// Its processes call themselves what a file says, one name after the other, and the template reports that.
const LIAR: &str = r#"
import fcntl, os, sys

TRUTH, HERE = os.getpid, os.path.dirname(os.path.abspath(__file__))
SOCKD, TEMPLATE = os.getppid(), os.getpid()

def helper():
    with open("/proc/%d/task/%d/children" % (SOCKD, SOCKD)) as children:
        for pid in children.read().split():
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as line:
                    if line.read().split(b"\0")[1:2] == [b"fallback"]:
                        return pid
            except (FileNotFoundError, ProcessLookupError):
                pass  # It has ended meanwhile.

def getpid():
    if sys._getframe(1).f_code.co_name != "forked":
        return TRUTH()
    with open(os.path.join(HERE, "lies"), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        lie, *rest = file.read().split() or [None]
        file.seek(0)
        file.write(" ".join(rest))
        file.truncate()
        file.flush()
    named = {None: TRUTH, "sockd": lambda: SOCKD, "template": lambda: TEMPLATE, "helper": helper}
    return int(named[lie]() if lie in named else lie)

os.getpid = getpid
os.write(3, b'{"forked": {"worker": 99, "pid": %d}}' % SOCKD)
"#;

#[test]
fn a_process_that_a_template_calls_its_worker_is_not_taken_for_one_unless_it_can_be() {
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().expect("sleep");
    let web = project()
        .file("myproject.py", &format!("{LIAR}{}", application("hello")))
        .file("lies", "sockd helper")
        .config("[workers]\ncount = 5\npreload = true\n")
        .options("--start at-once")
        .gunicorn(&[]);
    let not_ours = |pid: i32| format!("its template reports process {pid}, which is not a child of sockd's");
    let sockd = web.pid.as_raw_nonzero().get();
    web.log(&format!("worker 99 was not ordered, and {}, ignoring", not_ours(sockd)));
    web.log(&format!("worker 1 could not start: {}", not_ours(sockd)));
    web.log("which is the helper that answers 503; trying again");
    web.status("serving, 5 of 5 workers, generation 1");
    let ready = web.ready();
    let neighbour = ready[4];
    let lies = [1, stranger.id().cast_signed(), neighbour.as_raw_nonzero().get()];
    web.write("lies", &format!("template {} {} {}", lies[0], lies[1], lies[2]));
    let mark = web.mark();
    ready[..4].iter().for_each(|pid| processes::signal(*pid, Signal::KILL));
    web.log_since(mark, "which is a template; trying again");
    web.log_since(mark, &not_ours(lies[0]));
    web.log_since(mark, &not_ours(lies[1]));
    web.log_since(mark, &format!("its template reports process {neighbour}, which is worker "));
    web.status_since(mark, "serving, 5 of 5 workers, generation 1");
    assert!(web.ready().contains(&neighbour), "it was taken away");
    assert!(stranger.try_wait().expect("ours").is_none(), "a stranger was killed");
    assert!(web.logged(mark, "the template ended").is_empty(), "the template was killed");
    stranger.kill().and_then(|()| stranger.wait()).expect("it was there");
    web.stop();
}
