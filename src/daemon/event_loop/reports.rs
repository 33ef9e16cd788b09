//! What tasks and threads report: each report to the part that it concerns.

use super::EventLoop;
use crate::daemon::health::{self, Baseline};
use crate::daemon::message::Message;
use crate::daemon::orphans::kill_orphans;
use crate::daemon::templates::Report;
use crate::supervisor::{Answer, Event, Signal, WorkerEvent, WorkerId};
use rustix::process::Pid;
use std::time::Instant;

impl EventLoop {
    pub(super) fn receive(&mut self, message: Message) {
        match message {
            Message::Core(event) => self.outbox.event(event),
            Message::Read(generation, read) => self.configuration_read(generation, *read),
            Message::Template(template, message) => {
                if let Some(report) = self.children.templates.receive(template, message) {
                    self.template_reports(template, report);
                }
            }
            Message::Notify(worker, datagram, _done) => self.children.workers.hear(worker, datagram, &mut self.outbox),
            Message::Judged { worker: id, judgement } => {
                if let Some(worker) = self.children.workers.get(id) {
                    self.outbox.event(health::judged(id, worker, judgement));
                }
            }
            Message::Greeted { worker: id, verdict } => {
                if let Some(worker) = self.children.workers.get(id) {
                    self.outbox.event(health::was_greeted(id, worker, verdict));
                }
            }
            Message::Probed { worker, answer } => self.probed(worker, &answer),
            Message::JudgeAgain { worker, patience } => self.judge(worker, Baseline::default(), Some(patience)),
            Message::HealthCommandLate { worker, pid } => self.children.health_commands.late(worker, pid),
            Message::AfterReloadLate { pid } => self.children.after_reload.late(pid),
            Message::OutOfMemory(worker, killed) => self.children.workers.process_killed(worker, killed),
            Message::Paths(found) => {
                self.listeners.paths_seen(&found, &mut self.outbox);
            }
            Message::Measured(memory) => self.meters.measured(memory, &mut self.outbox),
            Message::Stats(heard) => self.stats_heard(&heard),
            Message::StatsBeforeDrain(id, stats) => {
                if let Some(stats) = stats {
                    self.children.workers.take_stats(&[(id, stats)]);
                    self.children.workers.forget_served();
                }
                self.children.workers.signal(id, Signal::Drain);
            }
            Message::TurnedAway(visitors) => {
                self.counts.turned_away(visitors);
                self.outbox.event(Event::VisitorTurnedAway);
            }
            Message::StatusSocket(wanted, bound) => self.inputs.status_socket.take(&wanted, bound),
            Message::StatusSocketFile(at_path) => self.inputs.status_socket.file_seen(at_path, &self.outbox),
            Message::HistoryRead(kept) => {
                self.reloads.history.was_read(kept, &self.outbox).into_iter().for_each(|call| self.answer(call));
            }
            Message::HistoryWritten(result) => self.reloads.history.was_written(result, &self.outbox),
            Message::Sampled(looked) => self.sampled(looked),
            Message::RecordingWritten(written) => self.observers.recorder.was_written(written, &self.outbox),
            Message::UsersNamed(names) => self.reloads.history.users_named(names, &self.outbox),
            Message::KillOrphans(pids) => kill_orphans(pids, &self.children),
        }
    }

    fn template_reports(&mut self, template: u64, report: Report) {
        match report {
            Report::Hello(generation, hello) => self.template_ready(template, generation, hello),
            Report::Forked { worker, pid, hook_state } => {
                self.children.workers.set_hook_state(worker, hook_state);
                self.worker_forked(worker, pid);
            }
            Report::ForkedUnasked { worker, pid } => match self.children.adopt(pid) {
                Ok(child) => drop(child.kill()),
                Err(why) => self.children.templates.warn_of_unasked(template, worker, &why),
            },
            Report::NotForked { worker, why } => self.children.workers.not_made(worker, why, &mut self.outbox),
            Report::Warmed(generation) => self.outbox.event(Event::Warmed(generation)),
            Report::NotWarm(generation, why) => self.outbox.event(Event::NotWarm { generation, why }),
            Report::Nonsense(generation, why) => self.refuse(generation, why),
            Report::Silent => self.finish_template_exit(template),
        }
    }

    /// A template has made the worker that it was ordered.
    fn worker_forked(&mut self, id: WorkerId, pid: Pid) {
        let Some(template) = self.children.workers.get(id).map(|worker| worker.template()) else { return };
        // It may have died before we heard of it; then its number may belong to somebody else already.
        if let Some(ended) = self.exits.unclaimed.take(Instant::now(), pid) {
            self.outbox.event(Event::Worker(id, WorkerEvent::Spawned));
            self.finish_exit(id, ended);
            self.end_orphans();
            return;
        }
        let child = match self.children.adopt(pid) {
            Ok(child) => child,
            Err(why) => {
                self.children.workers.not_made(id, why, &mut self.outbox);
                return;
            }
        };
        if let Some(process) = self.children.workers.forked(id, child, &mut self.outbox) {
            self.children.templates.worker_joined(template, &process);
        }
    }

    fn probed(&mut self, id: WorkerId, answer: &Answer) {
        self.children.workers.set_unanswered(id, matches!(answer, Answer::Silent(_) | Answer::NotAccepted(_)));
        let Some(subject) = self.generations.subject(&self.children.workers, id) else { return };
        let event = health::probed(id, subject.generation, answer);
        self.children.workers.read_requests(id, &mut self.outbox);
        self.outbox.event(event);
    }
}
