//! Where the processes of a worker listen, as the kernel knows it: the sockets among their descriptors that /proc/PID/net
//! shows as listening.

use super::procfs::{descendants, sockets};
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// No more of a table is read, in bytes: a machine may have very many sockets.
const TABLE_LIMIT: u64 = 4 << 20;

/// The addresses on which the process or one of its descendants listens: `127.0.0.1:8000`, `unix:/run/x.sock`. Sockets
/// with the inodes `except` are left out.
pub fn listening(pid: Pid, except: &BTreeSet<u64>) -> BTreeSet<String> {
    let held: BTreeSet<u64> = std::iter::once(pid).chain(descendants(pid)).filter_map(sockets).flatten().collect();
    let own = |inode: u64| held.contains(&inode) && !except.contains(&inode);
    let tcp = ["tcp", "tcp6"].map(|name| table(pid, name)).into_iter().flat_map(|text| tcp(&text));
    tcp.chain(unix(&table(pid, "unix"))).filter(|(inode, _)| own(*inode)).map(|(_, address)| address).collect()
}

/// A table of the process's network namespace, which need not be ours.
pub(super) fn table(pid: Pid, name: &str) -> String {
    let mut text = String::new();
    let file = File::open(format!("/proc/{pid}/net/{name}"));
    // What is no text is left out with all that follows it.
    let _ = file.and_then(|file| file.take(TABLE_LIMIT).read_to_string(&mut text));
    text
}

/// Listening sockets in a table of proc_pid_net(5): `sl local_address rem_address st ... inode`.
fn tcp(table: &str) -> Vec<(u64, String)> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // TCP_LISTEN.
        (*fields.get(3)? == "0A").then_some(())?;
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let address = SocketAddr::new(address(ip)?, u16::from_str_radix(port, 16).ok()?);
        Some((fields.get(9)?.parse().ok()?, address.to_string()))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

/// Connections in the same table: the socket's inode and the other end.
pub(super) fn tcp_connections(table: &str) -> Vec<(u64, SocketAddr)> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // TCP_ESTABLISHED.
        (*fields.get(3)? == "01").then_some(())?;
        let (ip, port) = fields.get(2)?.split_once(':')?;
        let address = SocketAddr::new(address(ip)?.to_canonical(), u16::from_str_radix(port, 16).ok()?);
        Some((fields.get(9)?.parse().ok()?, address))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

/// Words of 32 bits in the machine's byte order.
fn address(hexadecimal: &str) -> Option<IpAddr> {
    let words = (0..hexadecimal.len()).step_by(8).map(|at| u32::from_str_radix(hexadecimal.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

/// The same of unix sockets: `Num RefCount Protocol Flags Type St Inode Path`.
fn unix(table: &str) -> Vec<(u64, String)> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // __SO_ACCEPTCON.
        (*fields.get(3)? == "00010000").then_some(())?;
        Some((fields.get(6)?.parse().ok()?, format!("unix:{}", fields.get(7)?)))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_listen_on_is_found_and_what_is_excepted_is_not() {
        let (tcp, v6) = (std::net::TcpListener::bind("127.0.0.1:0"), std::net::TcpListener::bind("[::1]:0"));
        let path = std::env::temp_dir().join(format!("sockd-listening-{}", std::process::id()));
        let unix = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let me = rustix::process::getpid();
        let found = listening(me, &BTreeSet::new());
        for listener in tcp.iter().chain(&v6) {
            let address = listener.local_addr().expect("its address").to_string();
            assert!(found.contains(&address), "{address} is not in {found:?}");
        }
        let name = format!("unix:{}", path.display());
        assert!(found.contains(&name), "{found:?}");
        let inode = rustix::fs::fstat(&unix).expect("its inode").st_ino;
        assert!(!listening(me, &BTreeSet::from([inode])).contains(&name));
        let _ = std::fs::remove_file(&path);
    }
}
