//! What `sockd status` knows: plain data, between gathering and rendering, and the objects of `--json`.
//!
//! Owns: the shape of the report and what its exit code is.
//! Never: asks anyone anything.

use serde::{Deserialize, Serialize};

use super::terminal::harmless;
use crate::control::Status;
use crate::exit;
use crate::systemd::bus::UnitState;

/// Everything to be shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// When it was gathered: milliseconds since 1970.
    pub now_unix_ms: u64,
    /// Why systemd could not be asked; `None` when it could.
    pub systemd_error: Option<String>,
    /// One for each unit and for each supervisor outside a unit.
    pub entries: Vec<Entry>,
}

/// A unit, a supervisor, or both. The keys are those of `--json` and stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The unit's name with ".service"; `None` for a supervisor outside a unit.
    pub unit: Option<String>,
    /// Whether it is a unit of a user's own service manager.
    pub user: bool,
    /// The supervisor's process id.
    pub pid: Option<u32>,
    /// The unit's state; `None` outside a unit and when systemd cannot be asked.
    pub systemd: Option<UnitState>,
    /// Why there is no `systemd` although there is a unit, in one line.
    pub systemd_error: Option<String>,
    /// The sockets that start the unit.
    pub triggers: Vec<Trigger>,
    /// Whether the unit's ExecStart= is `sockd run`; `None` when not known.
    pub runs_sockd: Option<bool>,
    /// What the supervisor says of itself.
    pub sockd: Option<Status>,
    /// Why there is no `sockd` although one runs, in one line.
    pub sockd_error: Option<String>,
    /// Whom it would answer besides root: set when it did not answer us for want of permission.
    pub run_as: Option<String>,
}

/// A socket that starts a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trigger {
    /// Its name: `gunicorn.socket`.
    pub unit: String,
    /// Its ActiveState: `active`, `inactive`, `failed`.
    pub active_state: String,
}

impl StatusReport {
    /// The highest of all entries; [`exit::NOT_RUNNING`] when there are none.
    pub fn exit_code(&self) -> u8 {
        self.entries.iter().map(Entry::exit_code).max().unwrap_or(exit::NOT_RUNNING)
    }
}

impl Entry {
    /// What it is called, for people: the unit's name, or the process.
    pub fn name(&self) -> String {
        match (&self.unit, self.pid) {
            (Some(unit), _) if self.user => format!("{} (user)", harmless(unit)),
            (Some(unit), _) => harmless(unit),
            (None, Some(pid)) => format!("sockd, process {pid}"),
            (None, None) => "sockd".to_owned(),
        }
    }

    /// As `systemctl status` has it (the LSB numbers): `active` and `reloading` run, all other states do not. What
    /// runs and serves nobody has a number of its own.
    pub fn exit_code(&self) -> u8 {
        match &self.systemd {
            Some(unit) if unit.load_state == "not-found" && unit.active_state != "active" => exit::NO_SUCH_UNIT,
            Some(unit) if !matches!(unit.active_state.as_str(), "active" | "reloading" | "refreshing") => {
                exit::NOT_RUNNING
            }
            Some(_) | None if self.sockd.as_ref().is_some_and(Status::serves_nobody) => exit::NOBODY_SERVED,
            Some(_) => exit::SUCCESS,
            // A supervisor that was found runs, no matter who started it.
            None if self.pid.is_some() => exit::SUCCESS,
            // 4 is "unknown" in the LSB's words.
            None => exit::NO_SUCH_UNIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(load: &str, active: &str) -> Entry {
        let systemd = UnitState { load_state: load.into(), active_state: active.into(), ..UnitState::default() };
        Entry { systemd: Some(systemd), ..Entry::default() }
    }

    fn nobody_served(entry: Entry) -> Entry {
        Entry { sockd: Some(Status { fallback: true, ..Status::default() }), ..entry }
    }

    #[test]
    fn the_highest_counts() {
        for (entries, code) in [
            (vec![], 3),
            (vec![unit("loaded", "active")], 0),
            (vec![unit("loaded", "reloading")], 0),
            (vec![unit("loaded", "activating")], 3),
            (vec![unit("loaded", "failed"), unit("loaded", "active")], 3),
            (vec![unit("not-found", "inactive"), unit("loaded", "inactive")], 4),
            // Its file was deleted while it ran.
            (vec![unit("not-found", "active")], 0),
            (vec![Entry { pid: Some(1), ..Entry::default() }], 0),
            (vec![Entry::default()], 4),
            (vec![nobody_served(unit("loaded", "active"))], 150),
            (vec![nobody_served(Entry { pid: Some(1), ..Entry::default() }), unit("loaded", "failed")], 150),
            // What it said before it ended counts no more.
            (vec![nobody_served(unit("loaded", "failed"))], 3),
        ] {
            let report = StatusReport { entries, ..StatusReport::default() };
            assert_eq!(report.exit_code(), code, "{report:?}");
        }
    }
}
