//! The rules: facts in, findings out, one file for each link of the chain.
//!
//! Owns: the order of the walk and of the findings.
//! Never: does IO. The same facts give the same diagnosis (tests/doctor/cases).

mod application;
mod browser;
mod descriptor;
mod examined;
mod nginx;
mod path;
mod resources;
mod socket;
mod start;
mod statics;
mod worker;

pub use browser::idle;

use super::facts::Facts;
use super::finding::{Diagnosis, Finding, Link, Seen, Severity, State};

/// Walks the chain.
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let mut walk = Vec::new();
    let mut findings = Vec::new();
    for link in Link::ALL {
        let examined = match link {
            Link::Browser => browser::examine(facts),
            Link::Nginx => nginx::examine(facts),
            Link::Path => path::examine(facts),
            Link::Socket => socket::examine(facts),
            Link::Descriptor => descriptor::examine(facts),
            Link::Worker => worker::examine(facts),
            Link::Application => application::examine(facts),
        };
        let worst = examined.findings.iter().map(|finding| finding.severity).min();
        let state = match worst {
            Some(Severity::Error) => State::Broken,
            _ if examined.follows => State::Broken,
            _ if !examined.seen => State::NotSeen,
            Some(Severity::Warning) => State::Warning,
            None => State::Ok,
        };
        walk.push(Seen { link, state, text: examined.text });
        findings.extend(examined.findings);
    }
    let broken = |findings: &[Finding]| findings.iter().any(|finding| finding.severity == Severity::Error);
    // The error of a whole chain is often that what was fixed has not been read yet: that comes first.
    if broken(&findings) || facts.answers.iter().any(|answer| answer.status.is_none_or(|status| status >= 500)) {
        let unread = findings.iter_mut().filter(|finding| UNREAD.contains(&finding.id));
        unread.for_each(|finding| finding.severity = Severity::Error);
    }
    if !broken(&findings) {
        findings.extend(nginx::without_another_cause(facts));
    }
    findings.sort_by_key(|finding| (finding.severity, !UNREAD.contains(&finding.id), finding.link));
    for seen in &mut walk {
        // The rules that look at all links at once may have broken one.
        let of_link = findings.iter().filter(|finding| finding.link == seen.link);
        if of_link.map(|finding| finding.severity).min() == Some(Severity::Error) {
            seen.state = State::Broken;
        }
    }
    Diagnosis { walk, findings, unseen: facts.unseen.clone(), ..Diagnosis::of(&facts.service) }
}

/// The findings that say that a change has not been read yet.
const UNREAD: [&str; 2] = ["daemon-reload", "nginx-not-reloaded"];
