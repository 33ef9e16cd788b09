//! The bytes of sock_diag's questions and answers: `linux/netlink.h`, `linux/unix_diag.h`, `linux/inet_diag.h`.
//! Pure; numbers are in the machine's byte order except ports and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::listening::BoundFile;

/// Bytes of a `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// `NLMSG_ERROR`: the answer is an errno.
pub(super) const TYPE_ERROR: u16 = 2;
/// `NLMSG_DONE`: the dump is at its end.
pub(super) const TYPE_DONE: u16 = 3;
/// `SOCK_DIAG_BY_FAMILY`.
pub(super) const TYPE_SOCKET: u16 = 20;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const AF_UNIX: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// Socket states as bits (`net/tcp_states.h`; unix sockets use the same numbers).
pub(super) const ESTABLISHED: u32 = 1 << 1;
const FIN_WAIT_1: u32 = 1 << 4;
const FIN_WAIT_2: u32 = 1 << 5;
const CLOSE_WAIT: u32 = 1 << 8;
const LAST_ACK: u32 = 1 << 9;
pub(super) const LISTEN: u32 = 1 << 10;
const CLOSING: u32 = 1 << 11;
/// `TCP_CLOSE`: datagram sockets, and stream sockets before listen(2) or connect(2).
pub(super) const UNCONNECTED: u32 = 1 << 7;
/// Listening sockets.
pub(super) const LISTEN_ONLY: u32 = LISTEN;
/// Every state in which a process can hold a connection.
pub(super) const CONNECTED: u32 = ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2 | CLOSE_WAIT | LAST_ACK | CLOSING;

const UDIAG_SHOW_NAME: u32 = 0x1;
const UDIAG_SHOW_VFS: u32 = 0x2;
const UDIAG_SHOW_PEER: u32 = 0x4;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;

/// Where a `struct unix_diag_req` says what is to be shown, behind the header.
const SHOW: usize = HEADER + 12;

/// A `struct unix_diag_req`: one socket by its inode, or all in the given states.
pub(super) fn unix_request(inode: u32, states: u32, dump: bool) -> Vec<u8> {
    let mut body = vec![AF_UNIX, 0, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(inode.to_ne_bytes());
    let show = if dump { UDIAG_SHOW_NAME } else { UDIAG_SHOW_RQLEN | UDIAG_SHOW_VFS };
    body.extend(show.to_ne_bytes());
    body.extend([0xff; 8]); // any cookie
    message(&body, dump)
}

/// The same for all unix sockets in the given states, with the other ends.
pub(super) fn unix_peers_request(states: u32) -> Vec<u8> {
    let mut request = unix_request(0, states, true);
    request[SHOW..SHOW + 4].copy_from_slice(&(UDIAG_SHOW_NAME | UDIAG_SHOW_PEER).to_ne_bytes());
    request
}

/// A `struct inet_diag_req_v2` for all TCP sockets of one family with this local port in the given states.
pub(super) fn tcp_request(v6: bool, port: u16, states: u32) -> Vec<u8> {
    let mut body = vec![if v6 { AF_INET6 } else { AF_INET }, IPPROTO_TCP, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(port.to_be_bytes());
    body.extend([0; 2 + 16 + 16 + 4]); // any peer, any address, any interface
    body.extend([0xff; 8]); // any cookie
    message(&body, true)
}

fn message(body: &[u8], dump: bool) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let flags = if dump { NLM_F_REQUEST | NLM_F_DUMP } else { NLM_F_REQUEST };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(TYPE_SOCKET.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes()); // sequence: one question per netlink socket
    bytes.extend(0_u32.to_ne_bytes()); // port: the kernel fills it in
    bytes.extend(body);
    bytes
}

/// What is read of a `struct unix_diag_msg` and its attributes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnixAnswer {
    pub(super) inode: u32,
    /// The path's bytes, or a zero byte and the abstract name.
    pub(super) name: Vec<u8>,
    /// Of a listener: waiting and limit.
    pub(super) queue: Option<(u32, u32)>,
    pub(super) file: Option<BoundFile>,
    /// The inode of the socket on the other end.
    pub(super) peer: Option<u32>,
}

/// Reads an answer about a unix socket; `None` when it is too short to be one.
pub(super) fn unix_answer(payload: &[u8]) -> Option<UnixAnswer> {
    let mut answer = UnixAnswer { inode: u32_at(payload, 4)?, ..UnixAnswer::default() };
    let mut rest = payload.get(16..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        match kind {
            UNIX_DIAG_NAME => {
                let path = value.strip_suffix(&[0]).filter(|path| path.first().is_some_and(|first| *first != 0));
                answer.name = path.unwrap_or(value).to_vec();
            }
            UNIX_DIAG_VFS => answer.file = Some(BoundFile { inode: u32_at(value, 0)?, device: u32_at(value, 4)? }),
            UNIX_DIAG_PEER => answer.peer = u32_at(value, 0),
            UNIX_DIAG_RQLEN => answer.queue = Some((u32_at(value, 0)?, u32_at(value, 4)?)),
            _ => {}
        }
        rest = rest.get(aligned(usize::from(length))..).unwrap_or_default();
    }
    Some(answer)
}

/// What is read of a `struct inet_diag_msg`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TcpAnswer {
    pub(super) local: IpAddr,
    /// Of a listener: connections waiting.
    pub(super) receive_queue: u32,
    /// Of a listener: the limit of the queue.
    pub(super) send_queue: u32,
    /// 0 for a connection that no process holds.
    pub(super) inode: u32,
}

/// Reads an answer about a TCP socket; `None` when it is too short to be one.
pub(super) fn tcp_answer(payload: &[u8]) -> Option<TcpAnswer> {
    let local = payload.get(8..24)?;
    let local = if payload[0] == AF_INET6 {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(local).ok()?))
    } else {
        IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(&local[..4]).ok()?))
    };
    Some(TcpAnswer {
        local,
        receive_queue: u32_at(payload, 56)?,
        send_queue: u32_at(payload, 60)?,
        inode: u32_at(payload, 68)?,
    })
}

/// Messages and attributes begin at multiples of four.
pub(super) fn aligned(length: usize) -> usize {
    length.max(4).next_multiple_of(4)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).expect("short").to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn unix(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![AF_UNIX, 1, 10, 0];
        bytes.extend(77_u32.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn requests_have_the_kernels_sizes() {
        assert_eq!(unix_request(5, LISTEN, false).len(), 16 + 24);
        assert_eq!(tcp_request(true, 80, LISTEN).len(), 16 + 56);
    }

    #[test]
    fn a_unix_answer_is_read_whole() {
        let queue = [3_u32.to_ne_bytes(), 5_u32.to_ne_bytes()].concat();
        let file = [9_u32.to_ne_bytes(), 24_u32.to_ne_bytes()].concat();
        let answer = unix_answer(&unix(&[attribute(0, b"/run/x.sock\0"), attribute(4, &queue), attribute(1, &file)]));
        let file = Some(BoundFile { inode: 9, device: 24 });
        let wanted = UnixAnswer { inode: 77, name: b"/run/x.sock".to_vec(), queue: Some((3, 5)), file, peer: None };
        assert_eq!(answer, Some(wanted));
    }

    #[test]
    fn an_abstract_name_keeps_its_zero_bytes() {
        let answer = unix_answer(&unix(&[attribute(0, b"\0name\0")])).expect("an answer");
        assert_eq!(answer.name, b"\0name\0");
    }

    #[test]
    fn short_and_lying_answers_are_refused_without_a_panic() {
        let whole = unix(&[attribute(0, b"/run/x.sock\0")]);
        for end in 0..whole.len() {
            let _ = unix_answer(&whole[..end]);
            let _ = tcp_answer(&whole[..end]);
        }
        let mut lying = whole.clone();
        lying[16] = 0xff;
        assert_eq!(unix_answer(&lying), None);
        // An attribute of length zero must not loop for ever.
        let mut zero = whole;
        zero[16] = 0;
        assert_eq!(unix_answer(&zero), None);
    }
}
