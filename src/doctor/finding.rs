//! What the rules say: the links of the chain and the findings.
//!
//! Owns: the shape of a diagnosis; its keys are those of `--json` and stay.
//! Never: knows how it is shown.

use serde::Serialize;

use super::fix::Fix;
use crate::systemd::details::Details;

/// A link of the chain from a visitor to the application, in the order of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// Which site of Nginx answers the name that a browser asks for.
    Browser,
    /// Whether Nginx runs and passes to where the application listens.
    Nginx,
    /// Whether Nginx's user can get to the socket's file.
    Path,
    /// Whether somebody listens: the socket unit, its queue.
    Socket,
    /// Whether the service has the descriptor of that socket.
    Descriptor,
    /// Whether the service runs and its workers live.
    Worker,
    /// Whether the application answers.
    Application,
}

impl Link {
    /// Every link, in the order of the walk.
    pub const ALL: [Self; 7] =
        [Self::Browser, Self::Nginx, Self::Path, Self::Socket, Self::Descriptor, Self::Worker, Self::Application];

    /// Its name in the walk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::Nginx => "Nginx",
            Self::Path => "path",
            Self::Socket => "socket",
            Self::Descriptor => "descriptor",
            Self::Worker => "worker",
            Self::Application => "application",
        }
    }
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Looked at, and well.
    Ok,
    /// It works, and is likely to break.
    Warning,
    /// Visitors get no page because of it.
    Broken,
    /// It could not be looked at, or there was nothing to look at.
    NotSeen,
}

/// A link as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Which one.
    pub link: Link,
    /// How it is.
    pub state: State,
    /// What was seen there, in one line.
    pub text: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Visitors get no page, or some get none.
    Error,
    /// It works, and is likely to break.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule found it; ids stay.
    pub id: &'static str,
    /// The link that it breaks.
    pub link: Link,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line without a full stop.
    pub what: String,
    /// Why that is so, or how it shows.
    pub why: String,
    /// What only a person can do, before the command if there is one: the change of a program's text. `None`: nothing.
    pub by_hand: Option<String>,
    /// The one command that fixes it, for a root shell, as it is to be typed. Empty: no command can.
    pub fix: Fix,
}

impl Finding {
    pub(super) fn error(id: &'static str, link: Link, what: impl Into<String>) -> Self {
        let (what, why, fix) = (what.into(), String::new(), Fix::default());
        Self { id, link, severity: Severity::Error, what, why, by_hand: None, fix }
    }

    pub(super) fn warning(id: &'static str, link: Link, what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(id, link, what) }
    }

    pub(super) fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub(super) fn by_hand(self, what: impl Into<String>) -> Self {
        Self { by_hand: Some(what.into()), ..self }
    }

    /// What it costs visitors belongs to the reason, which comes first.
    pub(super) fn fix(mut self, fix: Fix) -> Self {
        if !fix.note().is_empty() {
            self.why = format!("{}; {}", self.why, fix.note());
        }
        Self { fix, ..self }
    }
}

/// What is said of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The service.
    pub unit: String,
    /// Its Description=.
    pub description: String,
    /// The walk: every link once.
    pub walk: Vec<Seen>,
    /// What is wrong: what breaks the site first, each in the order of the walk.
    pub findings: Vec<Finding>,
    /// What could not be seen, and why.
    pub unseen: Vec<String>,
    /// It is disabled, does not run, and nobody leads to it: nothing else was looked at.
    pub idle: bool,
}

impl Diagnosis {
    /// One without anything looked at.
    pub(super) fn of(service: &Details) -> Self {
        Self {
            unit: service.name.clone(),
            description: service.description.clone(),
            walk: Vec::new(),
            findings: Vec::new(),
            unseen: Vec::new(),
            idle: false,
        }
    }

    /// Whether a link is broken.
    pub fn is_broken(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}
