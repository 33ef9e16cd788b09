//! What is said of a recording: what was so, and why.
//!
//! Owns: the shape of an explanation; its keys are those of `--json` and stay. Never: knows how it is shown.

use super::figures::Figures;
use crate::control::recording::Event;
use serde::Serialize;

/// What was so, and why. Times are milliseconds since 1970 (UTC). The keys are those of `--json` and stay.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// The unit, as it is typed.
    pub unit: String,
    /// Whether something was wrong.
    pub is_trouble: bool,
    /// When it began.
    pub from_unix_ms: u64,
    /// When it ended.
    pub to_unix_ms: u64,
    /// Whether anything was recorded of that time.
    pub is_recorded: bool,
    /// What was so then.
    pub then: Figures,
    /// What was so in the calm time before. `None`: there was none.
    pub before: Option<Figures>,
    /// Why, the most likely cause first.
    pub causes: Vec<Cause>,
    /// The slowest requests then.
    pub slowest: Vec<Slowest>,
    /// What happened then, the oldest first.
    pub events: Vec<Event>,
}

/// A cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Which rule found it; ids stay.
    pub id: &'static str,
    /// How likely it is, of 100.
    pub likelihood: u32,
    /// What it is, in one line without a full stop.
    pub what: String,
    /// What speaks for it.
    pub evidence: Vec<String>,
    /// What a person can do, in one line. Empty: nothing.
    pub advice: String,
    /// A command that shows more and makes nothing worse.
    pub next: String,
}

/// A request that was slow, or all of the same method and path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Slowest {
    /// Its method and its path.
    pub request: String,
    /// The longest was seen to be served for so long, in milliseconds.
    pub for_ms: u64,
    /// The workers that served it.
    pub workers: Vec<u64>,
}
