//! Maintenance: visitors get a page, no worker serves, and a restart changes nothing of that.

use sockd::control::{Outcome, Request};

use super::instance::{Builder, Instance};

const HELLO: &str = "
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])
    return [b'hello']
";

fn site() -> Builder {
    let site = Instance::on_unix().file("myproject.py", HELLO);
    std::fs::create_dir_all(site.path().join("state")).expect("a directory");
    let state = site.path().join("state").display().to_string();
    site.env("STATE_DIRECTORY", state)
}

fn switch(web: &Instance, on: bool, message: Option<&str>, retry_after_s: Option<u32>) -> (Vec<String>, Outcome) {
    web.ask_for(Request::Maintenance { on, message: message.map(str::to_owned), retry_after_s })
}

#[test]
fn visitors_read_why_until_it_is_ended() {
    let web = site().gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").body, "hello");
    let mark = web.mark();
    let (steps, outcome) = switch(&web, true, Some("Back at <eight>."), Some(3600));
    assert!(outcome.ok && steps.is_empty(), "{steps:?} {outcome:?}");
    web.status("maintenance, answering 503");
    let page = web.until("the page", || Some(web.get("/")).filter(|page| page.status == 503));
    assert_eq!(
        (page.header("Retry-After"), &*page.body),
        (Some("3600"), "503 Service Unavailable\nBack at <eight>.\n")
    );
    web.until("no worker", || web.workers().is_empty().then_some(()));
    let report = web.report();
    let maintenance = report.maintenance.expect("it is on");
    assert_eq!((maintenance.message.as_deref(), maintenance.retry_after_s), (Some("Back at <eight>."), 3600));
    assert_eq!((report.wanted_workers, report.fallback), (0, true));
    // Other words, since the same moment.
    let (_, outcome) = switch(&web, true, Some("Soon."), None);
    assert!(outcome.ok, "{outcome:?}");
    web.until("the other words", || web.get("/").body.ends_with("\nSoon.\n").then_some(()));
    assert_eq!(web.report().maintenance.map(|on| on.since_unix_ms), Some(maintenance.since_unix_ms));
    // What is deployed meanwhile is proven, and serves afterwards.
    web.write("myproject.py", &HELLO.replace("hello", "again"));
    let (_, outcome) = web.reload();
    assert_eq!(outcome.message, "generation 2 is proven and serves when workers start again");
    assert_eq!(web.get("/").status, 503);
    let (_, outcome) = switch(&web, false, None, None);
    assert!(outcome.ok && outcome.message == "resumed: visitors are served", "{outcome:?}");
    assert_eq!(web.get("/").body, "again");
    assert_eq!(web.report().maintenance, None);
    assert!(web.logged(mark, "no worker can serve").is_empty(), "an alarm\n{}", web.transcript.show());
    let (_, outcome) = switch(&web, false, None, None);
    assert_eq!(outcome.message, "there is no pause and no maintenance: workers serve, or start");
    web.stop();
}

#[test]
fn it_is_on_after_a_restart_and_off_after_the_next() {
    let web = site().gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").body, "hello");
    let (_, outcome) = switch(&web, true, Some("Back at eight."), None);
    assert!(outcome.ok, "{outcome:?}");
    let kept = web.path().join("state/sockd-maintenance");
    web.until("it is kept", || kept.exists().then_some(()));
    let text = std::fs::read(&kept).expect("readable");
    web.stop();
    let site = site();
    std::fs::write(site.path().join("state/sockd-maintenance"), &text).expect("written");
    let web = site.gunicorn(&["--workers", "2"]);
    web.notified("READY=1");
    let page = web.get("/");
    assert_eq!((page.status, &*page.body), (503, "503 Service Unavailable\nBack at eight.\n"));
    assert!(web.workers().is_empty());
    let (_, outcome) = switch(&web, false, None, None);
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(web.get("/").body, "hello");
    web.until("it is forgotten", || (!web.path().join("state/sockd-maintenance").exists()).then_some(()));
    web.stop();
}

#[test]
fn what_cannot_be_kept_or_said_is_named() {
    let web = Instance::on_unix().file("myproject.py", HELLO).gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").body, "hello");
    let refused = |message: &str, retry_after_s| {
        let request = Request::Maintenance { on: true, message: Some(message.to_owned()), retry_after_s };
        let instance = web.control();
        let asked = sockd::control::follow(&instance, request, |_| ());
        let error = super::instance::runtime().block_on(asked).expect_err("refused");
        assert_eq!(web.get("/").status, 200);
        error.to_string()
    };
    assert!(refused("a\nb", None).contains("one line of text"));
    assert!(refused("", None).contains("one line of text"));
    assert!(refused(&"x".repeat(301), None).contains("longer than 300 characters"));
    assert!(refused("x", Some(0)).contains("a second to a day"));
    assert!(refused("x", Some(86_401)).contains("a second to a day"));
    let (steps, outcome) = switch(&web, true, None, None);
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(steps, ["the unit has no StateDirectory=: a restart ends it"]);
    web.stop();
    // A disk that takes nothing: the site is away all the same, and the log says what a restart does.
    let site = Instance::on_unix().file("myproject.py", HELLO).env("STATE_DIRECTORY", "/proc/sys");
    let web = site.gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").body, "hello");
    let mark = web.mark();
    let (_, outcome) = switch(&web, true, None, None);
    assert!(outcome.ok, "{outcome:?}");
    web.log_since(mark, "cannot write /proc/sys/sockd-maintenance: ");
    web.until("the page", || Some(web.get("/")).filter(|page| page.status == 503));
    web.stop();
}
