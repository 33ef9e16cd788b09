//! A bad deploy cannot take the site down: visitors come all the time while good and broken code is deployed, the
//! service is restarted and workers are killed.
//!
//! Owns: the deploys, and what must hold after each and over all: no request failed but in the hands of a killed
//! worker, no visitor waited for somebody's import, every command reported the truth.
//! Must never: wait for time to pass, or give the site a rest: the visitors come from the first deploy to the last.

use std::time::Duration;

use serde_json::Value;

use crate::guide;
use crate::load::{Accident, Load, Record, Span, Visit, list};
use crate::machine::{Machine, Output};

const PATIENCE: Duration = Duration::from_secs(60);
const PROJECT: &str = "/home/sammy/myprojectdir";
const PLACES: [&str; 2] = ["/run/gunicorn.sock", "127.0.0.1:8000"];

/// What the application's import takes besides Django's own half a second: asleep, so that the host is not busier for
/// it. A visitor who had to wait for an import waited 1.7 seconds at least.
const IMPORT_SECONDS: f64 = 1.2;
/// No visitor may have waited longer. The slowest request takes 20 ms by itself and waits behind two or three others
/// that the eight visitors have queued; the rest of this is for a host with two cores that
/// imports Django beside the visitors. It is less than an import takes: who waited for one is found out.
const LONGEST_SECONDS: f64 = 1.6;

/// During a start or a restart they wait for the import, and on a busy host longer, but not for a process that will not
/// leave: gunicorn's graceful timeout of 30 s is for requests.
const LONGEST_RESTART_SECONDS: f64 = 15.0;

/// The configuration of the main run: a reload is over sooner than by default.
const CONFIGURATION: &str = "\
environment-files = [\"/etc/sockd/gunicorn.env\"]

[workers]
start-timeout = \"30s\"

[reload]
soak = \"500ms\"
";

/// The site of the Django guide with pages of our own, on two sockets.
fn site(machine: &Machine, service: &str) {
    // Step 2 of the guide, as far as the site without a database needs it.
    machine
        .run_as("sammy", "cd myprojectdir; source myprojectenv/bin/activate; django-admin startproject myproject .")
        .succeeded();
    deploy_text(machine, 0).succeeded();
    page(machine, "return HttpResponse(TEXT)");
    let socket = guide::SOCKET_UNIT.replace("[Install]", "ListenStream=127.0.0.1:8000\n\n[Install]");
    machine.write_file("/etc/systemd/system/gunicorn.socket", 0o644, &socket);
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, service);
    machine.run("systemctl daemon-reload; systemctl enable --now gunicorn.socket").succeeded();
}

/// The application's pages: `answer` is the last line of the only view.
fn page(machine: &Machine, answer: &str) {
    let text = format!(
        "\
import os, threading, time
from django.http import HttpResponse
from django.urls import path
from myproject.text import TEXT

def page(request):
    time.sleep(0.02)
    {answer}

urlpatterns = [path('', page)]
"
    );
    machine.write_file_as("sammy", &format!("{PROJECT}/myproject/urls.py"), 0o644, &text);
}

/// Deploys good code, with a text by which it is recognised.
///
/// The file has another length each time: Python takes a file that was written in the same second and is as long for
/// the one that it has compiled.
fn deploy_text(machine: &Machine, number: usize) -> Output {
    let longer = "#".repeat(number);
    machine.run_as(
        "sammy",
        &format!(
            "cat >{PROJECT}/myproject/text.new <<'END'
import time
time.sleep({IMPORT_SECONDS})
TEXT = '{}'  {longer}
END
             mv {PROJECT}/myproject/text.new {PROJECT}/myproject/text.py
             grep -q 'import myproject.text' {PROJECT}/myproject/wsgi.py ||
                 echo 'import myproject.text' >>{PROJECT}/myproject/wsgi.py",
            text(number)
        ),
    )
}

fn text(number: usize) -> String {
    format!("the text {number}")
}

/// One way to break a deploy.
struct Fault {
    name: &'static str,
    /// A script that does it.
    fault: &'static str,
    /// What STATUS and `sockd status` say of it.
    reason: &'static str,
    /// What the journal says, besides.
    journal: &'static str,
    /// A script that fixes it.
    fix: &'static str,
    /// Whether a worker is killed while the code is broken, and what becomes of its place.
    death: Death,
}

/// The death of a worker while the code is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    /// Not tried.
    None,
    /// Whatever takes its place is of no concern for the visitors.
    Unseen,
    /// What takes its place fails, and the next attempt waits.
    BacksOff,
}

/// The ways of the issue, and some more.
const FAULTS: [Fault; 11] = [
    Fault {
        name: "a word in the configuration that sockd does not know",
        fault: "echo 'sook = \"1s\"' >>/etc/sockd/gunicorn.toml",
        reason: "sook",
        journal: "/etc/sockd/gunicorn.toml:8",
        fix: "sed -i /sook/d /etc/sockd/gunicorn.toml",
        death: Death::Unseen,
    },
    Fault {
        name: "a syntax error in gunicorn.conf.py",
        fault: "echo 'workers = = 3' >/home/sammy/myprojectdir/gunicorn.conf.py",
        reason: "SyntaxError: invalid syntax",
        journal: "workers = = 3",
        fix: "rm /home/sammy/myprojectdir/gunicorn.conf.py",
        death: Death::Unseen,
    },
    Fault {
        name: "a virtual environment that was moved",
        fault: "mv /home/sammy/myprojectdir/myprojectenv /home/sammy/myprojectdir/elsewhere",
        reason: "/home/sammy/myprojectdir/myprojectenv/bin/gunicorn",
        journal: "refused",
        fix: "mv /home/sammy/myprojectdir/elsewhere /home/sammy/myprojectdir/myprojectenv",
        death: Death::Unseen,
    },
    Fault {
        name: "an import of a module that is not there",
        fault: "echo 'import no_such_module' >>/home/sammy/myprojectdir/myproject/wsgi.py",
        reason: "ModuleNotFoundError: No module named 'no_such_module'",
        journal: "import no_such_module",
        fix: "sed -i /no_such_module/d /home/sammy/myprojectdir/myproject/wsgi.py",
        death: Death::BacksOff,
    },
    Fault {
        name: "a syntax error in settings.py",
        fault: "echo 'DEBUG = = True' >>/home/sammy/myprojectdir/myproject/settings.py",
        reason: "SyntaxError: invalid syntax",
        journal: "DEBUG = = True",
        fix: "sed -i '/= =/d' /home/sammy/myprojectdir/myproject/settings.py",
        death: Death::Unseen,
    },
    Fault {
        name: "an import that never ends",
        fault: "echo 'import time; time.sleep(3600)' >>/home/sammy/myprojectdir/myproject/wsgi.py
                sed -i 's/^start-timeout = \"30s\"/start-timeout = \"2s\"/' /etc/sockd/gunicorn.toml",
        reason: "not ready within 2s",
        journal: "myproject/wsgi.py\", line",
        fix: "sed -i /3600/d /home/sammy/myprojectdir/myproject/wsgi.py
               sed -i 's/^start-timeout = \"2s\"/start-timeout = \"30s\"/' /etc/sockd/gunicorn.toml",
        death: Death::Unseen,
    },
    Fault {
        name: "a page that fails",
        fault: "sed -i 's/    return HttpResponse/    raise KeyError(\"no such key\")  # HttpResponse/' \
                /home/sammy/myprojectdir/myproject/urls.py",
        reason: "GET / answers 500 where the serving workers answer 200",
        journal: "KeyError: ",
        fix: "sed -i 's/    raise KeyError.*# HttpResponse/    return HttpResponse/' \
               /home/sammy/myprojectdir/myproject/urls.py",
        death: Death::BacksOff,
    },
    Fault {
        name: "a process that ends after its first answer",
        fault: "sed -i 's/    return HttpResponse/    threading.Timer(0.05, os._exit, (7,)).start()\\n&/' \
                /home/sammy/myprojectdir/myproject/urls.py",
        reason: "exit 7",
        journal: "exit 7",
        fix: "sed -i /Timer/d /home/sammy/myprojectdir/myproject/urls.py",
        // What takes its place serves, and takes its visitors along when it ends: nobody could have known.
        death: Death::None,
    },
    Fault {
        name: "an application of another name",
        fault: "sed -i 's/^application = /app = /' /home/sammy/myprojectdir/myproject/wsgi.py",
        reason: "Failed to find attribute 'application' in 'myproject.wsgi'.",
        journal: "exit 4",
        fix: "sed -i 's/^app = /application = /' /home/sammy/myprojectdir/myproject/wsgi.py",
        death: Death::Unseen,
    },
    Fault {
        name: "a worker that listens elsewhere",
        // The canary has no public socket to leave.
        fault: "cat >/home/sammy/myprojectdir/gunicorn.conf.py <<'END'
import socket

def post_fork(server, worker):
    for listener in list(worker.sockets):
        if listener.getsockname() in ('/run/gunicorn.sock', ('127.0.0.1', 8000)):
            worker.sockets.remove(listener)
            listener.close()
            worker.sockets.append(socket.create_server(('127.0.0.1', 0)))
END",
        reason: "it is ready but holds none of the sockets it was given: it listens elsewhere",
        journal: "it listens elsewhere",
        fix: "rm /home/sammy/myprojectdir/gunicorn.conf.py",
        death: Death::Unseen,
    },
    Fault {
        name: "a file of environment variables that is missing",
        fault: "mv /etc/sockd/gunicorn.env /etc/sockd/gunicorn.lost",
        reason: "/etc/sockd/gunicorn.env",
        journal: "/etc/sockd/gunicorn.env",
        fix: "mv /etc/sockd/gunicorn.lost /etc/sockd/gunicorn.env",
        death: Death::Unseen,
    },
];

/// What the test has done, with its moments.
#[derive(Debug, Default)]
struct Diary {
    kills: Vec<Accident>,
    /// The first start and the restarts of the service, until it had all its workers again.
    restarts: Vec<Span>,
    /// Good deploys: from the first changed file to the end of the reload, and the text from then on.
    deploys: Vec<(Span, usize)>,
}

/// Twenty-two reloads, good and broken in turn, five restarts and twenty killed workers, under our better unit.
pub fn under_our_unit(machine: &Machine) {
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, CONFIGURATION);
    machine.write_file("/etc/sockd/gunicorn.env", 0o644, "GREETING=hello\n");
    let shipped = include_str!("../../units/examples/better/gunicorn.service");
    let service = shipped.replace("sockd run -- ", "sockd run --config /etc/sockd/gunicorn.toml -- ");
    assert_ne!(service, shipped, "the shipped unit starts sockd in another way");
    site(machine, &service);

    let load = Load::begin(machine, &PLACES);
    let mut diary = Diary::default();
    wait_complete(machine);
    // The first visitors wait for the start, as after a restart.
    diary.restarts.push((f64::NEG_INFINITY, moment(machine)));
    for (round, fault) in FAULTS.iter().enumerate() {
        let way = if round % 3 == 2 { Way::Sockd } else { Way::Systemctl };
        broken_deploy(&load, way, fault, round, &mut diary);
        good_deploy(&load, way, fault, round, &mut diary);
        if round % 2 == 1 {
            let from = moment(machine);
            machine.run("systemctl restart gunicorn").succeeded();
            wait_complete(machine);
            diary.restarts.push((from, moment(machine)));
        }
    }
    let mut seed = 200;
    while diary.kills.len() < 20 {
        wait_complete(machine);
        diary.kills.extend(load.kill_a_worker("gunicorn", seed, 3));
        seed += 1;
        load.wait_for_visits(10);
    }
    wait_complete(machine);
    let record = load.finish();
    assert!(diary.restarts.len() > 5 && diary.kills.len() >= 20, "{diary:?}");
    judge(&record, &diary, "under our unit");
}

/// The guide's own unit has no Type=, no ExecReload= and no configuration: SIGHUP does the same rollout.
pub fn under_the_guides_unit(machine: &Machine) {
    site(machine, &guide::service_unit(crate::PREFIX, ""));
    let load = Load::begin(machine, &PLACES);
    let mut diary = Diary::default();
    wait_complete(machine);
    // The first visitors wait for the start, as after a restart.
    diary.restarts.push((f64::NEG_INFINITY, moment(machine)));
    let wanted = ["an import of a module that is not there", "a page that fails"];
    for (round, fault) in FAULTS.iter().filter(|fault| wanted.contains(&fault.name)).enumerate() {
        broken_deploy(&load, Way::Hangup, fault, round, &mut diary);
        good_deploy(&load, Way::Hangup, fault, round, &mut diary);
    }
    assert!(diary.kills.len() >= 2, "too few workers were killed: {:?}", diary.kills);
    judge(&load.finish(), &diary, "under the guide's unit");
    everybody_dies_over_refused_code(machine);
}

/// While the old workers serve, everybody says what stands on the disk, and nothing that the doctor names loads it. When the
/// last of them is gone visitors get 503, and after the fix they get their page.
fn everybody_dies_over_refused_code(machine: &Machine) {
    let fault =
        FAULTS.iter().find(|fault| fault.name == "an import of a module that is not there").expect("it is there");
    machine.run(fault.fault).succeeded();
    let reload = machine.run(&Way::Sockd.script(0));
    assert!(reload.code == 1 && reload.stderr.contains(fault.reason), "{reload}");
    machine.run("sockd status gunicorn").says("the code on disk is the refused one").succeeded();
    let doctor = machine.run("sockd doctor gunicorn").says("the code on disk was refused by the last reload: ");
    // A restart comes after a proof that fails.
    let proves = |line: &str| line.contains("sockd check gunicorn") || line.contains("sockd reload gunicorn");
    let bare = |line: &&str| line.contains("systemctl restart gunicorn") && !proves(line);
    assert_eq!(doctor.stdout.lines().find(bare), None, "it would load that code: {doctor}");

    let status = sockd_status(machine);
    let pids: Vec<String> =
        status["workers"].as_array().expect("a list").iter().map(|worker| worker["pid"].to_string()).collect();
    machine.run(&format!("kill -KILL {}", pids.join(" "))).succeeded();
    let code = "curl -sS -o /dev/null -w '%{http_code}' --unix-socket /run/gunicorn.sock localhost";
    assert_eq!(machine.run(code).succeeded(), "503");
    let status = machine.run("sockd status gunicorn").says(fault.reason);
    assert_eq!(status.code, 150, "{status}");
    machine.run(fault.fix).succeeded();
    machine.wait_for("the page", PATIENCE, &format!("[ \"$({code})\" = 200 ]"));
    wait_complete(machine);
}

/// How a reload is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `systemctl reload`, which runs ExecReload=.
    Systemctl,
    /// `sockd reload`.
    Sockd,
    /// SIGHUP, for units without ExecReload=; its outcome is in the journal.
    Hangup,
}

impl Way {
    /// A script that reloads and fails if the reload did. `generation` is the new one's.
    fn script(self, generation: u64) -> String {
        match self {
            Self::Systemctl => "systemctl reload gunicorn".to_owned(),
            Self::Sockd => "sockd reload gunicorn".to_owned(),
            Self::Hangup => format!(
                "main=$(systemctl show --property MainPID --value gunicorn)
                 ended() {{ journalctl -q _PID=$main SOCKD_EVENT=reload-$1 SOCKD_GENERATION={generation} | grep -q .; }}
                 systemctl kill --signal HUP --kill-whom main gunicorn
                 until ended finished; do ! ended refused || exit 1; sleep 0.1; done"
            ),
        }
    }
}

/// The reload fails and says why; the old text is served on, also when a worker dies while the code is broken.
fn broken_deploy(load: &Load, way: Way, fault: &Fault, round: usize, diary: &mut Diary) {
    let machine = load.machine();
    machine.run(fault.fault).succeeded();
    let before = generation(machine);
    let reload = machine.run(&way.script(before + 1));
    assert_eq!(reload.code, 1, "{}: reloading must fail; {reload}", fault.name);
    if way == Way::Sockd {
        assert!(reload.stderr.contains(fault.reason), "{}: {:?} is not said by {reload}", fault.name, fault.reason);
    }
    refused(machine, way, fault, before);
    let page = machine
        .run("curl -sS --unix-socket /run/gunicorn.sock localhost; curl -sS -H 'Host: localhost' 127.0.0.1:8000");
    assert_eq!(page.succeeded(), text(round).repeat(2), "after the refusal of {}", fault.name);
    if fault.death != Death::None {
        diary.kills.extend(load.kill_a_worker("gunicorn", round, 3));
        load.wait_for_visits(60);
    }
    if fault.death == Death::BacksOff {
        let what = format!("the empty slot to back off because of {}", fault.reason);
        machine.wait_until(&what, PATIENCE, || {
            let status = sockd_status(machine);
            let because = |slot: &Value| {
                let reason = slot["last_death"]["reason"].as_str().unwrap_or_default();
                slot["retry_in_ms"].is_number() && reason.contains(fault.reason)
            };
            status["slots"].as_array()?.iter().any(because).then_some(())
        });
        machine.run("sockd status gunicorn").says("Workers: 2 of 3 ready").succeeded();
    }
}

/// The code is fixed and changed; the reload succeeds, and the new text is served. A worker of the old generation dies
/// while the new one takes over.
fn good_deploy(load: &Load, way: Way, fault: &Fault, round: usize, diary: &mut Diary) {
    let machine = load.machine();
    let before = generation(machine);
    let from = moment(machine);
    machine.run(fault.fix).succeeded();
    deploy_text(machine, round + 1).succeeded();
    let reload = machine.spawn(&way.script(before + 2));
    machine.wait_for("the rollout to begin", PATIENCE, "sockd status gunicorn | grep -F '(reload: '");
    diary.kills.extend(load.kill_a_worker("gunicorn", 100 + round, 3));
    reload.finish().succeeded();
    diary.deploys.push(((from, moment(machine)), round + 1));
    let line = format!("serving, 3 of 3 workers, generation {}", before + 2);
    machine.wait_for(
        &line,
        PATIENCE,
        &format!("sockd status gunicorn; sockd status gunicorn | grep 'Status: {line}$'"),
    );
    settled(machine);
}

/// What systemd shows of sockd's state.
const STATUS: &str = "systemctl show --property StatusText --value gunicorn";

/// The reload was refused: everybody says so and why, and the unit is as active as before.
fn refused(machine: &Machine, way: Way, fault: &Fault, generation: u64) {
    let name = fault.name;
    let status = sockd_status(machine);
    let line = status["status_line"].as_str().unwrap_or_default();
    let expected = format!("serving, 3 of 3 workers, generation {generation} (reload to {} refused: ", generation + 1);
    assert!(line.starts_with(&expected) && line.contains(fault.reason), "{name}: the status is {line:?}");
    let refusal = &status["reload"]["last_refused"];
    assert!(refusal["reason"].as_str().is_some_and(|reason| reason.contains(fault.reason)), "{name}: {status:#}");
    assert_eq!(refusal["generation"], generation + 1, "{name}");
    assert_eq!(status["generation"], generation, "{name}");
    machine.run("sockd status gunicorn").says("Refused: the reload to ").succeeded();
    if way != Way::Hangup {
        assert_eq!(machine.run(STATUS).succeeded().trim(), line, "{name}: systemd shows another status than sockd");
    }

    let journal = machine.run("journalctl --sync; journalctl -q -u gunicorn -o cat --since '-1min'").succeeded();
    let mut wanted = vec![fault.journal];
    if way == Way::Systemctl {
        wanted.push("sockd: error: reload to generation ");
    }
    for text in wanted {
        assert!(journal.contains(text), "{name}: {text:?} is missing in the journal:\n{journal}");
    }
    settled(machine);
}

/// No job of its units is left, and READY=1 has followed RELOADING=1.
fn settled(machine: &Machine) {
    let state = machine.run("systemctl show --property ActiveState,SubState gunicorn");
    state.says("ActiveState=active\nSubState=running").succeeded();
    assert_eq!(machine.run("systemctl list-jobs --no-legend 'gunicorn.*'").succeeded(), "");
}

fn sockd_status(machine: &Machine) -> Value {
    let json = machine.run("sockd status --json gunicorn").succeeded();
    let mut entries: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    entries[0]["sockd"].take()
}

fn generation(machine: &Machine) -> u64 {
    sockd_status(machine)["generation"].as_u64().expect("a number")
}

/// Waits until every slot has a worker that serves.
fn wait_complete(machine: &Machine) {
    machine.wait_for("three workers", PATIENCE, "sockd status gunicorn | grep -F 'Workers: 3 of 3 ready'");
}

/// Now, in seconds since 1970, by the clock of the visitors.
fn moment(machine: &Machine) -> f64 {
    machine.run("date +%s.%N").succeeded().trim().parse().expect("a time")
}

/// What must hold for every visitor.
fn judge(record: &Record, diary: &Diary, run: &str) {
    for place in PLACES {
        assert!(record.to(place) > 100, "{run}: only {} visitors came to {place}", record.to(place));
    }
    let unexplained = record.unexplained(&diary.kills);
    let longest = record.longest(&diary.restarts);
    let summary = format!(
        "{run}: {} requests, {} failed, {} of them not in the hands of one of {} killed workers; longest {:.0} ms, \
         with restarts {:.0} ms",
        record.visits.len(),
        record.failed().count(),
        unexplained.len(),
        diary.kills.len(),
        longest.took * 1000.0,
        record.longest(&[]).took * 1000.0,
    );
    eprintln!("{summary}");
    assert!(unexplained.is_empty(), "{summary}; killed: {:?}, failed:\n{}", diary.kills, list(unexplained));

    let during_a_restart = |visit: &Visit| diary.restarts.iter().any(|span| visit.touches(*span));
    let bound = |visit: &Visit| if during_a_restart(visit) { LONGEST_RESTART_SECONDS } else { LONGEST_SECONDS };
    let late: Vec<_> = record.visits.iter().filter(|visit| visit.took > bound(visit)).collect();
    assert!(late.is_empty(), "{summary}; these visitors waited too long:\n{}", list(late));

    // Between two deploys one text is served, and during one either.
    let mut served = text(0);
    let mut since = f64::NEG_INFINITY;
    let end = ((f64::INFINITY, f64::INFINITY), usize::MAX);
    for ((from, to), number) in diary.deploys.iter().copied().chain([end]) {
        let other = |v: &&Visit| !v.failed() && v.began > since && v.ended() < from && v.text != served;
        let other: Vec<_> = record.visits.iter().filter(other).collect();
        assert!(other.is_empty(), "{run}: these visitors should have seen {served:?}:\n{}", list(other));
        (served, since) = (text(number), to);
    }
}
