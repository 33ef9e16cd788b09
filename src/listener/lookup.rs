//! Looking up the address that a name stands for. This may take many seconds: never in the event loop.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// The address of a host by its name, or of a number with a zone (`fe80::1%eth0`). Of several the first of IPv4, which is
/// what the Python servers bind.
///
/// # Errors
/// What the resolver says.
pub fn look_up(host: &str, port: u16) -> io::Result<SocketAddr> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_zones_have_addresses() {
        assert_eq!(look_up("localhost", 80).expect("in /etc/hosts").to_string(), "127.0.0.1:80");
        let SocketAddr::V6(zoned) = look_up("fe80::1%lo", 80).expect("a number") else { panic!("of IPv6") };
        assert_eq!(zoned.scope_id(), 1, "the loopback interface is the first");
        assert!(look_up("no-such-host.invalid", 80).is_err());
    }
}
