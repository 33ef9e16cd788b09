//! A generation: what its workers are made from, and what was read for it.

use crate::adapter::Adapter;
use crate::adapter::exec::LaunchPlan;
use crate::adapter::python::Python;
use crate::app::Command;
use crate::config::Settings;
use crate::control::Release;
use crate::supervisor::Spec;
use std::path::PathBuf;

/// What a generation's workers are made from.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) settings: Settings,
    pub(super) adapter: &'static Adapter,
    pub(super) command: Command,
    /// How its workers are executed, if no template forks them.
    pub(super) plan: LaunchPlan,
    pub(super) spec: Option<Spec>,
    /// Whether its workers serve one request at a time.
    pub(super) silent_when_busy: bool,
    /// Whether its workers understand TLS alone, so that no question of ours is answered.
    pub(super) speaks_tls: bool,
    /// Whether they are asked in the uwsgi protocol.
    pub(super) speaks_uwsgi: bool,
    /// `health.command`, ready to be executed.
    pub(super) health_command: Option<Command>,
    /// `reload.check`, ready to be executed, or why one of them cannot be.
    pub(super) checks: Result<Vec<Command>, String>,
    /// `reload.after`, ready to be executed.
    pub(super) after: Option<Command>,
    /// Its template, by number.
    pub(super) template: Option<u64>,
}

/// What was read for a generation (reading.rs).
#[derive(Debug)]
pub(super) struct Read {
    /// What it runs from, as far as it could be read.
    pub(super) release: Option<Release>,
    /// What is wrong, line by line.
    pub(super) problems: Vec<String>,
    /// The page of the 503 helper; the outer None: the configuration does not tell.
    pub(super) page: Option<Option<PathBuf>>,
    /// The generation, without its specification.
    pub(super) generation: Result<Generation, String>,
    /// What boots its template, where it has one.
    pub(super) template: Option<(Command, &'static Python)>,
}

impl Read {
    /// Nothing could be read.
    pub(super) fn failed(why: String) -> Self {
        Self { release: None, problems: Vec::new(), page: None, generation: Err(why), template: None }
    }
}
