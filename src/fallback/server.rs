//! The threads of the helper: one for each listener that accepts, one for each visitor that is answered.
//!
//! Invariant, checked by the tests below and in tests/drivers/fallback.rs: a connection is accepted only within a slot
//! that [`Server::stop`] waits for, so that none is accepted and then lost.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, accept_with, connect, getsockname, socket_with};

use super::answer::{answer, is_complete};
use super::page::Texts;

/// How long [`Server::stop`] waits for answers in flight.
pub const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Visitors answered at the same time; the queue of the listener holds the others.
const MAX_ANSWERS: usize = 64;
/// The most bytes read of a request's head.
const MAX_HEAD: usize = 16 << 10;
/// How long a visitor may take to send the head, and then to take the answer.
const VISITOR_TIMEOUT: Duration = Duration::from_secs(5);
/// How long, and how much, of what a visitor still sends is read after the answer.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);
const MAX_DRAIN: usize = 64 << 10;
/// Buffers are on the heap, so that little is needed.
const STACK: usize = 64 << 10;
/// Retry-After until the supervisor says otherwise, in seconds.
const RETRY_AFTER: u32 = 5;

/// A running set of threads.
pub(super) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    listeners: Vec<OwnedFd>,
    /// What the operator has visitors read.
    texts: Texts,
    /// A pipe. The acceptors look themselves whether its other end is closed: from that moment on a worker serves, and
    /// the thread that reads it may not have come to its end yet.
    orders: OwnedFd,
    retry_after: AtomicU32,
    slots: Mutex<Slots>,
    changed: Condvar,
    /// Where the supervisor hears of visitors. The lock makes "is there room" and "write" one step.
    visitors: Mutex<OwnedFd>,
}

#[derive(Debug)]
struct Slots {
    /// Slots taken: by an answer, or by a call of accept(2).
    taken: usize,
    /// For each listener, whether its acceptor is in accept(2).
    accepting: Vec<bool>,
    stopping: bool,
}

impl Server {
    /// Accepts until the other end of `orders` is closed.
    pub(super) fn start(listeners: Vec<OwnedFd>, texts: Texts, orders: OwnedFd, visitors: OwnedFd) -> io::Result<Self> {
        let server = Self::idle(listeners, texts, orders, visitors);
        for index in 0..server.shared.listeners.len() {
            let shared = Arc::clone(&server.shared);
            thread::Builder::new().stack_size(STACK).spawn(move || shared.accept_until_stopped(index))?;
        }
        Ok(server)
    }

    /// A server without threads that accept.
    fn idle(listeners: Vec<OwnedFd>, texts: Texts, orders: OwnedFd, visitors: OwnedFd) -> Self {
        let slots = Slots { taken: 0, accepting: vec![false; listeners.len()], stopping: false };
        let shared = Arc::new(Shared {
            listeners,
            texts,
            orders,
            retry_after: AtomicU32::new(RETRY_AFTER),
            slots: Mutex::new(slots),
            changed: Condvar::new(),
            visitors: Mutex::new(visitors),
        });
        Self { shared }
    }

    pub(super) fn set_retry_after(&self, seconds: u32) {
        self.shared.retry_after.store(seconds.clamp(1, 3600), Ordering::Relaxed);
    }

    /// Accepts no more, and waits for the answers in flight, at most [`STOP_LIMIT`].
    pub(super) fn stop(self) {
        let deadline = Instant::now() + STOP_LIMIT;
        self.shared.slots().stopping = true;
        self.shared.changed.notify_all();
        // An acceptor whose connection went to a worker sits in accept(2), and nothing but a connection gets it out
        // of there. To exit in that state could kill it just after it was given one. So it gets one from us, closed
        // already; a worker that takes it instead sees a visitor who said nothing.
        let mut slots = self.shared.slots();
        while slots.taken > 0 && Instant::now() < deadline {
            for (listener, _) in self.shared.listeners.iter().zip(&slots.accepting).filter(|(_, accepting)| **accepting)
            {
                poke(listener);
            }
            let pause = Duration::from_millis(20);
            slots = self.shared.changed.wait_timeout(slots, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Connects to the listener and hangs up. When that fails (no permission, a full queue, another name space) nothing
/// is lost but the certainty that [`Server::stop`] is after.
fn poke(listener: &OwnedFd) {
    let Ok(address) = getsockname(listener) else { return };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    if let Ok(socket) = socket_with(address.address_family(), SocketType::STREAM, flags, None) {
        let _ = connect(&socket, &address);
        if address.address_family() != AddressFamily::UNIX {
            // A TCP socket that is closed before its handshake is over leaves no connection behind.
            let connected = &mut [PollFd::new(&socket, PollFlags::OUT)];
            let _ = poll(connected, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }));
        }
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Nothing is ever left half done under this lock.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept_until_stopped(self: &Arc<Self>, index: usize) {
        while self.wait_for_slot() && self.wait_for_visitor(&self.listeners[index]) {
            if let Err(errno) = self.accept(index) {
                match errno {
                    // Taken by a worker that made the socket non-blocking, or gone before we came.
                    Errno::AGAIN | Errno::INTR | Errno::CONNABORTED => {}
                    // Nobody listens here any more.
                    Errno::INVAL | Errno::BADF | Errno::NOTSOCK => {
                        eprintln!("sockd fallback: cannot accept: {errno}; leaving this socket alone");
                        return;
                    }
                    // Out of descriptors or memory, or an error of the network (accept(2)): that may pass, and the
                    // queue holds the visitor meanwhile.
                    _ => self.pause(),
                }
            }
        }
    }

    /// Accepts one connection and begins to answer it. It blocks while there is none: that a connection waited before
    /// says nothing, a worker may have taken it.
    fn accept(self: &Arc<Self>, index: usize) -> Result<(), Errno> {
        if !self.take_slot(index) {
            return Ok(());
        }
        let accepted = accept_with(&self.listeners[index], SocketFlags::CLOEXEC);
        self.slots().accepting[index] = false;
        match accepted {
            Ok(visitor) => {
                self.begin_answer(visitor);
                Ok(())
            }
            Err(errno) => {
                self.free_slot();
                Err(errno)
            }
        }
    }

    /// Waits until there is a free slot; false when stopping. While there is none, the queue is the place to wait.
    fn wait_for_slot(&self) -> bool {
        !self.slots_with_room().stopping
    }

    fn slots_with_room(&self) -> MutexGuard<'_, Slots> {
        let full = |slots: &mut Slots| slots.taken >= MAX_ANSWERS && !slots.stopping;
        self.changed.wait_while(self.slots(), full).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a connection waits; false when stopping.
    fn wait_for_visitor(&self, listener: &OwnedFd) -> bool {
        loop {
            // The end of a pipe is reported unasked (poll(2)).
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.orders, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) if !fds[1].revents().is_empty() => return false,
                Ok(_) if !fds[0].revents().is_empty() => return true,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits a tenth of a second, or until the orders end.
    fn pause(&self) {
        let mut fds = [PollFd::new(&self.orders, PollFlags::empty())];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 }));
    }

    /// Takes a slot for a call of accept(2), waiting for one if another acceptor was faster; false when stopping.
    fn take_slot(&self, index: usize) -> bool {
        let mut slots = self.slots_with_room();
        if slots.stopping {
            return false;
        }
        slots.taken += 1;
        slots.accepting[index] = true;
        true
    }

    fn free_slot(&self) {
        self.slots().taken -= 1;
        self.changed.notify_all();
    }

    /// Answers in a thread of its own, or here when there can be none (TasksMax=). Frees the slot in the end.
    fn begin_answer(self: &Arc<Self>, visitor: OwnedFd) {
        let visitor = Arc::new(UnixStream::from(visitor));
        let (shared, theirs) = (Arc::clone(self), Arc::clone(&visitor));
        let thread = thread::Builder::new().stack_size(STACK).spawn(move || shared.answer(&theirs));
        if thread.is_err() {
            self.answer(&visitor);
        }
    }

    /// One visitor. A `UnixStream` around a TCP socket does no harm: read, write, shutdown and the timeouts of a
    /// socket are the same calls for both.
    fn answer(&self, visitor: &UnixStream) {
        // A visitor that is too slow, resets the connection or hangs up is gone: there is nobody to tell.
        let reply = |head: Vec<u8>| {
            let random = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros());
            answer(&head, &self.texts, self.retry_after.load(Ordering::Relaxed), random)
        };
        if let Ok(Some(head)) = read_head(visitor)
            && send(visitor, &reply(head)).is_ok()
        {
            self.tell_supervisor();
            let _ = drain(visitor);
        }
        self.free_slot();
    }

    fn tell_supervisor(&self) {
        let visitors = self.visitors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fds = [PollFd::new(&*visitors, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // POLLOUT of a pipe means that PIPE_BUF bytes fit, so that this write does not block (pipe(7)).
        if poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::OUT) {
            let _ = rustix::io::write(visitors.as_fd(), b".");
        }
    }
}

/// The time that is left, or the error of a timeout: a socket's timeout must not be zero.
fn left(deadline: Instant) -> io::Result<Option<Duration>> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
}

/// Reads until the head is whole, too long, or cut off by the visitor; `None` when there was nothing at all.
fn read_head(mut visitor: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + VISITOR_TIMEOUT;
    let mut head = vec![0; MAX_HEAD];
    let mut length = 0;
    while length < MAX_HEAD {
        visitor.set_read_timeout(left(deadline)?)?;
        match visitor.read(&mut head[length..]) {
            Ok(0) if length == 0 => return Ok(None),
            Ok(0) => break,
            Ok(more) => {
                let searched = length;
                length += more;
                if is_complete(&head[..length], searched) {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(length);
    Ok(Some(head))
}

fn send(mut visitor: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    let deadline = Instant::now() + VISITOR_TIMEOUT;
    while !bytes.is_empty() {
        visitor.set_write_timeout(left(deadline)?)?;
        match visitor.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says that this was all, and reads what still comes: a socket closed with unread bytes resets the connection, and
/// the reset may overtake the answer (RFC 9112, section 9.6).
fn drain(mut visitor: &UnixStream) -> io::Result<()> {
    visitor.shutdown(std::net::Shutdown::Write)?;
    let deadline = Instant::now() + DRAIN_LIMIT;
    let mut buffer = vec![0; 4 << 10];
    let mut seen = 0;
    while seen < MAX_DRAIN {
        visitor.set_read_timeout(left(deadline)?)?;
        match visitor.read(&mut buffer) {
            Ok(0) => break,
            Ok(more) => seen += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    /// An acceptor whose connection was taken by a worker between poll(2) and accept(2) sits in accept(2); stopping
    /// must get it out of there, and not by waiting for the time limit.
    fn stop_while_in_accept(listener: OwnedFd) {
        let (orders, supervisor) = pipe();
        let (_reader, visitors) = pipe();
        let server = Server::idle(vec![listener], Texts::default(), orders, visitors);
        let shared = Arc::clone(&server.shared);
        let acceptor = thread::spawn(move || shared.accept(0));
        while !server.shared.slots().accepting[0] {
            thread::yield_now();
        }
        let shared = Arc::clone(&server.shared);
        let begun = Instant::now();
        drop(supervisor);
        server.stop();
        assert_eq!(shared.slots().taken, 0, "a slot is still taken after {:?}", begun.elapsed());
        acceptor.join().expect("no panic").expect("the connection of stop()");
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
    }

    /// A worker serves, and the thread that reads the orders has not come to their end yet.
    #[test]
    fn nobody_is_accepted_once_the_orders_have_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let visitor = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (orders, supervisor) = pipe();
        let (_reader, visitors) = pipe();
        let shared = Server::idle(vec![listener.into()], Texts::default(), orders, visitors).shared;
        assert!(shared.wait_for_visitor(&shared.listeners[0]), "a visitor waits");
        drop(supervisor);
        assert!(!shared.wait_for_visitor(&shared.listeners[0]), "the visitor is a worker's");
        drop(visitor);
    }

    #[test]
    fn stopping_frees_an_acceptor_of_a_unix_socket() {
        let path = std::env::temp_dir().join(format!("sockd-fallback-{}.sock", std::process::id()));
        stop_while_in_accept(UnixListener::bind(&path).expect("a listener").into());
        std::fs::remove_file(path).expect("the socket file");
    }

    #[test]
    fn stopping_frees_an_acceptor_of_a_tcp_socket() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            stop_while_in_accept(TcpListener::bind(address).expect("a listener").into());
        }
    }
}
