//! Signals to sockd: what each means (SIGHUP, SIGUSR1 for logrotate, SIGTTIN). Whatever can be caught ends sockd only if
//! it is SIGTERM, SIGINT or SIGQUIT; the others do what they do to the servers that sockd runs, or nothing, and the log
//! says what to use in their place.
//!
//! Owns: how many lines about a signal were written, since anybody with our user may send thousands. Never: decides what a
//! reload, a stop or another number of workers leads to.

use super::event_loop::EventLoop;
use super::log_limit::LogLimit;
use super::workers::by_number;
use crate::process::signal_name;
use crate::supervisor::{Event, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::time::Instant;

const HUP: i32 = 1;
const INT: i32 = 2;
const QUIT: i32 = 3;
const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;
const CHLD: i32 = 17;
const CONT: i32 = 18;
const TTIN: i32 = 21;
const TTOU: i32 = 22;
const WINCH: i32 = 28;

/// Signals that did nothing: the lines that the log has about each.
#[derive(Debug, Default)]
pub(super) struct UselessSignals(BTreeMap<i32, LogLimit>);

impl UselessSignals {
    /// Says that a signal did nothing, and why, unless that was said often enough lately.
    fn say(&mut self, now: Instant, number: i32, why: &str) {
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

impl EventLoop {
    /// Signals came, each at least once.
    pub(super) fn signalled(&mut self, numbers: &BTreeSet<i32>) {
        // Who has ended is known before anybody is signalled or started.
        if numbers.contains(&CHLD) {
            self.reap_all();
            self.end_orphans();
        }
        for number in numbers {
            match *number {
                // Seen to above; and woken after a stop, there is nothing to do but to go on.
                CHLD | CONT => {}
                TERM => self.outbox.event(Event::StopRequested),
                INT | QUIT => self.outbox.event(Event::Interrupted),
                HUP => self.request_reload(None),
                USR1 => self.reopen_logs(),
                TTIN => self.outbox.event(Event::OneMoreWorker),
                TTOU => self.outbox.event(Event::OneFewerWorker),
                USR2 => self.ignore_signal(USR2, &format!("`{}` loads new code", self.command("reload"))),
                // A terminal sends it when its size changes.
                WINCH if std::io::stderr().is_terminal() => {}
                WINCH => self.ignore_signal(WINCH, &format!("`{}` stops the workers", self.command("stop"))),
                other => {
                    let why = "SIGHUP reloads, SIGUSR1 has log files opened afresh, SIGTTIN and SIGTTOU ask for one worker \
                               more or fewer, SIGTERM stops";
                    self.ignore_signal(other, why);
                }
            }
        }
    }

    fn ignore_signal(&mut self, number: i32, why: &str) {
        self.useless_signals.say(Instant::now(), number, why);
    }

    /// What to type to have the service manager do something with this instance.
    fn command(&self, verb: &str) -> String {
        match (&self.setup.unit, verb) {
            (Some(unit), verb) => format!("systemctl {verb} {unit}"),
            (None, "reload") => format!("kill -HUP {}", std::process::id()),
            (None, _) => format!("kill -TERM {}", std::process::id()),
        }
    }

    /// Passes it on to the templates and workers whose server opens its log files afresh then. One that got it from
    /// the sender, too, does so twice, which is harmless.
    fn reopen_logs(&mut self) {
        let templates = self.templates_that_reopen();
        let starting: BTreeSet<_> = {
            let workers = self.core.snapshot(self.now()).workers;
            workers.iter().filter(|worker| worker.phase == Phase::Starting).map(|worker| worker.worker).collect()
        };
        let workers = self.workers.iter().filter_map(|(id, worker)| {
            let (child, reopen) = worker.reopens()?;
            (reopen.while_starting || !starting.contains(id)).then_some((child, reopen.signal))
        });
        let mut signalled = 0;
        for (child, signal) in templates.chain(workers) {
            match child.signal(by_number(signal)) {
                Ok(()) => signalled += 1,
                Err(error) => tracing::error!("cannot signal process {}: {error}", child.pid()),
            }
        }
        if signalled == 0 {
            self.ignore_signal(USR1, "this server has no signal for opening its log files afresh; a reload does that");
        } else {
            tracing::info!(SOCKD_EVENT = "logs-reopened", "log files are opened afresh, by {signalled} processes");
        }
    }
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
