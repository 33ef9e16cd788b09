//! The 503 helper: whether it is wanted, and what follows when it cannot be had. It is started again a second after it was
//! lost, said to fail once, and said to answer again when it has stayed for a second.
//!
//! ```text
//!   Off -> Answering -> Lost -> Tried -> Answering
//!                        ^        |
//!                        +--------+
//! ```

use super::effect::{Effect, Effects};
use super::notice::Notice;
use super::time::Time;
use std::time::Duration;

/// Between the loss of the helper and its next start, and between that and being taken to stay.
pub const FALLBACK_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What is known of the helper.
#[derive(Clone, Debug, Default)]
pub(super) enum Fallback {
    /// Not wanted: somebody serves, or is about to.
    #[default]
    Off,
    /// Started, and not lost since.
    Answering,
    /// It ended, or could not be started.
    Lost { why: String, retry_at: Time },
    /// Started again, and not yet known to stay.
    Tried { why: String, stays_at: Time },
}

impl Fallback {
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Why visitors are not answered although they should be.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Off | Self::Answering => None,
            Self::Lost { why, .. } | Self::Tried { why, .. } => Some(why),
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Off | Self::Answering => None,
            Self::Lost { retry_at: at, .. } | Self::Tried { stays_at: at, .. } => Some(*at),
        }
    }

    /// It is wanted from here on, because visitors cannot be served for this reason, or (None) not any more. `on_purpose`:
    /// somebody holds the workers back.
    pub(super) fn settle(&mut self, wanted: Option<String>, on_purpose: bool, effects: &mut Effects) {
        match wanted {
            Some(why) if !self.is_wanted() => {
                *self = Self::Answering;
                effects.notice(Notice::TurningAway { why, on_purpose });
                effects.push(Effect::StartFallback);
            }
            None if self.is_wanted() => {
                *self = Self::Off;
                effects.notice(Notice::ServingAgain);
                effects.push(Effect::StopFallback);
            }
            Some(_) | None => {}
        }
    }

    /// The helper ended, or could not be started.
    pub(super) fn lost(&mut self, now: Time, why: String, effects: &mut Effects) {
        let retry_at = now + FALLBACK_RETRY_INTERVAL;
        *self = match std::mem::take(self) {
            // It was stopped meanwhile.
            Self::Off => Self::Off,
            Self::Answering => {
                effects.notice(Notice::FallbackFailed { why: why.clone() });
                Self::Lost { why, retry_at }
            }
            Self::Tried { .. } => Self::Lost { why, retry_at },
            lost @ Self::Lost { .. } => lost,
        };
    }

    /// Starts the helper again, or takes it to stay, where the time for that has come.
    pub(super) fn handle_timeout(&mut self, now: Time, effects: &mut Effects) {
        if self.deadline().is_none_or(|at| at > now) {
            return;
        }
        *self = match std::mem::take(self) {
            Self::Lost { why, .. } => {
                effects.push(Effect::StartFallback);
                Self::Tried { why, stays_at: now + FALLBACK_RETRY_INTERVAL }
            }
            Self::Tried { .. } => {
                effects.notice(Notice::FallbackRestored);
                Self::Answering
            }
            other @ (Self::Off | Self::Answering) => other,
        };
    }
}
