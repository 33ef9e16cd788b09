//! Workers that hang, in each way and in each of gunicorn's classes: found, named, shown and replaced.
//!
//! Owns: a site whose pages hang on request, the ways to hang, and what must be in the journal of each.
//! Must never: take a worker's end for a hang that was found: the journal says how it was found.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::life;
use crate::load::{Load, list};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(90);

/// `timeout` of gunicorn, in seconds: short for a test, and long enough that nobody exceeds it on a busy host.
const TIMEOUT: u32 = 6;

/// Probes come in time to notice within gunicorn's timeout; an import may take as long as a slow host needs.
const CONFIGURATION: &str = "\
[workers]
start-timeout = \"20s\"

[reload]
soak = \"500ms\"
";

/// `/spin` never gives the processor back, `/sleep` waits in the kernel.
const WSGI: &str = "\
import os, time

def application(environ, start_response):
    hang(environ['PATH_INFO'])
    time.sleep(0.02)
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '5')])
    return [b'hello']

def hang(path):
    while path == '/spin':
        pass
    if path == '/sleep':
        os.read(os.pipe()[0], 1)
";

const ASGI: &str = "\
import asyncio, os

async def application(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        return await send({'type': 'lifespan.shutdown.complete'})
    hang(scope['path'])
    await asyncio.sleep(0.02)
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'5')]})
    await send({'type': 'http.response.body', 'body': b'hello'})

def hang(path):
    while path == '/spin':
        pass
    if path == '/sleep':
        os.read(os.pipe()[0], 1)
";

/// One of gunicorn's worker classes.
pub struct Class {
    /// Its options.
    options: &'static str,
    application: &'static str,
    /// How many requests for `/sleep` make one worker useless.
    sleepers: usize,
    /// How a worker is found that does nothing any more but beat.
    asleep: &'static str,
}

pub const SYNC: Class = Class { options: "-k sync", application: WSGI, sleepers: 1, asleep: "no heartbeat for" };
pub const GTHREAD: Class =
    Class { options: "-k gthread --threads 2", application: WSGI, sleepers: 2, asleep: "GET /: no answer within" };
// What blocks the hub or the loop blocks all of it.
pub const GEVENT: Class = Class { options: "-k gevent", application: WSGI, sleepers: 1, asleep: NOT_SEEN };
pub const ASGI_CLASS: Class = Class { options: "-k asgi", application: ASGI, sleepers: 1, asleep: NOT_SEEN };

/// Two questions that nobody accepts may come before the heartbeat's time is over: then the worker is replaced first.
const NOT_SEEN: &str = "no heartbeat for|hangs: it does not leave";

/// Everything that sockd and the workers wrote since a moment.
fn journal_since(machine: &Machine, since: f64) -> String {
    machine.run(&format!("journalctl --sync; journalctl -q -u gunicorn -o cat --since @{since}")).succeeded()
}

/// Waits until the journal since then holds all of these (of `a|b` one), nobody waits for an answer any more, and all
/// workers serve, of which one at least is not among `before`.
fn found_and_replaced(machine: &Machine, since: f64, wanted: &[&str], before: &BTreeSet<u64>, what: &str) {
    let mut journal = String::new();
    let limit = std::time::Instant::now() + PATIENCE;
    loop {
        let missing: Vec<_> =
            wanted.iter().filter(|texts| !texts.split('|').any(|text| journal.contains(text))).collect();
        if missing.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < limit, "{what}: {missing:?} is missing in the journal:\n{journal}");
        journal = journal_since(machine, since);
    }
    machine.wait_for(&format!("{what}: the end of the visitors that hung"), PATIENCE, "! pgrep -x curl");
    machine.wait_until(&format!("{what}: a successor"), PATIENCE, || {
        let serving = life::workers(&life::complete(machine));
        (before.is_empty() || !before.is_subset(&serving)).then_some(())
    });
}

/// Asks for a page and does not wait for the answer.
fn ask(machine: &Machine, path: &str, times: usize) {
    let ask = format!("curl -sS --max-time 100 --unix-socket {} localhost{path} >/dev/null 2>&1 &\n", life::SOCKET);
    machine.run(&format!("systemd-run --quiet --collect bash -c '{} wait'", ask.repeat(times))).succeeded();
}

/// A class hangs in every way that it can.
pub fn every_hang_is_found(machine: &Machine, class: &Class) {
    // gunicorn's gevent worker wants packaging.
    machine.run_as("sammy", "myprojectdir/myprojectenv/bin/pip install gevent packaging").succeeded();
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, CONFIGURATION);
    let service = life::BETTER
        .replace("sockd run -- ", "sockd run --config /etc/sockd/gunicorn.toml -- ")
        .replace("--access-logfile - ", &format!("{} --timeout {TIMEOUT} ", class.options));
    life::site(machine, &service);
    life::application(machine, class.application);
    let load = Load::begin(machine, &[life::SOCKET]);
    life::complete(machine);
    // An import: the reload is refused, and nobody was replaced.
    let since = life::now(machine);
    let before = life::workers(&life::complete(machine));
    life::application(machine, &format!("import os\nos.read(os.pipe()[0], 1)  # no end\n{}", class.application));
    let refused = machine.run("sockd reload gunicorn");
    let what = format!("{}, an import", class.options);
    assert!(refused.code == 1 && refused.stderr.contains("not ready within 20s"), "{what}: {refused}");
    let wanted = ["hangs: not ready within 20s; sending SIGABRT", "most recent call first", "wsgi.py\", line 2"];
    found_and_replaced(machine, since, &wanted, &BTreeSet::new(), &what);
    assert_eq!(life::workers(&life::complete(machine)), before, "{what}");
    life::application(machine, class.application);
    machine.run("systemctl reload gunicorn").succeeded();
    let record = load.finish();
    assert_eq!(record.failed().count(), 0, "{what}:\n{}", list(record.failed()));

    // SIGSTOP: nothing can make it write its stack.
    let since = life::now(machine);
    let stopped = *life::workers(&life::complete(machine)).first().expect("three workers");
    machine.run(&format!("kill -STOP {stopped}")).succeeded();
    let what = format!("{}, SIGSTOP", class.options);
    let wanted = ["hangs: no heartbeat for", "killed by SIGKILL"];
    found_and_replaced(machine, since, &wanted, &BTreeSet::from([stopped]), &what);

    // A loop in a request, and a request that waits: enough of them for every worker, though who gets them is chance.
    for (path, times, how) in [("/spin", 1, NOT_SEEN), ("/sleep", class.sleepers, class.asleep)] {
        let since = life::now(machine);
        if class.sleepers > 1 && path == "/spin" {
            // One thread that counts does not keep the others from serving: no hang.
            continue;
        }
        let all = life::workers(&life::complete(machine));
        ask(machine, path, times * all.len());
        let what = format!("{}, {path}", class.options);
        let serves = format!("it serves GET {path} since ");
        let wanted = [how, &serves, "sending SIGABRT", "most recent call first", "in hang"];
        found_and_replaced(machine, since, &wanted, &all, &what);
    }
    let fields = machine.run("journalctl -q -u gunicorn -o json --output-fields=SOCKD_REQUEST").succeeded();
    assert!(fields.contains("\"SOCKD_REQUEST\":\"GET /sleep since "), "{}: the field is missing", class.options);
    // And it serves as before.
    let page = machine.run(&format!("curl -sS --max-time 30 --unix-socket {} localhost", life::SOCKET));
    page.says("hello").succeeded();
}
