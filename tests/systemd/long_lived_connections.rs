//! Visitors who stay: WebSockets and streams across a reload and a restart, while others come and go.
//!
//! Owns: an ASGI site under our better unit, the program `long_lived_connections.py` (who stays), and what must hold for both kinds of
//! visitors: a reload cuts nobody before drain-timeout, a restart notifies those who stay and does not wait for them.
//! Must never: take a broken connection for a closed one: a WebSocket ends by a close frame, with its code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use crate::life;
use crate::load::{Load, list};
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);
const RECORD: &str = "/run/lasting";
const WEBSOCKETS: usize = 6;
const STREAMS: usize = 2;

/// Long enough that a slow host gets from the reload to the looks at the draining workers.
const DRAIN_SECONDS: f64 = 15.0;
/// sockd kills the workers that are left 5 s after drain-timeout; the rest is for a slow host.
const DRAIN_LIMIT_SECONDS: f64 = DRAIN_SECONDS + 5.0 + 10.0;
/// A WebSocket that is closed while it serves pauses for no longer: it is echoed ten times a second.
const LONGEST_PAUSE_SECONDS: f64 = 3.0;

/// uvicorn looks for its end ten times a second: until then a replaced worker accepts. The rest is for a slow host.
const SETTLING_SECONDS: f64 = 2.0;

const CONFIGURATION: &str = "\
[workers]
start-timeout = \"60s\"
drain-timeout = \"15s\"
stop-timeout = \"60s\"

[reload]
soak = \"500ms\"
";

/// An echo, a stream without end, a slow answer, and a page, each telling who answers.
const APPLICATION: &str = "\
import asyncio, os

PID = str(os.getpid())

async def application(scope, receive, send):
    if scope['type'] == 'websocket':
        await receive()
        await send({'type': 'websocket.accept'})
        while (message := await receive())['type'] == 'websocket.receive':
            await send({'type': 'websocket.send', 'text': message['text'] + ' ' + PID})
    elif scope['type'] == 'http':
        await send({'type': 'http.response.start', 'status': 200, 'headers': []})
        while scope['path'] == '/stream':
            await part(send, 'part ' + PID + '\\n')
            await asyncio.sleep(0.1)
        if scope['path'] == '/slow':
            await part(send, 'begun\\n')
            await asyncio.sleep(6)
        await asyncio.sleep(0.02)
        await part(send, 'TEXT', more=False)

async def part(send, text, more=True):
    await send({'type': 'http.response.body', 'body': text.encode(), 'more_body': more})
";

fn deploy(machine: &Machine, text: &str) {
    life::application(machine, &APPLICATION.replace("TEXT", text));
}

fn site(machine: &Machine) {
    machine.run_as("sammy", "myprojectdir/myprojectenv/bin/pip install websockets").succeeded();
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, CONFIGURATION);
    machine.write_file("/opt/long_lived_connections.py", 0o755, include_str!("long_lived_connections.py"));
    let service = life::BETTER
        .replace("sockd run -- ", "sockd run --config /etc/sockd/gunicorn.toml -- ")
        .replace("--access-logfile - --workers 3 ", "--workers 3 -k uvicorn_worker.UvicornWorker ");
    assert_ne!(service, life::BETTER);
    life::site(machine, &service);
    deploy(machine, "the first text");
}

/// Something that one of those who stay has seen.
#[derive(Debug, Deserialize)]
struct Sight {
    who: String,
    at: f64,
    what: String,
}

/// Sends those who stay; every one of them has been answered when this returns.
fn send_stayers(machine: &Machine) {
    machine
        .run(&format!(
            "rm -f {RECORD}
             systemd-run --quiet --collect --unit=lasting {}/myprojectenv/bin/python /opt/long_lived_connections.py {RECORD} {} \
                 {WEBSOCKETS} {STREAMS}",
            life::PROJECT,
            life::SOCKET
        ))
        .succeeded();
    machine.wait_until("everybody who stays to be answered", PATIENCE, || {
        (sights(machine).len() == WEBSOCKETS + STREAMS).then_some(())
    });
}

/// What each of them has seen so far, in order.
fn sights(machine: &Machine) -> BTreeMap<String, Vec<Sight>> {
    let text = machine.run(&format!("touch {RECORD}; cat {RECORD}")).succeeded();
    let mut all: BTreeMap<String, Vec<Sight>> = BTreeMap::new();
    // A line may be half written at this moment.
    for sight in text.lines().filter_map(|line| serde_json::from_str::<Sight>(line).ok()) {
        all.entry(sight.who.clone()).or_default().push(sight);
    }
    all
}

/// The worker that answers one of them.
fn answerer(seen: &[Sight]) -> u64 {
    let (kind, pid) = seen[0].what.split_once(' ').expect("two words");
    assert!(matches!(kind, "echo" | "part"), "{seen:?}");
    pid.parse().expect("a pid")
}

/// A reload leaves them alone until drain-timeout; the new workers serve everybody else meanwhile.
pub fn a_reload_cuts_nobody(machine: &Machine) {
    site(machine);
    let load = Load::begin(machine, &[life::SOCKET]);
    let old = life::workers(&life::complete(machine));
    send_stayers(machine);
    let stayed_with: BTreeSet<u64> = sights(machine).values().map(|seen| answerer(seen)).collect();
    assert!(stayed_with.is_subset(&old), "{stayed_with:?} are not among {old:?}");

    deploy(machine, "the second text");
    let before = life::now(machine);
    machine.run("systemctl reload gunicorn").succeeded();
    let reloaded = life::now(machine);
    let status = machine.run("sockd status gunicorn; sockd status --json gunicorn >/run/status");
    let status = status.says("Workers: 3 of 3 ready").says(" draining ").succeeded();
    let json: serde_json::Value = serde_json::from_str(&machine.run("cat /run/status").succeeded()).expect("JSON");
    let draining: BTreeSet<u64> = json[0]["sockd"]["workers"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|worker| worker["state"] == "draining")
        .map(|worker| worker["pid"].as_u64().expect("a pid"))
        .collect();
    assert!(stayed_with.is_subset(&draining), "{stayed_with:?} do not all drain:\n{status}");
    machine.run(&format!("curl -sS --unix-socket {} localhost", life::SOCKET)).says("the second text").succeeded();

    machine.wait_for("those who stay to be sent away", PATIENCE, "! systemctl is-active lasting");
    for (who, seen) in sights(machine) {
        let pid = answerer(&seen).to_string();
        let (end, answers) = seen.split_last().expect("it was answered");
        let one_worker = answers.iter().all(|sight| sight.what.split(' ').nth(1) == Some(&pid));
        assert!(one_worker, "{who} was answered by somebody else than before: {seen:?}");
        let lasted = end.at - before;
        assert!(
            lasted >= DRAIN_SECONDS && end.at - reloaded < DRAIN_LIMIT_SECONDS,
            "{who} ended {lasted:.1} s after the reload began: {end:?}"
        );
        // A stream cannot say that it ends before its time.
        let wanted = if who.starts_with("websocket") { "closed 1012" } else { "broken" };
        assert_eq!(end.what, wanted, "{who}");
        let pause = seen.windows(2).map(|pair| pair[1].at - pair[0].at).fold(0.0, f64::max);
        // What broke a stream is the kill that follows the grace.
        let longest = if wanted == "broken" { LONGEST_PAUSE_SECONDS + 5.0 } else { LONGEST_PAUSE_SECONDS };
        assert!(pause < longest, "{who} had to wait for {pause:.1} s");
    }
    machine.wait_until("the old workers to go", PATIENCE, || {
        life::workers(&life::complete(machine)).is_disjoint(&old).then_some(())
    });
    let journal = machine.journal("gunicorn");
    let over = journal.matches("still has connections after drain-timeout").count();
    assert_eq!(over, stayed_with.len(), "of so many workers the drain was over:\n{journal}");

    let record = load.finish();
    assert_eq!(record.failed().count(), 0, "{}", list(record.failed()));
    let settled = reloaded + SETTLING_SECONDS;
    let stale = record.visits.iter().filter(|visit| visit.began > settled && !visit.text.contains("the second text"));
    assert_eq!(stale.clone().count(), 0, "the old text after the reload:\n{}", list(stale));
}

/// A restart finishes what is in flight, however short TimeoutStopSec= is, and tells WebSockets to come again.
pub fn a_restart_waits_for_requests_and_for_nobody_else(machine: &Machine) {
    site(machine);
    life::edit(machine, "TimeoutStopSec=2s");
    machine.run(&format!("curl -sS --unix-socket {} localhost", life::SOCKET)).says("the first text").succeeded();
    life::complete(machine);
    // Only WebSockets: a stream without end would be waited for until stop-timeout.
    machine
        .run(&format!(
            "rm -f {RECORD}
             systemd-run --quiet --collect --unit=lasting {}/myprojectenv/bin/python /opt/long_lived_connections.py {RECORD} {} \
                 {WEBSOCKETS} 0",
            life::PROJECT,
            life::SOCKET
        ))
        .succeeded();
    machine
        .wait_until("every WebSocket to be answered", PATIENCE, || (sights(machine).len() == WEBSOCKETS).then_some(()));
    let slow = machine.spawn(&format!("curl -sSN --unix-socket {} localhost/slow | tee /run/slow", life::SOCKET));
    machine.wait_for("the slow answer to begin", PATIENCE, "grep begun /run/slow");
    machine.run("systemctl restart gunicorn").succeeded();
    slow.finish().says("begun\nthe first text").succeeded();
    machine.wait_for("the WebSockets to be closed", PATIENCE, "! systemctl is-active lasting");
    for (who, seen) in sights(machine) {
        assert_eq!(seen.last().expect("it was answered").what, "closed 1012", "{who}");
    }
    assert_eq!(life::property(machine, "Result"), "success");
    let journal = machine.journal("gunicorn");
    assert!(!journal.contains("SIGKILL"), "{journal}");
}
