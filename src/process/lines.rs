//! What a worker writes to its stderr, line by line; the last lines are kept, so that a worker that dies can be quoted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// How many lines are kept of each worker.
pub const TAIL_LINES: usize = 50;
/// A longer line is cut into several (bytes).
const LINE_LIMIT: usize = 8 << 10;

/// The reading end of a pipe, by lines.
#[derive(Debug)]
pub struct Lines {
    pipe: pipe::Receiver,
    buffer: Vec<u8>,
}

impl Lines {
    /// A pipe: its lines, and the end to write to.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there are no descriptors left.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // The reading end alone: a worker must be able to block in write.
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Self { pipe: pipe::Receiver::from_owned_fd(read)?, buffer: Vec::new() }, write))
    }

    /// The next line without its end; None when every writer is gone. What is not UTF-8 is replaced, control
    /// characters but the tab are dropped, trailing white space too.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(clean(&line[..end]));
            }
            if self.buffer.len() >= LINE_LIMIT {
                let line: Vec<u8> = self.buffer.drain(..LINE_LIMIT).collect();
                return Some(clean(&line));
            }
            let mut chunk = [0; 4096];
            match self.pipe.read(&mut chunk).await {
                Ok(count) if count > 0 => self.buffer.extend_from_slice(&chunk[..count]),
                Ok(_) | Err(_) if self.buffer.is_empty() => return None,
                Ok(_) | Err(_) => return Some(clean(&std::mem::take(&mut self.buffer))),
            }
        }
    }
}

fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    text.trim_end().to_owned()
}

/// The last lines of one worker.
#[derive(Clone, Debug, Default)]
pub struct Tail(VecDeque<String>);

impl Tail {
    /// Takes note of a line.
    pub fn push(&mut self, line: String) {
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// Oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The line that says most about a failure: the last one that names an error, such as the end of a traceback; else
    /// the last line that is not empty.
    pub fn reason(&self) -> Option<&str> {
        let names_an_error = |line: &&str| {
            let word = line.split([':', ' ']).next().unwrap_or_default();
            let last = word.rsplit('.').next().unwrap_or_default();
            last.ends_with("Error") || last.ends_with("Exception") || last == "SystemExit" || last == "error"
        };
        self.lines().rev().find(names_an_error).or_else(|| self.lines().rev().find(|line| !line.trim().is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_end_of_a_traceback() {
        let mut tail = Tail::default();
        for line in [
            "[2026-11-23 13:00:00 +0000] [7] [ERROR] Exception in worker process",
            "Traceback (most recent call last):",
            "  File \"x.py\", line 1, in <module>",
            "ModuleNotFoundError: No module named 'myproject'",
            "[2026-11-23 13:00:00 +0000] [7] [INFO] Worker exiting (pid: 7)",
            "",
        ] {
            tail.push(line.to_owned());
        }
        assert_eq!(tail.reason(), Some("ModuleNotFoundError: No module named 'myproject'"));
    }

    #[test]
    fn without_an_error_the_last_word_counts_and_the_tail_is_bounded() {
        let mut tail = Tail::default();
        for number in 0..1000 {
            tail.push(format!("line {number}"));
        }
        tail.push(String::new());
        assert_eq!(tail.reason(), Some("line 999"));
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert_eq!(tail.lines().next(), Some("line 951"));
    }

    #[test]
    fn lines_are_cleaned() {
        assert_eq!(clean(b"a\x1b[31mb\tc\r"), "a[31mb\tc");
        assert_eq!(clean(b"\xff ok"), "\u{fffd} ok");
    }

    #[test]
    fn a_pipe_gives_lines_and_cuts_long_ones() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (mut lines, write) = Lines::new().expect("a pipe");
            let text = format!("one\n\ntwo\n{}", "x".repeat(LINE_LIMIT + 3));
            rustix::io::write(&write, text.as_bytes()).expect("it fits the pipe");
            drop(write);
            let mut all = Vec::new();
            while let Some(line) = lines.next().await {
                all.push(line);
            }
            assert_eq!(all[..3], ["one", "", "two"]);
            assert_eq!(all[3].len(), LINE_LIMIT);
            assert_eq!(all[4], "xxx");
            assert_eq!(all.len(), 5);
        });
    }
}
