//! The service's processes and the listening sockets of this machine.
//!
//! Owns: reading /proc/net and /proc/PID/fd, and asking sock_diag for queues.
//! Never: looks at more than [`MAX_PROCESSES`] processes or descriptors of one process.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Listening, Process};
use crate::doctor::target::reaches;
use crate::systemd::unit_of_pid;
use crate::{cgroup, sock_diag};

/// No more processes, and descriptors of each, are looked at.
const MAX_PROCESSES: usize = 1024;

/// Every listening socket of our network name space: its inode and its address.
pub type Table = BTreeMap<u64, String>;

/// Reads /proc/net: unix, tcp, tcp6.
pub fn table() -> Table {
    let read = |name: &str| fs::read(format!("/proc/net/{name}")).unwrap_or_default();
    let mut table = Table::new();
    unix(&String::from_utf8_lossy(&read("unix")), &mut table);
    for name in ["tcp", "tcp6"] {
        tcp(&String::from_utf8_lossy(&read(name)), &mut table);
    }
    table
}

/// `Num: RefCount Protocol Flags Type St Inode Path` (proc_net(5)); Flags 00010000 is SO_ACCEPTCON.
fn unix(text: &str, table: &mut Table) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some("00010000"), Some(inode)) = (words.nth(3), words.nth(2).and_then(|inode| inode.parse().ok())) else {
            continue;
        };
        let path = behind(line, 7);
        if !path.is_empty() {
            table.insert(inode, path.to_owned());
        }
    }
}

/// What stands behind so many words: a path may have spaces.
fn behind(line: &str, words: usize) -> &str {
    let next = |rest: &'_ str| rest.find(char::is_whitespace).unwrap_or(rest.len());
    (0..words).fold(line.trim_start(), |rest, _| rest[next(rest)..].trim_start())
}

/// `sl local_address rem_address st … inode`; state 0A is LISTEN. Addresses are words of the machine's byte order.
fn tcp(text: &str, table: &mut Table) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(local), Some(&"0A"), Some(inode)) = (words.get(1), words.get(3), words.get(9)) else { continue };
        if let (Some(address), Ok(inode)) = (tcp_address(local), inode.parse()) {
            table.insert(inode, address.to_string());
        }
    }
}

fn tcp_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..host.len() / 8)
        .map(|at| Some(u32::from_str_radix(host.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let ip = match words?.concat().as_slice() {
        bytes @ [_, _, _, _] => IpAddr::from(<[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).ok()?),
        bytes => IpAddr::from(<[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).ok()?),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The processes of a control group.
pub fn processes(control_group: &str, table: &Table) -> Vec<Process> {
    let mut pids: Vec<u32> =
        cgroup::processes_of(control_group).iter().map(|pid| pid.as_raw_nonzero().get() as u32).collect();
    pids.sort_unstable();
    pids.into_iter().take(MAX_PROCESSES).map(|pid| process(pid, table)).collect()
}

fn process(pid: u32, table: &Table) -> Process {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let listeners = descriptors(pid).map(|inodes| {
        let mut inodes: Vec<u64> = inodes.into_iter().filter(|inode| table.contains_key(inode)).collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    });
    Process { pid, name: name.trim_end().to_owned(), listeners }
}

/// The inodes of a process's sockets. `None`: we may not look. The directory of a process of our own user can be listed
/// even where its links cannot be followed, as with another group.
fn descriptors(pid: u32) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.take(MAX_PROCESSES).flatten() {
        match fs::read_link(entry.path()) {
            Ok(link) => {
                let inode: Option<u64> =
                    link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
                inodes.extend(inode);
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return None,
            // Closed meanwhile.
            Err(_) => {}
        }
    }
    Some(inodes)
}

/// A table in which what was bound to a relative path has the path that it has for a service of this directory.
pub fn absolute(table: &Table, directory: &str) -> Table {
    let path = |address: &String| match address.starts_with(['/', '@']) || address.parse::<SocketAddr>().is_ok() {
        true => address.clone(),
        false => std::path::Path::new(directory).join(address).display().to_string(),
    };
    table.iter().map(|(inode, address)| (*inode, path(address))).collect()
}

/// The sockets that concern us, with their queues: at one of the addresses, or held by one of the processes.
pub fn listening(table: &Table, addresses: &[String], processes: &[Process]) -> Vec<Listening> {
    let held: Vec<u64> = processes.iter().flat_map(|process| process.listeners.iter().flatten().copied()).collect();
    let concerns = |(inode, address): &(&u64, &String)| {
        // sockd's own sockets, the control socket and those where it asks workers, are nobody's way to the application.
        let name = address.rsplit(['/', '@']).next().unwrap_or_default();
        let own = address.starts_with("@sockd/") || name.starts_with("sockd-");
        (held.contains(inode) && !own) || addresses.iter().any(|wanted| reaches(wanted, address))
    };
    let mut found: Vec<Listening> =
        table.iter().filter(concerns).take(MAX_PROCESSES).map(|(inode, address)| listener(*inode, address)).collect();
    name_holders(&mut found, &held);
    found
}

/// The sockets on one of these TCP ports, whatever their host.
pub fn on_ports(table: &Table, ports: &[u16]) -> Vec<Listening> {
    let on_port = |address: &String| address.parse::<SocketAddr>().is_ok_and(|found| ports.contains(&found.port()));
    let sockets = table.iter().filter(|(_, address)| on_port(address)).take(MAX_PROCESSES);
    let mut found: Vec<Listening> = sockets.map(|(inode, address)| listener(*inode, address)).collect();
    name_holders(&mut found, &[]);
    found
}

/// Names who has each of these sockets that is not among `own`. systemd has all that it made, and is named only where
/// nobody else has it.
fn name_holders(sockets: &mut [Listening], own: &[u64]) {
    let wanted = |socket: &Listening| !own.contains(&socket.inode);
    if !sockets.iter().any(wanted) {
        return;
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable_by_key(|pid| (*pid == 1, *pid));
    for pid in pids {
        let Some(inodes) = descriptors(pid) else { continue };
        for socket in sockets.iter_mut().filter(|socket| socket.holder.is_empty() && wanted(socket)) {
            if inodes.contains(&socket.inode) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let unit = unit_of_pid(pid).map_or(String::new(), |unit| format!(", {unit}"));
                socket.holder = format!("{} (pid {pid}{unit})", name.trim_end());
            }
        }
    }
}

/// How many connections wait at an address, all of its sockets together. `None`: nobody listens, or the kernel does not
/// tell.
pub fn waiting(address: &str) -> Option<u32> {
    let sockets = table().into_iter().filter(|(_, listens)| reaches(address, listens));
    let found: Vec<u32> = sockets.filter_map(|(inode, listens)| listener(inode, &listens).waiting).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

fn listener(inode: u64, address: &str) -> Listening {
    let found = match address.parse::<SocketAddr>() {
        Ok(tcp) => {
            sock_diag::tcp_listeners(tcp).ok().and_then(|all| all.into_iter().find(|found| found.inode == inode))
        }
        Err(_) => sock_diag::unix_listener(inode).ok(),
    };
    let accepted = match (address.parse::<SocketAddr>(), address.strip_prefix('@')) {
        (Ok(tcp), _) => sock_diag::tcp_accepted(tcp),
        (Err(_), Some(name)) => sock_diag::unix_accepted(&[b"\0", name.as_bytes()].concat()),
        (Err(_), None) => sock_diag::unix_accepted(address.as_bytes()),
    };
    Listening {
        address: address.to_owned(),
        inode,
        in_flight: accepted.ok().and_then(|accepted| u32::try_from(accepted.inodes.len()).ok()),
        waiting: found.as_ref().map(|found| found.waiting),
        limit: found.as_ref().map(|found| found.limit),
        file_inode: found.and_then(|found| found.file).map(|file| file.inode),
        holder: String::new(),
    }
}

/// Ids of all processes with this name.
pub fn named(name: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name))
        .collect()
}

/// When a process was started, in seconds since 1970.
pub fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything; starttime is the 22nd field (proc_pid_stat(5)), in ticks
    // of 10 ms on every Linux we run on.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found() {
        let mut table = Table::new();
        unix(
            "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 22 /run/a b.sock\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 23 /run/a.sock\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 24 @name\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 25\n",
            &mut table,
        );
        tcp(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 30 1 0\n\
             1: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 31 1 0\n\
             0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 32 1\n",
            &mut table,
        );
        let found: Vec<(u64, &str)> = table.iter().map(|(inode, address)| (*inode, address.as_str())).collect();
        assert_eq!(found, [(22, "/run/a b.sock"), (24, "@name"), (30, "127.0.0.1:8000"), (32, "[::1]:80")]);
        table.insert(33, "myproject.sock".to_owned());
        let absolute = absolute(&table, "/home/sammy/myproject");
        assert_eq!(absolute[&33], "/home/sammy/myproject/myproject.sock");
        assert_eq!((&*absolute[&22], &*absolute[&24], &*absolute[&30]), ("/run/a b.sock", "@name", "127.0.0.1:8000"));
    }

    #[test]
    fn our_own_sockets_and_time_are_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let table = table();
        let own = process(std::process::id(), &table);
        let found = listening(&table, &[], std::slice::from_ref(&own));
        let found = found.iter().find(|found| found.address == address).expect("it listens");
        assert_eq!((found.waiting, found.in_flight, found.holder.as_str()), (Some(0), Some(0), ""));
        assert_eq!(waiting(&address), Some(0));
        let _visitor = std::net::TcpStream::connect(&address).expect("it listens");
        let _accepted = listener.accept().expect("a connection");
        let again = super::listening(&table, std::slice::from_ref(&address), &[]);
        assert_eq!(again[0].in_flight, Some(1));
        let port = listener.local_addr().expect("bound").port();
        let named = on_ports(&table, &[port]);
        assert!(named[0].holder.contains(&format!("(pid {}", std::process::id())), "{named:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let started = started(std::process::id()).expect("it runs");
        assert!(started <= now + 2 && now - started < 24 * 3600, "{started} {now}");
    }
}
