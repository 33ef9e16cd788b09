//! A private listening socket.

use crate::private_socket::{Binder, Binding};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

/// More questions than this never wait at the same time.
const BACKLOG: i32 = 16;

/// Where a worker can be asked.
#[derive(Debug)]
pub struct Socket {
    address: String,
    inode: u64,
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
        Ok((Self { address: binding.own_address(), inode, _binding: Some(binding) }, fd))
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
        Ok((Self { address, inode, _binding: None }, fd))
    }

    /// The socket's inode, as in `/proc/PID/fd`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The address, as [`super::ask`] takes it: a path, `@` and a name, or a loopback address with its port.
    pub fn address(&self) -> &str {
        &self.address
    }
}
