//! `reload.after`: a program that is run when a reload has ended, and finds the outcome in its environment. Nothing waits
//! for it, and nothing follows from it but a warning.
//!
//! Owns the program that runs, and those that wait for their turn, bounded in number: one at a time, in the order of the
//! reloads.

use super::message::Message;
use super::outbox::Outbox;
use super::program::{Program, Reads, kill_left_behind, reason};
use crate::app::Command;
use crate::process::{End, Ended};
use crate::supervisor::GenerationId;
use rustix::process::Pid;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::time::Duration;
use tokio::time::sleep;

/// It may take so long.
const TIMEOUT: Duration = Duration::from_secs(60);
/// So many may wait for their turn.
const MAX_WAITING: usize = 16;

/// The runs of the program.
#[derive(Debug, Default)]
pub(super) struct AfterReload {
    running: Option<Running>,
    waiting: VecDeque<Run>,
}

/// One run: of which command, and with which outcome.
#[derive(Debug)]
struct Run {
    generation: GenerationId,
    command: Command,
    variables: BTreeMap<OsString, OsString>,
}

#[derive(Debug)]
struct Running {
    generation: GenerationId,
    program: Program,
    late: bool,
}

impl AfterReload {
    /// Effect::RunAfterReload: runs the command when its turn has come.
    pub(super) fn run(
        &mut self,
        command: &Command,
        generation: GenerationId,
        verdict: &Result<(), String>,
        unit: Option<&str>,
        outbox: &Outbox,
    ) {
        if self.waiting.len() == MAX_WAITING {
            warn(generation, &format!("it is not run: {MAX_WAITING} runs wait for their turn"));
            return;
        }
        let result = if verdict.is_ok() { "taken-over" } else { "refused" };
        // No variable can hold a zero byte.
        let why = verdict.as_ref().err().map_or_else(String::new, |why| why.replace('\0', ""));
        let variables = [
            ("SOCKD_RELOAD_RESULT", result.to_owned()),
            ("SOCKD_RELOAD_REASON", why),
            ("SOCKD_GENERATION", generation.to_string()),
            ("SOCKD_UNIT", unit.unwrap_or_default().to_owned()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.waiting.push_back(Run { generation, command: command.clone(), variables });
        self.start_next(outbox);
    }

    fn start_next(&mut self, outbox: &Outbox) {
        while self.running.is_none()
            && let Some(Run { generation, command, variables }) = self.waiting.pop_front()
        {
            match Program::start(&command, &variables, Reads::StdoutAndStderr) {
                Err(why) => warn(generation, &why),
                Ok(program) => {
                    let pid = program.pid();
                    self.running = Some(Running { generation, program, late: false });
                    outbox.later(async move {
                        sleep(TIMEOUT).await;
                        Some(Message::AfterReloadLate { pid })
                    });
                }
            }
        }
    }

    /// It had its time.
    pub(super) fn late(&mut self, pid: Pid) {
        if let Some(running) = self.running.as_mut().filter(|running| running.program.pid() == pid) {
            running.late = true;
            running.program.kill();
        }
    }

    /// Whether this process is the program.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        self.running.as_ref().is_some_and(|running| running.program.pid() == pid)
    }

    /// Whether it was the program that ended.
    pub(super) fn ended(&mut self, ended: Ended, outbox: &Outbox) -> bool {
        let Some(running) = self.running.take_if(|running| running.program.pid() == ended.pid) else { return false };
        kill_left_behind(ended.pid);
        let said = reason(&running.program.tail()).map(|reason| format!(": {reason}")).unwrap_or_default();
        match (running.late, ended.end) {
            (true, _) => warn(running.generation, &format!("it did not end within {TIMEOUT:?}{said}")),
            (false, End::Code(0)) => {}
            (false, end) => warn(running.generation, &format!("{end}{said}")),
        }
        self.start_next(outbox);
        true
    }
}

fn warn(generation: GenerationId, why: &str) {
    tracing::warn!(
        SOCKD_EVENT = "after-reload-failed",
        SOCKD_GENERATION = generation.0,
        "reload.after: {why}, ignoring"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, waitpid};
    use tokio::sync::mpsc;

    #[test]
    fn one_runs_at_a_time_in_order_within_its_time_and_no_more_than_so_many_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (sender, _inbox) = mpsc::channel(1);
            let outbox = Outbox::new(sender);
            let command = Command {
                program: "/bin/sleep".into(),
                arguments: ["sleep", "3600"].map(Into::into).into(),
                launcher: Vec::new(),
                directory: "/".into(),
                environment: BTreeMap::new(),
            };
            let mut after = AfterReload::default();
            for generation in 1..=20 {
                after.run(&command, GenerationId(generation), &Ok(()), None, &outbox);
            }
            for generation in 1..=2 {
                assert_eq!(after.waiting.len() + generation as usize, MAX_WAITING + 1);
                let running = after.running.as_ref().expect("it sleeps");
                assert_eq!(running.generation, GenerationId(generation));
                let pid = running.program.pid();
                if generation == 2 {
                    after.waiting.clear();
                }
                after.late(pid);
                let (ended, _) = waitpid(Some(pid), WaitOptions::empty()).expect("ours").expect("it was killed");
                assert!(after.ended(Ended { pid: ended, end: End::Signal(9) }, &outbox));
            }
            assert!(after.running.is_none());
        });
    }
}
