//! Which site of Nginx answers the name that a browser asks for: `server_name` and the default page.

use super::examined::Examined;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Diagnosis, Finding, Link};
use crate::doctor::fix::{self, Change, Fix};
use crate::doctor::nginx::{self, Configuration, Server};
use crate::doctor::target::{self, Expected, reaches};
use crate::systemd::details::Details;

pub fn examine(facts: &Facts) -> Examined {
    if !facts.nginx.installed {
        return Examined::unseen("there is no Nginx here");
    }
    if facts.nginx.test_error.is_some() {
        return Examined::unseen("Nginx's configuration has a mistake: which site answers is not known");
    }
    let expected = target::expected(facts);
    let configuration = nginx::read(&facts.nginx.files);
    let ours: Vec<&Server> = configuration.servers.iter().filter(|server| is_ours(server, &expected)).collect();
    let Some(first) = ours.first() else {
        if facts.nginx.unread_files {
            return Examined::unseen("not all files of Nginx's configuration can be read");
        }
        let findings = not_enabled(facts, &expected).into_iter().collect();
        return Examined::unseen("no site of Nginx passes to this application").with(findings);
    };
    if facts.nginx.unread_files {
        return Examined::well(format!("a site of Nginx passes to this application, {}", first.place()));
    }
    let mut findings = Vec::new();
    let names: Vec<(&Server, &str)> = match &facts.host {
        Some(host) => vec![(*first, host.as_str())],
        None => {
            let plain = |name: &&String| !name.contains(['*', '~']) && !matches!(name.as_str(), "" | "_");
            let names = ours.iter().flat_map(|server| server.names.iter().filter(plain).map(|name| (*server, &**name)));
            names.collect()
        }
    };
    let mut text = None;
    for (server, name) in names {
        let port = server.listens.iter().map(|listen| listen.port()).find(|port| *port != 0).unwrap_or(80);
        match configuration.answering(name, port) {
            Some(answers) if ours.contains(&answers) => {
                text.get_or_insert_with(|| format!("{name} is answered by {}", answers.place()));
            }
            Some(other) => findings.push(other_answers(&configuration, server, other, name, port)),
            None => {}
        }
    }
    if findings.is_empty() {
        findings.extend(ours.iter().filter_map(|server| other_family(&configuration, server)).take(1));
    }
    if facts.host.is_none() {
        findings.extend(ours.iter().filter_map(|server| nameless(facts, &configuration, server)));
    }
    Examined::well(text.unwrap_or_else(|| format!("every name is answered by {}", first.place()))).with(findings)
}

/// The diagnosis of a unit that nobody asked about and nobody uses: it is disabled, does not run, and nobody leads to it.
/// `None`: it is to be looked at.
pub fn idle(facts: &Facts) -> Option<Diagnosis> {
    let off = |unit: &Details| unit.active_state == "inactive" && unit.unit_file_state != "enabled";
    let unused = facts.service.load_state == "loaded" && off(&facts.service) && facts.sockets.iter().all(off);
    let expected = target::expected(facts);
    let configuration = nginx::read(&facts.nginx.files);
    let wanted = configuration.servers.iter().any(|server| is_ours(server, &expected));
    (unused && !wanted).then(|| Diagnosis { idle: true, ..Diagnosis::of(&facts.service) })
}

pub fn is_ours(server: &Server, expected: &[Expected]) -> bool {
    server.passes.iter().any(|pass| expected.iter().any(|expected| reaches(&pass.address, &expected.address)))
}

/// A site that would pass to the application, and that Nginx does not read.
pub fn not_enabled(facts: &Facts, expected: &[Expected]) -> Option<Finding> {
    let of_ours = |configuration: Configuration| configuration.servers.iter().any(|server| is_ours(server, expected));
    let file = facts.nginx.available.iter().find(|file| of_ours(nginx::read_site(file)))?;
    let finding = Finding::error("site-not-enabled", Link::Browser, format!("the site {} is not enabled", file.path));
    let why = "Nginx reads what is linked in sites-enabled; without the link its default page answers";
    Some(finding.why(why).fix(fix::of_nginx(Change::link(&file.path, "/etc/nginx/sites-enabled"))))
}

/// Another site answers the name: one with the same name that comes first, or the default page.
fn other_answers(all: &Configuration, ours: &Server, other: &Server, name: &str, port: u16) -> Finding {
    if ours.names.iter().any(|own| own == name) && other.names.iter().any(|own| own == name) {
        let what = format!("two sites have the server_name {name}, and {} answers", other.place());
        let why = format!("of two servers with the same name on port {port} Nginx takes the first that it reads");
        let (file, line) = other.names_at.clone().unwrap_or_else(|| (other.file.clone(), other.line));
        let fix = fix::of_nginx(Change::replace("", &file, line, name, &format!("old.{name}")));
        return Finding::error("same-server-name", Link::Browser, what).why(why).fix(fix);
    }
    let default = all.default_server(port) == Some(other);
    let page = if default { "Nginx's default page" } else { "another site" };
    let what = format!("{name} is answered by {page}, {}", other.place());
    let names = if ours.names.is_empty() { "nothing".to_owned() } else { ours.names.join(" ") };
    let why = format!("no server_name is {name}; that of {} is {names}", ours.place());
    Finding::error("default-page", Link::Browser, what).why(why).fix(add_name(ours, name))
}

/// Over IPv6 another site answers: it listens there, and ours does not.
fn other_family(all: &Configuration, ours: &Server) -> Option<Finding> {
    let listens = |socket: &str| ours.listens.iter().any(|listen| listen.socket() == socket);
    let (own, socket, other) = ours.listens.iter().find_map(|own| {
        let port = own.socket().strip_prefix("0.0.0.0:")?.to_owned();
        let socket = format!("[::]:{port}");
        (!listens(&socket)).then_some(())?;
        let other = all.default_of_socket(&socket)?;
        Some((own, socket, other))
    })?;
    let name = ours.names.first().map_or("the site", String::as_str);
    let what = format!("over IPv6 {name} is answered by another site, {}", other.place());
    let why = format!("that one listens on {socket}, and {} on {} alone", ours.place(), own.address);
    let mut options = own.options.clone();
    // There is one default server of an address.
    options.retain(|word| !matches!(word.as_str(), "default_server" | "default"));
    let line = [socket].into_iter().chain(options).collect::<Vec<_>>().join(" ");
    let script = format!("{}a\\    listen {line};", own.line);
    let fix = fix::of_nginx(Change::edit("", &own.file, &script));
    Some(Finding::warning("default-page-ipv6", Link::Browser, what).why(why).fix(fix))
}

/// Adds a name to a site.
fn add_name(server: &Server, name: &str) -> Fix {
    fix::of_nginx(match &server.names_at {
        Some((file, line)) => Change::replace("", file, *line, "server_name", &format!("server_name {name}")),
        None => Change::edit("", &server.file, &format!("{}a\\    server_name {name};", server.line)),
    })
}

/// A site without a name, beside a default one that answers in its place.
fn nameless(facts: &Facts, all: &Configuration, server: &Server) -> Option<Finding> {
    let named = server.names.iter().any(|name| !matches!(name.as_str(), "" | "_"));
    let port = server.listens.first()?.port();
    let default = all.default_server(port).filter(|default| *default != server && !named)?;
    let what = format!("the site {} has no server_name, and {} answers in its place", server.place(), default.place());
    // The machine's own name is the only one that is known here.
    let why = "a server without a name of its own is asked only if it is the default one of its port";
    Some(Finding::error("no-server-name", Link::Browser, what).why(why).fix(add_name(server, &facts.hostname)))
}
