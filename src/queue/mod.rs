//! The kernel's view of a listener: how many connections wait, how many may, and how many are in flight.
//!
//! Purpose: numbers for `sockd status`, for draining and for scaling, without a look into any worker.
//!
//! Owns: nothing. Every answer is true for the moment of the question only.
//!
//! Never: blocks, needs a privilege or touches the listener. What cannot be known is an error that says why, never a
//! zero. Sources: sock_diag(7); measured on Linux 6.18, unprivileged.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;

use crate::app::Address;
use crate::sock_diag;

/// The queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Connections that are made and wait to be accepted.
    pub waiting: u32,
    /// How many may wait: the backlog of listen(2), cut to net.core.somaxconn.
    pub limit: u32,
}

/// Connections that were accepted and are not yet closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// How many were seen. Idle keep-alive connections count: the kernel knows connections, not requests.
    pub connections: u32,
    /// False when the machine has so many sockets that the kernel's list was cut: the number is a lower bound.
    pub complete: bool,
}

/// Asks how many connections wait on the listener with this address and inode (`st_ino` of its descriptor).
///
/// # Errors
/// `Unsupported` when AF_NETLINK is forbidden (RestrictAddressFamilies=) or the kernel lacks sock_diag; `NotFound`
/// when the socket lives in another network name space (PrivateNetwork=) or no longer listens.
pub fn depth(address: &Address, inode: u64) -> io::Result<Depth> {
    let Address::Tcp(address) = address else { return unix_depth(inode) };
    let listening = sock_diag::tcp_listeners(*address)?.into_iter().find(|listening| listening.inode == inode);
    let listening = listening.ok_or(sock_diag::Error::Elsewhere)?;
    Ok(Depth { waiting: listening.waiting, limit: listening.limit })
}

/// The same of a unix socket, which its inode alone tells.
///
/// # Errors
/// As [`depth`].
pub fn unix_depth(inode: u64) -> io::Result<Depth> {
    let listening = sock_diag::unix_listener(inode)?;
    Ok(Depth { waiting: listening.waiting, limit: listening.limit })
}

/// Counts the connections that workers accepted from the listener with this address and have not closed.
///
/// A connection counts for every listener the address ever had: those accepted from a predecessor of the same path
/// or port are included.
///
/// # Errors
/// As [`depth`], except that an unknown listener is no error: then there are simply none.
pub fn in_flight(address: &Address) -> io::Result<InFlight> {
    let accepted = ask_accepted(address)?;
    let connections = u32::try_from(accepted.inodes.len()).unwrap_or(u32::MAX);
    Ok(InFlight { connections, complete: accepted.complete })
}

/// The inodes of the sockets that [`in_flight`] counts, by which one can tell whose they are.
///
/// # Errors
/// As [`in_flight`].
pub fn accepted(address: &Address) -> io::Result<BTreeSet<u64>> {
    Ok(ask_accepted(address)?.inodes.into_iter().collect())
}

fn ask_accepted(address: &Address) -> Result<sock_diag::Accepted, sock_diag::Error> {
    match address {
        Address::Unix(path) => sock_diag::unix_accepted(path.as_os_str().as_bytes()),
        Address::Abstract(name) => sock_diag::unix_accepted(&[&[0], name.as_bytes()].concat()),
        Address::Tcp(address) => sock_diag::tcp_accepted(*address),
    }
}
