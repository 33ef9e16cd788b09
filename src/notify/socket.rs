//! One worker's notification socket.

use crate::private_socket::Name;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags, SocketType,
};
use rustix::process::Pid;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// A longer datagram is refused (bytes).
const DATAGRAM_LIMIT: usize = 4096;
/// Room for more descriptors than a client may think to send; what comes is closed at once.
const ANCILLARY_BYTES: usize = 2048;

/// A socket that one worker reports to.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
    _name: Name,
}

/// What arrived, and from whom.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's process id as the kernel says it.
    pub sender: Option<Pid>,
    /// The text, or why there is none.
    pub text: Result<Vec<u8>, &'static str>,
}

impl Socket {
    /// Binds a socket to an address of [`Directory::address`](crate::private_socket::Directory::address).
    ///
    /// # Errors
    /// No descriptor left, a path longer than 107 bytes, a full or read-only file system.
    pub fn bind(address: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::sockopt::set_socket_passcred(&fd, true)?;
        let name = Name::bind(&fd, address)?;
        Ok(Self { fd: watch(fd)?, _name: name })
    }

    /// The next datagram.
    ///
    /// # Errors
    /// The socket is broken; none is known that happens to an open one.
    pub async fn receive(&self) -> io::Result<Datagram> {
        loop {
            let mut ready = self.fd.readable().await?;
            // An error of try_io says that it was not readable after all: wait again.
            if let Ok(datagram) = ready.try_io(|fd| receive(fd.get_ref())) {
                return datagram;
            }
        }
    }
}

#[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, OwnedFd ensures")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

fn receive(fd: &OwnedFd) -> io::Result<Datagram> {
    let mut buffer = [0u8; DATAGRAM_LIMIT];
    let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = rustix::net::recvmsg(fd, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, flags)?;
    let sender = ancillary.drain().find_map(|item| match item {
        RecvAncillaryMessage::ScmCredentials(credentials) => Some(credentials.pid),
        // Descriptors (FDSTORE=1) are dropped here, which closes them.
        RecvAncillaryMessage::ScmRights(_) => None,
        _ => None,
    });
    let text = if message.flags.contains(ReturnFlags::TRUNC) {
        Err("it is longer than 4096 bytes")
    } else {
        Ok(buffer[..message.bytes].to_vec())
    };
    Ok(Datagram { sender, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_socket::Directory;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_datagram_tells_who_sent_it_and_a_long_one_is_refused() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let directory = Directory::open(None);
            let address = directory.address("notify-1");
            let socket = Socket::bind(&address).expect("bound");
            let client = UnixDatagram::unbound().expect("a socket");
            client.send_to(b"READY=1", &address).expect("sent");
            let datagram = socket.receive().await.expect("open");
            assert_eq!(datagram.sender, Some(rustix::process::getpid()));
            assert_eq!(datagram.text, Ok(b"READY=1".to_vec()));
            client.send_to(&[b'x'; 65_000], &address).expect("sent");
            assert!(socket.receive().await.expect("open").text.is_err());
        });
    }
}
