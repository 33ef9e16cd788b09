//! One worker's notification socket, and the directory where they stand.

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use rustix::process::Pid;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use tokio::io::unix::AsyncFd;

/// A longer datagram is refused (bytes).
const DATAGRAM_LIMIT: usize = 4096;
/// Room for more descriptors than a client may think to send; what comes is closed at once.
const ANCILLARY_BYTES: usize = 2048;

/// A directory that only we can enter, for sockets that live as long as we do.
#[derive(Debug)]
pub struct Directory {
    path: Option<PathBuf>,
    made: bool,
    token: String,
}

impl Directory {
    /// `given` (systemd's RuntimeDirectory=) if there is one, else a directory of our own in /tmp, else none at all:
    /// then the sockets are abstract ones with a name that cannot be guessed.
    pub fn open(given: Option<PathBuf>) -> Self {
        let token = token();
        if let Some(path) = given {
            return Self { path: Some(path), made: false, token };
        }
        let path = std::env::temp_dir().join(format!("sockd-{}-{token}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path).is_ok();
        Self { path: made.then_some(path), made, token }
    }

    /// The address for a socket of this name, as NOTIFY_SOCKET and the like have it: a path, or `@` and an abstract name.
    pub fn address(&self, name: &str) -> String {
        match &self.path {
            Some(path) => format!("{}/{name}", path.display()),
            None => format!("@sockd-{}-{}/{name}", std::process::id(), self.token),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_deref().filter(|_| self.made) {
            // What stands in it are sockets of ours alone.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn token() -> String {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    bytes[..filled].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A socket that one worker reports to.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
    file: Option<PathBuf>,
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
    /// Binds a socket to an address of [`Directory::address`].
    ///
    /// # Errors
    /// No descriptor left, a path longer than 107 bytes, a full or read-only file system.
    pub fn bind(address: &str) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::sockopt::set_socket_passcred(&fd, true)?;
        let (name, file) = match address.strip_prefix('@') {
            Some(name) => (SocketAddrUnix::new_abstract_name(name.as_bytes())?, None),
            None => (SocketAddrUnix::new(address)?, Some(PathBuf::from(address))),
        };
        if let Some(file) = &file {
            // The number of a worker is never used again, so what stands here was left by a predecessor of ours.
            let _ = std::fs::remove_file(file);
        }
        rustix::net::bind(&fd, &name)?;
        Ok(Self { fd: watch(fd)?, file })
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

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
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
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

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
            drop(socket);
            assert!(!Path::new(&address).exists(), "the socket leaves no file behind");
            let path = PathBuf::from(&address).parent().map(Path::to_path_buf).expect("a directory");
            drop(directory);
            assert!(!path.exists(), "nor does the directory");
        });
    }
}
