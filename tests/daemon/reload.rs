//! New code by SIGHUP: the old one serves until the new one is proven.

use rustix::process::Signal;

use super::instance::Instance;
use super::python::{Hammer, application, project};
use super::uwsgi::ask_uwsgi;

const QUICK: &str = "[reload]\nsoak = \"200ms\"\n";

fn serving() -> Instance {
    let web = project().config(QUICK).gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    web
}

#[test]
fn broken_code_keeps_the_old_answers_and_says_why() {
    let web = serving();
    let old = web.ready();
    let exits = format!("import sys\nsys.exit(7)\n{}", application("x"));
    let fails = format!("import a_module_that_is_missing\n{}", application("x"));
    for (source, why) in [
        (fails.as_str(), "ModuleNotFoundError: No module named 'a_module_that_is_missing'"),
        ("def application(:\n", "SyntaxError: invalid syntax"),
        ("from os import a_name_that_is_missing\n", "ImportError: cannot import name 'a_name_that_is_missing'"),
        ("x = 1\n", "Failed to find attribute 'application' in 'myproject'."),
        (exits.as_str(), "exit 7"),
    ] {
        web.write("myproject.py", source);
        let mark = web.mark();
        let hammer = Hammer::start(&web.addresses[0], 2);
        web.signal(Signal::HUP);
        let reloading = web.notified_since(mark, "RELOADING=1");
        let ready = web.notified_since(reloading.mark(), "READY=1");
        let status = ready.value("STATUS").expect("it tells the outcome");
        assert!(status.starts_with("serving, 2 of 2 workers, generation 1 (reload to "), "{status}");
        assert!(status.contains(why), "{status} does not say {why}");
        web.log_since(mark, "the old workers serve on");
        assert!(hammer.finish(&web).iter().flatten().all(|body| body.starts_with("hello from")));
        assert_eq!(web.ready(), old);
    }
    // And a good one afterwards.
    web.write("myproject.py", &application("fixed"));
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.log_since(mark, "has taken over");
    assert!(web.get("/").body.starts_with("fixed"));
    assert!(!web.report().status_line.contains("refused"));
    web.stop();
}

#[test]
fn good_code_changes_the_answer_and_no_request_fails() {
    let web = serving();
    let hammer = Hammer::start(&web.addresses[0], 4);
    for generation in 2..5 {
        web.write("myproject.py", &application(&format!("generation {generation}")));
        let mark = web.mark();
        web.signal(Signal::HUP);
        let reloading = web.notified_since(mark, "RELOADING=1");
        web.status_since(reloading.mark(), &format!("serving, 2 of 2 workers, generation {generation}"));
        web.notified_since(reloading.mark(), "READY=1");
    }
    let answers = hammer.finish(&web);
    assert!(answers.iter().flatten().any(|body| body.starts_with("generation 2")));
    for client in answers {
        assert!(client.len() > 20, "{} requests", client.len());
    }
    assert!(web.get("/").body.starts_with("generation 4"));
    web.until("the old workers have left", || (web.workers().len() == 2).then_some(()));
    web.stop();
}

#[test]
fn a_reload_brings_another_number_of_workers() {
    let web = project().file("gunicorn.conf.py", "workers = 3\n").config(QUICK).gunicorn(&[]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 3 of 3 workers, generation 1");
    for status in ["serving, 1 of 1 worker, generation 2", "serving, 2 of 2 workers, generation 3"] {
        web.write("gunicorn.conf.py", &format!("workers = {}\n", &status[9..10]));
        let mark = web.mark();
        web.signal(Signal::HUP);
        let reloading = web.notified_since(mark, "RELOADING=1");
        web.status_since(reloading.mark(), status);
        web.notified_since(reloading.mark(), "READY=1");
        assert_eq!(web.get("/").status, 200);
    }
    web.stop();
}

#[test]
fn many_signals_share_rollouts_and_lose_nothing() {
    let web = serving();
    let hammer = Hammer::start(&web.addresses[0], 2);
    let mark = web.mark();
    for _ in 0..10 {
        web.signal(Signal::HUP);
    }
    let first = web.log_since(mark, "has taken over");
    hammer.finish(&web);
    assert!(first.text.contains("generation 2"), "{}", first.text);
    web.stop();
}

#[test]
fn code_that_answers_500_where_the_old_one_answers_200_is_refused_and_no_visitor_sees_it() {
    let web = serving();
    web.write("myproject.py", "def application(environ, start_response):\n    raise ValueError('new and bad')\n");
    let hammer = Hammer::start(&web.addresses[0], 3);
    let (_, outcome) = web.reload();
    assert!(!outcome.ok, "{outcome:?}");
    let why = "GET / answers 500 where the serving workers answer 200: ValueError: new and bad";
    assert!(outcome.message.ends_with(why), "{}", outcome.message);
    assert!(outcome.details.iter().any(|line| line.contains("ValueError: new and bad")), "{outcome:?}");
    assert!(hammer.finish(&web).iter().flatten().all(|body| body.starts_with("hello from")));
    web.stop();
}

#[test]
fn what_gunicorn_writes_to_a_file_of_its_own_is_reported_too() {
    let files = ["--error-logfile", "error.log", "--capture-output"];
    let web = project().config(QUICK).gunicorn(&files);
    assert_eq!(web.get("/").status, 200);
    for (source, why) in [
        ("import a_module_that_is_missing\n", "ModuleNotFoundError: No module named 'a_module_that_is_missing'"),
        (
            "def application(environ, start_response):\n    raise ValueError('new and bad')\n",
            "GET / answers 500 where the serving workers answer 200: ValueError: new and bad",
        ),
    ] {
        web.write("myproject.py", source);
        let (_, outcome) = web.reload();
        assert!(!outcome.ok && outcome.message.ends_with(why), "{outcome:?}");
        assert!(outcome.details.iter().any(|line| line.contains("myproject.py")), "{outcome:?}");
        assert!(web.report().status_line.contains(why), "{:?}", web.report());
        let log = std::fs::read_to_string(web.path().join("error.log")).expect("gunicorn's own");
        assert!(log.contains(why.rsplit_once(": ").expect("an error").1), "{log}");
    }
    web.stop();
}

#[test]
fn workers_of_the_uwsgi_protocol_are_asked_in_it() {
    for class in ["sync", "gthread", "gevent"] {
        let arguments = ["--protocol", "uwsgi", "--worker-class", class, "--threads", "2"];
        let web = project().config(QUICK).gunicorn(&arguments);
        let answer = ask_uwsgi(&web.addresses[0], "/");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("hello from"), "{class}: {answer}");
        web.write("myproject.py", "def application(environ, start_response):\n    raise ValueError('new and bad')\n");
        let (_, outcome) = web.reload();
        let why = "GET / answers 500 where the serving workers answer 200: ValueError: new and bad";
        assert!(!outcome.ok && outcome.message.ends_with(why), "{class}: {outcome:?}");
        web.write("myproject.py", &application("fixed"));
        let mark = web.mark();
        let (_, outcome) = web.reload();
        assert!(outcome.ok, "{class}: {outcome:?}");
        assert_eq!(web.logged(mark, "Traceback").len(), 0, "{class}");
        assert!(ask_uwsgi(&web.addresses[0], "/").contains("fixed"), "{class}");
        web.stop();
    }
}

#[test]
fn a_client_that_waits_for_a_reload_gets_its_steps_and_its_outcome() {
    let web = serving();
    web.write("myproject.py", "import a_module_that_is_missing\n");
    let (_, outcome) = web.reload();
    assert!(!outcome.ok);
    assert!(outcome.message.contains("No module named 'a_module_that_is_missing'"), "{}", outcome.message);
    assert!(outcome.details.iter().any(|line| line.starts_with("ModuleNotFoundError: ")), "{:?}", outcome.details);
    assert!(outcome.details.iter().any(|line| line.contains("myproject.py")), "{:?}", outcome.details);
    web.write("myproject.py", &application("good"));
    let (steps, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert!(steps.iter().any(|step| step.contains("is ready after")), "{steps:?}");
    assert!(web.get("/").body.starts_with("good"));
    web.stop();
}

#[test]
fn a_reload_fixes_an_application_that_could_not_start() {
    let web = project().config(QUICK).file("myproject.py", "import a_module_that_is_missing\n").gunicorn(&[]);
    assert_eq!(web.get("/").status, 503);
    web.write("myproject.py", &application("fixed"));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert!(web.get("/").body.starts_with("fixed"));
    web.stop();
}

#[test]
fn a_crash_in_the_middle_of_a_reload_is_survived() {
    let web = serving();
    let old = web.ready();
    web.write("myproject.py", &format!("import time\ntime.sleep(1)\n{}", application("slow to start")));
    let mark = web.mark();
    web.signal(Signal::HUP);
    web.notified_since(mark, "RELOADING=1");
    super::processes::signal(old[0], Signal::KILL);
    assert!(super::processes::ended(old[0], super::transcript::PATIENCE));
    let hammer = Hammer::start(&web.addresses[0], 2);
    web.log_since(mark, "has taken over");
    hammer.finish(&web);
    web.until("the new code serves alone", || web.get("/").body.starts_with("slow to start").then_some(()));
    web.stop();
}
