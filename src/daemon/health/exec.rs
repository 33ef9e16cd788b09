//! `health.command`: a program that is run to find out whether a worker is well, in place of an HTTP request.
//!
//! It runs like a worker, in the same directory and environment, with the worker's process id in SOCKD_WORKER_PID and
//! without a socket. At most one runs for each worker, and none outlives `health.timeout`.

use crate::app::Command;
use crate::daemon::message::Message;
use crate::daemon::outbox::Outbox;
use crate::daemon::program::{Program, Reads, ended_with_the_unit};
use crate::process::{End, Ended};
use crate::supervisor::{Answers, Event, ProbeOutcome, WorkerEvent, WorkerId};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two runs for a worker that may be on its way still.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Why a worker is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Effect::Judge: may its code serve? It may be asked for so long; None: once.
    Judgement(Option<Duration>),
    /// Effect::Probe: is it well?
    Probe,
}

/// The programs that run, at most one for each worker.
#[derive(Debug, Default)]
pub(in crate::daemon) struct HealthCommands(BTreeMap<WorkerId, Running>);

/// What is run, and for what.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// Then it is killed.
    pub(super) timeout: Duration,
    /// The worker's process, if it has one.
    pub(super) pid: Option<Pid>,
    /// Whether workers of its generation say when they are ready: one that does not may be on its way still.
    pub(super) says_ready: bool,
    pub(super) purpose: Purpose,
}

/// One of them.
#[derive(Debug)]
struct Running {
    request: Request,
    program: Program,
    begun: Instant,
    /// It was killed after its time.
    late: bool,
    /// It is the second one for the same question.
    again: bool,
}

impl HealthCommands {
    /// Whether this process is one of these programs.
    pub(in crate::daemon) fn has_process(&self, pid: Pid) -> bool {
        self.0.values().any(|running| running.program.pid() == pid)
    }

    /// Runs the program for this worker; its end answers.
    pub(super) fn run(&mut self, id: WorkerId, request: &Request, outbox: &mut Outbox) {
        if let Err(why) = self.spawn(id, request, false, outbox) {
            answer(id, request, Duration::ZERO, Err(format!("health.command: {why}")), outbox);
        }
    }

    fn spawn(&mut self, id: WorkerId, request: &Request, again: bool, outbox: &Outbox) -> Result<(), String> {
        let pid = request.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        let environment: BTreeMap<OsString, OsString> =
            [("SOCKD_WORKER_PID".into(), pid.to_string().into()), ("SOCKD_WORKER".into(), id.to_string().into())]
                .into();
        let program = Program::start(&request.command, &environment, Reads::Stderr)?;
        let (pid, timeout) = (program.pid(), request.timeout);
        self.0.insert(id, Running { request: request.clone(), program, begun: Instant::now(), late: false, again });
        outbox.later(async move {
            sleep(timeout).await;
            Some(Message::HealthCommandLate { worker: id, pid })
        });
        Ok(())
    }

    /// It had its time.
    pub(in crate::daemon) fn late(&mut self, id: WorkerId, pid: Pid) {
        if let Some(running) = self.0.get_mut(&id)
            && running.program.pid() == pid
        {
            running.late = true;
            running.program.kill();
        }
    }

    /// Whether it was one of these programs that ended.
    pub(in crate::daemon) fn ended(&mut self, ended: Ended, outbox: &mut Outbox) -> bool {
        let found = self.0.iter().find(|(_, running)| running.program.pid() == ended.pid);
        let Some(id) = found.map(|(id, _)| *id) else { return false };
        let Some(running) = self.0.remove(&id) else { return false };
        let Running { request, program, begun, late, again } = running;
        // Ended by what was sent to the whole unit, it says nothing of the worker.
        if !late && !again && ended_with_the_unit(ended.end) && self.spawn(id, &request, true, outbox).is_ok() {
            return true;
        }
        let tail = program.tail();
        let verdict = match (late, ended.end) {
            (true, _) => Err(format!("health.command did not end within {:?}", request.timeout)),
            (false, End::Code(0)) => Ok(()),
            (false, end) => Err(match tail.reason() {
                Some(reason) => format!("health.command: {end}: {reason}"),
                None => format!("health.command: {end}"),
            }),
        };
        answer(id, &request, begun.elapsed(), verdict, outbox);
        true
    }
}

/// Reports what came of the program, which took so long, or has it run again where the worker may be on its way still.
fn answer(id: WorkerId, request: &Request, took: Duration, verdict: Result<(), String>, outbox: &mut Outbox) {
    if let Purpose::Judgement(Some(patience)) = request.purpose
        && let Some(patience) =
            patience.checked_sub(took + RETRY_INTERVAL).filter(|_| verdict.is_err() && !request.says_ready)
    {
        outbox.later(async move {
            sleep(RETRY_INTERVAL).await;
            Some(Message::JudgeAgain { worker: id, patience })
        });
        return;
    }
    let event = match (request.purpose, verdict) {
        (Purpose::Judgement(_), verdict) => WorkerEvent::Judged { verdict, answers: Answers::default() },
        (Purpose::Probe, Ok(())) => WorkerEvent::Probed(ProbeOutcome::Healthy),
        (Purpose::Probe, Err(why)) => WorkerEvent::Probed(ProbeOutcome::BadAnswer(why)),
    };
    outbox.event(Event::Worker(id, event));
}
