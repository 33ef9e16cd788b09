//! The history of an instance, and reloads back to a release that served before.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use sockd::control::message::{Worker, WorkerState};
use sockd::control::{self, Action, HistoryEntry, HistoryResult, Means, Origin, Outcome, Request};
use sockd::process::descendants;

use super::instance::{Builder, Instance, runtime};
use super::processes;
use super::python::{application, project};
use super::transcript::START;

const QUICK: &str = "[reload]\nsoak = \"200ms\"\n";

impl Instance {
    /// `sockd rollback`: the same.
    pub fn roll_back(&self) -> Outcome {
        self.ask_for(Request::Rollback { wait: true, origin: Origin::default() }).1
    }

    /// `sockd history`: the newest last.
    pub fn history(&self) -> Vec<HistoryEntry> {
        match runtime().block_on(control::ask_history(&self.control())) {
            Ok(entries) => entries,
            Err(error) => panic!("no history: {error}\n{}", self.transcript.show()),
        }
    }
}

/// What `sockd rollback` says.
const ROLLED_BACK: &str = "generation 3 serves, until the next reload or restart: those run the configured directory\n";

/// Waits until the history has so many entries.
fn history(web: &Instance, count: usize) -> Vec<HistoryEntry> {
    web.until("the history", || Some(web.history()).filter(|entries| entries.len() == count))
}

/// Puts a release into the directory of a test, and leads the link to it.
fn deploy(path: &Path, name: &str, text: &str) -> PathBuf {
    let release = path.join("releases").join(name);
    std::fs::create_dir_all(&release).expect("made");
    std::fs::write(release.join("myproject.py"), application(text)).expect("written");
    lead(path, name);
    release
}

fn lead(path: &Path, name: &str) {
    let (new, link) = (path.join("current.new"), path.join("current"));
    symlink(path.join("releases").join(name), &new).expect("linked");
    std::fs::rename(new, link).expect("renamed");
}

/// A site that is deployed by moving a link; `one` serves.
fn releases(builder: Builder) -> (PathBuf, Instance) {
    let path = builder.path().to_owned();
    deploy(&path, "one", "one");
    let config = format!("directory = \"{}\"\n{QUICK}", path.join("current").display());
    let web = builder.config(&config).gunicorn(&["--workers", "2"]);
    assert!(web.get("/").body.starts_with("one"));
    web.status("serving, 2 of 2 workers, generation 1");
    (path, web)
}

fn names(entries: &[HistoryEntry]) -> Vec<(Action, HistoryResult, String)> {
    let name = |entry: &HistoryEntry| {
        let release = entry.release.as_ref().map(|release| PathBuf::from(&release.directory));
        release.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).unwrap_or_default()
    };
    entries.iter().map(|entry| (entry.action, entry.result, name(entry))).collect()
}

#[test]
fn each_reload_and_start_is_in_it_with_who_asked_and_how_it_ended() {
    let web = project().config(&format!("{QUICK}check = [\"true\"]\n")).gunicorn(&["--workers", "2"]);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    std::fs::create_dir(web.path().join(".git")).expect("made");
    web.write(".git/HEAD", &format!("{commit}\n"));
    assert_eq!(web.get("/").status, 200);
    let start = history(&web, 1).remove(0);
    assert_eq!((start.action, start.result, start.generation), (Action::Start, HistoryResult::Serving, 1));
    assert_eq!((&*start.asked_by, start.proof.workers), (&[][..], 2));

    assert!(web.reload().1.ok);
    let reload = history(&web, 2).remove(1);
    assert_eq!((reload.action, reload.result, reload.generation), (Action::Reload, HistoryResult::Serving, 2));
    let uid = rustix::process::getuid().as_raw();
    let asker = &reload.asked_by[0];
    assert_eq!((reload.asked_by.len(), asker.means, asker.uid), (1, Means::ControlSocket, Some(uid)));
    let release = reload.release.as_ref().expect("it is known");
    assert_eq!(Path::new(&release.directory), web.path().canonicalize().expect("it is there"));
    assert_eq!(release.commit.as_deref(), Some(commit));
    assert_eq!((reload.proof.checks, reload.proof.canary, reload.proof.workers), (1, true, 2));
    assert!(reload.took_ms >= 200 && reload.proof.soak_ms == 200, "{reload:?}");

    web.write("myproject.py", "import a_module_that_is_missing\n");
    web.signal(Signal::HUP);
    let refused = history(&web, 3).remove(2);
    assert_eq!((refused.result, refused.asked_by[0].means), (HistoryResult::Refused, Means::Signal));
    assert_eq!(refused.asked_by[0].uid, Some(uid));
    assert!(refused.reason.expect("why").contains("a_module_that_is_missing"));
    // Names come from /etc/passwd, a moment later.
    if uid == 0 {
        web.until("the name of root", || {
            web.history()[1].asked_by[0].user.as_deref().filter(|name| *name == "root").map(|_| ())
        });
    }
    web.write("sockd.toml", "[reload\n");
    assert!(!web.reload().1.ok);
    assert_eq!(history(&web, 4)[3].release, None, "nothing could be read");
    web.stop();
}

#[test]
fn what_a_client_says_of_a_login_is_believed_of_root_alone_and_nothing_else_is() {
    let web = project().config(QUICK).gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    let origin = Origin { login_uid: Some(12_345), exec_reload: true };
    assert!(web.ask_for(Request::Reload { wait: true, origin }).1.ok);
    let asker = history(&web, 2).remove(1).asked_by.remove(0);
    let root = rustix::process::getuid().is_root();
    assert_eq!((asker.means, asker.login_uid), (Means::ExecReload, root.then_some(12_345)));
    web.stop();
}

#[test]
fn it_is_kept_over_a_restart_in_the_state_directory() {
    let state = tempdir("state");
    let builder = project().config(QUICK).env("STATE_DIRECTORY", format!("{}:/nowhere", state.display()));
    let web = builder.gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    assert!(web.reload().1.ok);
    let first = history(&web, 2);
    web.stop();
    let web = project().config(QUICK).env("STATE_DIRECTORY", state.display().to_string()).gunicorn(&[]);
    web.notified("READY=1");
    let before = web.history();
    assert_eq!(names(&before), names(&first), "asked before anything has served");
    assert_eq!(web.get("/").status, 200);
    assert_eq!(history(&web, 3)[2].action, Action::Start);
    assert!(!web.path().join("run/sockd-history").exists());
    web.stop();
    assert_eq!(sockd::history::read(&state).entries.len(), 3);
    std::fs::remove_dir_all(state).expect("removed");
}

#[test]
fn a_reload_that_a_stop_cuts_short_is_kept_and_is_no_release_that_served() {
    let state = tempdir("cut-short");
    let directory = tempdir("cut-short-site");
    deploy(&directory, "one", "one");
    let site = format!("directory = \"{}\"\n{QUICK}", directory.join("current").display());
    let start = |config: &str| {
        let builder = Instance::on_unix().config(config).env("STATE_DIRECTORY", state.display().to_string());
        builder.gunicorn(&["--workers", "1"])
    };
    let web = start(&format!("{site}check = [\"sleep\", \"1000\"]\n"));
    assert!(web.get("/").body.starts_with("one"));
    history(&web, 1);
    deploy(&directory, "two", "two");
    assert!(web.ask_for(Request::Reload { wait: false, origin: Origin::default() }).1.ok);
    let is_check = |pid| processes::describe(pid).contains("sleep 1000");
    web.until("its check", || descendants(web.pid).into_iter().find(|pid| is_check(*pid)));
    web.stop();
    let kept = sockd::history::read(&state).entries;
    let cut_short = kept.last().expect("it is kept");
    assert_eq!((cut_short.generation, &cut_short.reason, cut_short.proof.checks), (2, &None, 0));
    assert_eq!(cut_short.asked_by[0].means, Means::ControlSocket);
    // Two has never served: a rollback from what serves leads to what did before.
    lead(&directory, "one");
    let web = start(&site);
    assert!(web.get("/").body.starts_with("one"));
    history(&web, 3);
    let outcome = web.roll_back();
    assert!(!outcome.ok && outcome.message.contains("all that served in the history ran from"), "{outcome:?}");
    let (one, two) = ("one".to_owned(), "two".to_owned());
    assert_eq!(
        names(&web.history()),
        [
            (Action::Start, HistoryResult::Serving, one.clone()),
            (Action::Reload, HistoryResult::CutShort, two),
            (Action::Start, HistoryResult::Serving, one),
        ]
    );
    web.stop();
    for directory in [state, directory] {
        std::fs::remove_dir_all(directory).expect("removed");
    }
}

#[test]
fn a_file_that_cannot_be_used_costs_one_line_each() {
    let state = tempdir("unusable");
    std::fs::write(state.join("sockd-history"), "{\"sockd_history\":99}\nx\n").expect("written");
    // A directory in its way stands for a disk that is full, or read-only, which root would not notice.
    std::fs::create_dir(state.join(".sockd-history.new")).expect("made");
    let web = project().config(QUICK).env("STATE_DIRECTORY", state.display().to_string()).gunicorn(&[]);
    web.log("it is of version 99");
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    for _ in 0..2 {
        assert!(web.reload().1.ok);
    }
    history(&web, 3);
    web.log("the history is kept in memory until it can be written, ignoring");
    std::fs::remove_dir(state.join(".sockd-history.new")).expect("removed");
    assert!(web.reload().1.ok);
    web.until("the file", || (sockd::history::read(&state).entries.len() == 4).then_some(()));
    assert_eq!(web.logged(START, "the history is kept in memory").len(), 1);
    web.stop();
    assert!(state.join("sockd-history.aside").exists());
    std::fs::remove_dir_all(state).expect("removed");
}

#[test]
fn a_rollback_runs_the_release_of_before_until_the_next_reload() {
    let (path, web) = releases(Instance::on_unix());
    deploy(&path, "two", "two");
    assert!(web.reload().1.ok);
    assert!(web.get("/").body.starts_with("two"));
    let outcome = web.roll_back();
    assert!(outcome.ok && outcome.message == "generation 3 serves", "{outcome:?}");
    assert!(web.get("/").body.starts_with("one"));
    // A worker that comes later is of the same release, although the link leads elsewhere.
    // Those of before may be leaving still.
    let serves = |worker: &Worker| worker.generation == 3 && worker.state == WorkerState::Ready;
    let worker = web.until("one that serves", || web.workers().into_iter().find(serves)).id;
    assert!(web.replace(worker).ok);
    web.until("its successor", || (!web.workers().iter().any(|w| w.id == worker)).then_some(()));
    for _ in 0..10 {
        assert!(web.get("/").body.starts_with("one"));
    }
    let again = web.roll_back();
    assert!(!again.ok && again.message.contains("there is no release before"), "{again:?}");
    assert!(web.reload().1.ok);
    assert!(web.get("/").body.starts_with("two"), "a plain reload follows the link");
    let (serving, one, two) = (HistoryResult::Serving, "one".to_owned(), "two".to_owned());
    assert_eq!(
        names(&history(&web, 4)),
        [
            (Action::Start, serving, one.clone()),
            (Action::Reload, serving, two.clone()),
            (Action::Rollback, serving, one),
            (Action::Reload, serving, two),
        ]
    );
    web.stop();
}

#[test]
fn a_rollback_is_refused_like_any_reload_and_nothing_has_changed() {
    let (path, web) = releases(Instance::on_unix());
    let one = path.join("releases/one");
    deploy(&path, "two", "two");
    assert!(web.reload().1.ok);
    let old = web.ready();
    // What served from there does not work any more.
    std::fs::write(one.join("myproject.py"), "import a_module_that_is_missing\n").expect("written");
    let outcome = web.roll_back();
    assert!(!outcome.ok && outcome.message.contains("a_module_that_is_missing"), "{outcome:?}");
    // It is not there any more.
    std::fs::rename(&one, path.join("gone")).expect("moved");
    let outcome = web.roll_back();
    let why = format!(
        "the release {} cannot be gone back to: No such file",
        one.canonicalize().unwrap_or(one.clone()).display()
    );
    assert!(!outcome.ok && outcome.message.contains(&why), "{outcome:?}");
    let last = history(&web, 4).remove(3);
    assert_eq!((last.action, last.result), (Action::Rollback, HistoryResult::Refused));
    assert_eq!(last.release.map(|release| PathBuf::from(release.directory)), Some(one));
    assert_eq!(web.ready(), old);
    assert!(web.get("/").body.starts_with("two"));
    web.stop();
}

#[test]
fn where_a_start_failed_it_is_the_release_that_served_last() {
    let state = tempdir("dangling");
    let directory = tempdir("dangling-site");
    deploy(&directory, "one", "one");
    let config = format!("directory = \"{}\"\n{QUICK}", directory.join("current").display());
    let start = || {
        let builder = Instance::on_unix().config(&config).env("STATE_DIRECTORY", state.display().to_string());
        builder.gunicorn(&["--workers", "1"])
    };
    let web = start();
    assert!(web.get("/").body.starts_with("one"));
    deploy(&directory, "two", "two");
    assert!(web.reload().1.ok);
    web.stop();
    // The link leads nowhere.
    lead(&directory, "three");
    let web = start();
    assert_eq!(web.get("/").status, 503);
    let last = web.until("its failed start", || web.history().pop().filter(|entry| entry.generation == 1));
    assert_eq!((last.action, last.result, &last.release), (Action::Start, HistoryResult::NotStarted, &None));
    let outcome = web.roll_back();
    assert!(outcome.ok, "{outcome:?}");
    assert!(web.get("/").body.starts_with("two"));
    web.stop();
    for directory in [state, directory] {
        std::fs::remove_dir_all(directory).expect("removed");
    }
}

#[test]
fn a_release_that_holds_another_commit_by_now_is_not_what_served() {
    let (path, web) = releases(Instance::on_unix());
    let commit = |name: &str, digit: &str| {
        std::fs::write(path.join("releases").join(name).join("REVISION"), format!("{}\n", digit.repeat(40)))
            .expect("written");
    };
    commit("one", "1");
    assert!(web.reload().1.ok);
    deploy(&path, "two", "two");
    assert!(web.reload().1.ok);
    commit("one", "3");
    let outcome = web.roll_back();
    let why = format!("it holds the commit {}, and what served from it was {}", "3".repeat(40), "1".repeat(40));
    assert!(!outcome.ok && outcome.message.contains(&why), "{outcome:?}");
    commit("one", "1");
    assert!(web.roll_back().ok);
    web.stop();
}

#[test]
fn where_each_deploy_has_the_same_directory_a_rollback_says_what_it_needs() {
    let web = project().config(QUICK).gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    web.write("myproject.py", &application("second"));
    assert!(web.reload().1.ok);
    let (old, mark) = (web.ready(), web.mark());
    let outcome = web.roll_back();
    assert!(!outcome.ok && outcome.message.contains("A rollback needs a directory for each release"), "{outcome:?}");
    assert!(web.heard(mark, "RELOADING=1").is_empty() && web.ready() == old);
    history(&web, 2);
    web.stop();
}

#[test]
fn the_commands_ask_the_instance() {
    let (path, web) = releases(Instance::on_unix().in_network_namespace());
    deploy(&path, "two", "two");
    let sockd = |arguments: &[&str]| {
        let output = web.beside(env!("CARGO_BIN_EXE_sockd")).args(arguments).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output)
    };
    let (code, text, output) = sockd(&["reload"]);
    assert_eq!((code, text.as_str()), (Some(0), "generation 2 serves\n"), "{output:?}");
    let (code, text, output) = sockd(&["history"]);
    assert_eq!(code, Some(0), "{output:?}");
    assert!(text.contains("  start  ") && text.contains("/releases/two") && text.contains("proven by: "), "{text}");
    let (code, text, output) = sockd(&["rollback"]);
    assert_eq!((code, text.as_str()), (Some(0), ROLLED_BACK), "{output:?}");
    assert!(web.get("/").body.starts_with("one"));
    let (code, _, output) = sockd(&["rollback"]);
    assert_eq!(code, Some(1), "{output:?}");
    let (code, text, output) = sockd(&["history", "--json"]);
    assert_eq!(code, Some(0), "{output:?}");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(all[0]["entries"][2]["action"], "rollback");
    web.stop();
}

#[test]
fn paths_below_the_link_lead_to_the_release() {
    let builder = Instance::on_unix();
    let path = builder.path().to_owned();
    let tells = "import os\n\ndef application(environ, start_response):\n    body = os.environ['DATA'].encode()\n    \
                 start_response('200 OK', [('Content-Length', str(len(body)))])\n    return [body]\n";
    for name in ["two", "one"] {
        std::fs::write(deploy(&path, name, name).join("myproject.py"), tells).expect("written");
    }
    let current = path.join("current");
    let (directory, data) = (current.display(), current.join("data"));
    let config = format!("directory = \"{directory}\"\n[environment]\nDATA = \"{}\"\n{QUICK}", data.display());
    let web = builder.config(&config).gunicorn(&["--workers", "1"]);
    assert_eq!(web.get("/").body, data.display().to_string());
    web.status("serving, 1 of 1 worker, generation 1");
    lead(&path, "two");
    assert!(web.reload().1.ok);
    assert!(web.roll_back().ok);
    let release = path.canonicalize().expect("it is there").join("releases/one");
    assert_eq!(web.get("/").body, release.join("data").display().to_string());
    web.stop();
}

fn tempdir(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sockd-history-test-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).expect("made");
    path
}
