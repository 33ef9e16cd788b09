//! Waiting for the first connection without accepting it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::Poll;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Listener;

/// Waits until a connection is waiting on one of the listeners and returns that one's index. Waits for ever when
/// there are none. Cancel-safe.
///
/// Nothing is accepted and O_NONBLOCK stays as it is. A connection that waited before the call is reported at once:
/// each call registers the sockets afresh, and registering reports what is already there. Two calls for the same
/// listener must not run at the same time (the second fails with EEXIST of epoll_ctl(2)).
///
/// # Errors
/// What epoll says; `ConnectionAborted` when somebody called shutdown(2) on the socket, which then makes no
/// connection any more. Must run within a tokio runtime with IO enabled.
pub async fn wait_readable(listeners: &[Listener]) -> io::Result<usize> {
    let sockets = listeners.iter().map(watch).collect::<io::Result<Vec<_>>>()?;
    std::future::poll_fn(|context| {
        for (index, socket) in sockets.iter().enumerate() {
            while let Poll::Ready(guard) = socket.poll_read_ready(context) {
                let mut guard = guard?;
                // Readiness tells that something happened once; whether it is still so only the kernel knows, for a
                // worker may have taken the connection meanwhile.
                if waiting(socket.get_ref())? {
                    return Poll::Ready(Ok(index));
                }
                guard.clear_ready();
            }
        }
        Poll::Pending
    })
    .await
}

#[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, BorrowedFd ensures")]
fn watch(listener: &Listener) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    AsyncFd::with_interest(listener.as_fd(), Interest::READABLE)
}

fn waiting(socket: impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    let found = fds[0].revents();
    if found.intersects(PollFlags::HUP | PollFlags::ERR) {
        return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the listening socket was shut down"));
    }
    Ok(found.contains(PollFlags::IN))
}
