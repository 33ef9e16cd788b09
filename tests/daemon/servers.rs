//! The Python servers other than gunicorn, each with its own command line: what must hold of every one of them.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;

use super::http::Address;
use super::instance::{Builder, Instance};
use super::processes;
use super::python::{ASGI, Hammer, bin};
use super::transcript::START;

const QUICK: &str = "[workers]\nstop-timeout = \"20s\"\n[reload]\nsoak = \"200ms\"\n";

/// One server and what its command line needs.
struct Server {
    script: &'static str,
    /// Two workers, if it has an option for that; else the configuration says so.
    workers: &'static [&'static str],
    /// The options with which it listens on a unix socket.
    unix: &'static [&'static str],
    /// The mode that this socket gets.
    mode: u32,
    /// An application's source, which says `hello`.
    source: &'static str,
    /// What its worker says when its application cannot be imported.
    broken: &'static str,
}

const UVICORN: Server = Server {
    script: "uvicorn",
    workers: &["--workers", "2"],
    unix: &["--uds", "bound.sock"],
    mode: 0o666,
    source: ASGI,
    broken: "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
};

const HYPERCORN: Server = Server {
    script: "hypercorn",
    workers: &["--access-logfile", "-", "--workers", "2"],
    unix: &["--bind", "unix:bound.sock", "--umask", "63"],
    mode: 0o700,
    source: ASGI,
    broken: "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
};

const HYPERCORN_ON_TRIO: Server = Server { workers: &["-k", "trio", "--workers", "2"], ..HYPERCORN };

const DAPHNE: Server = Server {
    script: "daphne",
    workers: &[],
    unix: &["--unix-socket", "bound.sock"],
    mode: 0o666,
    source: ASGI,
    broken: "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
};

const GRANIAN: Server = Server {
    script: "granian",
    workers: &["--interface", "asgi", "--workers", "2"],
    unix: &["--uds", "bound.sock", "--uds-permissions", "0640"],
    mode: 0o640,
    source: ASGI,
    broken: "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
};

/// The same with its threads.
const GRANIAN_OF_WSGI: Server =
    Server { workers: &["--interface", "wsgi", "--workers", "2"], source: FLASK, ..GRANIAN };

const WAITRESS: Server = Server {
    script: "waitress-serve",
    workers: &[],
    unix: &["--unix-socket=bound.sock", "--unix-socket-perms=660"],
    mode: 0o660,
    source: FLASK,
    broken: "ModuleNotFoundError: No module named 'a_module_that_is_missing'",
};

/// Flask's, as its guide begins.
const FLASK: &str = r#"
import os
from flask import Flask
application = Flask(__name__)

@application.route("/")
def hello():
    return "hello from %d" % os.getpid()
"#;

impl Server {
    fn start(&self, builder: Builder, arguments: &[&str]) -> Instance {
        let script = bin(self.script);
        let mut command = vec![script.as_str()];
        command.extend(self.workers);
        command.extend(arguments);
        command.push("myproject:application");
        let workers = if self.workers.is_empty() { "count = 2\n" } else { "" };
        let config = QUICK.replace("[workers]\n", &format!("[workers]\n{workers}"));
        builder.config(&config).file("myproject.py", self.source).command(&command)
    }

    /// Serves on unix and TCP sockets, replaces a killed worker, loses nothing at a good reload, refuses a broken one
    /// with its traceback, drains at the end.
    fn lives(&self) {
        let web = self.start(Instance::on_unix().tcp4().tcp6(), &[]);
        for socket in 0..3 {
            assert!(web.get_at(socket, "/").body.starts_with("hello from"), "{}", self.script);
        }
        web.status("serving, 2 of 2 workers, generation 1");
        assert!(web.logged(START, "is ignored").is_empty(), "nothing was said about an address");
        let mark = web.mark();
        processes::signal(web.ready_worker(), Signal::KILL);
        let one = web.status_since(mark, "serving, 1 of 2 workers, generation 1");
        web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");

        let unix = Hammer::start(&web.addresses[0], 2);
        let tcp = Hammer::start(&web.addresses[1], 2);
        web.write("myproject.py", &self.source.replace("hello from", "new words from"));
        let mark = web.mark();
        web.signal(Signal::HUP);
        web.log_since(mark, "has taken over");
        web.status_since(mark, "serving, 2 of 2 workers, generation 2");

        web.write("myproject.py", &format!("import a_module_that_is_missing\n{}", self.source));
        let (_, outcome) = web.reload();
        assert!(!outcome.ok, "{outcome:?}");
        let shown = format!("{} {:?}", outcome.message, outcome.details);
        assert!(shown.contains(self.broken), "{shown}");
        web.log_since(mark, "Traceback (most recent call last):");
        web.until("the old workers have left", || (web.workers().len() == 2).then_some(()));
        let answers = [unix.finish(&web), tcp.finish(&web)].concat();
        assert!(answers.iter().flatten().any(|body| body.starts_with("hello from")));
        assert!(answers.iter().flatten().any(|body| body.starts_with("new words from")));
        assert!(web.get("/").body.starts_with("new words from"));
        web.stop();
    }

    /// Without a socket unit it listens where the server's own options say, with the mode that the server gives.
    fn binds(&self) {
        let mut web = self.start(Instance::builder(), self.unix);
        web.status("serving, 2 of 2 workers, generation 1");
        let path = web.path().join("bound.sock");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, self.mode, "{mode:o} is not {:o}", self.mode);
        web.addresses.push(Address::Unix(path.clone()));
        assert!(web.get("/").body.starts_with("hello from"));
        web.signal(Signal::TERM);
        assert_eq!(web.end().code(), Some(0));
        assert!(!path.exists(), "the socket is left behind");
        web.assert_nothing_left();
    }

    /// An address of the command line's that is not the socket unit's.
    fn warns(&self) {
        let web = self.start(Instance::on_unix(), self.unix);
        assert_eq!(web.get("/").status, 200);
        let line = web.log("bound.sock is ignored");
        assert!(line.text.starts_with("sockd: warning: ") && line.text.contains("web.sock"), "{}", line.text);
        web.stop();
    }
}

#[test]
fn uvicorn_lives() {
    UVICORN.lives();
}

#[test]
fn uvicorn_binds_where_its_options_say() {
    UVICORN.binds();
}

#[test]
fn another_address_of_uvicorn_is_reported_as_ignored() {
    UVICORN.warns();
}

#[test]
fn granian_lives() {
    GRANIAN.lives();
}

#[test]
fn granian_binds_where_its_options_say() {
    GRANIAN.binds();
}

#[test]
fn another_address_of_granian_is_reported_as_ignored() {
    GRANIAN.warns();
}

#[test]
fn granian_lives_with_wsgi() {
    GRANIAN_OF_WSGI.lives();
}

#[test]
fn hypercorn_lives() {
    HYPERCORN.lives();
}

#[test]
fn hypercorn_lives_on_trio() {
    HYPERCORN_ON_TRIO.lives();
}

#[test]
fn hypercorn_binds_where_its_options_say() {
    HYPERCORN.binds();
}

#[test]
fn another_address_of_hypercorn_is_reported_as_ignored() {
    HYPERCORN.warns();
}

#[test]
fn daphne_lives() {
    DAPHNE.lives();
}

#[test]
fn daphne_binds_where_its_options_say() {
    DAPHNE.binds();
}

#[test]
fn another_address_of_daphne_is_reported_as_ignored() {
    DAPHNE.warns();
}

#[test]
fn waitress_lives() {
    WAITRESS.lives();
}

#[test]
fn waitress_binds_where_its_options_say() {
    WAITRESS.binds();
}

#[test]
fn another_address_of_waitress_is_reported_as_ignored() {
    WAITRESS.warns();
}
