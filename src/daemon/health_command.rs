//! `health.command`: a program that is run to find out whether a worker is well, in place of an HTTP request.
//!
//! It runs like a worker, in the same directory and environment, with the worker's process id in SOCKD_WORKER_PID and
//! without a socket. At most one runs for each worker, and none outlives `health.timeout`.

use super::judge::Purpose;
use super::shell::{Message, Shell};
use crate::process::{self, Child, End, Ended, Launch, Stderr};
use crate::supervisor::{Event, Finding, WorkerEvent, WorkerId};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two runs for a worker that may be on its way still.
const AGAIN: Duration = Duration::from_secs(1);

/// The programs that run.
pub(super) type HealthCommands = BTreeMap<WorkerId, Running>;

/// One of them.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    stderr: Arc<Stderr>,
    purpose: Purpose,
    begun: Instant,
    /// It was killed after so long.
    late: Option<Duration>,
    /// It is the second one for the same question.
    again: bool,
}

impl Running {
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        self.child.pid() == pid
    }
}

impl Shell {
    /// Runs the program for this worker; its end answers. False if none is configured.
    pub(super) fn run_health_command(&mut self, id: WorkerId, purpose: Purpose) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        let Some(generation) = self.generations.get(&worker.generation()) else { return false };
        let Some(command) = &generation.health_command else { return false };
        let timeout = generation.settings.health.timeout;
        let pid = worker.pid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let environment: BTreeMap<OsString, OsString> =
            [("SOCKD_WORKER_PID".into(), pid.to_string().into()), ("SOCKD_WORKER".into(), id.to_string().into())]
                .into();
        let spawned = Stderr::new(|_| {}).map_err(|error| error.to_string()).and_then(|(stderr, write)| {
            let launch = Launch {
                command,
                environment: &environment,
                descriptors: &[],
                listen_names: None,
                stderr: Some(write.as_fd()),
                pipes: None,
                group: None,
                parent_death: Signal::KILL,
                sheltered: false,
            };
            Ok((launch.spawn().map_err(|error| error.to_string())?, stderr))
        });
        match spawned {
            Ok((child, stderr)) => {
                let pid = child.pid();
                let running = Running { child, stderr, purpose, begun: Instant::now(), late: None, again: false };
                self.health_commands.insert(id, running);
                self.later(async move {
                    sleep(timeout).await;
                    Some(Message::HealthCommandLate { worker: id, pid, timeout })
                });
            }
            Err(why) => self.health_command_says(id, purpose, Duration::ZERO, Err(format!("health.command: {why}"))),
        }
        true
    }

    /// It had its time.
    pub(super) fn health_command_late(&mut self, id: WorkerId, pid: Pid, timeout: Duration) {
        if let Some(running) = self.health_commands.get_mut(&id)
            && running.child.pid() == pid
        {
            running.late = Some(timeout);
            let _ = running.child.kill();
        }
    }

    /// Whether it was one of these programs that ended.
    pub(super) fn health_command_ended(&mut self, ended: Ended) -> bool {
        let found = self.health_commands.iter().find(|(_, running)| running.child.pid() == ended.pid);
        let Some(id) = found.map(|(id, _)| *id) else { return false };
        let Some(running) = self.health_commands.remove(&id) else { return false };
        // Ended by what was sent to the whole unit, it says nothing of the worker.
        if let (None, End::Signal(number), false) = (running.late, ended.end, running.again)
            && process::concerns_the_unit(number)
            && self.run_health_command(id, running.purpose)
        {
            self.health_commands.entry(id).and_modify(|running| running.again = true);
            return true;
        }
        running.stderr.pump();
        let tail = running.stderr.tail();
        let verdict = match (running.late, ended.end) {
            (Some(timeout), _) => Err(format!("health.command did not end within {timeout:?}")),
            (None, End::Code(0)) => Ok(()),
            (None, end) => Err(match tail.reason() {
                Some(reason) => format!("health.command: {end}: {reason}"),
                None => format!("health.command: {end}"),
            }),
        };
        self.health_command_says(id, running.purpose, running.begun.elapsed(), verdict);
        true
    }

    fn health_command_says(&mut self, id: WorkerId, purpose: Purpose, took: Duration, verdict: Result<(), String>) {
        // A program that says nothing reliable of itself may be on its way still.
        let generation = self.workers.get(&id).and_then(|worker| self.generations.get(&worker.generation()));
        let says_ready = generation.and_then(|g| g.spec.as_ref()).is_none_or(|spec| spec.says_ready);
        if let Purpose::Judgement(Some(patience)) = purpose
            && let Some(patience) = patience.checked_sub(took + AGAIN).filter(|_| verdict.is_err() && !says_ready)
        {
            self.later(async move {
                sleep(AGAIN).await;
                Some(Message::JudgeAgain { worker: id, patience })
            });
            return;
        }
        let event = match (purpose, verdict) {
            (Purpose::Judgement(_), verdict) => WorkerEvent::Judged { verdict },
            (Purpose::Probe, Ok(())) => WorkerEvent::Probed(Finding::Well),
            (Purpose::Probe, Err(why)) => WorkerEvent::Probed(Finding::Ill(why)),
        };
        self.events.push_back(Event::Worker(id, event));
    }
}
