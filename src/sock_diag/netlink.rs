//! One question to NETLINK_SOCK_DIAG and the reading of its answers.

use std::ops::ControlFlow;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use super::error::Error;
use super::message::{HEADER, TYPE_DONE, TYPE_ERROR, TYPE_SOCKET, aligned, u16_at, u32_at};

/// The most bytes read of one dump: room for about 80,000 connections.
pub const MAX_DUMP: usize = 8 << 20;

/// The kernel fills at most this much in one go (`sk_diag` dumps use NLMSG_GOODSIZE up to 32 KiB).
const BUFFER: usize = 32 << 10;

/// Sends a request and hands each answer to `each` until it breaks, the kernel is done or [`MAX_DUMP`] is reached.
/// True when everything the kernel had was seen.
pub(super) fn ask(request: &[u8], mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, Error> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))
        .map_err(refused)?;
    // The kernel answers within the call to send; the limit is for a kernel that does not answer at all.
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(1))).map_err(Error::System)?;
    send(&socket, request, SendFlags::empty()).map_err(refused)?;

    let mut buffer = vec![0; BUFFER];
    let mut seen = 0;
    loop {
        let length = match recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, length)) => length.min(buffer.len()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::System(errno)),
        };
        seen += length;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let (Some(size), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) else { return Err(Error::Garbled) };
            let size = usize::try_from(size).map_err(|_| Error::Garbled)?;
            let payload = rest.get(HEADER..size).ok_or(Error::Garbled)?;
            match kind {
                TYPE_DONE => return Ok(true),
                TYPE_ERROR => return Err(refusal(payload)),
                TYPE_SOCKET if each(payload).is_break() => return Ok(true),
                _ => {}
            }
            rest = rest.get(aligned(size)..).unwrap_or_default();
        }
        if seen > MAX_DUMP {
            return Ok(false);
        }
    }
}

/// Reads the errno of an NLMSG_ERROR, a negative number.
fn refusal(payload: &[u8]) -> Error {
    let code = u32_at(payload, 0).map_or(0, u32::cast_signed);
    refused(Errno::from_raw_os_error(code.saturating_neg()))
}

fn refused(errno: Errno) -> Error {
    match errno {
        Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => Error::NotAllowed,
        // ESTALE: the inode was taken over by another socket.
        Errno::STALE => Error::Elsewhere,
        // ENOENT is both "no such socket" and "no such module"; distributions ship the modules, and the kernel loads
        // them when they are asked for.
        Errno::NOENT => Error::Elsewhere,
        Errno::INVAL | Errno::OPNOTSUPP => Error::NotBuilt,
        other => Error::System(other),
    }
}
