//! What the kernel tells about sockets, asked through NETLINK_SOCK_DIAG (sock_diag(7)).
//!
//! Purpose: answer, for a listening socket known by its inode or its port, how long its queue is, how long it may
//! get, which file it is bound to and which connections it has made. Not a driver: drivers that need these facts
//! share it, because they must not import each other.
//!
//! Owns: nothing; each question opens a netlink socket and closes it again.
//!
//! Never: needs a privilege, changes anything, or waits longer than a second. The kernel answers for the network
//! name space of the *asker*, so a socket made elsewhere (PrivateNetwork=) is [`Error::Elsewhere`].
//!
//! The messages are our own: the crate netlink-packet-sock-diag (0.4.2) takes the names of unix sockets for UTF-8, which
//! they need not be, and drops the whole message otherwise.
#![forbid(unsafe_code)]

mod error;
mod listening;
mod message;
mod netlink;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

pub use error::Error;
pub use listening::{BoundFile, Listening};
pub use netlink::MAX_DUMP;

/// Asks for the listening unix socket with this inode.
pub fn unix_listener(inode: u64) -> Result<Listening, Error> {
    // Inodes of sockets have 32 bits (get_next_ino() of the kernel).
    let number = u32::try_from(inode).map_err(|_| Error::Elsewhere)?;
    let mut found = None;
    netlink::ask(&message::unix_request(number, message::LISTEN, false), |payload| {
        found = message::unix_answer(payload);
        ControlFlow::Break(())
    })?;
    let answer = found.ok_or(Error::Garbled)?;
    let (waiting, limit) = answer.queue.ok_or(Error::Garbled)?;
    Ok(Listening { inode: answer.inode.into(), waiting, limit, file: answer.file })
}

/// The inodes of unix sockets bound to this name (see [`unix_accepted`]) that others connect to or send to.
pub fn unix_holders(name: &[u8]) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    dump(&message::unix_request(0, message::LISTEN | message::UNCONNECTED, true), |payload| {
        if let Some(answer) = message::unix_answer(payload)
            && answer.name == name
        {
            found.push(u64::from(answer.inode));
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The names of the unix sockets on the other ends of these, by their inodes: those of services that have one.
pub fn unix_peers(inodes: &BTreeSet<u64>) -> Result<Vec<Vec<u8>>, Error> {
    let (mut names, mut peers) = (BTreeMap::new(), Vec::new());
    dump(&message::unix_peers_request(message::ESTABLISHED), |payload| {
        if let Some(answer) = message::unix_answer(payload) {
            peers.extend(answer.peer.filter(|_| inodes.contains(&u64::from(answer.inode))));
            names.insert(answer.inode, answer.name);
        }
        ControlFlow::Continue(())
    })?;
    let names = peers.into_iter().filter_map(|peer| names.get(&peer).cloned());
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// Asks for listening TCP sockets on this address: more than one with SO_REUSEPORT. A wildcard address matches
/// itself alone.
pub fn tcp_listeners(address: SocketAddr) -> Result<Vec<Listening>, Error> {
    let mut found = Vec::new();
    let request = message::tcp_request(address.is_ipv6(), address.port(), message::LISTEN_ONLY);
    dump(&request, |payload| {
        if let Some(answer) = message::tcp_answer(payload)
            && answer.local == address.ip()
        {
            let (waiting, limit) = (answer.receive_queue, answer.send_queue);
            found.push(Listening { inode: answer.inode.into(), waiting, limit, file: None });
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// The inodes of whatever TCP socket keeps others from binding this port on this address: bound to the address
/// itself or to all of them, in either family.
pub fn tcp_holders(address: SocketAddr) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    for v6 in [false, true] {
        let request = message::tcp_request(v6, address.port(), message::LISTEN_ONLY);
        dump(&request, |payload| {
            if let Some(answer) = message::tcp_answer(payload)
                && (answer.local == address.ip() || answer.local.is_unspecified() || address.ip().is_unspecified())
            {
                found.push(u64::from(answer.inode));
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(found)
}

/// Connections that were accepted. The list ends early when the kernel has more to tell than [`MAX_DUMP`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The inodes of their sockets, as in `/proc/PID/fd`.
    pub inodes: Vec<u64>,
    /// Whether everything was looked at.
    pub complete: bool,
}

/// The accepted, not yet closed connections of a unix listener, known by the name it was bound to: the
/// bytes of the path, or a zero byte and the abstract name. An accepted end carries its listener's name (unix(7)).
/// Connections not yet accepted have no inode and are left out by the kernel.
pub fn unix_accepted(name: &[u8]) -> Result<Accepted, Error> {
    let mut inodes = Vec::new();
    let request = message::unix_request(0, message::ESTABLISHED, true);
    let complete = dump(&request, |payload| {
        let answer = message::unix_answer(payload).filter(|answer| answer.inode != 0 && answer.name == name);
        inodes.extend(answer.map(|answer| u64::from(answer.inode)));
        ControlFlow::Continue(())
    })?;
    Ok(Accepted { inodes, complete })
}

/// The accepted, not yet closed connections of a TCP listener. A connection that was not yet accepted, or
/// that its process closed, has no inode. A connection that the *client* closed or half-closed still counts: a
/// worker holds it.
pub fn tcp_accepted(address: SocketAddr) -> Result<Accepted, Error> {
    let mut inodes = Vec::new();
    let request = message::tcp_request(address.is_ipv6(), address.port(), message::CONNECTED);
    let complete = dump(&request, |payload| {
        if let Some(answer) = message::tcp_answer(payload)
            && answer.inode != 0
            && (address.ip().is_unspecified() || same_host(answer.local, address.ip()))
        {
            inodes.push(answer.inode.into());
        }
        ControlFlow::Continue(())
    })?;
    Ok(Accepted { inodes, complete })
}

/// Asks for many. Not to find any is no error then, so that ENOENT means a missing part of the kernel.
fn dump(request: &[u8], each: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, Error> {
    netlink::ask(request, each).map_err(|error| match error {
        Error::Elsewhere => Error::NotBuilt,
        Error::NotAllowed | Error::NotBuilt | Error::System(_) | Error::Garbled => error,
    })
}

/// Compares addresses with `::ffff:192.0.2.1` and `192.0.2.1` the same.
fn same_host(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}
