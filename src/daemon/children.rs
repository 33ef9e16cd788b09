//! The children of sockd, and what one of them is: a worker, a template, the 503 helper, a program of the
//! operator's, or nothing that we know. It must never take a template's word for it.

use super::after_reload::AfterReload;
use super::checks::Checks;
use super::fallback::Fallback;
use super::health::exec::HealthCommands;
use super::orphans::Family;
use super::templates::Templates;
use super::workers::Workers;
use crate::process::Child;
use crate::supervisor::WorkerId;
use rustix::io::Errno;
use rustix::process::Pid;
use std::collections::BTreeSet;

/// Everything that has children of ours.
#[derive(Debug)]
pub(super) struct Children {
    pub(super) workers: Workers,
    pub(super) templates: Templates,
    pub(super) fallback: Fallback,
    pub(super) health_commands: HealthCommands,
    pub(super) checks: Checks,
    pub(super) after_reload: AfterReload,
}

impl Children {
    /// A process that a template calls a worker of its own. What it has loaded can say anything in its name: of sockd
    /// itself, of a neighbour, of one that is something else already. What we took for a worker, we would kill.
    pub(super) fn adopt(&self, pid: Pid) -> Result<Child, String> {
        let said = format!("its template reports process {pid}");
        let child = Child::adopt(pid).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::CHILD) => format!("{said}, which is not a child of sockd's"),
            Some(_) | None => format!("{said}, which cannot be watched: {error}"),
        })?;
        match self.known_as(pid) {
            Some(other) => Err(format!("{said}, which is {other}")),
            None => Ok(child),
        }
    }

    /// What a child of ours that was not reaped is known to be.
    fn known_as(&self, pid: Pid) -> Option<String> {
        if let Some(worker) = self.workers.of_process(pid) {
            return Some(format!("worker {worker}"));
        }
        if self.templates.has_process(pid) {
            return Some("a template".to_owned());
        }
        if self.fallback.has_process(pid) {
            return Some("the helper that answers 503".to_owned());
        }
        if self.checks.has_process(pid) {
            return Some("a reload.check".to_owned());
        }
        if self.after_reload.has_process(pid) {
            return Some("a reload.after".to_owned());
        }
        self.health_commands.has_process(pid).then(|| "a health.command".to_owned())
    }
}

impl Family for Children {
    fn worker_of(&self, pid: Pid) -> Option<WorkerId> {
        self.workers.of_process(pid)
    }

    fn knows(&self, pid: Pid) -> bool {
        self.known_as(pid).is_some()
    }

    fn workers(&self) -> BTreeSet<WorkerId> {
        self.workers.iter().map(|(id, _)| id).collect()
    }

    fn awaits_workers(&self) -> bool {
        self.templates.await_workers()
    }
}
