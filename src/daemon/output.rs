//! The output of workers and templates: what they write to stderr, to the log line by line, with what of it is kept back.

use super::repeats::Lines;
use crate::adapter::exec::TextAlias;
use crate::journal;
use crate::process::{Stderr, Tail};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The output of one process.
#[derive(Debug)]
pub(super) struct Output {
    stderr: Arc<Stderr>,
    lines: Arc<Lines>,
}

impl Output {
    /// A pipe whose lines are taken as these from here on, and the end to write to.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn follow(lines: Arc<Lines>) -> Result<(Self, OwnedFd), String> {
        let taken = Arc::clone(&lines);
        let (stderr, write) =
            Stderr::new(move |line| taken.take(line)).map_err(|error| format!("cannot make a pipe: {error}"))?;
        drop(tokio::spawn(Arc::clone(&stderr).follow(journal::is_congested)));
        Ok((Self { stderr, lines }, write))
    }

    /// Its lines name the files that the process knows by an alias. To be called before the process exists.
    pub(super) fn name_files(&self, alias: TextAlias) {
        self.stderr.edit_lines(move |line| alias.name_files(&line).into_owned());
    }

    /// Nothing of it is kept back any more.
    pub(super) fn pass_on(&self) {
        self.lines.give_up();
    }

    /// Its lines, of a process that has ended.
    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// The last lines, with those that were still in the pipe.
    pub(super) fn tail(&self) -> Tail {
        self.stderr.pump();
        self.stderr.tail()
    }
}
