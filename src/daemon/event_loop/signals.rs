//! Signals that came, carried out.

use super::EventLoop;
use super::calls::Wanted;
use crate::daemon::history;
use crate::daemon::signals::{Meaning, USR1, meaning};
use crate::daemon::workers::by_number;
use crate::process::Sender;
use crate::supervisor::{Event, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

impl EventLoop {
    /// Signals came, each at least once.
    pub(super) fn signalled(&mut self, signals: &BTreeMap<i32, Sender>) {
        let meanings =
            |(number, sender): (&i32, &Sender)| (*number, *sender, meaning(*number, self.setup.unit.as_deref()));
        let meanings: Vec<_> = signals.iter().map(meanings).collect();
        // Who has ended is known before anybody is signalled or started.
        if meanings.iter().any(|(_, _, meaning)| *meaning == Meaning::Reap) {
            self.reap_all();
            self.end_orphans();
        }
        for (number, sender, meaning) in meanings {
            match meaning {
                Meaning::Reap | Meaning::Nothing => {}
                Meaning::Stop => self.outbox.event(Event::StopRequested),
                Meaning::Interrupt { at_terminal } => self.outbox.event(Event::Interrupted { at_terminal }),
                Meaning::Reload => self.reload(None, history::sender(sender.pid, sender.uid), Wanted::Configured),
                Meaning::ReopenLogs => self.reopen_logs(),
                Meaning::OneMoreWorker => self.outbox.event(Event::OneMoreWorker),
                Meaning::OneFewerWorker => self.outbox.event(Event::OneFewerWorker),
                Meaning::Useless(why) => self.inputs.useless_signals.say(Instant::now(), number, &why),
            }
        }
    }

    /// Passes it on to the templates and workers whose server opens its log files afresh then. One that got it from
    /// the sender, too, does so twice, which is harmless.
    fn reopen_logs(&mut self) {
        let starting: BTreeSet<_> = {
            let workers = self.core.snapshot(self.clock.now()).workers;
            workers.iter().filter(|worker| worker.phase == Phase::Starting).map(|worker| worker.worker).collect()
        };
        let workers = self.children.workers.iter().filter_map(|(id, worker)| {
            let (child, reopen) = worker.reopens()?;
            (reopen.while_starting || !starting.contains(&id)).then_some((child, reopen.signal))
        });
        let mut signalled = 0;
        for (child, signal) in self.children.templates.reopening().chain(workers) {
            match child.signal(by_number(signal)) {
                Ok(()) => signalled += 1,
                Err(error) => tracing::error!("cannot signal process {}: {error}", child.pid()),
            }
        }
        if signalled == 0 {
            let why = "this server has no signal for opening its log files afresh; a reload does that";
            self.inputs.useless_signals.say(Instant::now(), USR1, why);
        } else {
            tracing::info!(SOCKD_EVENT = "logs-reopened", "log files are opened afresh, by {signalled} processes");
        }
    }
}
