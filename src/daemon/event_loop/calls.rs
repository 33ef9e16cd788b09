//! Calls: what clients of the control socket ask, each for the part that can answer.

use super::EventLoop;
use crate::control::message::LONGEST_PAUSE;
use crate::control::{self, Asker, Call, Origin, Outcome, RefusalKind, Replier, Request};
use crate::daemon::history;
use crate::daemon::message::Message;
use crate::daemon::spec;
use crate::daemon::status;
use crate::daemon::workers::server_stats::ask_all;
use crate::daemon::workers::stacks;
use crate::maintenance::Maintenance;
use crate::server_stats::Stats;
use crate::supervisor::{Event, ReleaseId, Trial, WorkerId};
use std::time::{Duration, SystemTime};

/// What a reload is to load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// What is configured.
    Configured,
    /// The same, which visitors try first.
    Trial(Trial),
    /// A release that served before.
    Release(ReleaseId),
}

impl EventLoop {
    pub(super) fn answer(&mut self, call: Call) {
        match call.request {
            Request::Status => self.ask_for_status(call.replier),
            Request::Stacks { worker } => self.answer_stacks(WorkerId(worker), call.replier),
            Request::LastLines { worker } => {
                call.replier.last_lines(self.children.workers.last_lines(WorkerId(worker)));
            }
            Request::Reload { wait, origin } => self.reload_for(call, wait, origin, Wanted::Configured),
            Request::Trial { wait, origin, trial } => match self.trial(trial) {
                Ok(trial) => self.reload_for(call, wait, origin, Wanted::Trial(trial)),
                Err(why) => call.replier.refuse(RefusalKind::NotPossible, why),
            },
            Request::Promote => self.outbox.event(self.reloads.clients.decide(true, call.replier)),
            Request::Abort => self.outbox.event(self.reloads.clients.decide(false, call.replier)),
            Request::Pause { max_ms } => {
                let most = Duration::from_millis(max_ms.max(1)).min(LONGEST_PAUSE);
                self.outbox.event(self.reloads.clients.pause(most, call.replier));
            }
            Request::Drain { is_drained } => self.drain_balancers(is_drained, call.replier),
            Request::Resume => self.outbox.event(self.reloads.clients.resume(call.replier)),
            Request::Maintenance { on: false, .. } => {
                self.outbox.event(self.reloads.clients.maintenance(false, Some(call.replier)));
            }
            Request::Maintenance { on: true, message, retry_after_s } => {
                let usual = Maintenance::default();
                let since_unix_ms = status::unix_ms(SystemTime::now());
                let retry_after = retry_after_s.unwrap_or(usual.retry_after);
                match (Maintenance { message, retry_after, since_unix_ms }).checked() {
                    Ok(maintenance) => {
                        let state = &mut self.children.fallback.maintenance;
                        if !state.is_kept() {
                            call.replier.progress("the unit has no StateDirectory=: a restart ends it");
                        }
                        state.asked(maintenance);
                        self.outbox.event(self.reloads.clients.maintenance(true, Some(call.replier)));
                    }
                    Err(why) => call.replier.refuse(RefusalKind::NotPossible, why),
                }
            }
            Request::Rollback { wait, origin } => {
                let Some(call) = self.reloads.history.defers(call) else { return };
                match self.reloads.history.previous(self.overview().generation) {
                    Ok(release) => {
                        if let Some(name) = self.reloads.history.name(release) {
                            tracing::info!("rollback: the release that served before is {name}");
                            call.replier.progress(format!("going back to {name}"));
                        }
                        self.reload_for(call, wait, origin, Wanted::Release(release));
                    }
                    Err(why) => {
                        let message = format!("no rollback: {why}");
                        call.replier.outcome(Outcome { ok: false, message, ..Outcome::default() });
                    }
                }
            }
            Request::History => {
                if let Some(call) = self.reloads.history.defers(call) {
                    call.replier.history(self.reloads.history.entries());
                }
            }
            Request::Recording => self.observers.recorder.answer(call.replier),
            Request::Replace { worker } => {
                self.outbox.event(self.reloads.clients.replace(WorkerId(worker), call.replier));
            }
        }
    }

    /// Has balancers send no visitors any more, or again.
    fn drain_balancers(&mut self, is_drained: bool, replier: Replier) {
        if is_drained && !self.inputs.status_socket.is_bound() {
            let why = "no balancer can ask it: set status.listen (`listen` in [status], or --status-listen)";
            return replier.refuse(RefusalKind::NotPossible, why);
        }
        let is_new = self.inputs.balancers.drain(is_drained);
        let message = match (is_drained, is_new) {
            (true, _) => "balancers hear that it takes no visitors, until sockd ready or a restart",
            (false, true) => "balancers hear that it takes visitors",
            (false, false) => "it was not drained",
        };
        if is_new {
            let event = if is_drained { "drained" } else { "ready" };
            tracing::info!(SOCKD_EVENT = event, "{message}");
        }
        let message = message.to_owned();
        replier.outcome(Outcome { ok: is_drained || is_new, message, ..Outcome::default() });
    }

    /// How visitors are to try the new generation of a reload.
    fn trial(&self, asked: control::Trial) -> Result<Trial, String> {
        let serving = self.generations.ready.get(&self.overview().generation);
        let trial = spec::asked_trial(asked, serving.map(|generation| &generation.settings.reload))?;
        if self.core.somebody_serves() && !self.children.workers.are_requests_shown() {
            return Err("its workers do not show their requests, so that nothing could be compared".to_owned());
        }
        Ok(trial)
    }

    /// A client asks for a reload.
    fn reload_for(&mut self, call: Call, wait: bool, origin: Origin, wanted: Wanted) {
        let asker = history::client(call.uid, origin);
        if wait {
            return self.reload(Some(call.replier), asker, wanted);
        }
        self.reload(None, asker, wanted);
        let message = match wanted {
            Wanted::Configured | Wanted::Trial(_) => "the reload has begun".to_owned(),
            Wanted::Release(_) => "the rollback has begun".to_owned(),
        };
        call.replier.outcome(Outcome { ok: true, message, ..Outcome::default() });
    }

    /// Asks the core for a reload; the client, if there is one, waits for its outcome.
    pub(super) fn reload(&mut self, client: Option<Replier>, asker: Asker, wanted: Wanted) {
        let request = self.reloads.clients.request(client);
        self.reloads.history.asked(request, asker, &self.outbox);
        self.outbox.event(match wanted {
            Wanted::Configured => Event::ReloadRequested(request),
            Wanted::Trial(trial) => Event::TrialRequested { request, trial },
            Wanted::Release(release) => Event::RollbackRequested { request, release },
        });
    }

    /// Answers at once, or when the workers have said what is known only to them. Who asks meanwhile gets the same.
    fn ask_for_status(&mut self, replier: Replier) {
        let questions = self.children.workers.questions();
        if questions.is_empty() {
            self.answer_status(replier);
            return;
        }
        self.progress.status_clients.push(replier);
        if self.progress.status_clients.len() == 1 {
            self.outbox.later(async move { Some(Message::Stats(ask_all(questions).await)) });
        }
    }

    /// This is what they have said.
    pub(super) fn stats_heard(&mut self, heard: &[(WorkerId, Stats)]) {
        let clients = std::mem::take(&mut self.progress.status_clients);
        self.children.workers.take_stats(heard);
        clients.into_iter().for_each(|client| self.answer_status(client));
        self.children.workers.status_made();
    }

    fn answer_status(&self, replier: Replier) {
        let snapshot = self.core.snapshot(self.clock.now());
        let listeners = self.listeners.listeners();
        let children = &self.children;
        let mut report = status::document(&self.setup, self.clock, &snapshot, listeners, children, &self.counts);
        report.balancers = self.inputs.balancers.document();
        self.meters.answer_status(report, &children.workers, &self.listeners, replier);
    }

    fn answer_stacks(&self, worker: WorkerId, replier: Replier) {
        match self.children.workers.stacks(worker) {
            Ok(stacks) => drop(tokio::spawn(async move { replier.stacks(stacks::document(stacks.await)) })),
            Err(why) => replier.refuse(RefusalKind::NotPossible, why),
        }
    }
}
