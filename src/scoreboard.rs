//! A worker's scoreboard: memory in which it shows how it is, which requests it serves, what became of those it has served, and,
//! when it is asked, the stacks of its threads. A write to it wakes nobody. sockd-scoreboard(5) is for those who write one.
//!
//! Owns: the file in memory (memfd_create(2)), and its layout. Never: believes it. The worker is its only writer and may write
//! anything: what comes of it concerns that worker alone. It is read by pread(2), so that nothing a worker does to the file
//! can harm the reader; what it says is bounded, and its text made harmless.
//!
//! The file begins with a page of words of 64 bits in the byte order of the machine, each written at once. `scoreboard.py`
//! writes it:
//!
//! ```text
//!   0        the version of this layout, 3; 0 until the worker has written anything
//!   1        when it last beat: CLOCK_MONOTONIC (clock_gettime(2)) in nanoseconds; 0: it has not yet
//!   2        whether it shows its requests: 0 or 1. What follows has a meaning only where it is 1, but for word 5
//!   3        how many requests it serves that have found no slot below
//!   4        how many WebSockets are open
//!   5        the signal that has it write the stacks of its threads; 0: none does
//!   6        how long all requests took together that are finished, in nanoseconds
//!   7        0
//!   8        how many requests are finished: 6 rows of 47 words. A row for those without an answer (the visitor left), then
//!            one for each hundred of the status, 1 to 5. In a row, by how long it took: [`BOUNDS`] divides
//!   290      15 slots for requests that it serves, 112 bytes each: when it began (CLOCK_MONOTONIC, nanoseconds; 0: the slot
//!            is free), written first and taken away first; the thread that serves it, as the stacks name it (0: none does
//!            so alone); then 8 bytes for the method and 88 for the path without its query, cut there, filled up with zeros
//!   500      the last request that was answered with a status from 500 to 599: its method and its path, as in a slot; zeros:
//!            there was none, or it is not known
//! ```
//!
//! Behind the page are 64 KiB for the stacks (stacks.rs).

mod requests;
mod stacks;

pub use self::requests::{BOUNDS, Finished, InFlight, Requests};
pub use self::stacks::ThreadStack;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The length of the page, in bytes.
const PAGE: usize = 4096;
/// The length of what is behind it, in bytes.
const STACKS: usize = 64 * 1024;
const VERSION: u64 = 3;

/// A worker's page, and the place for its stacks.
#[derive(Debug)]
pub struct Scoreboard {
    file: OwnedFd,
}

/// What a worker shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// How long ago it last beat. None: it has not. One that claims the future beat just now.
    pub heartbeat: Option<Duration>,
    /// The signal that has it write the stacks of its threads, by number. None: none does.
    pub stack_signal: Option<i32>,
    /// Its requests. None: it does not show them.
    pub requests: Option<Requests>,
}

impl Scoreboard {
    /// A file in which nothing is written. Its length is fixed (F_SEAL_SHRINK, F_SEAL_GROW).
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM.
    pub fn new() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("sockd-scoreboard", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, (PAGE + STACKS) as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file })
    }

    /// What the worker shows now; nothing, where it has written none of it or in another layout.
    pub fn read(&self) -> Reading {
        let Some(page) = self.page() else { return Reading::default() };
        let (words, _) = page.as_chunks();
        let word = |index: usize| words.get(index).copied().map_or(0, u64::from_ne_bytes);
        if word(0) != VERSION {
            return Reading::default();
        }
        let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
        let heartbeat = (word(1) != 0).then(|| ago(word(1), now));
        let stack_signal = i32::try_from(word(5)).ok().filter(|signal| *signal != 0);
        // A slot that has changed hands while the page was read shows half of one request, and half of another.
        let requests = (word(2) == 1).then(|| Requests::read(&page, || self.page(), now));
        Reading { heartbeat, stack_signal, requests }
    }

    fn page(&self) -> Option<[u8; PAGE]> {
        let mut page = [0_u8; PAGE];
        (rustix::io::pread(&self.file, &mut page, 0) == Ok(PAGE)).then_some(page)
    }
}

impl AsFd for Scoreboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How long ago it was; a time to come is now.
fn ago(nanoseconds: u64, now: Duration) -> Duration {
    now.saturating_sub(Duration::from_nanos(nanoseconds))
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
        write(&scoreboard, &[VERSION, 1, 0]);
        let reading = scoreboard.read();
        assert!(reading.heartbeat.is_some_and(|ago| ago > Duration::ZERO), "{reading:?}");
        assert_eq!(reading.requests, None, "it does not show them");
        write(&scoreboard, &[VERSION, 0, 1]);
        assert_eq!(scoreboard.read(), Reading { requests: Some(Requests::default()), ..Reading::default() });
        write(&scoreboard, &[VERSION, 0, 0, 0, 0, 61]);
        assert_eq!(scoreboard.read(), Reading { stack_signal: Some(61), ..Reading::default() });
        write(&scoreboard, &[VERSION + 1]);
        assert_eq!(scoreboard.read(), Reading::default(), "the layout is unknown");
    }

    #[test]
    fn a_beat_is_so_long_ago_and_never_in_the_future() {
        let now = Duration::from_secs(10);
        assert_eq!(ago(7_500_000_000, now), Duration::from_millis(2_500));
        assert_eq!(ago(u64::MAX, now), Duration::ZERO);
    }

    #[test]
    fn a_worker_cannot_change_the_length() {
        let scoreboard = Scoreboard::new().unwrap();
        for length in [0, 8, 1 << 30] {
            assert_eq!(rustix::fs::ftruncate(&scoreboard.file, length), Err(rustix::io::Errno::PERM));
        }
        assert!(rustix::io::pwrite(&scoreboard.file, &[1], (PAGE + STACKS) as u64).is_err());
    }
}
