//! A worker's scoreboard: a page of memory in which it shows how it is, for others to read. A write to it wakes nobody.
//!
//! Owns: the file in memory (memfd_create(2)) behind the page, and its layout. Never: believes it. The worker is its only
//! writer and may write anything: what comes of it concerns that worker alone. It is read by pread(2), so that nothing a
//! worker does to the file can harm the reader.
//!
//! The page holds words of 64 bits in the byte order of the machine, each written at once:
//!
//! ```text
//!   0  the version of this layout, 1; 0 until the worker has written anything
//!   1  when it last beat: CLOCK_MONOTONIC (clock_gettime(2)) in nanoseconds; 0: it has not yet
//!   2  how many requests it has finished since it was born; all bits: it does not count them
//! ```

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The length of the page, in bytes.
const LENGTH: usize = 4096;
const VERSION: u64 = 1;
const WORDS: usize = 3;

/// A worker's page.
#[derive(Debug)]
pub struct Scoreboard {
    file: OwnedFd,
}

/// What a worker shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How long ago it last beat. None: it has not. One that claims the future beat just now.
    pub heartbeat: Option<Duration>,
    /// How many requests it has finished since it was born. None: it does not count them.
    pub requests: Option<u64>,
}

impl Scoreboard {
    /// A page on which nothing is written. Its length is fixed (F_SEAL_SHRINK, F_SEAL_GROW).
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM.
    pub fn new() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("sockd-scoreboard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, LENGTH as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file })
    }

    /// What the worker shows now; nothing, where it has written none of it or in another layout.
    pub fn read(&self) -> Reading {
        let mut bytes = [0_u8; WORDS * size_of::<u64>()];
        match rustix::io::pread(&self.file, &mut bytes, 0) {
            Ok(length) if length == bytes.len() => {}
            Ok(_) | Err(_) => return Reading::default(),
        }
        let (words, _) = bytes.as_chunks();
        let word = |index: usize| words.get(index).copied().map_or(0, u64::from_ne_bytes);
        let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        interpret([word(0), word(1), word(2)], now)
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn interpret([version, beat, requests]: [u64; WORDS], now: Duration) -> Reading {
    if version != VERSION {
        return Reading::default();
    }
    Reading {
        heartbeat: (beat != 0).then(|| now.saturating_sub(Duration::from_nanos(beat))),
        requests: (requests != u64::MAX).then_some(requests),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(scoreboard: &Scoreboard, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(rustix::io::pwrite(&scoreboard.file, &bytes, 0), Ok(bytes.len()));
    }

    #[test]
    fn a_page_shows_what_was_written_and_nothing_before() {
        let scoreboard = Scoreboard::new().unwrap();
        assert_eq!(scoreboard.read(), Reading::default());
        write(&scoreboard, &[VERSION, 1, 7]);
        let reading = scoreboard.read();
        assert!(reading.heartbeat.is_some_and(|ago| ago > Duration::ZERO), "{reading:?}");
        assert_eq!(reading.requests, Some(7));
        write(&scoreboard, &[VERSION + 1]);
        assert_eq!(scoreboard.read(), Reading::default(), "the layout is unknown");
    }

    #[test]
    fn a_beat_is_so_long_ago_and_never_in_the_future() {
        let now = Duration::from_secs(10);
        let ago = |beat| interpret([VERSION, beat, u64::MAX], now).heartbeat;
        assert_eq!(ago(0), None);
        assert_eq!(ago(7_500_000_000), Some(Duration::from_millis(2_500)));
        assert_eq!(ago(u64::MAX), Some(Duration::ZERO));
        assert_eq!(interpret([VERSION, 1, u64::MAX], now).requests, None);
    }

    #[test]
    fn a_worker_cannot_change_the_length() {
        let scoreboard = Scoreboard::new().unwrap();
        for length in [0, 8, 1 << 30] {
            assert_eq!(rustix::fs::ftruncate(&scoreboard.file, length), Err(rustix::io::Errno::PERM));
        }
        assert!(rustix::io::pwrite(&scoreboard.file, &[1], LENGTH as u64).is_err());
    }
}
