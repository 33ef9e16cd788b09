//! Any program that takes its sockets as systemd passes them: nothing more is known of it.

use super::exec::{Exec, LaunchPlan};
use super::{Adapter, Making};
use crate::app::Conventions;
use crate::supervisor::Protocol;

/// SIGTERM (signal(7)).
const SIGTERM: i32 = 15;

/// A program with the manners of a good systemd service.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "generic",
        drain_signals: &[SIGTERM],
        stop_signal: SIGTERM,
        reopen: None,
        exits: &[],
    },
    making: Making::Exec(&EXEC),
    protocol: Protocol::Unknown,
};

/// Every program is one, so it is asked for last.
static EXEC: Exec = Exec { runs: |_| true, plan: |_| Ok(LaunchPlan::default()) };
