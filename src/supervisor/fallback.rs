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
use super::worker::Phase;
use super::{Mode, Supervisor};
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
}

impl Supervisor {
    /// With nobody who serves and nobody about to, visitors get an answer from us.
    pub(super) fn settle_fallback(&mut self, effects: &mut Effects) {
        let starting = || self.workers.values().any(|w| w.phase() == Phase::Starting);
        let backing_off = || self.slots.iter().any(|slot| slot.retry_at.is_some());
        // Workers are looked at last: this runs at each event of each of them.
        let wanted = self.mode == Mode::Running
            && (self.failing.is_some() || backing_off() && !starting())
            && !self.somebody_serves();
        if wanted && !self.fallback.is_wanted() {
            let why = self.failing.clone().unwrap_or_else(|| "every worker ended shortly after its start".to_owned());
            self.fallback = Fallback::Answering;
            effects.notice(Notice::TurningAway { why });
            effects.push(Effect::StartFallback);
        } else if !wanted && self.fallback.is_wanted() {
            self.fallback = Fallback::Off;
            effects.notice(Notice::ServingAgain);
            effects.push(Effect::StopFallback);
        }
    }

    /// The helper ended, or could not be started.
    pub(super) fn fallback_lost(&mut self, now: Time, why: String, effects: &mut Effects) {
        let retry_at = now + FALLBACK_RETRY_INTERVAL;
        self.fallback = match std::mem::take(&mut self.fallback) {
            // It was stopped meanwhile.
            Fallback::Off => Fallback::Off,
            Fallback::Answering => {
                effects.notice(Notice::FallbackFailed { why: why.clone() });
                Fallback::Lost { why, retry_at }
            }
            Fallback::Tried { .. } => Fallback::Lost { why, retry_at },
            lost @ Fallback::Lost { .. } => lost,
        };
    }

    /// Starts the helper again, or takes it to stay, where the time for that has come.
    pub(super) fn fallback_due(&mut self, now: Time, effects: &mut Effects) {
        if self.fallback.deadline().is_none_or(|at| at > now) {
            return;
        }
        self.fallback = match std::mem::take(&mut self.fallback) {
            Fallback::Lost { why, .. } => {
                effects.push(Effect::StartFallback);
                Fallback::Tried { why, stays_at: now + FALLBACK_RETRY_INTERVAL }
            }
            Fallback::Tried { .. } => {
                effects.notice(Notice::FallbackRestored);
                Fallback::Answering
            }
            other @ (Fallback::Off | Fallback::Answering) => other,
        };
    }
}
