//! uWSGI from the virtual environment: it takes our sockets, is proven, replaced, refused and drained.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use super::http::{self, Address};
use super::instance::{Builder, Instance};
use super::processes;
use super::python::{Hammer, application, bin};
use super::transcript::{PATIENCE, START};

const QUICK: &str = "[reload]\nsoak = \"200ms\"\n";

/// The guide's site, with an application that answers slowly to /slow.
const SITE: &str = "[uwsgi]
project = myproject
chdir = %d
module = %(project):application
master = true
processes = 2
vacuum = true
";

fn slow(text: &str) -> String {
    application(text).replace(
        "    body =",
        "    if path == \"/slow\":\n        print(\"slow\", flush=True)\n        time.sleep(1)\n    body =",
    )
}

/// A site whose sockets are named by these lines.
fn site(builder: Builder, lines: &str) -> Builder {
    builder.file("myproject.py", &slow("hello")).file("site.ini", &format!("{SITE}{lines}"))
}

fn start(builder: Builder) -> Instance {
    builder.config(QUICK).command(&[&bin("uwsgi"), "--ini", "site.ini"])
}

fn serving() -> Instance {
    let web = start(site(Instance::on_unix(), "http-socket = web.sock\n"));
    assert_eq!(web.get("/").body.split(' ').next(), Some("hello"));
    web.status("serving, 2 of 2 workers, generation 1");
    web
}

/// One request in uWSGI's own protocol, as Nginx's uwsgi_pass sends it.
pub fn ask_uwsgi(address: &Address, path: &str) -> String {
    let variables = [
        ("REQUEST_METHOD", "GET"),
        ("PATH_INFO", path),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("HTTP_CONNECTION", "close"),
    ];
    let mut block = Vec::new();
    for word in variables.iter().flat_map(|(name, value)| [name, value]) {
        block.extend(u16::try_from(word.len()).expect("short").to_le_bytes());
        block.extend(word.as_bytes());
    }
    let mut packet = vec![0];
    packet.extend(u16::try_from(block.len()).expect("short").to_le_bytes());
    packet.push(0);
    packet.extend(block);
    let mut connection = address.connect(PATIENCE).expect("connected");
    connection.write_all(&packet).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answered");
    answer
}

#[test]
fn each_socket_speaks_the_protocol_of_the_option_that_names_it() {
    // A port is known only once it is bound; what no option names is spoken to as the first.
    let builder = Instance::on_unix().tcp4();
    let web = start(site(builder, "http-socket = 127.0.0.1:1\nsocket = web.sock\n"));
    assert!(web.get_at(1, "/").body.starts_with("hello from"));
    let answer = ask_uwsgi(&web.addresses[0], "/");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("hello from"), "{answer}");
    web.log("uwsgi 127.0.0.1:1 is ignored");
    assert_eq!(web.logged(START, "web.sock is ignored").len(), 0);
    web.stop();
}

/// Its threads leave one for our question while they are well; harakiri would be uWSGI's own answer.
#[test]
fn a_worker_whose_every_thread_is_stuck_is_found_where_a_health_path_is_asked_for() {
    let stick = application("hello").replace(
        "    body =",
        "    if path == \"/stick\":\n        print(\"stuck\", flush=True)\n        time.sleep(3600)\n    body =",
    );
    let health = "[workers]\ncount = 1\n[health]\npath = \"/\"\ninterval = 1\ntimeout = \"500ms\"\nfailures = 2\n";
    let web = Instance::on_unix()
        .file("myproject.py", &stick)
        .file("site.ini", &format!("{SITE}http-socket = web.sock\nthreads = 2\n"))
        .config(health)
        .command(&[&bin("uwsgi"), "--ini", "site.ini"]);
    web.get("/");
    let old = [web.ready_worker()];
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
            connection.write_all(b"GET /stick HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            connection
        })
        .collect();
    // Either that there is no answer, or that it has not even accepted the last question.
    let unhealthy = web.log("worker 1 is not well: GET /: ");
    web.log_since(unhealthy.mark(), "worker 2 is ready");
    web.until("the successor serves", || (web.ready().len() == 1 && web.ready() != old).then_some(()));
    assert_eq!(web.get("/").status, 200);
    drop(stuck);
    web.stop();
}

#[test]
fn a_worker_is_one_process_with_our_sockets_and_the_file_stays() {
    let web = serving();
    for pid in web.ready() {
        assert!(sockd::process::descendants(pid).is_empty(), "it has a child");
    }
    web.until("a killed worker's successor serves", {
        let old = web.ready();
        processes::signal(old[0], Signal::KILL);
        let web = &web;
        move || (web.ready().len() == 2 && !web.ready().contains(&old[0])).then_some(())
    });
    assert!(web.path().join("web.sock").exists(), "the socket's file was removed");
    assert!(web.get("/").body.starts_with("hello"));
    web.stop();
}

#[test]
fn a_good_reload_loses_nothing_and_takes_the_file_s_new_settings() {
    let web = serving();
    let hammer = Hammer::start(&web.addresses[0], 3);
    for generation in 2..6 {
        web.write("myproject.py", &slow(&format!("generation {generation}")));
        let mark = web.mark();
        web.signal(Signal::HUP);
        let reloading = web.notified_since(mark, "RELOADING=1");
        web.status_since(reloading.mark(), &format!("serving, 2 of 2 workers, generation {generation}"));
        web.notified_since(reloading.mark(), "READY=1");
    }
    let answers = hammer.finish(&web);
    assert!(answers.iter().flatten().any(|body| body.starts_with("generation 3")));
    assert!(web.get("/").body.starts_with("generation 5"));
    web.write("site.ini", &format!("{SITE}http-socket = web.sock\n").replace("processes = 2", "processes = 3"));
    web.signal(Signal::HUP);
    web.status("serving, 3 of 3 workers, generation 6");
    web.stop();
}

#[test]
fn broken_code_and_a_broken_file_are_refused_with_their_reason() {
    let web = serving();
    let old = web.ready();
    let sick = application("x").replace("    path =", "    raise RuntimeError(\"sick\")\n    path =");
    for (source, why) in [
        (
            "import a_module_that_is_missing\n",
            "application failed to load: ModuleNotFoundError: No module named 'a_mod",
        ),
        ("application = 1 +\n", "application failed to load: SyntaxError: invalid syntax"),
        // uWSGI answers nothing to a request that ends in an exception.
        (sick.as_str(), "GET /: it closed the connection without an answer"),
    ] {
        web.write("myproject.py", source);
        let hammer = Hammer::start(&web.addresses[0], 2);
        let (_, outcome) = web.reload();
        assert!(!outcome.ok && outcome.message.contains(why), "{outcome:?}");
        assert!(hammer.finish(&web).iter().flatten().all(|body| body.starts_with("hello from")));
        assert_eq!(web.ready(), old);
    }
    web.write("myproject.py", &slow("hello"));
    web.write("site.ini", &format!("{SITE}cron = 0 0 -1 -1 -1 backup\n"));
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.contains("site.ini:8: uWSGI's cron is refused"), "{outcome:?}");
    assert_eq!(web.ready(), old);
    web.stop();
}

#[test]
fn a_stop_finishes_the_request_in_flight() {
    let mut web = serving();
    let address = web.addresses[0].clone();
    let mark = web.mark();
    let visitor = std::thread::spawn(move || address.get("/slow"));
    web.log_since(mark, ": slow");
    web.signal(Signal::TERM);
    let answer = visitor.join().expect("no panic").expect("answered");
    assert!(answer.body.starts_with("hello"), "{answer:?}");
    assert_eq!(web.end().code(), Some(0));
    web.assert_nothing_left();
    assert!(web.path().join("web.sock").exists(), "the socket's file was removed");
}

#[test]
fn ready_is_announced_once_the_application_is_loaded_however_lazy() {
    let builder = site(Instance::on_unix(), "http-socket = web.sock\nlazy-apps = true\n").options("--start at-once");
    let source = format!("import time\ntime.sleep(0.5)\nopen(\"loaded\", \"w\").close()\n{}", slow("hello"));
    let web = start(builder.file("myproject.py", &source));
    web.notified("READY=1");
    assert!(web.path().join("loaded").exists(), "it was ready before the application was loaded");
    web.stop();
}

#[test]
fn an_import_that_hangs_is_ended_and_its_stack_is_logged() {
    let builder = site(Instance::on_unix(), "http-socket = web.sock\n").options("--start at-once --start-timeout 2s");
    let source = format!("{}\nhang_for_ever()\n", slow("hello"));
    let web = start(builder.file("myproject.py", &source));
    web.log("worker 1 hangs: not ready within 2s");
    web.log("in hang_for_ever");
    assert_eq!(web.get("/").status, 503);
    web.stop();
}

#[test]
fn harakiri_ends_a_request_and_the_worker_is_replaced() {
    let web = start(site(Instance::on_unix(), "http-socket = web.sock\nharakiri = 1\n"));
    assert!(web.get("/").body.starts_with("hello"));
    web.status("serving, 2 of 2 workers, generation 1");
    let old = web.ready();
    let mark = web.mark();
    assert!(web.addresses[0].get("/hang").is_err(), "it hangs for an hour");
    web.until("the worker is replaced", || {
        let ready = web.ready();
        (ready.len() == 2 && ready != old).then_some(())
    });
    assert!(!web.logged(mark, "Killing the current process").is_empty());
    web.stop();
}

#[test]
fn without_a_socket_unit_sockd_binds_what_the_file_names() {
    let mut web = start(site(Instance::builder(), "http-socket = own.sock\nchmod-socket = 660\n"));
    web.status("serving, 2 of 2 workers, generation 1");
    let path = web.path().join("own.sock");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o660);
    web.addresses.push(http::Address::Unix(path.clone()));
    assert!(web.get("/").body.starts_with("hello"));
    web.stop();
    assert!(!path.exists(), "the socket's file is left behind");
}

#[test]
fn it_is_sent_every_signal() {
    super::signals::is_sent_everything(serving(), |web, text| web.write("myproject.py", &slow(text)));
}

#[test]
fn who_waits_for_slow_requests_learns_that_there_will_be_none() {
    let builder = Instance::on_unix().config("[requests]\nslow = \"1s\"\n");
    let web = site(builder, "http-socket = web.sock\n").command(&[&bin("uwsgi"), "--ini", "site.ini"]);
    web.log("requests.slow is ignored: this server (uwsgi) does not show its requests");
    assert!(web.get("/").body.starts_with("hello from"));
    web.stop();
}
