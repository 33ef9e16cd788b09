//! Who has a socket: for the message "address in use".

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process that has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// Its process id.
    pub pid: i32,
    /// Its name, as in `ps -o comm`; empty when it cannot be read.
    pub name: String,
}

impl fmt::Display for SocketOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.name.as_str()) {
            // systemd itself listens for a socket unit until its service takes over.
            (1, "systemd") => f.write_str("systemd (pid 1), for a socket unit"),
            (pid, "") => write!(f, "pid {pid}"),
            (pid, name) => write!(f, "{name} (pid {pid})"),
        }
    }
}

impl SocketOwner {
    /// The process with this id.
    pub(super) fn of_pid(pid: i32) -> Self {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self { pid, name: name.trim_end().to_owned() }
    }

    /// The first process that has a descriptor of one of these sockets. Only processes of the same user can be looked
    /// into, unless we are root.
    pub(super) fn of_sockets(inodes: &[u64]) -> Option<Self> {
        let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
        let mut pids: Vec<i32> = fs::read_dir("/proc")
            .ok()?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        pids.into_iter().find(|pid| holds(*pid, &wanted)).map(Self::of_pid)
    }
}

fn holds(pid: i32, wanted: &[String]) -> bool {
    let Ok(entries) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return false };
    entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let link = link.as_os_str().as_bytes();
        wanted.iter().any(|socket| socket.as_bytes() == link)
    })
}
