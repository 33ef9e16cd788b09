//! One worker's notification socket.

use crate::peer::{Packet, Packets};
use crate::private_socket::{Binder, Binding};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, Uid};
use std::io;

/// A longer datagram is refused (bytes).
const DATAGRAM_LIMIT: usize = 4096;

/// A socket that one worker reports to.
#[derive(Debug)]
pub struct Socket {
    packets: Packets,
    binding: Binding,
}

/// What arrived, and from whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's process id and user as the kernel says them.
    pub sender: Option<(Pid, Uid)>,
    /// The text, or why there is none.
    pub text: Result<Vec<u8>, &'static str>,
}

impl Socket {
    /// Binds a socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn bind(binder: &Binder) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let binding = binder.bind(&fd)?;
        Ok(Self { packets: Packets::new(fd)?, binding })
    }

    /// What the worker finds in NOTIFY_SOCKET.
    pub fn address(&self) -> String {
        self.binding.address()
    }

    /// The next datagram. It stays in the queue, with the descriptors that came with it, until it is [`done`](Self::done).
    ///
    /// # Errors
    /// The socket is broken; none is known that happens to an open one.
    pub async fn receive(&self) -> io::Result<(Datagram, Packet)> {
        let (text, packet) = self.packets.next::<DATAGRAM_LIMIT>().await?;
        let text = if packet.cut { Err("it is longer than 4096 bytes") } else { Ok(text) };
        Ok((Datagram { sender: packet.sender, text }, packet))
    }

    /// Removes a datagram once it has been dealt with. Its descriptors are closed by then: so a sender that waits for
    /// that (sd_notify_barrier(3), as systemd-notify(1) does) knows that everything it said before was heard.
    pub async fn done(&self, packet: Packet) {
        self.packets.take(packet).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_datagram_tells_who_sent_it_and_a_long_one_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let socket = Socket::bind(&Binder::new(None)).expect("bound");
            let client = UnixDatagram::unbound().expect("a socket");
            client.send_to(b"READY=1", socket.address()).expect("sent");
            client.send_to(&[b'x'; 65_000], socket.address()).expect("sent");
            let (datagram, packet) = socket.receive().await.expect("open");
            assert_eq!(datagram.sender, Some((rustix::process::getpid(), rustix::process::geteuid())));
            assert_eq!(datagram.text, Ok(b"READY=1".to_vec()));
            socket.done(packet).await;
            let (datagram, packet) = socket.receive().await.expect("open");
            assert!(datagram.text.is_err());
            socket.done(packet).await;
        });
    }
}
