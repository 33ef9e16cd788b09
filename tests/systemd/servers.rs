//! The ASGI guides' servers on a booted machine, each in the place of the guide's gunicorn.
//!
//! Owns: the site under our better unit with uvicorn, hypercorn, daphne or granian, on a unix and a TCP socket, and what must hold of
//! each: it serves, a killed worker is replaced, a good reload loses nothing, a broken one fails and leaves its traceback in
//! the journal, a stop leaves nothing behind.

use std::time::Duration;

use crate::life::{self, SOCKET};
use crate::load::{Load, list};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);

/// Starlette, as its introduction begins.
const APPLICATION: &str = "\
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def hello(request):
    return PlainTextResponse('hello')

application = Starlette(routes=[Route('/', hello)])
";

/// Each server's own command line, without the application.
const SERVERS: [&str; 4] = [
    "uvicorn --workers 3 --uds /run/gunicorn.sock --proxy-headers",
    "hypercorn --workers 3 --bind unix:/run/gunicorn.sock --access-logfile -",
    "daphne --unix-socket /run/gunicorn.sock",
    "granian --interface asgi --workers 3 --uds /run/gunicorn.sock",
];

fn deploy(machine: &Machine, text: &str) {
    life::application(machine, &APPLICATION.replace("hello'", &format!("{text}'")));
}

/// Every server of the guides in turn.
pub fn the_asgi_guides(machine: &Machine) {
    machine
        .run_as(
            "sammy",
            "myprojectdir/myprojectenv/bin/pip install --quiet hypercorn daphne granian starlette websockets",
        )
        .succeeded();
    let tcp = "[Socket]\nListenStream=127.0.0.1:8100\n";
    machine.write_file("/etc/systemd/system/gunicorn.socket.d/tcp.conf", 0o644, tcp);
    for server in SERVERS {
        lives(machine, server);
    }
}

fn lives(machine: &Machine, server: &str) {
    let (begin, rest) = life::BETTER.split_once("sockd run -- ").expect("its ExecStart=");
    let (_, end) = rest.split_once("myproject.wsgi:application").expect("its last word");
    let command = format!("{}/myprojectenv/bin/{server} myproject.wsgi:application", life::PROJECT);
    life::site(machine, &format!("{begin}sockd run --workers 3 -- {command}{end}"));
    deploy(machine, "the first text");
    for place in [format!("--unix-socket {SOCKET} localhost"), "127.0.0.1:8100".to_owned()] {
        machine.run(&format!("curl -sS {place}/")).says("the first text").succeeded();
    }
    let old = life::workers(&life::complete(machine));
    let victim = old.first().expect("three workers");
    machine.run(&format!("kill -KILL {victim}")).succeeded();
    machine.wait_until("its successor", PATIENCE, || {
        let workers = life::workers(&life::complete(machine));
        (!workers.contains(victim)).then_some(())
    });

    let load = Load::begin(machine, &[SOCKET]);
    load.wait_for_visits(50);
    deploy(machine, "the second text");
    machine.run("systemctl reload gunicorn").succeeded();
    life::complete(machine);
    load.wait_for_visits(50);
    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    assert!(failed.is_empty(), "{server}: a good reload lost:\n{}", list(failed.into_iter()));
    machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost/")).says("the second text").succeeded();

    life::application(machine, "import a_module_that_is_missing\n");
    let reload = machine.run("systemctl reload gunicorn");
    assert_ne!(reload.code, 0, "{server}: a broken reload was reported as a good one");
    let journal = machine.journal("gunicorn");
    for wanted in ["Traceback (most recent call last):", "No module named 'a_module_that_is_missing'"] {
        assert!(journal.contains(wanted), "{server}: no {wanted:?} in the journal:\n{journal}");
    }
    machine.run(&format!("curl -sS --unix-socket {SOCKET} localhost/")).says("the second text").succeeded();
    machine.run("systemctl stop gunicorn.socket gunicorn").succeeded();
    assert_eq!(life::property(machine, "Result"), "success", "{server}");
    machine.run("pgrep -l -u sammy || true").says("").succeeded();
}
