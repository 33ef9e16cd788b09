//! Whether Nginx's user can get to the socket: `namei` over every directory, and the socket's own mode.

use super::examined::Examined;
use crate::doctor::error_log::{self, Failure};
use crate::doctor::facts::{Account, Facts, PathFacts, Permissions};
use crate::doctor::finding::{Finding, Link};
use crate::doctor::fix::quote;
use crate::doctor::fix::{Change, Fix, drop_in};
use crate::doctor::permission::{PASS, WRITE, may, mode};
use crate::doctor::target::{self, Expected, Maker};

pub fn examine(facts: &Facts) -> Examined {
    let expected = target::expected(facts);
    let mut findings = Vec::new();
    let mut text = None;
    let mut paths = 0;
    for target in &expected {
        let Some(path) = target.path() else { continue };
        paths += 1;
        findings.extend(private_tmp(facts, target, path));
        let Some(place) = facts.places.iter().find(|place| place.path == path) else { continue };
        findings.extend(closed_way(facts, place, Some(target)));
        findings.extend(wrong_file(facts, target, place));
        if place.kind == "socket" {
            findings.extend(closed_socket(facts, target, place));
            let visitor = facts.nginx.account.as_ref();
            let what = visitor.map_or("it is a socket".to_owned(), |account| format!("{} may connect", account.name));
            text.get_or_insert_with(|| format!("{path}: {what}"));
        }
    }
    // Static files lie where Nginx reads them itself: where that is, a configuration with a mistake does not say.
    let readable = facts.nginx.test_error.is_none();
    for place in facts.places.iter().filter(|place| readable && place.kind == "directory") {
        findings.extend(closed_way(facts, place, None));
    }
    let mut seen = Vec::new();
    findings.retain(|finding| {
        let first = !seen.contains(&finding.what);
        seen.push(finding.what.clone());
        first
    });
    match (text, expected.first()) {
        (Some(text), _) => Examined::well(text).with(findings),
        (None, Some(first)) if paths == 0 => Examined::well(format!("{} needs none", first.shown())).with(findings),
        (None, Some(first)) if findings.is_empty() && missing(facts, first) => {
            Examined::follows(format!("{} does not exist", first.address))
        }
        (None, Some(first)) => Examined::unseen(format!("{} was not checked", first.address)).with(findings),
        (None, None) => Examined::unseen("it is not known where the application listens").with(findings),
    }
}

fn missing(facts: &Facts, target: &Expected) -> bool {
    facts.places.iter().any(|place| place.path == target.address && place.kind == "missing")
}

/// The first directory of the way that Nginx's user may not pass.
fn closed_way(facts: &Facts, place: &PathFacts, target: Option<&Expected>) -> Option<Finding> {
    let account = facts.nginx.account.as_ref()?;
    for directory in &place.way {
        let Some(permissions) = &directory.permissions else { continue };
        if may(account, permissions, PASS) {
            continue;
        }
        let path = &directory.path;
        let what = format!("Nginx's user {} may not pass {path} (mode {})", account.name, permissions.mode);
        let said = denied(facts, &place.path);
        let home = if path.starts_with("/home/") { "; home directories are made so since 2021" } else { "" };
        let why = format!("every directory on the way to {} must have x for it{home}{said}", place.path);
        let fix = open(account, permissions, path, 'x');
        let finding = Finding::error("directory-closed", Link::Path, what).why(why);
        return Some(match target {
            Some(target) => fix_what_is_theirs(finding, target, permissions.uid, fix),
            None => finding.fix(fix),
        });
    }
    None
}

/// Fixes what belongs to who has written the address down, and leaves everything else to the reader.
fn fix_what_is_theirs(finding: Finding, target: &Expected, owner: u32, fix: Fix) -> Finding {
    if target.may_change(owner) {
        return finding.fix(fix);
    }
    finding.by_hand(format!(
        "a user's file names {}, and what would be changed for that is not this user's: look at both first",
        target.address
    ))
}

/// `; error.log says (13: Permission denied)`.
fn denied(facts: &Facts, path: &str) -> String {
    let line = error_log::last(&facts.nginx.error_log, &[path]).filter(|line| line.failure == Failure::Denied);
    line.map_or(String::new(), |line| format!("; error.log says ({})", line.words))
}

/// The narrowest change that lets the user in: its own list entry where there is a list, its group's bit, or others'.
fn open(account: &Account, permissions: &Permissions, path: &str, letter: char) -> Fix {
    let path = quote(path);
    if !permissions.acl.is_empty() {
        return Fix::run(format!("setfacl -m u:{}:{letter} {path}", account.name));
    }
    let who = if account.groups.contains(&permissions.gid) { 'g' } else { 'o' };
    Fix::run(format!("chmod {who}+{letter} {path}"))
}

/// The socket itself is closed to Nginx's user.
fn closed_socket(facts: &Facts, target: &Expected, place: &PathFacts) -> Option<Finding> {
    let account = facts.nginx.account.as_ref()?;
    let permissions = &place.permissions;
    if may(account, permissions, WRITE) {
        return None;
    }
    let path = &place.path;
    let what = format!("Nginx's user {} may not write to {path} (mode {})", account.name, permissions.mode);
    let (why, fix) = match target.maker {
        Maker::Unit(at) => {
            let unit = &facts.sockets[at];
            let meant = Permissions { mode: unit.socket_mode.clone(), ..permissions.clone() };
            if mode(&meant) != mode(permissions) && may(account, &meant, WRITE) {
                let why =
                    format!("{} made it with mode {}; somebody has changed it since", unit.name, unit.socket_mode);
                (why, Fix::run(format!("chmod {} {}", unit.socket_mode, quote(path))))
            } else {
                let why = format!("{} makes it so: SocketMode={}", unit.name, unit.socket_mode);
                let lines = [format!("SocketUser={}", account.name), "SocketMode=0600".to_owned()];
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                let fix = drop_in(&unit.name, "nginx", "Socket", &lines);
                (why, fix.then(target::bind_again(facts)))
            }
        }
        Maker::Server => {
            let why = format!("{} makes it so, by its umask and its group", facts.service.name);
            (why, open(account, permissions, path, 'w'))
        }
        Maker::Ini(at) => {
            let why = format!("{} makes it so, by chmod-socket and chown-socket", facts.uwsgi[at].path);
            (why, open(account, permissions, path, 'w'))
        }
    };
    let why = format!("{why}{}", denied(facts, path));
    let finding = Finding::error("socket-closed", Link::Path, what).why(why);
    Some(fix_what_is_theirs(finding, target, permissions.uid, fix))
}

/// Nothing is there although somebody listens, or something else is.
fn wrong_file(facts: &Facts, target: &Expected, place: &PathFacts) -> Option<Finding> {
    let path = &place.path;
    let again = target::bind_again(facts);
    let listening = target::listeners(facts, path).first().copied();
    let finding = |id, what: String| Finding::error(id, Link::Path, what);
    match place.kind.as_str() {
        "missing" => {
            if let Some(directory) = place.way.iter().find(|directory| directory.permissions.is_none()) {
                let there = place.way.iter().filter_map(|directory| directory.permissions.as_ref()).next_back();
                let owner = there.map_or(0, |permissions| permissions.uid);
                return Some(missing_directory(facts, target, &directory.path, owner));
            }
            listening?;
            let what = format!("{path} is gone, and its socket still listens");
            let why =
                "somebody has removed the file (a server that ends does so); no visitor finds the socket any more";
            Some(finding("path-missing", what).why(why).fix(again))
        }
        "file" | "directory" => {
            let what = format!("{path} is a {}, no socket", place.kind);
            let why = "nothing can listen there until it is gone";
            let fix = Change::moved("", path).lasting().then(again);
            let finding = finding("path-not-socket", what).why(why);
            Some(fix_what_is_theirs(finding, target, place.permissions.uid, fix))
        }
        "socket" => {
            // While our own socket does not listen, the listener is somebody else, and another link's matter.
            let ours = match target.maker {
                Maker::Unit(at) => facts.sockets[at].active_state == "active",
                Maker::Server | Maker::Ini(_) => target::runs(&facts.service),
            };
            let inode = listening.filter(|_| ours)?.file_inode?;
            (place.inode != 0 && inode != place.inode).then_some(())?;
            let what = format!("{path} is another socket than the one that listens");
            let why = "a second one was bound to the same path in its place; visitors reach the wrong one, or nobody";
            Some(finding("path-other-inode", what).why(why).fix(again))
        }
        _ => None,
    }
}

/// A directory of the path that nobody makes, in one that belongs to `owner`; those below /run go with every boot.
fn missing_directory(facts: &Facts, target: &Expected, path: &str, owner: u32) -> Finding {
    let unit = &facts.service;
    let what = format!("the directory {path} does not exist");
    let plain = |name: &&str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
    let name = path.strip_prefix("/run/").filter(plain);
    let finding = Finding::error("path-directory-missing", Link::Path, what);
    match (name, target.maker) {
        (Some(name), Maker::Server | Maker::Ini(_)) => {
            // It is not there: nothing of anybody's becomes the service's.
            let line = format!("RuntimeDirectory={name}");
            let fix = drop_in(&unit.name, "runtime-directory", "Service", &[&line, "RuntimeDirectoryMode=0755"]);
            finding.why("/run is empty after every boot: the unit must make it").fix(fix.then(target::again(facts)))
        }
        (_, maker) => {
            // systemd makes the directories of a socket unit itself, as root.
            let user = if unit.user.is_empty() || matches!(maker, Maker::Unit(_)) { "root" } else { &unit.user };
            let make = Fix::run(format!("install -d -m 0755 -o {user} {}", quote(path)));
            let finding = finding.why("the socket is made in a directory that must be there before");
            fix_what_is_theirs(finding, target, owner, make.then(target::bind_again(facts)))
        }
    }
}

/// A private /tmp: each side sees its own.
fn private_tmp(facts: &Facts, target: &Expected, path: &str) -> Option<Finding> {
    (path.starts_with("/tmp/") || path.starts_with("/var/tmp/")).then_some(())?;
    let binds = !matches!(target.maker, Maker::Unit(_));
    let unit = match (binds && facts.service.private_tmp, facts.nginx.private_tmp) {
        (true, _) => facts.service.name.as_str(),
        (false, true) => "nginx.service",
        (false, false) => return None,
    };
    let what = format!("{unit} has PrivateTmp=yes, and the socket is {path}");
    let why = "it sees a /tmp of its own, in which the socket of the others is not; /run is the place for sockets";
    let fix = drop_in(unit, "no-private-tmp", "Service", &["PrivateTmp=no"]);
    let restart = match unit {
        "nginx.service" => Fix::run("nginx -t").then(fix).then(Fix::run("systemctl restart nginx")),
        _ => fix.then(target::again(facts)),
    };
    Some(Finding::error("private-tmp", Link::Path, what).why(why).fix(restart))
}
