//! Where a process is connected to: the services on the other ends of its sockets, as the kernel knows them.

use super::listening::{table, tcp_connections};
use super::procfs::sockets;
use crate::sock_diag;
use rustix::process::Pid;
use std::collections::BTreeSet;

/// The addresses that the process has connected to: `127.0.0.1:5432`, `unix:/run/postgresql/.s.PGSQL.5432`. Those of visitors
/// are among them, with ports of their own choice.
pub fn connected(pid: Pid) -> BTreeSet<String> {
    let held = sockets(pid).unwrap_or_default();
    let tcp = ["tcp", "tcp6"].map(|name| table(pid, name)).into_iter().flat_map(|text| tcp_connections(&text));
    let tcp = tcp.filter(|(inode, _)| held.contains(inode)).map(|(_, address)| address.to_string());
    // The kernel answers for our own network namespace.
    let unix = sock_diag::unix_peers(&held).unwrap_or_default();
    let unix = unix.into_iter().map(|name| format!("unix:{}", String::from_utf8_lossy(&name)));
    tcp.chain(unix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_are_connected_to_is_found() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = tcp.local_addr().expect("its address");
        let path = std::env::temp_dir().join(format!("sockd-connected-{}", std::process::id()));
        let unix = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let _to_tcp = std::net::TcpStream::connect(address).expect("connected");
        let _to_unix = std::os::unix::net::UnixStream::connect(&path).expect("connected");
        let _accepted = unix.accept().expect("accepted");
        let found = connected(rustix::process::getpid());
        assert!(found.contains(&address.to_string()), "{found:?}");
        assert!(found.contains(&format!("unix:{}", path.display())), "{found:?}");
        let _ = std::fs::remove_file(&path);
    }
}
