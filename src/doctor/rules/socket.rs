//! Whether somebody listens: the socket unit's state, its limits, its queue.

use super::examined::Examined;
use super::start;
use crate::doctor::facts::{Facts, Listening};
use crate::doctor::finding::{Finding, Link};
use crate::doctor::fix::{self, Fix, drop_in};
use crate::doctor::remedy;
use crate::doctor::target;
use crate::systemd::details::Details;

/// A queue that is shorter than this is full in a moment. Measured: daphne asks for 50, hypercorn 100, node 511.
const SHORT_QUEUE: u32 = 512;
/// Linux's own net.core.somaxconn up to 5.3 was 128; since then it is 4096.
const LOW_SOMAXCONN: u32 = 1024;

pub fn examine(facts: &Facts) -> Examined {
    let expected = target::expected(facts);
    let mut findings = Vec::new();
    let mut follows = false;
    for socket in &facts.sockets {
        match unit(facts, socket) {
            Ok(found) => findings.extend(found),
            Err(()) => follows = true,
        }
        findings.extend(two_on_one_path(facts, socket));
    }
    let mut queue = None;
    for target in &expected {
        if let Some(listening) = target::listeners(facts, &target.address).first().copied() {
            findings.extend(short_queue(facts, listening));
            queue.get_or_insert((target, listening));
        }
    }
    if findings.is_empty() && follows {
        return Examined::follows(format!("{} gave up, because the service cannot start", facts.sockets[0].name));
    }
    let depth = queue.and_then(|(_, listening)| Some((listening.waiting?, listening.limit?)));
    let depth = depth.map_or(String::new(), |(waiting, limit)| format!(", queue {waiting} of {limit}"));
    match (facts.sockets.first(), queue) {
        (Some(socket), _) => Examined::well(format!("{} listens{depth}", socket.name)),
        (None, Some((target, _))) => Examined::well(format!("{} listens{depth}", target.shown())),
        (None, None) if expected.is_empty() => Examined::unseen("it is not known where the application listens"),
        (None, None) => Examined::follows(format!("nobody listens on {}", expected[0].shown())),
    }
    .with(findings)
}

/// What is wrong with a socket unit's state. `Err`: it gave up, and the reason is the service's.
fn unit(facts: &Facts, socket: &Details) -> Result<Vec<Finding>, ()> {
    let (name, service) = (&socket.name, &facts.service.name);
    let finding = |id, what: String| Finding::error(id, Link::Socket, what);
    if socket.load_state == "masked" {
        let finding = finding("socket-masked", format!("{name} is masked")).why("a masked unit is never started");
        let start = target::start(facts, Fix::run(format!("systemctl enable --now {name}")));
        return Ok(vec![finding.fix(Fix::run(format!("systemctl unmask {name}")).then(start))]);
    }
    if !matches!(socket.load_state.as_str(), "loaded" | "") {
        let finding = finding("socket-unit-bad", format!("systemd cannot load {name}: {}", socket.load_error));
        let finding =
            finding.why("a unit with a mistake is not started").by_hand(format!("correct {}", socket.fragment_path));
        return Ok(vec![finding.fix(remedy::read_again(facts))]);
    }
    if socket.accept {
        let finding = finding("accept-yes", format!("{name} has Accept=yes"));
        let why = "systemd then starts one service for each connection, and hands over that, not the listening socket";
        let fix = drop_in(name, "accept", "Socket", &["Accept=no"]);
        return Ok(vec![finding.why(why).fix(fix.then(target::bind_again(facts)))]);
    }
    match socket.active_state.as_str() {
        "failed" => {
            if start::cause(facts).is_some() {
                return Err(());
            }
            Ok(vec![failed(facts, socket)])
        }
        "active" => {
            let mut findings = Vec::new();
            if socket.unit_file_state == "disabled" {
                let finding = Finding::warning("socket-not-enabled", Link::Socket, format!("{name} is not enabled"));
                let why = "nobody starts it after the next boot";
                findings.push(finding.why(why).fix(Fix::run(format!("systemctl enable {name}"))));
            }
            findings.extend(stale(facts, socket));
            Ok(findings)
        }
        _ if target::runs(&facts.service) => {
            let what = format!("{name} does not listen any more, while {service} still runs with its socket");
            let why = "systemd refuses to start a socket whose service is active, so `systemctl restart` left it stopped; \
                       visitors are served until the service ends, and refused from then on";
            Ok(vec![finding("socket-lost", what).why(why).fix(target::again(facts))])
        }
        _ => {
            let what = format!("{name} is not started");
            let why = "nothing listens, and no visitor can start the service";
            let fix = target::start(facts, Fix::run(format!("systemctl enable --now {name}")));
            Ok(vec![finding("socket-not-started", what).why(why).fix(fix)])
        }
    }
}

fn failed(facts: &Facts, socket: &Details) -> Finding {
    let (name, service) = (&socket.name, &facts.service.name);
    let (id, why) = match socket.result.as_str() {
        "trigger-limit-hit" => {
            ("trigger-limit", format!("{service} ended again and again as soon as it was started, and systemd gave up"))
        }
        "service-start-limit-hit" => (
            "start-limit",
            format!("{service} was started more often than StartLimitBurst= allows, and systemd gave up"),
        ),
        "resources" => {
            ("socket-resources", "it could not be bound: its address is taken, or not of this machine".to_owned())
        }
        result => ("socket-failed", format!("systemd says {result}")),
    };
    let finding = Finding::error(id, Link::Socket, format!("{name} has failed ({})", socket.result));
    finding.why(format!("{why}; every visitor is refused until it is started again")).fix(target::again(facts))
}

/// The unit file was changed, and not read.
fn stale(facts: &Facts, socket: &Details) -> Option<Finding> {
    socket.need_daemon_reload.then_some(())?;
    let what = format!("{} was changed after systemd read it", socket.name);
    let why = "systemd goes on with what it has read; the socket itself is made again only when the unit is restarted";
    let fix = fix::daemon_reload().then(target::prove(facts)).then(target::bind_again(facts));
    Some(Finding::warning("daemon-reload", Link::Socket, what).why(why).fix(fix))
}

fn two_on_one_path(facts: &Facts, socket: &Details) -> Option<Finding> {
    let shares = |other: &&Details| {
        other.listen.iter().any(|address| socket.listen.contains(address))
            && (other.active_state == "active" || other.unit_file_state == "enabled")
    };
    let other = facts.other_sockets.iter().find(shares)?;
    let path = other.listen.iter().find(|address| socket.listen.contains(address))?;
    let what = format!("{} and {} both listen on {path}", socket.name, other.name);
    let why = "the one that is started last takes the path from the other, whose visitors it gets";
    let fix = fix::systemctl("disable --now", [other]).then(target::bind_again(facts));
    Some(Finding::error("two-units-one-path", Link::Socket, what).why(why).fix(fix))
}

/// A queue that is full, or so short that it soon is.
fn short_queue(facts: &Facts, listening: &Listening) -> Option<Finding> {
    let (waiting, limit) = (listening.waiting?, listening.limit?);
    if waiting >= limit && waiting > 0 && target::instead(facts, &listening.address).is_empty() {
        let what = format!("the queue of {} is full: {waiting} of {limit}", listening.address);
        let why = "the workers accept no more: they hang, or there are too few; further visitors get 502";
        let finding = Finding::error("queue-full", Link::Socket, what).why(why);
        return Some(finding.fix(target::load(facts)));
    }
    if let Some(somaxconn) = facts.somaxconn.filter(|somaxconn| *somaxconn < LOW_SOMAXCONN) {
        let what = format!("net.core.somaxconn is {somaxconn}: no queue of this machine is longer");
        let why = "when more visitors wait than that, Nginx answers 502; Linux's own default is 4096";
        let write = Fix::run("echo net.core.somaxconn=4096 > /etc/sysctl.d/60-sockd-somaxconn.conf");
        // sockd calls listen(2) again after every worker's start.
        let listen = if target::is_under_sockd(facts) { target::load(facts) } else { target::bind_again(facts) };
        let fix = write.then(Fix::run("systemctl restart systemd-sysctl")).then(listen);
        return Some(Finding::warning("somaxconn-low", Link::Socket, what).why(why).fix(fix));
    }
    (limit < SHORT_QUEUE && limit > 0).then_some(())?;
    let server = target::server(&facts.service);
    let what = format!("the queue of {} holds {limit} connections", listening.address);
    let why = format!(
        "{} has called listen() again with a backlog of its own; sockd restores the queue after every worker's start",
        if server.is_empty() { "the server" } else { server }
    );
    let finding = Finding::warning("backlog-shrunk", Link::Socket, what).why(why);
    if target::is_under_sockd(facts) {
        return Some(finding.fix(target::load(facts)));
    }
    let by_hand = format!("write `/usr/bin/sockd run -- ` before the server in {}", facts.service.fragment_path);
    Some(finding.by_hand(by_hand).fix(remedy::read_again(facts)))
}
