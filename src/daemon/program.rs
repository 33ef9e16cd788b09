//! A program of the operator's that is run once: `health.command`, `reload.check`, `reload.after`. It runs like a worker, in
//! the directory and environment of a generation, and without a socket; its session is its own, so that what it has started
//! can be found.
//!
//! Owns the process, and the end of its output. Never: knows what the program is run for, or how long it may take.

use crate::app::Command;
use crate::process::{self, Child, End, LastOutput, SpawnRequest, Tail};
use rustix::process::{Pid, Signal, getpid};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use tokio::task::AbortHandle;

/// A longer line is quoted in part (characters).
const QUOTED: usize = 300;
/// So many lines make up a reason, at most; one that names an error is not followed by more.
const REASON_LINES: usize = 4;

/// Which of its output is read; the other goes where sockd's own goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Stderr,
    StdoutAndStderr,
}

/// A program that was started and has not been reaped.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    output: Arc<LastOutput>,
    reading: AbortHandle,
}

impl Program {
    /// Starts it, with these variables beside its own.
    pub(super) fn start(
        command: &Command,
        variables: &BTreeMap<OsString, OsString>,
        reads: Reads,
    ) -> Result<Self, String> {
        Self::try_start(command, variables, reads).map_err(|error| error.to_string())
    }

    fn try_start(command: &Command, variables: &BTreeMap<OsString, OsString>, reads: Reads) -> Result<Self, io::Error> {
        let (output, write) = LastOutput::new()?;
        let null = File::open("/dev/null")?;
        let spawn = SpawnRequest {
            command,
            environment: variables,
            descriptors: &[],
            listen_names: None,
            stderr: Some(write.as_fd()),
            pipes: (reads == Reads::StdoutAndStderr).then(|| (null.as_fd(), write.as_fd())),
            group: None,
            parent_death: Signal::KILL,
            sheltered: false,
        };
        let child = spawn.spawn().map_err(io::Error::other)?;
        let reading = tokio::spawn(Arc::clone(&output).follow()).abort_handle();
        Ok(Self { child, output, reading })
    }

    pub(super) fn pid(&self) -> Pid {
        self.child.pid()
    }

    /// Kills it with its descendants. It is to be reaped nevertheless.
    pub(super) fn kill(&self) {
        let _ = self.child.kill();
    }

    /// The end of its output so far.
    pub(super) fn tail(&self) -> Tail {
        self.output.tail()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What it has left behind may hold the pipe.
        self.reading.abort();
    }
}

/// Kills what a program has left behind, which was this process and was reaped: they are in its session, unless they have
/// made one of their own, and children of ours. The number names no other session as long as they live.
pub(super) fn kill_left_behind(leader: Pid) {
    let is_left = |pid: &Pid| process::session(*pid) == Some(leader);
    for pid in process::children(getpid()).into_iter().filter(is_left) {
        if let Ok(child) = Child::adopt(pid) {
            let _ = child.kill();
        }
    }
}

/// Whether a program was ended by what was sent to the whole unit, which says nothing of what it was run for.
pub(super) fn ended_with_the_unit(end: End) -> bool {
    matches!(end, End::Signal(number) if process::concerns_the_unit(number))
}

/// Why a program has failed, by its last lines: the one that names an error and what follows it, else the last ones.
pub(super) fn reason(tail: &Tail) -> Option<String> {
    let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let named = tail.error().map(|error| error.trim());
    let begins = |line: &&str| named.is_some_and(|error| line.starts_with(error));
    let from = lines.iter().rposition(begins).unwrap_or(lines.len().saturating_sub(REASON_LINES - 1));
    let parts: Vec<String> = lines.iter().skip(from).take(REASON_LINES).map(|line| quoted(line)).collect();
    (!parts.is_empty()).then(|| parts.join(" | "))
}

/// The last lines that are not empty, at most so many, each as it can be shown.
pub(super) fn last_lines(tail: &Tail, most: usize) -> Vec<String> {
    let lines: Vec<String> = tail.lines().filter(|line| !line.trim().is_empty()).map(quoted).collect();
    let skipped = lines.len().saturating_sub(most);
    lines.into_iter().skip(skipped).collect()
}

fn quoted(line: &str) -> String {
    match line.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str) -> Tail {
        let mut tail = Tail::default();
        text.lines().for_each(|line| tail.push(line.to_owned()));
        tail
    }

    #[test]
    fn the_reason_is_the_error_with_what_follows_it_or_the_last_lines() {
        for (text, expected) in [
            ("", None),
            ("\n \n", None),
            ("one\ntwo\n\nthree\nfour\n", Some("two | three | four")),
            ("begin\nTraceback (most recent call last):\n  File \"x\"\nValueError: bad\n", Some("ValueError: bad")),
            (
                "SystemCheckError: System check identified some issues:\n\nERRORS:\n?: (urls.E007) The handler\n\none issue\n",
                Some(
                    "SystemCheckError: System check identified some issues: | ERRORS: | ?: (urls.E007) The handler | one issue",
                ),
            ),
        ] {
            assert_eq!(reason(&tail(text)).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_quoted_is_bounded() {
        let long = tail(&format!("{}\n", "ä".repeat(9_000)).repeat(40));
        let lines = last_lines(&long, 20);
        assert_eq!(lines.len(), 20);
        assert!(lines.iter().all(|line| line.chars().count() == QUOTED + 3));
        assert!(reason(&long).is_some_and(|reason| reason.chars().count() < 1_000));
    }
}
