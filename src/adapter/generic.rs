//! Any program that takes its sockets as systemd passes them: nothing more is known of it.

use crate::app::{Conventions, Manners};

/// SIGTERM (signal(7)).
const SIGTERM: i32 = 15;

/// The manners of a good systemd service.
pub static CONVENTIONS: Conventions =
    Conventions { name: "generic", manners: Manners::Exec, drain_signal: SIGTERM, stop_signal: SIGTERM, exits: &[] };
