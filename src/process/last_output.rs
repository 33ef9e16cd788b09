//! What a program writes whose lines nobody passes on: only the end is kept, however much it writes. Reading costs nothing
//! but the copying: lines are cut when they are asked for.

use super::stderr::{Tail, clean, watch};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};
use tokio::io::unix::AsyncFd;

/// So much of the end is kept (bytes); twice of it is held at most.
const KEPT: usize = 16 << 10;
/// What is read in one go (bytes): a pipe holds that much (pipe(7)).
const CHUNK: usize = 64 << 10;
/// What is read of a program that has ended, which others may still be writing for.
const LAST_CHUNKS: usize = 4;

/// The reading end of a program's output, and the end of what came.
pub struct LastOutput {
    pipe: AsyncFd<OwnedFd>,
    end: Mutex<Vec<u8>>,
}

/// What came of reading once.
enum Read {
    Something,
    Nothing,
    End,
}

impl LastOutput {
    /// A pipe: its reading end, and the end to write to.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there are no descriptors left.
    pub fn new() -> io::Result<(Arc<Self>, OwnedFd)> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // The reading end alone: a program must be able to block in write.
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok((Arc::new(Self { pipe: watch(read)?, end: Mutex::default() }), write))
    }

    /// Reads until every writer is gone. Run it as a task, and end that with the program: what it has left behind may hold
    /// the pipe.
    pub async fn follow(self: Arc<Self>) {
        loop {
            let Ok(mut ready) = self.pipe.readable().await else { return };
            match self.read() {
                Read::Something => {}
                Read::Nothing => ready.clear_ready(),
                Read::End => return,
            }
            drop(ready);
            // One that writes without end must not keep the others waiting.
            tokio::task::yield_now().await;
        }
    }

    /// The last lines: with what is in the pipe at this moment.
    pub fn tail(&self) -> Tail {
        for _ in 0..LAST_CHUNKS {
            if !matches!(self.read(), Read::Something) {
                break;
            }
        }
        let end = self.end();
        let kept = &end[end.len().saturating_sub(KEPT)..];
        let mut tail = Tail::default();
        // A line whose beginning is gone is none, unless it is all that there is.
        let whole = match kept.iter().position(|byte| *byte == b'\n') {
            Some(first) if kept.len() < end.len() && first + 1 < kept.len() => &kept[first + 1..],
            Some(_) | None => kept,
        };
        whole.strip_suffix(b"\n").unwrap_or(whole).split(|byte| *byte == b'\n').for_each(|line| tail.push(clean(line)));
        tail
    }

    fn read(&self) -> Read {
        let mut chunk = [0; CHUNK];
        loop {
            return match rustix::io::read(pipe(&self.pipe), &mut chunk[..]) {
                Ok(0) => Read::End,
                Ok(count) => {
                    let mut end = self.end();
                    if end.len() > KEPT {
                        let old = end.len() - KEPT;
                        end.drain(..old);
                    }
                    end.extend_from_slice(&chunk[count.saturating_sub(KEPT)..count]);
                    Read::Something
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => Read::Nothing,
            };
        }
    }

    fn end(&self) -> MutexGuard<'_, Vec<u8>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pipe(pipe: &AsyncFd<OwnedFd>) -> BorrowedFd<'_> {
    pipe.get_ref().as_fd()
}

impl fmt::Debug for LastOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastOutput").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last lines of what is written, a chunk at a time, and how much was held at most.
    fn of(chunks: impl IntoIterator<Item = Vec<u8>>) -> (Vec<String>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (output, write) = LastOutput::new().expect("a pipe");
            let task = tokio::spawn(Arc::clone(&output).follow());
            let mut most = 0;
            for chunk in chunks {
                rustix::io::write(&write, &chunk).expect("it fits the pipe");
                assert!(matches!(output.read(), Read::Something | Read::Nothing));
                most = most.max(output.end().capacity());
            }
            drop(write);
            task.await.expect("it ends");
            (output.tail().lines().map(str::to_owned).collect(), most)
        })
    }

    #[test]
    fn short_output_is_kept_whole_and_cleaned() {
        assert_eq!(of([b"one\n\x1b[31mtwo\r\n".to_vec(), b"three".to_vec()]).0, ["one", "[31mtwo", "three"]);
        assert_eq!(of([]).0, [""]);
        assert_eq!(of([b"\n".to_vec()]).0, [""]);
    }

    #[test]
    fn of_much_output_the_end_is_kept_and_little_memory_taken() {
        let line = |number: usize| format!("line {number:05}\n").into_bytes();
        let chunks = (0..200).map(|chunk| (0..5000).flat_map(|n| line(chunk * 5000 % 90_000 + n)).collect());
        let (lines, most) = of(chunks);
        assert_eq!(lines.last().map(String::as_str), Some("line 09999"));
        assert_eq!(lines.len(), super::super::TAIL_LINES);
        assert!(lines.iter().all(|line| line.len() == 10), "no line is cut: {lines:?}");
        assert!(most <= 4 * KEPT, "{most} bytes");
    }

    #[test]
    fn a_line_without_an_end_is_quoted_by_its_end() {
        let (lines, most) = of((0..100).map(|_| vec![b'x'; CHUNK]));
        assert_eq!((lines.len(), lines[0].len()), (1, KEPT));
        assert!(most <= 4 * KEPT, "{most} bytes");
    }
}
