//! What `sockd explain` knows: plain data, between gathering and rendering, and the objects of `--json`.

use serde::Serialize;

use crate::explain::Explanation;

/// An instance and what was wrong with it. The keys are those of `--json` and stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InstanceExplanation {
    /// The unit's name with ".service"; `None` for a supervisor outside a unit.
    pub unit: Option<String>,
    /// Whether it is a unit of a user's own service manager.
    pub user: bool,
    /// The supervisor's process id; `None`: it is stopped.
    pub pid: Option<u32>,
    /// What was so, and why; `None` where the recording is not known.
    pub explanation: Option<Explanation>,
    /// Whether the recording ends with this supervisor, because the unit has no state directory.
    pub in_memory: bool,
    /// What of the recording is lost.
    pub problem: Option<String>,
    /// Why it is not known, or not all of it.
    pub error: Option<String>,
    /// What it is called, for people.
    #[serde(skip)]
    pub name: String,
}
