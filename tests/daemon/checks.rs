//! `reload.check`: programs that a reload runs before it loads anything; and `reload.after`, which hears of the outcome.

use std::fs::read_to_string;

use rustix::process::{Pid, Signal};
use sockd::control::message::ReloadState;
use sockd::process::descendants;

use super::instance::{Builder, Instance};
use super::processes;
use super::python::{application, project};

const QUICK: &str = "[reload]\nsoak = \"200ms\"\n";

fn on_unix(config: &str) -> Builder {
    Instance::on_unix().config(&format!("{QUICK}{config}")).options("--workers 2 --start at-once")
}

fn serving(web: Builder) -> Instance {
    let web = web.worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    web
}

/// An instance whose check is this script of the shell, which the test may write again.
fn checked_by(script: &str, more: &str) -> Instance {
    serving(on_unix(&format!("check = [\"sh\", \"check\"]\n{more}")).file("check", script))
}

/// The process of the instance with these words in its command line.
fn process(web: &Instance, words: &str) -> Pid {
    let is_it = |pid: &Pid| processes::describe(*pid).contains(words);
    web.until(words, || descendants(web.pid).into_iter().find(is_it))
}

/// The program of `reload.after`, which keeps what it has heard.
const AFTER: &str = "after = [\"sh\", \"after\"]\n";
const KEEPS: &str =
    "echo \"$SOCKD_GENERATION $SOCKD_RELOAD_RESULT $SOCKD_RELOAD_REASON\" >>heard.new; cp heard.new heard\n";

fn heard(web: &Instance, lines: usize) -> Vec<String> {
    web.until("the program after the reload", || {
        let heard = read_to_string(web.path().join("heard")).unwrap_or_default();
        (heard.lines().count() == lines).then(|| heard.lines().map(str::to_owned).collect())
    })
}

#[test]
fn what_would_serve_is_not_kept_back_while_visitors_are_answered_503() {
    let broken = Instance::on_unix().file("myproject.py", "raise RuntimeError('broken')\n");
    let web = broken.config(&format!("{QUICK}check = [\"false\"]\n")).gunicorn(&["--workers", "1"]);
    assert_eq!(web.get("/").status, 503);
    // The next attempt of sockd's own is seconds away: once the code is repaired, it would serve before the reload.
    web.log("worker 6 could not start");
    web.write("myproject.py", &application("repaired"));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    web.log("reload: generation 2 is not checked: no worker serves, and there is no better code to keep");
    assert!(web.get("/").body.starts_with("repaired"));
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.contains("reload.check (false): exit 1"), "{outcome:?}");
    web.stop();
}

#[test]
fn a_check_that_says_no_refuses_the_reload_with_its_last_lines() {
    let script = "echo \"in $PWD for $SOCKD_GENERATION in $STAGE with $LISTEN_FDS:$NOTIFY_SOCKET\" >facts
        for line in $(seq 100); do echo \"step $line\"; done
        printf 'one \\033[31mred\\033[0m migration\\n' >&2
        echo 'and another'
        exit 3\n";
    let web = checked_by(script, "[environment]\nSTAGE = \"live\"\n");
    let old = web.ready();
    assert!(!web.path().join("facts").exists(), "a start is not checked");
    let mark = web.mark();
    let (steps, outcome) = web.reload();
    let why = "reload.check (sh check): exit 3: step 100 | one [31mred[0m migration | and another";
    assert_eq!(outcome.message, format!("reload to generation 2 refused: {why}"));
    assert_eq!(outcome.details.len(), 20);
    assert_eq!(outcome.details[18..], ["one [31mred[0m migration", "and another"]);
    assert!(!outcome.ok && steps.iter().any(|step| step == "checking: sh check"), "{steps:?}");
    let facts = read_to_string(web.path().join("facts")).expect("it ran");
    let directory = web.path().canonicalize().expect("it is there");
    assert_eq!(facts, format!("in {} for 2 in live with :\n", directory.display()));
    let reloading = web.notified_since(mark, "RELOADING=1");
    let status = web.notified_since(reloading.mark(), "READY=1");
    let refused = format!("serving, 2 of 2 workers, generation 1 (reload to 2 refused: {why})");
    assert_eq!(status.value("STATUS"), Some(refused.as_str()));
    web.log_since(mark, "reload: checking generation 2: sh check");
    web.log_since(mark, "reload.check: and another");
    assert_eq!(web.logged(mark, "reload.check: ").len(), 20, "no more of it is in the log");
    web.log_since(mark, "the old workers serve on");
    assert_eq!(web.report().reload.last_refused.map(|refused| refused.reason).as_deref(), Some(why));
    assert_eq!(web.ready(), old);
    // And a good one afterwards. What it leaves running ends with it.
    web.write("check", "echo all is well\nsleep 3600 &\n");
    let mark = web.mark();
    let (steps, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert!(steps.iter().any(|step| step == "the checks have ended well; loading generation 3"), "{steps:?}");
    assert!(web.logged(mark, "all is well").is_empty());
    web.until("nothing is left", || (!web.left().iter().any(|process| process.contains("sleep"))).then_some(()));
    assert!(web.ready().iter().all(|pid| !old.contains(pid)));
    web.stop();
}

#[test]
fn every_check_must_end_well_and_none_is_run_after_one_that_does_not() {
    let check = |name: &str| format!("[\"sh\", \"-c\", \"echo {name} >>ran; test ! -e no-{name}\"]");
    let checks = format!("check = [{}, {}, {}]\n", check("a"), check("b"), check("c"));
    let web = serving(on_unix(&checks).file("no-b", ""));
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.contains("test ! -e no-b'): exit 1"), "{}", outcome.message);
    let run = || read_to_string(web.path().join("ran")).expect("they ran");
    assert_eq!(run(), "a\nb\n");
    std::fs::remove_file(web.path().join("no-b")).expect("it was there");
    assert!(web.reload().1.ok);
    assert_eq!(run(), "a\nb\na\nb\nc\n");
    web.stop();
}

#[test]
fn nothing_is_loaded_before_the_check_has_ended_well() {
    let config = format!("{QUICK}check = [\"sh\", \"-c\", \"test ! -e no\"]\n[workers]\npreload = true\n");
    let web = project().config(&config).gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    web.write("no", "");
    web.write("myproject.py", &format!("open('loaded', 'w').close()\n{}", application("new")));
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.ends_with("): exit 1"), "{outcome:?}");
    assert!(!web.path().join("loaded").exists(), "it was loaded");
    std::fs::remove_file(web.path().join("no")).expect("it was there");
    assert!(web.reload().1.ok);
    assert!(web.get("/").body.starts_with("new"));
    web.stop();
}

#[test]
fn a_check_that_hangs_is_ended_with_all_that_it_has_started() {
    let script = "echo waiting for the database >&2\nsleep 3600 &\nsetsid sleep 3600 &\nsetsid sh -c 'sleep 3600; :' &\n\
                  sleep 3600\n";
    let web = checked_by(script, "check-timeout = \"1500ms\"\n");
    let mark = web.mark();
    let (_, outcome) = web.reload();
    let why = "reload.check (sh check) did not end within 1.5s: waiting for the database";
    assert!(!outcome.ok && outcome.message.ends_with(why), "{outcome:?}");
    assert_eq!(outcome.details, ["waiting for the database"]);
    web.until("nothing is left", || (!web.left().iter().any(|process| process.contains("sleep"))).then_some(()));
    let microseconds = |text: &str| {
        let extension = text.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
        extension.is_some_and(|extension| extension == "11500000")
    };
    let source = super::transcript::Source::Manager;
    web.transcript.wait(mark, source, "the time of the check is asked for", microseconds);
    web.stop();
}

#[test]
fn a_gigabyte_of_output_takes_no_memory_and_its_end_is_quoted() {
    for endless in ["yes 'an unapplied migration'", "tr '\\\\0' x </dev/zero"] {
        let web = checked_by(&format!("{endless} | head -c 1G\necho\necho the end\nexit 1\n"), "check-timeout = 600\n");
        let peak = || {
            let status = read_to_string(format!("/proc/{}/status", web.pid.as_raw_nonzero())).expect("it is there");
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line of the kernel's");
            peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        };
        let (mark, before) = (web.mark(), peak());
        web.signal(Signal::HUP);
        let refused = web.log_since(mark, "refused: reload.check (sh check): exit 1: ");
        assert!(refused.text.contains("the end") && refused.text.len() < 2_000, "{}", refused.text.len());
        assert!(peak() < before + 2048, "from {before} kB to {} kB", peak());
        let written: usize = web.logged(mark, "").iter().map(|entry| entry.text.len()).sum();
        assert!(written < 20_000, "{written} bytes in the log");
        web.stop();
    }
}

#[test]
fn a_check_that_is_missing_refuses_reloads_at_once_and_no_start() {
    let web = serving(on_unix("check = [[\"sh\", \"-c\", \"echo >>ran\"], [\"./no-such-check\"]]\n"));
    let warned = web.log("no-such-check");
    assert!(warned.text.ends_with("it does not exist: no reload will be accepted"), "{}", warned.text);
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.contains("reload.check: cannot execute"), "{}", outcome.message);
    assert!(outcome.message.ends_with("no-such-check: it does not exist"), "{}", outcome.message);
    assert!(!web.path().join("ran").exists(), "the first one is not run in vain");
    web.write("no-such-check", "#!/no/such/shell\n");
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.contains("permission denied"), "{}", outcome.message);
    web.stop();
}

#[test]
fn a_check_that_a_signal_ends_refuses_the_reload_unless_the_whole_unit_got_it() {
    let web = checked_by("echo run >>ran\ntest -e fine || exec sleep 3600\n", "");
    let mark = web.mark();
    web.signal(Signal::HUP);
    let first = process(&web, "sleep 3600");
    assert_eq!(web.report().reload.state, ReloadState::Checking);
    processes::signal(first, Signal::USR1);
    let second = web.until("it is run again", || {
        descendants(web.pid).into_iter().find(|pid| *pid != first && processes::describe(*pid).contains("sleep 3600"))
    });
    processes::signal(second, Signal::KILL);
    web.log_since(mark, "refused: reload.check (sh check): killed by SIGKILL");
    assert_eq!(read_to_string(web.path().join("ran")).expect("it ran"), "run\nrun\n");
    web.stop();
}

#[test]
fn a_stop_ends_the_check_and_does_not_wait_for_it() {
    let script = "trap '' TERM HUP INT\nsetsid sleep 3600 &\nsleep 3600\nsleep 3600\n";
    let mut web = checked_by(script, "check-timeout = \"1h\"\n[workers]\nstop-timeout = \"1h\"\n");
    let mark = web.mark();
    web.signal(Signal::HUP);
    let check = process(&web, "sh check");
    process(&web, "sleep 3600");
    web.status_since(mark, "serving, 2 of 2 workers, generation 1 (reload: checking generation 2)");
    // The check goes at once, and not with the last worker: one of them does not hear of the stop yet.
    let worker = web.ready()[0];
    processes::signal(worker, Signal::STOP);
    web.signal(Signal::TERM);
    assert!(processes::ended(check, super::transcript::PATIENCE), "{}", web.transcript.show());
    web.until("nothing is left", || (!web.left().iter().any(|process| process.contains("sleep"))).then_some(()));
    assert!(!processes::is_zombie(worker));
    processes::signal(worker, Signal::CONT);
    assert_eq!(web.end().code(), Some(0));
    web.assert_nothing_left();
    web.notified_since(mark, "STOPPING=1");
    assert!(web.logged(mark, "could not be killed").is_empty());
}

#[test]
fn a_reload_during_a_check_waits_for_it_and_has_checks_of_its_own() {
    let web = checked_by("echo $SOCKD_GENERATION >>ran\ntest -e fine || exec sleep 3600\n", "");
    let mark = web.mark();
    web.signal(Signal::HUP);
    let hangs = process(&web, "sleep 3600");
    web.signal(Signal::HUP);
    web.signal(Signal::HUP);
    // Those have been heard by now.
    web.report();
    web.write("fine", "");
    processes::signal(hangs, Signal::KILL);
    web.log_since(mark, "reload to generation 2 refused: reload.check (sh check): killed by SIGKILL");
    web.log_since(mark, "reload: generation 3 has taken over");
    assert_eq!(read_to_string(web.path().join("ran")).expect("it ran"), "2\n3\n");
    web.stop();
}

#[test]
fn a_program_hears_of_both_outcomes() {
    let web = checked_by("test ! -e no || { echo 'not yet' >&2; exit 1; }\n", AFTER);
    web.write("after", KEEPS);
    assert!(web.reload().1.ok);
    assert_eq!(heard(&web, 1), ["2 taken-over "]);
    web.write("no", "");
    assert!(!web.reload().1.ok);
    assert_eq!(heard(&web, 2)[1], "3 refused reload.check (sh check): exit 1: not yet");
    web.stop();
}

#[test]
fn a_program_that_fails_or_is_missing_after_a_reload_is_a_warning() {
    let web = serving(on_unix(AFTER).file("after", "echo cannot reach the chat >&2\nexit 6\n"));
    let mark = web.mark();
    assert!(web.reload().1.ok);
    web.log_since(mark, "sockd: warning: reload.after: exit 6: cannot reach the chat, ignoring");
    web.write("sockd.toml", &format!("{QUICK}after = [\"./nobody\"]\n"));
    assert!(web.reload().1.ok);
    let warned = web.log_since(mark, "reload.after: cannot execute");
    assert!(warned.text.ends_with("nobody: it does not exist, ignoring"), "{}", warned.text);
    assert_eq!(web.report().generation, 3);
    web.stop();
}

#[test]
fn a_program_that_hangs_after_a_reload_keeps_nobody_waiting_but_the_next_one() {
    let web = serving(on_unix(AFTER).file("after", "test -e fine || { echo hangs >&2; sleep 3600; }\n"));
    web.write("after", &format!("test -e fine || {{ echo hangs; sleep 3600; }}\n{KEEPS}"));
    let mark = web.mark();
    assert!(web.reload().1.ok);
    let first = process(&web, "sh after");
    assert!(web.reload().1.ok && web.reload().1.ok);
    assert_eq!(process(&web, "sh after"), first, "one at a time");
    web.write("fine", "");
    processes::signal(first, Signal::KILL);
    web.log_since(mark, "reload.after: killed by SIGKILL: hangs, ignoring");
    assert_eq!(heard(&web, 2), ["3 taken-over ", "4 taken-over "]);
    // A stop does not wait for one either.
    std::fs::remove_file(web.path().join("fine")).expect("it was there");
    assert!(web.reload().1.ok);
    process(&web, "sh after");
    web.stop();
}
