//! `reload.check`: the programs that are run before a reload loads a new generation, one at a time (Effect::Check). The core
//! decides which one runs, when its time is over, and what follows from its answer.
//!
//! Owns the program that runs, those that were ended and are not reaped, and the last lines of the last one that failed.
//! Nothing of a check outlives it: what a program leaves behind in its session is killed when it has ended.

use super::outbox::Outbox;
use super::program::{Program, Reads, ended_with_the_unit, kill_left_behind, last_lines, reason};
use crate::adapter::shlex;
use crate::app::Command;
use crate::printable::is_command;
use crate::process::{End, Ended, Tail};
use crate::supervisor::{Event, GenerationId};
use rustix::process::Pid;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

/// So many of its last lines are written to the log and sent to those who wait for the reload.
const LAST_LINES: usize = 20;
/// A longer command line is shown in part (characters).
const NAME_LENGTH: usize = 120;

/// The checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    running: Option<Running>,
    /// They were killed, and nobody waits for them.
    ending: Vec<Program>,
    failed: Option<(GenerationId, Vec<String>)>,
}

#[derive(Debug)]
struct Running {
    generation: GenerationId,
    command: Command,
    program: Program,
    timeout: Duration,
    /// It is the second one, in place of one that a signal to the whole unit has ended.
    again: bool,
}

impl Checks {
    /// Effect::Check: runs this program for a generation; its end answers.
    pub(super) fn run(&mut self, generation: GenerationId, command: &Command, timeout: Duration, outbox: &mut Outbox) {
        self.release_all();
        if let Err(why) = self.start(generation, command, timeout, false) {
            self.answer(generation, Err(format!("{}: {why}", named(command))), &Tail::default(), outbox);
        }
    }

    fn start(
        &mut self,
        generation: GenerationId,
        command: &Command,
        timeout: Duration,
        again: bool,
    ) -> Result<(), String> {
        let variables: BTreeMap<OsString, OsString> =
            [("SOCKD_GENERATION".into(), generation.to_string().into())].into();
        let program = Program::start(command, &variables, Reads::StdoutAndStderr)?;
        self.running = Some(Running { generation, command: command.clone(), program, timeout, again });
        Ok(())
    }

    /// Effect::EndCheck: its time is over. It answers at once, whatever becomes of the program.
    pub(super) fn end_late(&mut self, generation: GenerationId, outbox: &mut Outbox) {
        let Some(running) = self.running.take_if(|running| running.generation == generation) else { return };
        running.program.kill();
        let tail = running.program.tail();
        let why = format!("{} did not end within {:?}", named(&running.command), running.timeout);
        self.answer(generation, Err(with_reason(why, &tail)), &tail, outbox);
        self.ending.push(running.program);
    }

    /// Effect::Release: nobody waits any more.
    pub(super) fn release(&mut self, generation: GenerationId) {
        if self.running.as_ref().is_some_and(|running| running.generation == generation) {
            self.release_all();
        }
    }

    fn release_all(&mut self) {
        if let Some(running) = self.running.take() {
            running.program.kill();
            self.ending.push(running.program);
        }
    }

    /// Whether this process is one of these programs.
    pub(super) fn has_process(&self, pid: Pid) -> bool {
        let running = self.running.iter().map(|running| &running.program);
        running.chain(&self.ending).any(|program| program.pid() == pid)
    }

    /// Whether it was one of these programs that ended.
    pub(super) fn ended(&mut self, ended: Ended, outbox: &mut Outbox) -> bool {
        if !self.has_process(ended.pid) {
            return false;
        }
        kill_left_behind(ended.pid);
        self.ending.retain(|program| program.pid() != ended.pid);
        let Some(running) = self.running.take_if(|running| running.program.pid() == ended.pid) else { return true };
        let Running { generation, command, program, timeout, again } = running;
        if !again && ended_with_the_unit(ended.end) && self.start(generation, &command, timeout, true).is_ok() {
            return true;
        }
        let tail = program.tail();
        let verdict = match ended.end {
            End::Code(0) => Ok(()),
            end @ (End::Code(_) | End::Signal(_)) => Err(with_reason(format!("{}: {end}", named(&command)), &tail)),
        };
        self.answer(generation, verdict, &tail, outbox);
        true
    }

    fn answer(&mut self, generation: GenerationId, verdict: Result<(), String>, tail: &Tail, outbox: &mut Outbox) {
        if verdict.is_err() {
            let lines = last_lines(tail, LAST_LINES);
            for line in &lines {
                tracing::error!(SOCKD_EVENT = "check-output", SOCKD_GENERATION = generation.0, "reload.check: {line}");
            }
            self.failed = Some((generation, lines));
        }
        outbox.event(Event::Checked { generation, verdict });
    }

    /// The last lines of the check that refused this generation.
    pub(super) fn last_lines(&self, generation: GenerationId) -> Vec<String> {
        let failed = self.failed.as_ref().filter(|(of, _)| *of == generation);
        failed.map(|(_, lines)| lines.clone()).unwrap_or_default()
    }
}

/// A program as people know it: its command line, by the name of the program alone.
pub(super) fn name(command: &Command) -> String {
    let mut words: Vec<Cow<'_, str>> = command.arguments.iter().map(|word| word.to_string_lossy()).collect();
    if let (Some(first), Some(program)) = (words.first_mut(), command.arguments.first()) {
        let file = Path::new(program).file_name().unwrap_or(OsStr::new(""));
        *first = file.to_string_lossy();
    }
    let text: String =
        shlex::join(&words).chars().map(|letter| if is_command(letter) { ' ' } else { letter }).collect();
    match text.char_indices().nth(NAME_LENGTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn named(command: &Command) -> String {
    format!("reload.check ({})", name(command))
}

fn with_reason(why: String, tail: &Tail) -> String {
    match reason(tail) {
        Some(reason) => format!("{why}: {reason}"),
        None => why,
    }
}
