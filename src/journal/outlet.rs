//! The log queue: messages on their way to the journal or to stderr, which nobody waits for.
//!
//! Owns: the descriptor that takes them, those that it does not take yet, and the count of those that were lost. What
//! comes while the reader stands still is kept in order, up to [`MAX_QUEUED_BYTES`]; what comes after that is counted, and
//! the count is a message of its own as soon as messages flow again.
//! Never: waits, but at the end of the program and for a bounded time; changes the flags of a descriptor that it shares
//! with others.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::net::{SendFlags, send};

/// So much waits for its reader (bytes of memory): some hundred messages. The kernel's own queue comes before it.
const MAX_QUEUED_BYTES: usize = 192 << 10;
/// What a message costs besides its bytes.
const OVERHEAD: usize = 96;
/// Where journald listens (systemd's docs/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// A pipe that is ready takes so much without waiting (pipe(7), PIPE_BUF).
const PIPE_BUF: usize = 4096;
/// A reader that has taken nothing for so long stands still: who writes much need not wait for it.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Between two attempts at the end of the program.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What takes messages.
pub(super) enum Target {
    /// journald's socket: a datagram for each message.
    Journal(UnixDatagram),
    /// A description of stderr's pipe or terminal that nobody shares, so that it can be set not to block.
    Own(File),
    /// A stderr that is a socket: each call asks not to block.
    Socket,
    /// A stderr of another kind, or one that cannot be opened again: asked before each write.
    Polled,
}

impl Target {
    /// journald, if it is there.
    pub(super) fn journal() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // Nothing is no message to journald: it only tells whether somebody listens.
        match socket.send_to(&[], JOURNAL_SOCKET) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            Ok(_) | Err(_) => Ok(Self::Journal(socket)),
        }
    }

    /// The stderr of this process.
    pub(super) fn stderr() -> Self {
        let kind = fstat(io::stderr()).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode));
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        if kind == FileType::Socket {
            Self::Socket
        } else if matches!(kind, FileType::Fifo | FileType::CharacterDevice)
            && let Ok(own) = OpenOptions::new().write(true).custom_flags(flags).open("/proc/self/fd/2")
        {
            Self::Own(own)
        } else {
            Self::Polled
        }
    }

    /// Gives as much of a message as is taken at this moment.
    fn give(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Journal(socket) => socket.send_to(bytes, JOURNAL_SOCKET),
            Self::Own(file) => (&*file).write(bytes),
            Self::Socket => Ok(send(io::stderr(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
            Self::Polled => {
                let stderr = io::stderr();
                let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
                if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                Ok(rustix::io::write(&stderr, &bytes[..bytes.len().min(PIPE_BUF)])?)
            }
        }
    }
}

/// What has not been taken.
enum Item {
    Message(Vec<u8>),
    /// So many messages were lost here.
    Lost(u64),
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// Their size.
    bytes: usize,
    /// How much of the first one was taken; a datagram is taken whole.
    taken: usize,
    /// When the reader has taken something.
    last_taken: Option<Instant>,
    /// How many were lost since the last item.
    lost: u64,
}

impl Waiting {
    fn push(&mut self, item: Item) {
        if let Item::Message(message) = &item {
            self.bytes += message.len() + OVERHEAD;
        }
        self.items.push_back(item);
    }

    fn first_has_left(&mut self) {
        self.taken = 0;
        if let Some(Item::Message(message)) = self.items.pop_front() {
            self.bytes -= message.len() + OVERHEAD;
        }
        if self.items.is_empty() && self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.push(Item::Lost(lost));
        }
    }

    fn give_up(&mut self) {
        (self.taken, self.bytes) = (0, 0);
        for item in self.items.drain(..) {
            self.lost += match item {
                Item::Message(_) => 1,
                Item::Lost(count) => count,
            };
        }
    }
}

/// The way to one target.
pub(super) struct Outlet {
    target: Target,
    /// Words the message that so many were lost.
    lost: Box<dyn Fn(u64) -> Vec<u8> + Send + Sync>,
    waiting: Mutex<Waiting>,
}

impl Outlet {
    pub(super) fn new(target: Target, lost: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { target, lost: Box::new(lost), waiting: Mutex::default() }
    }

    /// Takes a message, and passes on what can be passed on.
    pub(super) fn write(&self, message: Vec<u8>) {
        let mut waiting = self.waiting();
        self.pass_on(&mut waiting);
        if waiting.bytes + message.len() > MAX_QUEUED_BYTES {
            waiting.lost += 1;
            return;
        }
        if waiting.lost > 0 {
            let lost = std::mem::take(&mut waiting.lost);
            waiting.push(Item::Lost(lost));
        }
        waiting.push(Item::Message(message));
        self.pass_on(&mut waiting);
    }

    /// Passes on what can be passed on.
    pub(super) fn flush(&self) {
        self.pass_on(&mut self.waiting());
    }

    /// Whether messages wait.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting().items.is_empty()
    }

    /// Whether much waits for a reader that is at work.
    pub(super) fn is_congested(&self) -> bool {
        let waiting = self.waiting();
        waiting.bytes > MAX_QUEUED_BYTES / 2 && waiting.last_taken.is_some_and(|at| at.elapsed() < STANDSTILL)
    }

    /// Waits for what waits to be taken, and no longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        self.flush();
        while self.is_waiting() && Instant::now() < end {
            std::thread::sleep(POLL_INTERVAL);
            self.flush();
        }
    }

    fn pass_on(&self, waiting: &mut Waiting) {
        loop {
            let words;
            let message: &[u8] = match waiting.items.front() {
                None => return,
                Some(Item::Message(message)) => message,
                Some(Item::Lost(count)) => {
                    words = (self.lost)(*count);
                    &words
                }
            };
            let given = self.target.give(&message[waiting.taken..]);
            if given.is_ok() {
                waiting.last_taken = Some(Instant::now());
            }
            match given {
                Ok(count) if waiting.taken + count < message.len() => waiting.taken += count,
                Ok(_) => waiting.first_has_left(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Nobody is there: it is tried again with the next message.
                Err(_) => return waiting.give_up(),
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn outlet(target: Target) -> Outlet {
        Outlet::new(target, |count| format!("{count} lost\n").into_bytes())
    }

    /// A pipe whose writing end is as `Target::stderr` makes it, and its reading end.
    fn pipe() -> (File, Target) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
        (read.into(), Target::Own(write.into()))
    }

    /// All that is in a pipe.
    fn read(pipe: &mut File) -> String {
        let mut text = Vec::new();
        let error = pipe.read_to_end(&mut text).expect_err("its writer is there");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        String::from_utf8(text).expect("what was written")
    }

    #[test]
    fn what_a_full_pipe_does_not_take_comes_later_and_in_order() {
        let (mut reader, target) = pipe();
        let outlet = outlet(target);
        let mut wanted = String::new();
        for number in 0..150 {
            let line = format!("{number}{}\n", "x".repeat(1000));
            wanted.push_str(&line);
            outlet.write(line.into_bytes());
        }
        assert!(outlet.is_waiting(), "150 KB do not fit a pipe");
        let mut came = read(&mut reader);
        while outlet.is_waiting() {
            outlet.flush();
            came.push_str(&read(&mut reader));
        }
        assert!(came == wanted, "{} of {} bytes came, or in another order", came.len(), wanted.len());
    }

    #[test]
    fn what_does_not_fit_is_counted_and_logged_when_messages_flow_again() {
        let (mut reader, target) = pipe();
        let outlet = outlet(target);
        let line = |number: usize| format!("{number:5} {}\n", "x".repeat(1000));
        for number in 0..1000 {
            outlet.write(line(number).into_bytes());
        }
        let mut came = read(&mut reader);
        while outlet.is_waiting() {
            outlet.flush();
            came.push_str(&read(&mut reader));
        }
        let kept = came.lines().count() - 1;
        // What was kept, and what the pipe held.
        let most = (MAX_QUEUED_BYTES + (64 << 10)) / 1007;
        assert!((most * 3 / 4..=most).contains(&kept), "{kept} of 1000 came, {most} would be the most");
        let wanted: String = (0..kept).map(line).collect();
        assert!(came == format!("{wanted}{} lost\n", 1000 - kept), "the count of the lost comes last");
        // And nothing of it lingers.
        outlet.write(b"next\n".to_vec());
        assert_eq!(read(&mut reader), "next\n");
    }

    #[test]
    fn a_reader_that_is_gone_costs_the_messages_and_nothing_else() {
        let (reader, target) = pipe();
        let outlet = outlet(target);
        drop(reader);
        for _ in 0..10 {
            outlet.write(b"line\n".to_vec());
        }
        assert!(!outlet.is_waiting());
        outlet.finish(Duration::from_secs(60));
    }

    #[test]
    fn the_end_waits_for_a_reader_who_is_late_and_not_for_ever() {
        let (mut reader, target) = pipe();
        let outlet = outlet(target);
        outlet.write(vec![b'x'; 100 << 10]);
        let began = Instant::now();
        outlet.finish(Duration::from_millis(50));
        assert!(outlet.is_waiting() && began.elapsed() >= Duration::from_millis(50));
        std::thread::scope(|threads| {
            threads.spawn(|| outlet.finish(Duration::from_secs(60)));
            let mut left = 100 << 10;
            while left > 0 {
                left -= read(&mut reader).len();
            }
        });
        assert!(!outlet.is_waiting());
    }
}
