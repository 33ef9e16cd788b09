//! What a process writes to its stderr, line by line; the last lines are kept, so that one that dies can be quoted.

use super::reason::{Reason, last_word};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// How many lines are kept of each process.
pub const TAIL_LINES: usize = 50;
/// A longer line is cut into several (bytes).
const LINE_LIMIT: usize = 8 << 10;
/// How much of a line is quoted (characters); the log has it in full.
const QUOTED: usize = 400;
/// What is read in one go (bytes). Everybody else waits meanwhile, and each line costs a message to the log, which may
/// be slow: a process that writes short lines without end must not keep them waiting for long.
const CHUNK: usize = 8 << 10;
/// Between two looks whether lines are taken again.
const READ_INTERVAL: Duration = Duration::from_millis(2);
/// What is read of a dead process before it is quoted: more than a pipe holds (pipe(7): 64 KiB).
const LAST_CHUNKS: usize = 32;

/// The reading end of a process's stderr.
pub struct Stderr {
    pipe: AsyncFd<OwnedFd>,
    state: Mutex<State>,
    edit: OnceLock<Box<Edit>>,
    on_line: Box<dyn Fn(&str) + Send + Sync>,
}

/// Makes of a line what is passed on and quoted.
type Edit = dyn Fn(String) -> String + Send + Sync;

/// Whether there was something to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Something,
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    /// Lines that were not passed on yet: of one chunk.
    pending: VecDeque<String>,
    tail: Tail,
    ended: bool,
}

impl Stderr {
    /// A pipe: its reading end, and the end to write to. `on_line` gets each line without its end; what is not UTF-8
    /// is replaced, control characters but the tab are dropped, trailing white space too.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there are no descriptors left.
    pub fn new(on_line: impl Fn(&str) + Send + Sync + 'static) -> io::Result<(Arc<Self>, OwnedFd)> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // The reading end alone: a worker must be able to block in write.
        rustix::io::ioctl_fionbio(&read, true)?;
        let stderr =
            Self { pipe: watch(read)?, state: Mutex::default(), edit: OnceLock::new(), on_line: Box::new(on_line) };
        Ok((Arc::new(stderr), write))
    }

    /// Lines are passed on and quoted as `edit` makes them. To be called once, before the process exists.
    pub fn edit_lines(&self, edit: impl Fn(String) -> String + Send + Sync + 'static) {
        let _ = self.edit.set(Box::new(edit));
    }

    /// Reads until every writer is gone. Run it as a task. While `congested` says so nothing is passed on and nothing read:
    /// a process that writes faster than its lines are taken waits in its write.
    pub async fn follow(self: Arc<Self>, congested: fn() -> bool) {
        loop {
            while congested() {
                tokio::time::sleep(READ_INTERVAL).await;
            }
            // One line may be all that there is room for.
            if self.pass_on() {
                continue;
            }
            if self.state().ended {
                return;
            }
            let Ok(mut ready) = self.pipe.readable().await else { return };
            if self.read() == Read::Nothing {
                ready.clear_ready();
            }
            drop(ready);
            tokio::task::yield_now().await;
        }
    }

    /// Reads what is there at this moment, and passes it on without waiting. Called before a dead process is quoted, since
    /// its last lines may still be in the pipe.
    pub fn pump(&self) {
        while self.pass_on() {}
        for _ in 0..LAST_CHUNKS {
            let read = self.read();
            while self.pass_on() {}
            if read == Read::Nothing {
                return;
            }
        }
    }

    /// Reads a chunk, and cuts it into lines.
    fn read(&self) -> Read {
        let mut chunk = [0; CHUNK];
        loop {
            match rustix::io::read(self.pipe.as_fd(), &mut chunk[..]) {
                Ok(count) => {
                    self.state().take(&chunk[..count], self.edit.get().map(Box::as_ref));
                    return if count == 0 { Read::Nothing } else { Read::Something };
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Read::Nothing,
            }
        }
    }

    /// Passes a line on; false if there was none.
    fn pass_on(&self) -> bool {
        let Some(line) = self.state().pending.pop_front() else { return false };
        (self.on_line)(&line);
        true
    }

    /// The last lines so far.
    pub fn tail(&self) -> Tail {
        self.state().tail.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cuts what came into lines; nothing means that nothing more will come.
    fn take(&mut self, chunk: &[u8], edit: Option<&Edit>) {
        self.ended = chunk.is_empty();
        self.rest.extend_from_slice(chunk);
        let mut taken = 0;
        loop {
            let rest = &self.rest[taken..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (length, skip) = match end {
                Some(end) if end <= LINE_LIMIT => (end, end + 1),
                Some(_) | None if rest.len() >= LINE_LIMIT => (LINE_LIMIT, LINE_LIMIT),
                Some(_) | None if self.ended && !rest.is_empty() => (rest.len(), rest.len()),
                Some(_) | None => break,
            };
            let mut line = clean(&rest[..length]);
            if let Some(edit) = edit {
                line = edit(line);
            }
            taken += skip;
            self.tail.push(line.clone());
            self.pending.push_back(line);
        }
        self.rest.drain(..taken);
    }
}

impl fmt::Debug for Stderr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stderr").field("state", &self.state).finish_non_exhaustive()
    }
}

#[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, OwnedFd ensures")]
pub(super) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// A line as it is shown: what is not UTF-8 is replaced, control characters but the tab are dropped.
pub(super) fn clean(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text: String = text.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    text.trim_end().to_owned()
}

/// The last lines of one worker.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    reason: Reason,
}

impl Tail {
    /// Takes note of a line.
    pub fn push(&mut self, line: String) {
        self.reason.push(&line);
        if self.lines.len() == TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.lines.iter().map(String::as_str)
    }

    /// The line that says most about a failure: the one that names an error, else the last word.
    pub fn reason(&self) -> Option<&str> {
        self.error().or_else(|| last_word(self.lines()).map(beginning))
    }

    /// The line that names an error, in the habit of its language.
    pub fn error(&self) -> Option<&str> {
        self.reason.named().map(beginning)
    }
}

/// So much of a line as can be quoted: Ruby's errors show the whole object that they are about.
fn beginning(line: &str) -> &str {
    line.char_indices().nth(QUOTED).map_or(line, |(end, _)| line[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe, its writing end, and the lines that came.
    fn collected() -> (Arc<Stderr>, OwnedFd, Arc<Mutex<Vec<String>>>) {
        let all = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&all);
        let (stderr, write) =
            Stderr::new(move |line| sink.lock().expect("one thread").push(line.to_owned())).expect("a pipe");
        (stderr, write, all)
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
    fn a_long_line_is_quoted_in_part() {
        let mut tail = Tail::default();
        tail.push(format!("ValueError: {}", "ä".repeat(4000)));
        let quoted = tail.error().expect("an error");
        assert!(quoted.starts_with("ValueError: ää") && quoted.chars().count() == QUOTED, "{quoted}");
        assert_eq!(tail.reason(), Some(quoted));
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
            let (stderr, write, all) = collected();
            let text = format!("one\n\ntwo\n{}", "x".repeat(LINE_LIMIT + 3));
            rustix::io::write(&write, text.as_bytes()).expect("it fits the pipe");
            stderr.pump();
            assert_eq!(all.lock().expect("one thread").len(), 4, "the last line has no end yet");
            drop(write);
            Arc::clone(&stderr).follow(|| false).await;
            let all = all.lock().expect("one thread");
            assert_eq!(all[..3], ["one", "", "two"]);
            assert_eq!(all[3].len(), LINE_LIMIT);
            assert_eq!(all[4..], ["xxx"]);
            assert_eq!(stderr.tail().lines().count(), 5);
        });
    }

    #[test]
    fn lines_are_logged_and_quoted_as_they_were_edited() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (stderr, write, all) = collected();
            stderr.edit_lines(|line| line.replace("fd/5", "file"));
            rustix::io::write(&write, b"Error: fd/5:7\n").expect("it fits the pipe");
            stderr.pump();
            assert_eq!(*all.lock().expect("one thread"), ["Error: file:7"]);
            assert_eq!(stderr.tail().reason(), Some("Error: file:7"));
        });
    }

    #[test]
    fn lines_wait_for_a_log_that_is_at_work_one_by_one_and_those_of_the_dead_do_not() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static ROOM: AtomicUsize = AtomicUsize::new(0);
        let full = || ROOM.load(Ordering::Relaxed) == 0;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let count = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&count);
            let on_line = move |_: &str| {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = ROOM.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1));
            };
            let (stderr, write) = Stderr::new(on_line).expect("a pipe");
            rustix::io::write(&write, &b"z\n".repeat(20_000)).expect("it fits the pipe");
            let task = tokio::spawn(Arc::clone(&stderr).follow(full));
            for passed in [1000, 2500] {
                ROOM.store(passed - count.load(Ordering::Relaxed), Ordering::Relaxed);
                while count.load(Ordering::Relaxed) < passed {
                    tokio::task::yield_now().await;
                }
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(count.load(Ordering::Relaxed), passed);
            }
            stderr.pump();
            assert_eq!(count.load(Ordering::Relaxed), 20_000);
            drop(write);
            ROOM.store(1, Ordering::Relaxed);
            task.await.expect("it ends");
        });
    }
}
