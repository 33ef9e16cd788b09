//! Whether the application answers, and what it says when it does not like what it was asked.

use super::examined::Examined;
use super::{resources, start};
use crate::doctor::facts::{Answer, Cluster, Database, Facts, Settings};
use crate::doctor::finding::{Finding, Link, Severity};
use crate::doctor::fix::{Change, Fix};
use crate::doctor::target;
use crate::doctor::{remedy, traceback};

pub fn examine(facts: &Facts) -> Examined {
    if facts.status.as_ref().is_some_and(|status| status.maintenance.is_some() || status.pause.is_some()) {
        return Examined::unseen("no worker serves, on purpose");
    }
    let mut findings: Vec<Finding> = start::cause(facts).into_iter().filter(|f| f.link == Link::Application).collect();
    // uWSGI is asked through Nginx alone: its own protocol is not HTTP.
    let direct = facts.answers.iter().find(|answer| !answer.nginx);
    let asked = direct.or_else(|| facts.answers.iter().find(|answer| answer.status.is_some_and(|status| status < 500)));
    let well = asked.is_some_and(|answer| answer.status.is_some_and(|status| status < 500));
    findings.extend(unreachable_database(facts, well));
    findings.extend(resources::disks(facts));
    let Some(answer) = asked else {
        let text = match target::runs(&facts.service) {
            true => "it was not asked for a page",
            false => "the service does not run, and was not started for this",
        };
        return Examined::unseen(text).with(findings);
    };
    let text = match answer.status {
        Some(status) => format!("answers {status} to {} of {}", page(facts), answer.host),
        None => format!("does not answer: {}", answer.error),
    };
    if answer.status.is_none() && target::expected(facts).iter().any(|e| !target::instead(facts, &e.address).is_empty())
    {
        return Examined::follows(text).with(findings);
    }
    let explained = findings.iter().any(|finding| finding.severity == Severity::Error);
    if !explained {
        findings.extend(answered(facts, answer));
    }
    if well {
        findings.extend(resources::slow(facts, answer));
        findings.extend(resources::recent_errors(facts));
    }
    let broken = !explained && findings.is_empty() && answer.status.is_none();
    if broken { Examined::follows(text) } else { Examined::well(text).with(findings) }
}

/// The path that was asked for.
fn page(facts: &Facts) -> &str {
    if facts.path.is_empty() { "/" } else { &facts.path }
}

/// A database that cannot be reached. A page that answers is not broken by it, unless the settings name the database and
/// the application has asked for it in the last minutes, or looks for it where it is not.
fn unreachable_database(facts: &Facts, well: bool) -> Option<Finding> {
    let database = facts.databases.iter().find(|database| database.reached == Some(false))?;
    let recent = &facts.journal[facts.journal.len().saturating_sub(facts.recent)..];
    let asked_for = traceback::refused_databases(recent).iter().any(|(_, port)| *port == database.port);
    let finding = refused(facts, database);
    // PostgreSQL runs, and the settings look for it elsewhere: the next page that needs it fails.
    let needed = database.source == "settings" && (asked_for || finding.id == "database-other-port");
    let severity = if well && !needed { Severity::Warning } else { Severity::Error };
    Some(Finding { severity, ..finding })
}

/// What an answer says.
fn answered(facts: &Facts, answer: &Answer) -> Option<Finding> {
    let service = &facts.service.name;
    let finding = |id, what: String| Finding::error(id, Link::Application, what);
    match answer.status {
        Some(400) => disallowed_host(facts, answer),
        // A page that this sockd answers itself is the workers' matter.
        Some(503) if facts.status.as_ref().is_some_and(|status| status.fallback) => None,
        Some(status @ 500..) => {
            let found = traceback::last(&facts.journal);
            let silent = match facts.journal_unread {
                true => "its log was not checked",
                false => "its log says nothing of it",
            };
            let error = found.as_ref().map_or(silent, |found| found.error.as_str());
            let place = found.as_ref().and_then(|found| found.place.as_ref());
            let by_hand = match place {
                Some((file, line)) => format!("correct {file}:{line}"),
                None => format!("correct what `journalctl -u {service} -n 50` shows"),
            };
            let what = format!("the application answers {status} to {}: {error}", page(facts));
            let why = "it was loaded, and an error was raised while it made the page";
            Some(finding("application-error", what).why(why).by_hand(by_hand).fix(target::load(facts)))
        }
        Some(_) => None,
        None if answer.error == "silent" => {
            let what = "the application gives no answer";
            let why = "every worker hangs or is busy: a slow query, an endless loop, a lock, or too few workers";
            let no_answer = || finding("no-answer", what.to_owned()).why(why).fix(target::load(facts));
            Some(resources::slow(facts, answer).unwrap_or_else(no_answer))
        }
        None if answer.error == "closed" => {
            let what = "the connection was closed without an answer";
            let why = "the worker that took it has ended; its log says why";
            let by_hand = format!("correct what `journalctl -u {service} -n 50` shows");
            Some(finding("connection-closed", what.to_owned()).why(why).by_hand(by_hand).fix(target::load(facts)))
        }
        None => None,
    }
}

/// Django answers 400 to a Host that ALLOWED_HOSTS does not name.
fn disallowed_host(facts: &Facts, answer: &Answer) -> Option<Finding> {
    let settings = facts.settings.as_ref();
    let allowed = settings.and_then(|settings| settings.allowed_hosts.as_ref());
    let named = answer.body.contains("DisallowedHost") || answer.body.contains("ALLOWED_HOSTS");
    let unlisted = allowed.is_some_and(|allowed| !allowed.values.iter().any(|pattern| accepts(pattern, &answer.host)));
    (named || unlisted).then_some(())?;
    let host = &answer.host;
    let what = format!("Django answers 400 to the host {host}: it is not in ALLOWED_HOSTS");
    let finding = Finding::error("disallowed-host", Link::Application, what);
    let Some((settings, allowed)) = settings.zip(allowed) else {
        let why = "it answers no name that the list does not have (DisallowedHost)";
        return Some(
            finding.why(why).by_hand(format!("add '{host}' to ALLOWED_HOSTS in the settings")).fix(target::load(facts)),
        );
    };
    let why = format!("{}:{} has {}", settings.file, allowed.line, list(&allowed.values));
    let (old, new) =
        if allowed.values.is_empty() { ("[", format!("['{host}'")) } else { ("[", format!("['{host}', ")) };
    // The user's own file, changed by the user: root follows no links in a stranger's directory.
    let change = Change::replace(&remedy::by_user(facts), &settings.file, allowed.line, old, &new);
    Some(finding.why(why).fix(target::load_changed(facts, change)))
}

fn list(values: &[String]) -> String {
    if values.is_empty() { "no names".to_owned() } else { values.join(", ") }
}

/// As Django's `validate_host`: `*`, `.example.com` with everything below it, or the name itself.
fn accepts(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_lowercase(), host.to_lowercase());
    let below = pattern.strip_prefix('.').is_some_and(|domain| host == domain || host.ends_with(&pattern));
    pattern == "*" || pattern == host || below
}

/// The database cannot be reached: it does not run, or runs at another port than the settings say.
fn refused(facts: &Facts, database: &Database) -> Finding {
    let Database { host, port, .. } = database;
    let at = if host.is_empty() { format!("port {port}") } else { format!("{host}:{port}") };
    let said = match database.source.as_str() {
        "traceback" => "a traceback in the journal names it: Connection refused".to_owned(),
        _ => facts.settings.as_ref().map_or(String::new(), |settings| format!("{} names it", settings.file)),
    };
    let finding = |id, what: String| Finding::error(id, Link::Application, what);
    let there = facts.clusters.iter().find(|cluster| cluster.port == *port);
    if let Some(Cluster { name, .. }) = there {
        let what = format!("the database at {at} does not run");
        let why = format!("nobody listens there; {said}");
        return finding("database-not-running", what)
            .why(why)
            .fix(Fix::run(format!("systemctl start postgresql@{name}")));
    }
    let running = facts.clusters.iter().find(|cluster| cluster.reached);
    if let Some(Cluster { name, port: right, .. }) = running {
        let what = format!("the settings name the database at {at}, and PostgreSQL {name} listens on port {right}");
        let finding = finding("database-other-port", what).why(format!("nobody listens on port {port}; {said}"));
        let settings = facts.settings.as_ref();
        return match settings.and_then(|settings| Some((settings, settings.database_port.as_ref()?))) {
            Some((Settings { file, .. }, setting)) => {
                let (old, new) = (port.to_string(), right.to_string());
                let change = Change::replace(&remedy::by_user(facts), file, setting.line, &old, &new);
                finding.fix(target::load_changed(facts, change))
            }
            None => finding
                .by_hand(format!("write port {right} in the settings of the application"))
                .fix(target::load(facts)),
        };
    }
    let what = format!("the database at {at} does not run");
    let finding = finding("database-not-running", what).why(format!("nobody listens there; {said}"));
    if facts.clusters.is_empty() {
        // An empty database would not be the one that is missing.
        let by_hand = "no PostgreSQL is installed here: name the machine that has the database, or install one";
        return finding.by_hand(by_hand).fix(target::load(facts));
    }
    finding.fix(Fix::run("systemctl start postgresql"))
}
