//! What `sockd history` knows: plain data, between gathering and rendering, and the objects of `--json`.

use serde::{Deserialize, Serialize};

use crate::control::HistoryEntry;

/// An instance and its history. The keys are those of `--json` and stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceHistory {
    /// The unit's name with ".service"; `None` for a supervisor outside a unit.
    pub unit: Option<String>,
    /// Whether it is a unit of a user's own service manager.
    pub user: bool,
    /// The supervisor's process id; `None`: it is stopped.
    pub pid: Option<u32>,
    /// Its reloads and starts, the oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Why they are not known, or not all.
    pub error: Option<String>,
    /// What it is called, for people.
    #[serde(skip)]
    pub name: String,
}
