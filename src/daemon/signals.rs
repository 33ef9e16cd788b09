//! Signals to sockd: what each means (SIGHUP, SIGUSR1 for logrotate, SIGTTIN). Whatever can be caught ends sockd only if
//! it is SIGTERM, SIGINT or SIGQUIT; the others do what they do to the servers that sockd runs, or nothing, and the log
//! says what to use in their place.
//!
//! Owns: how many lines about a signal were written, since anybody with our user may send thousands. Never: decides what a
//! reload, a stop or another number of workers leads to.

use super::log_limit::LogLimit;
use crate::process::signal_name;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Instant;

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
/// SIGUSR1.
pub(super) const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;
const CHLD: i32 = 17;
const CONT: i32 = 18;
const TTIN: i32 = 21;
const TTOU: i32 = 22;
const WINCH: i32 = 28;

/// What a signal to sockd asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Nothing,
    /// Children have ended.
    Reap,
    Stop,
    Interrupt {
        /// Whether sockd runs there, where a person presses Ctrl-C.
        at_terminal: bool,
    },
    Reload,
    ReopenLogs,
    OneMoreWorker,
    OneFewerWorker,
    /// It does nothing, and this is what does what was probably wanted.
    Useless(String),
}

/// What a signal asks for; `unit` is that of this instance.
pub(super) fn meaning(number: i32, unit: Option<&str>) -> Meaning {
    match number {
        CHLD => Meaning::Reap,
        // Woken after a stop, there is nothing to do but to go on.
        CONT => Meaning::Nothing,
        TERM => Meaning::Stop,
        INT | QUIT => Meaning::Interrupt { at_terminal: std::io::stderr().is_terminal() },
        HUP => Meaning::Reload,
        USR1 => Meaning::ReopenLogs,
        TTIN => Meaning::OneMoreWorker,
        TTOU => Meaning::OneFewerWorker,
        USR2 => Meaning::Useless(format!("`{}` loads new code", command("reload", unit))),
        // A terminal sends it when its size changes.
        WINCH if std::io::stderr().is_terminal() => Meaning::Nothing,
        WINCH => Meaning::Useless(format!("`{}` stops the workers", command("stop", unit))),
        _ => Meaning::Useless(
            "SIGHUP reloads, SIGUSR1 has log files opened afresh, SIGTTIN and SIGTTOU ask for one worker more or fewer, \
             SIGTERM stops"
                .to_owned(),
        ),
    }
}

/// What to type to have the service manager do something with this instance.
fn command(verb: &str, unit: Option<&str>) -> String {
    match (unit, verb) {
        (Some(unit), verb) => format!("systemctl {verb} {unit}"),
        (None, "reload") => format!("kill -HUP {}", std::process::id()),
        (None, _) => format!("kill -TERM {}", std::process::id()),
    }
}

/// Signals that did nothing: the lines that the log has about each.
#[derive(Debug, Default)]
pub(super) struct UselessSignals(BTreeMap<i32, LogLimit>);

impl UselessSignals {
    /// Says that a signal did nothing, and why, unless that was said often enough lately.
    pub(super) fn say(&mut self, now: Instant, number: i32, why: &str) {
        if self.0.entry(number).or_default().allows(now) {
            tracing::warn!(SOCKD_EVENT = "signal-ignored", "{} does nothing: {why}", name(number));
        }
    }

    /// Says how many more came of each, once their time is over.
    pub(super) fn tell_suppressed(&mut self, now: Instant) {
        for (number, limit) in &mut self.0 {
            if let Some(count) = limit.suppressed(now, false) {
                tracing::warn!(SOCKD_EVENT = "signal-ignored", "{} came {count} more times", name(*number));
            }
        }
    }
}

fn name(number: i32) -> String {
    signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_names() {
        let numbers = [HUP, INT, QUIT, USR1, USR2, TERM, CHLD, CONT, TTIN, TTOU, WINCH];
        let names = "HUP INT QUIT USR1 USR2 TERM CHLD CONT TTIN TTOU WINCH".split(' ');
        for (number, name) in numbers.into_iter().zip(names) {
            assert_eq!(signal_name(number), Some(format!("SIG{name}").as_str()));
        }
    }
}
