//! Whether Nginx runs, has read its configuration, and passes to where the application listens.

use super::browser::{is_ours, not_enabled};
use super::examined::Examined;
use super::resources::recent_of_nginx;
use super::statics;
use crate::doctor::error_log::{self, Failure};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Link};
use crate::doctor::fix::{self, Change, Fix};
use crate::doctor::nginx::{self, Configuration, Pass};
use crate::doctor::remedy;
use crate::doctor::target::{self, Expected, Protocol, reaches};

pub fn examine(facts: &Facts) -> Examined {
    let nginx = &facts.nginx;
    if !nginx.installed {
        return Examined::unseen("there is no Nginx here");
    }
    let expected = target::expected(facts);
    let configuration = nginx::read(&nginx.files);
    let mut findings = Vec::new();
    let taken = port_taken(facts);
    if let Some(faulty) = faulty(facts, taken.is_some()) {
        // What a configuration with a mistake says otherwise is not what Nginx would read.
        return Examined::well("").with([faulty].into_iter().chain(taken).collect());
    }
    if nginx.running == Some(false) {
        findings.push(taken.unwrap_or_else(|| {
            let enabled = nginx.enabled != Some(false);
            let fix = if enabled { "systemctl start nginx" } else { "systemctl enable --now nginx" };
            let finding = Finding::error("nginx-not-running", Link::Nginx, "Nginx does not run");
            finding.why("nobody answers browsers at all").fix(Fix::run(fix))
        }));
    }
    if let Some(file) = nginx.unread.first() {
        let what = format!("{file} was changed after Nginx last read it");
        let why = "Nginx goes on with what it has read until it is reloaded";
        findings.push(Finding::warning("nginx-not-reloaded", Link::Nginx, what).why(why).fix(fix::reload_nginx()));
    }
    findings.extend(wrong_protocol(&configuration, &expected));
    let mut passes = configuration.servers.iter().flat_map(|server| &server.passes);
    let ours = passes.find(|pass| expected.iter().any(|expected| reaches(&pass.address, &expected.address)));
    findings.extend(statics::findings(facts, &configuration, &expected));
    let Some(ours) = ours else {
        if nginx.unread_files {
            return Examined::unseen("not all files of Nginx's configuration can be read").with(findings);
        }
        findings.extend(other_address(facts, &configuration, &expected));
        return Examined::unseen("no site passes to this application").with(findings);
    };
    Examined::well(format!("passes to {} ({})", target::shown(&ours.address), ours.place())).with(findings)
}

/// Nginx does not run, and cannot: another program has its port.
fn port_taken(facts: &Facts) -> Option<Finding> {
    let rival = facts.nginx.rivals.first()?;
    let who = if rival.holder.is_empty() { "another program" } else { rival.holder.as_str() };
    let what = format!("Nginx does not run, and {who} listens on {}", rival.address);
    let why = "two programs cannot have one port: Nginx does not start, and browsers get the other's pages";
    let by_hand = "stop that program if nobody needs it, or give one of the two another port";
    Some(
        Finding::error("port-taken", Link::Nginx, what)
            .why(why)
            .by_hand(by_hand)
            .fix(Fix::run("systemctl start nginx")),
    )
}

/// `nginx -t` is not content.
fn faulty(facts: &Facts, taken: bool) -> Option<Finding> {
    let error = facts.nginx.test_error.as_ref()?;
    // nginx: [emerg] unknown directive "x" in /etc/nginx/sites-enabled/myproject:3
    let (said, place) = match error.rsplit_once(" in /") {
        Some((said, place)) => (said, Some(format!("/{place}"))),
        None => (error.as_str(), None),
    };
    let said = said.trim_start_matches("nginx: ").trim_start_matches("[emerg] ");
    let at = place.map_or_else(|| "the configuration of Nginx".to_owned(), |place| place.trim_end().to_owned());
    let finding = Finding::error("nginx-configuration", Link::Nginx, format!("{at}: {said}"));
    let why = "Nginx neither starts nor reloads with a mistake in its configuration";
    // Where its port is taken it cannot be started yet.
    let start = if taken { Fix::default() } else { Fix::run("systemctl reload-or-restart nginx") };
    Some(finding.why(why).by_hand(format!("correct {at}")).fix(Fix::run("nginx -t").then(start)))
}

fn wrong_protocol(all: &Configuration, expected: &[Expected]) -> Option<Finding> {
    let passes = all.servers.iter().flat_map(|server| &server.passes);
    for pass in passes {
        let Some(target) = expected.iter().find(|expected| reaches(&pass.address, &expected.address)) else { continue };
        let (right, speaks) = match target.protocol {
            Protocol::Http => ("proxy_pass", "HTTP"),
            Protocol::Uwsgi => ("uwsgi_pass", "the uwsgi protocol"),
            Protocol::Unknown => continue,
        };
        if pass.directive == right || pass.directive == "grpc_pass" {
            continue;
        }
        let what =
            format!("{} has {}, and the server at {} speaks {speaks}", pass.place(), pass.directive, target.shown());
        let scheme = if target.protocol == Protocol::Http { "http://" } else { "" };
        let new = format!("{right} {scheme}{};", target.shown());
        let change = Change::replace("", &pass.file, pass.line, &format!("{} {};", pass.directive, pass.written), &new);
        let why = "neither understands the other: visitors get 502";
        let finding = Finding::error("nginx-wrong-protocol", Link::Nginx, what);
        return Some(finding.why(why).fix(fix::of_nginx(change)));
    }
    None
}

/// No site passes to us, and one passes to where nobody listens: that one is meant.
fn other_address(facts: &Facts, all: &Configuration, expected: &[Expected]) -> Option<Finding> {
    let target = expected.first()?;
    let meant = dangling(facts, all);
    let Some(pass) = meant else {
        // The browser's link says it already, and how to fix it.
        return if not_enabled(facts, expected).is_some() { None } else { no_site(facts, target) };
    };
    let made = match target.maker {
        target::Maker::Unit(at) => format!("{} listens on {}", facts.sockets[at].name, target.shown()),
        target::Maker::Server | target::Maker::Ini(_) => {
            format!("{} listens on {}", facts.service.name, target.shown())
        }
    };
    let what = format!("Nginx passes to {}, and {made}", target::shown(&pass.address));
    let said = error_log::last(&facts.nginx.error_log, &[&pass.address]);
    let said = said.map(|line| format!("; error.log says ({})", line.words));
    let why = format!("{} names an address that nobody listens on{}", pass.place(), said.unwrap_or_default());
    let change = Change::replace("", &pass.file, pass.line, &pass.written, &rewritten(pass, target));
    Some(Finding::error("nginx-other-address", Link::Nginx, what).why(why).fix(fix::of_nginx(change)))
}

/// The pass to an address where nobody listens and which no other unit claims. Of several, one that error.log speaks
/// of, then one whose site serves files of the application's directory.
fn dangling<'a>(facts: &Facts, all: &'a Configuration) -> Option<&'a Pass> {
    let listens = |pass: &Pass| facts.listening.iter().any(|socket| reaches(&pass.address, &socket.address));
    let claimed = |pass: &Pass| {
        let mut claims = facts.other_sockets.iter().flat_map(|socket| &socket.listen);
        claims.any(|address| reaches(&pass.address, address))
    };
    let local = |pass: &Pass| pass.address.starts_with(['/', '1', '[']);
    let mut found: Vec<(&nginx::Server, &Pass)> = Vec::new();
    for server in &all.servers {
        let passes = server.passes.iter().filter(|pass| local(pass) && !listens(pass) && !claimed(pass));
        found.extend(passes.map(|pass| (server, pass)));
    }
    let home = &facts.service.working_directory;
    found.sort_by_key(|(server, pass)| {
        let spoken = error_log::last(&facts.nginx.error_log, &[&pass.address]).is_some();
        let near = !home.is_empty() && server.roots.iter().any(|root| root.path.starts_with(home.as_str()));
        (!near, !spoken)
    });
    found.first().map(|(_, pass)| *pass)
}

/// The address of a directive, changed to where the application listens; scheme and path stay.
fn rewritten(pass: &Pass, target: &Expected) -> String {
    if pass.address.starts_with('/') && target.address.starts_with('/') {
        return pass.written.replacen(&pass.address, &target.address, 1);
    }
    match pass.written.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://{}", target.shown()),
        None => target.shown(),
    }
}

/// The command that writes a site; only the name is unknown.
fn no_site(facts: &Facts, target: &Expected) -> Option<Finding> {
    let name = facts.service.name.trim_end_matches(".service");
    let host = facts.host.as_deref().unwrap_or(&facts.hostname);
    let pass = match target.protocol {
        Protocol::Http => format!("include proxy_params; proxy_pass http://{};", target.shown()),
        Protocol::Uwsgi => format!("include uwsgi_params; uwsgi_pass {};", target.shown()),
        Protocol::Unknown => return None,
    };
    let site = format!("server {{ listen 80; server_name {host}; location / {{ {pass} }} }}\\n");
    let file = format!("/etc/nginx/sites-available/{name}");
    let enabled = Change::link(&file, "/etc/nginx/sites-enabled").checked(Fix::run("nginx -t"));
    let fix = Change::new_file(&file, &site).checked(enabled).then(Fix::run("systemctl reload nginx"));
    let what = format!("no site of Nginx passes to {}", target.shown());
    let why = "unless something else stands in front of it, no browser gets to the application";
    Some(Finding::warning("nginx-no-site", Link::Nginx, what).why(why).fix(fix))
}

/// What error.log says when nothing else explains it: asked by `diagnose` when no other rule found what is broken.
pub fn without_another_cause(facts: &Facts) -> Vec<Finding> {
    let expected = target::expected(facts);
    let addresses: Vec<&str> = expected.iter().map(|expected| expected.address.as_str()).collect();
    let last = error_log::last(&facts.nginx.error_log, &addresses);
    let full = recent_of_nginx(facts).iter().filter_map(|line| error_log::read(line));
    let full = full.filter(|line| line.failure == Failure::Full && addresses.contains(&line.address)).count();
    let mut findings = Vec::new();
    let bad = facts.answers.iter().find(|answer| answer.nginx && matches!(answer.status, Some(502 | 504)));
    if let Some(answer) = bad {
        let status = answer.status.unwrap_or_default();
        let what = match &last {
            Some(line) => format!("Nginx answers {status}: {}", line.words),
            None => format!("Nginx answers {status}"),
        };
        let why = match &last {
            Some(line) => error_log::meaning(line.failure),
            None => "its error.log says why; it was not checked here",
        };
        findings.push(Finding::error("bad-gateway", Link::Nginx, what).why(why).fix(target::load(facts)));
    } else if full > 0 {
        let what =
            format!("the queue was full {full} times in the last ten minutes (11: Resource temporarily unavailable)");
        let why = error_log::meaning(Failure::Full);
        let (workers, fix) = remedy::more_workers(facts);
        let by_hand = format!("write {workers}");
        findings.push(Finding::warning("queue-was-full", Link::Nginx, what).why(why).by_hand(by_hand).fix(fix));
    }
    let default = nginx::read(&facts.nginx.files);
    let ours = default.servers.iter().any(|server| is_ours(server, &expected));
    findings.retain(|finding| finding.id != "bad-gateway" || ours);
    findings
}
