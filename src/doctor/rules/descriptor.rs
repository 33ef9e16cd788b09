//! Whether the service's processes have the descriptor of the socket that visitors come to.

use super::examined::Examined;
use super::start;
use crate::adapter::declared_sockets::values;
use crate::doctor::facts::{Facts, Listening, Process};
use crate::doctor::finding::{Finding, Link, Severity};
use crate::doctor::fix::{self, Change};
use crate::doctor::remedy;
use crate::doctor::target::{self, Expected, reaches};

/// Programs that start another one and wait for it: what they are given by LISTEN_PID is theirs alone.
const SHELLS: [&str; 4] = ["sh", "bash", "dash", "zsh"];

pub fn examine(facts: &Facts) -> Examined {
    let service = &facts.service;
    let expected = target::expected(facts);
    let findings: Vec<Finding> = bind_ignored(facts, &expected).into_iter().collect();
    if !target::runs(service) {
        return Examined::unseen(format!("{} does not run", service.name)).with(findings);
    }
    let Some(processes) = facts.processes.as_ref().filter(|processes| processes.iter().any(|p| p.listeners.is_some()))
    else {
        let user = if service.user.is_empty() { "root" } else { &service.user };
        return Examined::unseen(format!("only root and {user} may look at its descriptors")).with(findings);
    };
    for target in &expected {
        let sockets = target::listeners(facts, &target.address);
        let has = |process: &&Process| {
            let own = process.listeners.iter().flatten();
            own.clone().any(|inode| sockets.iter().any(|socket| socket.inode == *inode))
        };
        let mut holders = processes.iter().filter(has);
        if let Some(first) = holders.next() {
            // Every process but a master's helpers has it: the first and the number say enough.
            let have = match holders.count() {
                0 => "has it".to_owned(),
                others => format!("and {others} more have it"),
            };
            let text = format!("{} (pid {}) {have}", first.name, first.pid);
            let others = target::instead(facts, &target.address);
            let unaccepted = (!others.is_empty()).then(|| held(facts, target, &others));
            return Examined::well(text).with(findings.into_iter().chain(unaccepted).collect());
        }
    }
    let Some(target) = expected.first() else {
        return Examined::unseen("it is not known which socket it should have").with(findings);
    };
    if facts.sockets.iter().any(|socket| socket.active_state != "active") {
        return Examined::unseen("the socket unit does not listen").with(findings);
    }
    if start::cause(facts).is_some_and(|cause| cause.severity == Severity::Error) {
        return Examined::unseen(format!("{} cannot start", service.name)).with(findings);
    }
    let finding = elsewhere(facts, target, processes);
    Examined::well("").with(findings.into_iter().chain([finding]).collect())
}

/// A process of the service has the socket, and serves another one.
fn held(facts: &Facts, target: &Expected, others: &[&Listening]) -> Finding {
    let service = &facts.service;
    let what = format!(
        "nobody accepts from {}, where connections wait: {} listens on {} instead",
        target.shown(),
        service.name,
        target::places(others)
    );
    let why = "its process has the socket that it was given, and does not use it; every visitor waits for ever";
    let finding = Finding::error("worker-elsewhere", Link::Descriptor, what);
    let program = target::server(service);
    let shell = SHELLS.contains(&program);
    let place = facts.definition.first().map_or(service.fragment_path.as_str(), |file| file.path.as_str());
    let by_hand = match (option(program), shell) {
        (Some((why, option)), _) => return with_option(facts, finding.why(why), option),
        (None, true) => {
            format!("write the server's own line, without {program}, in {place}; or `exec` before the server")
        }
        (None, false) => format!(
            "have {program} take the socket that it is given (descriptor 3, LISTEN_FDS) and bind no address of its own; its \
             line is in {place}"
        ),
    };
    let why = match shell {
        true => format!("{why}: {program} was given the socket, and the server that it starts was not"),
        false => why.to_owned(),
    };
    finding.why(why).by_hand(by_hand).fix(remedy::read_again(facts))
}

/// Why a server makes a socket of its own beside the one that it is given, and the option that has it take that one.
fn option(server: &str) -> Option<(&'static str, &'static str)> {
    Some(match server {
        "uvicorn" => ("uvicorn takes systemd's socket only when it is given its number", "--fd 3"),
        "hypercorn" => ("hypercorn takes systemd's socket only when it is given its number", "--bind fd://3"),
        "uwsgi" => ("uWSGI takes systemd's socket only when it is given its number", "--http-socket fd://3"),
        "daphne" => ("daphne takes systemd's socket only when an option says so", "-e systemd:domain=UNIX:index=0"),
        "granian" => ("granian cannot take systemd's socket; behind `sockd run --` it can", ""),
        _ => return None,
    })
}

/// Writes the option behind the program, if there is one.
fn with_option(facts: &Facts, finding: Finding, option: &str) -> Finding {
    let service = &facts.service;
    let Some(program) = target::command(service).first().filter(|_| !option.is_empty()) else {
        let by_hand = format!("correct ExecStart= in {}", service.fragment_path);
        return finding.by_hand(by_hand).fix(remedy::read_again(facts));
    };
    let change = Change::replace("", &service.fragment_path, 0, program, &format!("{program} {option}"));
    finding.fix(change.lasting().then(remedy::read_again(facts)))
}

/// No process of the service has the socket.
fn elsewhere(facts: &Facts, target: &Expected, processes: &[Process]) -> Finding {
    let service = &facts.service;
    let own: Vec<&Listening> = facts
        .listening
        .iter()
        .filter(|socket| processes.iter().any(|p| p.listeners.iter().flatten().any(|inode| *inode == socket.inode)))
        .collect();
    if let Some(stale) = own.iter().find(|socket| socket.address == target.address) {
        let what = format!("{} holds an older socket of {}", service.name, stale.address);
        let why =
            "the socket unit was restarted, and the service was not: visitors wait at a socket nobody accepts from";
        let finding = Finding::error("descriptor-stale", Link::Descriptor, what).why(why);
        return finding.fix(target::again(facts));
    }
    if own.is_empty() {
        let what = format!("no process of {} has the socket {}", service.name, target.shown());
        let why = "it was started without it, or has closed it: visitors wait for ever";
        let finding = Finding::error("no-descriptor", Link::Descriptor, what).why(why);
        return finding.fix(target::again(facts));
    }
    let what = format!("{} listens on {}, not on the socket {}", service.name, target::places(&own), target.shown());
    let ignored = ("the server has ignored the socket that it was given, and made one of its own", "");
    let (why, option) = option(target::server(service)).unwrap_or(ignored);
    with_option(facts, Finding::error("worker-elsewhere", Link::Descriptor, what).why(why), option)
}

/// gunicorn does not listen where `--bind` says when it was given sockets.
fn bind_ignored(facts: &Facts, expected: &[Expected]) -> Option<Finding> {
    (!facts.sockets.is_empty()).then_some(())?;
    let service = &facts.service;
    target::server(service).starts_with("gunicorn").then_some(())?;
    let written = values(target::command(service).iter(), &["--bind", "-b"]);
    let bind = written.first()?;
    let binds = target::binds(facts);
    // A name would have to be looked up, and a descriptor is what it is given.
    let other = |bind: &String| !expected.iter().any(|expected| reaches(bind, &expected.address));
    (!binds.is_empty() && binds.iter().all(other)).then_some(())?;
    let target = expected.first()?;
    let what = format!("--bind {bind} is ignored: {} listens on {}", facts.sockets[0].name, target.shown());
    let why = "a server that is given its socket by systemd makes none of its own; who reads the unit is misled";
    let finding = Finding::warning("bind-ignored", Link::Descriptor, what).why(why);
    // What is ignored needs no restart.
    let change = Change::replace("", &service.fragment_path, 0, bind, &target.shown());
    Some(finding.fix(change.lasting().then(fix::daemon_reload())))
}
