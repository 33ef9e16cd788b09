//! How far the warm template of a generation is.

use super::super::id::WorkerId;
use super::super::time::Time;

/// How far a generation's warm template is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Warmth {
    /// No worker was ready yet, or there shall be none.
    #[default]
    Unwarmed,
    /// It is asked for at this time.
    Due(Time),
    /// It was asked for.
    Asked,
    /// It makes the workers from this one on.
    Warm(WorkerId),
    /// There is none, or no more.
    Refused(String),
}
