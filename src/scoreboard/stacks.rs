//! The stacks of a worker's threads, as it writes them when it is sent the signal that its page names.
//!
//! It writes them with write(2) to its descriptor, from the offset on that it finds there: sockd's descriptor has the same
//! one (open(2): both are of one open file description), and sets it. The text is one block of lines for each thread, with
//! an empty line between two; the first line of a block has the thread's number, as in its request slots, in hexadecimal
//! digits behind `0x`. That is how Python's faulthandler writes them.

use super::{PAGE, STACKS, Scoreboard, requests::harmless};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::io;
use std::num::NonZeroU64;
use std::time::Duration;

/// A worker writes its stacks within this time, or is too busy to.
const STACKS_TIMEOUT: Duration = Duration::from_secs(2);
/// It has written them once nothing has come for so long.
const STACKS_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// So many lines of a thread are kept: the innermost calls.
const MAX_LINES: usize = 40;
/// So many threads are kept.
const MAX_THREADS: usize = 64;

/// The stack of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStack {
    /// Its number; `None` where the worker has written none.
    pub thread: Option<NonZeroU64>,
    /// Its lines, made harmless: the first one names the thread, the innermost call comes next. 41 at most.
    pub lines: Vec<String>,
}

impl Scoreboard {
    /// Forgets what stacks the worker has written. What it writes from now on is read by [`Scoreboard::written_stacks`].
    ///
    /// # Errors
    /// ENOMEM.
    pub fn clear_stacks(&self) -> io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, hole, PAGE as u64, STACKS as u64)?;
        rustix::fs::seek(&self.file, SeekFrom::Start(PAGE as u64))?;
        Ok(())
    }

    /// Waits until the worker has written its stacks, two seconds at most, and gives their memory back. Empty: it has
    /// written none.
    pub async fn written_stacks(&self) -> Vec<ThreadStack> {
        let looks = STACKS_TIMEOUT.as_millis() / STACKS_POLL_INTERVAL.as_millis();
        let mut seen = Vec::new();
        for _ in 0..looks {
            tokio::time::sleep(STACKS_POLL_INTERVAL).await;
            let stacks = self.stacks();
            if !stacks.is_empty() && stacks == seen {
                break;
            }
            seen = stacks;
        }
        let _ = self.clear_stacks();
        seen
    }

    /// The stacks that it has written so far, of 64 threads at most.
    pub fn stacks(&self) -> Vec<ThreadStack> {
        let mut text = vec![0; STACKS];
        let length = rustix::io::pread(&self.file, &mut text, PAGE as u64).unwrap_or(0);
        let end = text.iter().take(length).position(|byte| *byte == 0).unwrap_or(length);
        threads(&String::from_utf8_lossy(&text[..end]))
    }
}

fn threads(text: &str) -> Vec<ThreadStack> {
    let blocks = text.split("\n\n").map(|block| block.trim_matches('\n')).filter(|block| !block.is_empty());
    blocks.take(MAX_THREADS).map(thread).collect()
}

fn thread(block: &str) -> ThreadStack {
    let mut lines: Vec<String> = block.lines().take(MAX_LINES + 1).map(|line| harmless(line.as_bytes())).collect();
    if block.lines().count() > lines.len() {
        lines.pop();
        lines.push("  ...".to_owned());
    }
    let number = block.split_once("0x").map_or("", |(_, rest)| rest);
    let end = number.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(number.len());
    let thread = u64::from_str_radix(&number[..end], 16).ok().and_then(NonZeroU64::new);
    ThreadStack { thread, lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "Thread 0x00007f0000000001 [pool-1] (most recent call first):\n  File \"/srv/shop/views.py\", line 7 in \
                           report\n  File \"/srv/\x1b[2J.py\", line 3 in f\n\nCurrent thread 0x2a (most recent call first):\n  \
                           File \"a.py\", line 1 in <module>\n";

    #[tokio::test]
    async fn what_a_worker_writes_is_read_thread_by_thread_and_its_memory_given_back() {
        let scoreboard = Scoreboard::new().unwrap();
        let worker = rustix::io::dup(&scoreboard.file).unwrap();
        for _ in 0..2 {
            scoreboard.clear_stacks().unwrap();
            rustix::io::write(&worker, WRITTEN.as_bytes()).unwrap();
            let stacks = scoreboard.written_stacks().await;
            assert_eq!(
                stacks.iter().map(|stack| stack.thread.map(u64::from)).collect::<Vec<_>>(),
                [Some(0x7f00_0000_0001), Some(42)]
            );
            assert_eq!(
                stacks[0].lines[1..],
                ["  File \"/srv/shop/views.py\", line 7 in report", "  File \"/srv/\u{fffd}[2J.py\", line 3 in f"]
            );
        }
        assert_eq!(rustix::fs::fstat(&scoreboard.file).unwrap().st_blocks, 0);
    }

    #[tokio::test]
    async fn a_worker_that_writes_too_much_or_nothing_is_bounded() {
        let scoreboard = Scoreboard::new().unwrap();
        scoreboard.clear_stacks().unwrap();
        assert_eq!(scoreboard.written_stacks().await, []);
        let flood = "0x1 \n\n".repeat(STACKS) + &"line\n".repeat(STACKS);
        assert_eq!(threads(&flood).len(), MAX_THREADS);
        let flood = "line\n".repeat(STACKS);
        assert_eq!(threads(&flood)[0].lines.len(), MAX_LINES + 1);
        assert_eq!(threads(&flood)[0].lines.last().map(String::as_str), Some("  ..."));
        scoreboard.clear_stacks().unwrap();
        assert_eq!(rustix::io::write(&scoreboard.file, flood.as_bytes()), Ok(STACKS), "the length is fixed");
        assert!(rustix::io::write(&scoreboard.file, b"more").is_err());
        assert_eq!(scoreboard.stacks(), threads(&flood));
    }
}
