//! Binding the addresses that a configuration, a command line or a template's server names: all of them, or none.

use crate::adapter::gunicorn::GunicornArgs;
use crate::app::{Address, text};
use crate::listener::{self, Listener};
use std::net::SocketAddr;
use std::path::Path;

/// What gunicorn's `--bind` settings mean; a relative path begins at `directory`, and names are for `look_up`. Sockets
/// that gunicorn was to be given by number are left out.
pub(super) fn bind_addresses(
    binds: &[String],
    directory: &Path,
    look_up: impl Fn(&str, u16) -> Result<SocketAddr, String>,
) -> Result<Vec<Address>, String> {
    let mut addresses = Vec::new();
    for bind in binds {
        let cannot = |why| format!("--bind {}: {why}", text::to_os(bind).display());
        let address = match GunicornArgs::name(bind) {
            Some((host, port)) => look_up(&host, port).map(|address| Some(Address::Tcp(address))),
            None => GunicornArgs::address(bind),
        };
        match address.map_err(cannot)? {
            Some(Address::Unix(path)) => addresses.push(Address::Unix(directory.join(path))),
            Some(address) => addresses.push(address),
            None => {}
        }
    }
    Ok(addresses)
}

/// Binds every address, or none.
pub(super) fn bind_all<'a>(
    addresses: impl Iterator<Item = &'a Address>,
    umask: Option<u32>,
    mode: Option<u32>,
    backlog: u32,
) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for address in addresses {
        match listener::bind(address, umask, mode, backlog) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                listeners.iter().for_each(|l: &Listener| drop(l.unlink_if_bound_here()));
                return Err(error.to_string());
            }
        }
    }
    Ok(listeners)
}
