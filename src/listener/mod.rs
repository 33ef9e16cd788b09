//! Listening sockets: those systemd hands over, and those sockd binds itself.
//!
//! Purpose: take every descriptor of LISTEN_FDS or bind an address, keep the backlog as it was wanted, tell when a
//! connection waits, tell when the socket's path leads elsewhere, and clean up the socket file that we made.
//!
//! Owns: the descriptors. Each is close-on-exec; workers get duplicates from the code that starts them.
//!
//! Never: accepts a connection, and never touches O_NONBLOCK. That flag belongs to the open file description, which
//! the service manager and every worker share, and each kind of server has its own opinion of it.
#![forbid(unsafe_code)]

mod bind;
mod inherit;
mod lookup;
mod socket_owner;
mod wait;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat, lstat};
use rustix::io::Errno;

use crate::app::Address;
use crate::sock_diag;

pub use bind::{BindError, bind};
pub use inherit::{BadDescriptor, InheritError, Kind, inherit};
pub use lookup::look_up;
pub use socket_owner::SocketOwner;
pub use wait::wait_readable;

/// A listening stream socket.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// FileDescriptorName= of the socket unit, or the address when there is none.
    pub name: String,
    /// Where it listens, as the kernel says.
    pub address: Address,
    /// The socket's inode, as in `/proc/PID/fd` (`socket:[INODE]`).
    pub inode: u64,
    /// The backlog that is wanted; the kernel cuts it to net.core.somaxconn.
    backlog: u32,
    bound_here: bool,
    file: SocketFile,
}

/// The file of a socket, if it has one: enough to look for it without the socket, in another thread.
#[derive(Clone, Debug)]
pub struct SocketFile {
    /// Where it is, if it is a unix socket with a path.
    path: Option<PathBuf>,
    /// The file, when it is known to be this socket's.
    file: Option<FileIdentity>,
    /// The file that the kernel says it was bound to, where it says so.
    bound: Option<sock_diag::BoundFile>,
}

/// What stands at the path of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtPath {
    /// The socket's own file; or it is a socket without one (TCP, abstract).
    Ours(Option<Permissions>),
    /// Nothing: a client that connects by the path gets ENOENT.
    Nothing,
    /// Another file: a client that connects by the path arrives elsewhere, or nowhere.
    Another,
    /// That cannot be seen from here.
    Unknown,
}

/// Who may connect to a socket by its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The nine bits of chmod(2).
    pub mode: u32,
    /// The owner.
    pub user: u32,
    /// The group.
    pub group: u32,
}

/// A file as lstat(2) tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl Listener {
    /// A listener around a socket that listens already. `backlog` is the wanted one; `None` means as it is.
    fn new(
        fd: OwnedFd,
        name: Option<String>,
        address: Address,
        backlog: Option<u32>,
        bound_here: bool,
    ) -> io::Result<Self> {
        let inode = fstat(&fd)?.st_ino;
        let kernel = match &address {
            Address::Unix(_) | Address::Abstract(_) => sock_diag::unix_listener(inode).ok(),
            Address::Tcp(address) => {
                let all = sock_diag::tcp_listeners(*address).unwrap_or_default();
                all.into_iter().find(|listening| listening.inode == inode)
            }
        };
        let bound = kernel.as_ref().and_then(|kernel| kernel.file);
        let path = match &address {
            Address::Unix(path) => Some(path.clone()),
            Address::Abstract(_) | Address::Tcp(_) => None,
        };
        let file = path.as_deref().and_then(|path| identity(path, bound));
        let file = SocketFile { path, file, bound };
        // Without an answer (RestrictAddressFamilies=, PrivateNetwork=) the wish is systemd's own default, the most.
        let backlog = backlog.or(kernel.map(|kernel| kernel.limit)).unwrap_or(u32::MAX);
        let name = name.unwrap_or_else(|| address.to_string());
        Ok(Self { fd, name, address, inode, backlog, bound_here, file })
    }

    /// The wanted backlog. The kernel cuts it to net.core.somaxconn.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// Whether [`bind()`] made it, as opposed to [`inherit()`].
    #[must_use]
    pub fn is_bound_here(&self) -> bool {
        self.bound_here
    }

    /// Calls listen(2) again with the wanted backlog: each server that starts on the shared socket sets its own.
    ///
    /// # Errors
    /// What listen(2) says; a security module may forbid it (EACCES). The socket goes on listening as before.
    pub fn restore_backlog(&self) -> io::Result<()> {
        // The kernel reads a negative backlog as the greatest, and i32::MAX is what systemd asks for by default.
        Ok(rustix::net::listen(&self.fd, i32::try_from(self.backlog).unwrap_or(i32::MAX))?)
    }

    /// Its file.
    #[must_use]
    pub fn file(&self) -> &SocketFile {
        &self.file
    }

    /// Removes the socket file if [`bind()`] made it and it is still the one it made. True when it was removed.
    ///
    /// # Errors
    /// What unlink(2) says, as when the directory is read-only by now.
    pub fn unlink_if_bound_here(&self) -> io::Result<bool> {
        match &self.address {
            Address::Unix(path) if self.bound_here && matches!(self.file.at_path(), AtPath::Ours(_)) => {
                rustix::fs::unlink(path)?;
                Ok(true)
            }
            Address::Unix(_) | Address::Abstract(_) | Address::Tcp(_) => Ok(false),
        }
    }
}

impl SocketFile {
    /// What clients that go by the path find there.
    ///
    /// For an inherited socket the kernel says which file it was bound to. Where it does not (RestrictAddressFamilies=,
    /// PrivateNetwork=), a socket that stood at the path when we inherited it is taken for ours. The file of a socket
    /// that is open keeps its inode, so that no other file can have the same number.
    ///
    /// Takes as long as the file system that the path is on.
    #[must_use]
    pub fn at_path(&self) -> AtPath {
        let Some(path) = &self.path else { return AtPath::Ours(None) };
        let stat = match lstat(path) {
            Ok(stat) => stat,
            // One that was never seen may be hidden from us alone.
            Err(Errno::NOENT | Errno::NOTDIR) if self.file.is_some() || !may_be_hidden(path) => return AtPath::Nothing,
            Err(_) => return AtPath::Unknown,
        };
        let ours = match self.file {
            Some(_) => self.is_file(&stat),
            None if self.bound.is_some() => identity(path, self.bound).is_some(),
            None => return AtPath::Unknown,
        };
        let permissions = Permissions { mode: stat.st_mode & 0o777, user: stat.st_uid, group: stat.st_gid };
        if ours { AtPath::Ours(Some(permissions)) } else { AtPath::Another }
    }

    /// Whether this is the socket's file, which is known.
    pub(super) fn is_file(&self, stat: &rustix::fs::Stat) -> bool {
        self.file.is_some() && socket_of(stat) == self.file
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for Listener {
    /// `web.socket (unix:/run/web.sock)`, or the address alone when that is the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        if self.name == address { f.write_str(&address) } else { write!(f, "{} ({address})", self.name) }
    }
}

/// The identity of a socket file; `None` when there is none or it is another kind of file.
fn socket_file(path: &Path) -> Option<FileIdentity> {
    socket_of(&lstat(path).ok()?)
}

fn socket_of(stat: &rustix::fs::Stat) -> Option<FileIdentity> {
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
        .then_some(FileIdentity { device: stat.st_dev, inode: stat.st_ino })
}

/// Whether PrivateTmp=, ProtectHome= or their like may hide a path from us that others see (systemd.exec(5)).
fn may_be_hidden(path: &Path) -> bool {
    ["/tmp", "/var/tmp", "/home", "/root", "/run/user"].iter().any(|top| path.starts_with(top))
}

/// The identity of the socket file at `path`, unless the kernel says that our socket is bound to another file.
fn identity(path: &Path, bound: Option<sock_diag::BoundFile>) -> Option<FileIdentity> {
    let found = socket_file(path)?;
    let Some(bound) = bound else { return Some(found) };
    let device = rustix::fs::major(found.device) << 20 | rustix::fs::minor(found.device);
    // The kernel's device differs from stat's on btrfs and overlayfs: then the inodes cannot be compared either.
    let comparable = device == bound.device;
    let same = found.inode & u64::from(u32::MAX) == u64::from(bound.inode);
    (same || !comparable).then_some(found)
}
