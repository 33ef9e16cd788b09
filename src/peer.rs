//! Unix sockets whose other end belongs to somebody else: nothing that comes from there may hold the event loop up.
//!
//! A message can bring descriptors (unix(7), SCM_RIGHTS), and the last close of a descriptor can take as long as its
//! sender likes: that of a TCP socket with SO_LINGER waits for its unsent data, that of a terminal for its output. It makes
//! no difference that nobody asked for descriptors: the kernel then closes them in the thread that receives the message,
//! or that closes the socket with the message in its queue. So each message is first looked at where it lies (MSG_PEEK).
//! One that brings descriptors is taken, and a socket in whose queue something is left is closed, by another thread.
//!
//! Owns: the sockets. Never: lets a descriptor of somebody else's into this process.
#![forbid(unsafe_code)]

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, Shutdown, SocketType, recv, recvmsg, shutdown,
};
use rustix::process::{Pid, Uid};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime::Handle;

/// What a message brings besides its text.
struct Look {
    length: usize,
    /// The text was longer than the buffer.
    cut: bool,
    sender: Option<(Pid, Uid)>,
    descriptors: bool,
}

/// Looks at the first message of a socket and leaves it there. `space` is for the sender and leaves no room for a
/// descriptor: so none comes into this process, and the kernel says that there was more.
fn look(socket: impl AsFd, buffer: &mut [u8], space: &mut [MaybeUninit<u8>]) -> io::Result<Look> {
    let mut ancillary = RecvAncillaryBuffer::new(space);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    let sender = ancillary.drain().find_map(|item| match item {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some((credentials.pid, credentials.uid)),
        // There is no room for them.
        RecvAncillaryMessage::ScmRights(_) => None,
        _ => None,
    });
    Ok(Look {
        length: message.bytes,
        cut: message.flags.contains(ReturnFlags::TRUNC),
        sender,
        descriptors: message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// The beginning of the text of the first packet, and what else there is to it. The buffer is on the stack of this call
/// alone, and not in the task that makes it.
fn look_at_packet<const LIMIT: usize>(socket: impl AsFd) -> io::Result<(Vec<u8>, Packet)> {
    let mut buffer = [0; LIMIT];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let Look { length, cut, sender, descriptors } = look(socket, &mut buffer, &mut space)?;
    Ok((buffer[..length].to_vec(), Packet { cut, sender, descriptors }))
}

/// Closes a socket, in another thread if closing it may take long.
fn close(socket: OwnedFd) {
    // From here on nothing more comes.
    let _ = shutdown(&socket, Shutdown::Both);
    let kind = rustix::net::sockopt::socket_type(&socket);
    let left = match recv(&socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        // The end of a stream; a packet may be empty and bring descriptors.
        Ok((0, _)) => kind != Ok(SocketType::STREAM),
        Ok(_) => true,
        Err(error) => error != Errno::AGAIN && error != Errno::NOTCONN,
    };
    match Handle::try_current() {
        Ok(runtime) if left => drop(runtime.spawn_blocking(move || drop(socket))),
        Ok(_) | Err(_) => drop(socket),
    }
}

/// A socket that receives packets: datagrams, or those of SOCK_SEQPACKET.
#[derive(Debug)]
pub struct Packets {
    /// None: it is being closed.
    socket: Option<Arc<AsyncFd<OwnedFd>>>,
}

/// A packet that lies first in the queue of its socket, until [`Packets::take`] removes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it comes again until it is taken"]
pub struct Packet {
    /// It is longer than the limit.
    pub cut: bool,
    /// Who sent it, as the kernel says it.
    pub sender: Option<(Pid, Uid)>,
    descriptors: bool,
}

impl Packets {
    /// Receives on a non-blocking socket, with the sender of each packet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// epoll takes no more descriptors.
    #[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, OwnedFd ensures")]
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket: Some(Arc::new(AsyncFd::new(socket)?)) })
    }

    /// Waits for the next packet and looks at it: the first `LIMIT` bytes of its text. While it waits it holds no room for
    /// them: each fork copies what we hold, and each worker has somebody who waits here.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn next<const LIMIT: usize>(&self) -> io::Result<(Vec<u8>, Packet)> {
        let socket = self.socket()?;
        loop {
            let mut ready = socket.readable().await?;
            // An error of try_io says that it was not readable after all: wait again.
            if let Ok(seen) = ready.try_io(|socket| look_at_packet::<LIMIT>(socket.get_ref())) {
                return seen;
            }
        }
    }

    /// Removes the packet that [`Packets::next`] gave, and closes what it brought before it returns.
    pub async fn take(&self, packet: Packet) {
        let Ok(socket) = self.socket() else { return };
        let take = |socket: &AsyncFd<OwnedFd>| {
            let _ = recv(socket.get_ref(), &mut [0; 1], RecvFlags::DONTWAIT);
        };
        if packet.descriptors {
            let socket = Arc::clone(socket);
            let _ = tokio::task::spawn_blocking(move || take(&socket)).await;
        } else {
            take(socket);
        }
    }

    /// To send on.
    ///
    /// # Errors
    /// It is being closed.
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.socket()?.get_ref().as_fd())
    }

    fn socket(&self) -> io::Result<&Arc<AsyncFd<OwnedFd>>> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        // Who else holds it is the thread that takes a packet.
        if let Some(socket) = self.socket.take().and_then(Arc::into_inner) {
            close(socket.into_inner());
        }
    }
}

/// A stream whose other end may send text alone: a descriptor makes reading fail.
#[derive(Debug)]
pub struct Stream {
    /// None: it is being closed.
    stream: Option<UnixStream>,
}

impl Stream {
    /// Takes a connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream: Some(stream) }
    }

    /// The connection, for everything but reading.
    ///
    /// # Errors
    /// It is being closed.
    pub fn connection(&self) -> io::Result<&UnixStream> {
        self.stream.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads what is there at this moment.
    ///
    /// # Errors
    /// WouldBlock when nothing is there, InvalidData for a descriptor.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.connection()?;
        stream.try_io(Interest::READABLE, || {
            let seen = look(stream, buffer, &mut [])?;
            if seen.descriptors {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it sends a descriptor"));
            }
            let (_, length) = recv(stream, &mut buffer[..seen.length], RecvFlags::DONTWAIT)?;
            Ok(length)
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.connection()?.poll_read_ready(context))?;
            match self.try_read(buffer.initialize_unfilled()) {
                Ok(length) => {
                    buffer.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_write(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(Ok(stream)) = self.stream.take().map(UnixStream::into_std) {
            close(stream.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags};
    use std::io::{IoSlice, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};
    use tokio::io::AsyncReadExt;

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).expect("a pair of sockets")
    }

    fn send(socket: impl AsFd, text: &[u8], descriptor: BorrowedFd<'_>) {
        let descriptors = [descriptor];
        let rights = SendAncillaryMessage::ScmRights(&descriptors);
        let mut space = vec![MaybeUninit::uninit(); rights.size()];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(rights);
        rustix::net::sendmsg(socket, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL).expect("sent");
    }

    /// A connection whose last close takes ten seconds, and its other end.
    fn lingering() -> (OwnedFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut stream = TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
        let (other, _) = listener.accept().expect("a connection");
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(10))).expect("set");
        stream.set_nonblocking(true).expect("set");
        while stream.write(&[0; 65536]).is_ok() {}
        (stream.into(), other)
    }

    fn in_runtime(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test);
        runtime.shutdown_background();
    }

    #[test]
    fn descriptors_of_a_packet_are_closed_and_the_loop_does_not_wait_for_them() {
        in_runtime(async {
            let (ours, theirs) = pair(SocketType::DGRAM);
            let packets = Packets::new(ours).expect("watched");
            let (slow, _other) = lingering();
            let (mut read, write) = std::io::pipe().expect("a pipe");
            send(&theirs, b"one", write.as_fd());
            send(&theirs, b"two", slow.as_fd());
            drop((slow, write));
            let (text, packet) = packets.next::<16>().await.expect("open");
            assert_eq!(text, b"one");
            packets.take(packet).await;
            assert_eq!(std::io::Read::read(&mut read, &mut [0; 1]).expect("the end"), 0, "the last writer is gone");
            let (text, packet) = packets.next::<16>().await.expect("open");
            assert_eq!(text, b"two");
            let began = Instant::now();
            let late = tokio::time::timeout(Duration::from_millis(100), packets.take(packet)).await;
            assert!(late.is_err(), "closing it takes ten seconds, and the loop goes on meanwhile");
            assert!(began.elapsed() < Duration::from_secs(5));
        });
    }

    #[test]
    fn what_was_never_read_does_not_hold_up_the_close() {
        in_runtime(async {
            for kind in [SocketType::DGRAM, SocketType::STREAM, SocketType::SEQPACKET] {
                let (ours, theirs) = pair(kind);
                let (slow, _other) = lingering();
                send(&theirs, b"text", slow.as_fd());
                drop(slow);
                let began = Instant::now();
                close(ours);
                assert!(began.elapsed() < Duration::from_secs(5), "{kind:?}");
            }
        });
    }

    #[test]
    fn a_stream_reads_text_and_refuses_descriptors() {
        in_runtime(async {
            let (ours, theirs) = pair(SocketType::STREAM);
            let connection = UnixStream::from_std(ours.into()).expect("watched");
            let mut stream = Stream::new(connection);
            rustix::net::send(&theirs, b"hello", SendFlags::empty()).expect("sent");
            let mut buffer = [0; 16];
            assert_eq!(stream.read(&mut buffer).await.expect("text"), 5);
            send(&theirs, b"more", std::io::stdin().as_fd());
            assert_eq!(stream.read(&mut buffer).await.expect_err("refused").kind(), io::ErrorKind::InvalidData);
        });
    }
}
