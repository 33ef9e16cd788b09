//! PHP-FPM's status page, where there is a PHP-FPM of 8.0 or later: what it serves is shown, and a reload forgets nothing.
//! How it lives is in `tests/systemd/php.rs`.

use std::io::{Read, Write};

use rustix::process::{Pid, Signal};

use super::instance::Instance;
use super::processes;
use super::programs::there;
use super::transcript::PATIENCE;

const PROGRAM: &str = "php-fpm8.2";
/// Waits at /slow until a file is there.
const APPLICATION: &str = "<?php
if ($_SERVER['QUERY_STRING'] == 'slow') {
    fwrite(fopen('php://stderr', 'w'), \"slow\\n\");
    while (!file_exists('go')) { usleep(10000); clearstatcache(); }
}
echo 'hello';
";

/// Sends one request by FastCGI; the answer comes once the other end is read to its end.
fn send(web: &Instance, query: &str) -> impl Read + use<> {
    let script = web.path().join("app.php").to_string_lossy().into_owned();
    let mut params = Vec::new();
    let variables = [("REQUEST_METHOD", "GET"), ("SCRIPT_FILENAME", &script), ("SCRIPT_NAME", "/app.php")];
    for (name, value) in variables.into_iter().chain([("QUERY_STRING", query)]) {
        params.extend([name, value].map(|word| u8::try_from(word.len()).expect("short")));
        params.extend(name.bytes().chain(value.bytes()));
    }
    let mut request = Vec::new();
    for (kind, content) in [(1, &[0, 1, 0, 0, 0, 0, 0, 0][..]), (4, &params), (4, &[]), (5, &[])] {
        let [high, low] = u16::try_from(content.len()).expect("short").to_be_bytes();
        request.extend([1, kind, 0, 1, high, low, 0, 0]);
        request.extend(content);
    }
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    connection.write_all(&request).expect("sent");
    connection
}

fn get(web: &Instance) {
    let mut answer = Vec::new();
    send(web, "").read_to_end(&mut answer).expect("answered");
    assert!(answer.windows(5).any(|part| part == b"hello"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn php_fpm_is_asked_what_it_serves_and_a_reload_forgets_nothing() {
    if !there(PROGRAM) {
        return;
    }
    let builder = Instance::on_unix();
    let directory = builder.path().display().to_string();
    let pool = format!(
        "[global]\nerror_log = /proc/self/fd/2\n[www]\nlisten = {directory}/web.sock\npm = static\npm.max_children = 2\n\
         catch_workers_output = yes\nchdir = {directory}\n"
    );
    let builder = builder.file("fpm.conf", &pool).file("app.php", APPLICATION).config("[reload]\nsoak = \"200ms\"\n");
    let web = builder.command(&[PROGRAM, "-n", "--allow-to-run-as-root", "-y", "fpm.conf"]);
    let finished = || web.report().requests.map(|requests| (requests.finished, requests.unclassified));
    for _ in 0..3 {
        get(&web);
    }
    web.until("three requests", || (finished() == Some((3, Some(3)))).then_some(()));
    let mut slow = send(&web, "slow");
    let serves = |request: &str| {
        let status = web.report();
        let requests = status.workers.iter().find_map(|worker| worker.requests.clone())?;
        let shown = requests.in_flight.first().map_or("", |one| &one.request);
        (requests.busy == 1 && requests.finished == 3 && shown == request).then_some(())
    };
    web.until("a busy worker", || serves("GET /app.php"));

    // Its master stands still, and so does all that it would start.
    let master = web.report().workers[0].pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("a process");
    let children = || sockd::process::descendants(master).len();
    web.until("nobody is left who answers", || (children() == 2).then_some(()));
    processes::signal(master, Signal::STOP);
    let status = web.report();
    assert!(status.workers.iter().all(|worker| worker.requests.is_none()), "{status:?}");
    assert_eq!(status.requests.map(|requests| requests.finished), Some(3));
    processes::signal(master, Signal::CONT);

    web.write("go", "");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).expect("answered");
    get(&web);
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    // It takes visitors until it has said how many it has had, and a moment longer.
    web.log("worker 1 has left");
    get(&web);
    // One that sockd asks by the public socket, for want of another, is counted by PHP-FPM, too.
    web.until("six requests", || finished().filter(|(all, unclassified)| *all >= 6 && *unclassified == Some(*all)));
    web.stop();
}
