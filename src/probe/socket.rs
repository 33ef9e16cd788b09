//! A private listening socket.

use crate::private_socket::{Binder, Binding};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// More questions than this never wait at the same time.
const BACKLOG: i32 = 16;

/// How many questions on a private socket were answered: a server that counts its requests counts them, too.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<AtomicU64>);

impl Answers {
    /// One more was.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a worker can be asked.
#[derive(Debug)]
pub struct Socket {
    address: String,
    inode: u64,
    answers: Answers,
    /// The way there, if it is a unix socket.
    _binding: Option<Binding>,
}

impl Socket {
    /// Listens on a unix socket. The descriptor is the worker's; once we have passed it on and closed ours, a dead worker
    /// refuses connections.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn listen(binder: &Binder) -> io::Result<(Self, OwnedFd)> {
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let binding = binder.bind(&fd)?;
        rustix::net::listen(&fd, BACKLOG)?;
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok((Self { address: binding.own_address(), inode, answers: Answers::default(), _binding: Some(binding) }, fd))
    }

    /// Listens on a loopback port of this address family, for a worker that expects a TCP socket.
    ///
    /// # Errors
    /// No descriptor or port left, or a family that the system does not have.
    pub fn listen_tcp(like: SocketAddr) -> io::Result<(Self, OwnedFd)> {
        let loopback: IpAddr = if like.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let listener = TcpListener::bind((loopback, 0))?;
        let address = listener.local_addr()?.to_string();
        let fd = OwnedFd::from(listener);
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        Ok((Self { address, inode, answers: Answers::default(), _binding: None }, fd))
    }

    /// The socket's inode, as in `/proc/PID/fd`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// How many questions were answered there.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// The address, as [`super::ask`] takes it: a path, `@` and a name, or a loopback address with its port.
    pub fn address(&self) -> &str {
        &self.address
    }
}
