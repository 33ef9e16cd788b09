//! Binding an address ourselves, when no socket unit did.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, lstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use tokio::runtime::Handle;

use super::{AtPath, Listener, Permissions, SocketOwner, socket_file};
use crate::app::Address;
use crate::sock_diag;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("cannot listen on {address}: {} listens there already", holder.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string))]
    InUse {
        /// The address that was asked for.
        address: Address,
        /// Who has it, where that can be known: our own user's processes, or any when we are root.
        holder: Option<SocketOwner>,
    },
    /// Something that is no socket stands at the path; it is left alone.
    #[error("cannot listen on unix:{}: {what} stands there, which sockd does not remove", path.display())]
    NotASocket {
        /// The path that was asked for.
        path: PathBuf,
        /// What stands there: `a regular file`.
        what: &'static str,
    },
    /// A system call failed.
    #[error("cannot listen on {address}: {step}: {source}")]
    System {
        /// The address that was asked for.
        address: Address,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// Binds an address and listens.
///
/// - A unix socket's file gets the permissions `mode` (such as 0o660), or, without a mode, 0o777 less `umask`, as
///   gunicorn does; without both the process's own umask counts. Both are bits from 0 to 0o777. The umask of the
///   process is changed for the duration of bind(2): call it while no other thread makes files.
/// - A socket file that nobody accepts on (connect(2) says ECONNREFUSED) is removed first. To find that out a
///   connection is tried; one that succeeds is closed at once and is the error [`BindError::InUse`].
/// - TCP gets SO_REUSEADDR and TCP_NODELAY and no IPV6_V6ONLY, as with gunicorn (`gunicorn/sock.py`, 27.0.1): `[::]`
///   takes IPv4 too unless net.ipv6.bindv6only says otherwise.
/// - `backlog` is cut to net.core.somaxconn by the kernel.
///
/// O_NONBLOCK is not set. The listener's name is its address; port 0 becomes the port the kernel chose.
///
/// # Errors
/// [`BindError`].
pub fn bind(address: &Address, umask: Option<u32>, mode: Option<u32>, backlog: u32) -> Result<Listener, BindError> {
    let failed = |step| {
        let address = address.clone();
        move |source: io::Error| BindError::System { address, step, source }
    };
    let family = match address {
        Address::Unix(_) | Address::Abstract(_) => AddressFamily::UNIX,
        Address::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(io::Error::from)
        .map_err(failed("socket"))?;
    let bound = match address {
        Address::Unix(path) => bind_path(&socket, address, path, umask, mode)?,
        Address::Abstract(name) => {
            SocketAddrUnix::new_abstract_name(name.as_bytes()).and_then(|at| rustix::net::bind(&socket, &at))
        }
        Address::Tcp(at) => sockopt::set_socket_reuseaddr(&socket, true)
            .and_then(|()| sockopt::set_tcp_nodelay(&socket, true))
            .and_then(|()| rustix::net::bind(&socket, at)),
    };
    // With SO_REUSEADDR two sockets may have one port until the second calls listen(2).
    let listening = bound.and_then(|()| rustix::net::listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX)));
    match listening {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => {
            return Err(BindError::InUse { address: address.clone(), holder: holder_of(address) });
        }
        Err(errno) => return Err(failed("bind")(errno.into())),
    }
    let address = match address {
        Address::Tcp(_) => Address::Tcp(local_address(&socket).map_err(failed("getsockname"))?),
        Address::Unix(_) | Address::Abstract(_) => address.clone(),
    };
    let failed =
        BindError::System { address: address.clone(), step: "fstat", source: io::Error::from(io::ErrorKind::Other) };
    Listener::new(socket, None, address, Some(backlog), true).map_err(|_| failed)
}

impl Listener {
    /// Binds the same address again, because the path of this one leads here no longer: a new socket with the name, the
    /// backlog and, as far as we may, the permissions of this one. Connections that wait here stay here.
    ///
    /// # Errors
    /// As [`bind`]: what listens at the path by now is left alone. A group or an owner that could not be given is in
    /// the second value; the socket is bound all the same.
    pub fn bind_again(&self, permissions: Permissions) -> Result<(Self, Option<io::Error>), BindError> {
        let mut listener = bind(&self.address, None, Some(permissions.mode), self.backlog)?;
        listener.name.clone_from(&self.name);
        let AtPath::Ours(Some(found)) = listener.file.at_path() else { return Ok((listener, None)) };
        let Address::Unix(path) = &listener.address else { return Ok((listener, None)) };
        let user = (found.user != permissions.user).then(|| Uid::from_raw(permissions.user));
        let group = (found.group != permissions.group).then(|| Gid::from_raw(permissions.group));
        let refused = match (user, group) {
            (None, None) => None,
            // Not through a link that somebody puts there meanwhile.
            (user, group) => chownat(CWD, path, user, group, AtFlags::SYMLINK_NOFOLLOW).err().map(io::Error::from),
        };
        Ok((listener, refused))
    }
}

impl Listener {
    /// Gives the file of a unix socket that was bound here this owner and mode.
    ///
    /// # Errors
    /// What the kernel says, and NotFound if the file is another one by now. Nothing that stands in its place is touched.
    pub fn hand_over(&self, permissions: Permissions) -> io::Result<()> {
        let Address::Unix(path) = &self.address else { return Ok(()) };
        if !self.is_bound_here() {
            return Ok(());
        }
        // By a descriptor of the file itself: the owner of the directory may put something else there at any time.
        let file = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if !self.file.is_file(&stat) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if (stat.st_uid, stat.st_gid) != (permissions.user, permissions.group) {
            let (user, group) = (Uid::from_raw(permissions.user), Gid::from_raw(permissions.group));
            chownat(&file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
        }
        if stat.st_mode & 0o777 != permissions.mode {
            let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::chmod(itself, Mode::from_bits_truncate(permissions.mode))?;
        }
        Ok(())
    }
}

fn local_address(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    Ok(SocketAddr::try_from(address)?)
}

/// Binds a path, after removing what is stale there.
fn bind_path(
    socket: &OwnedFd,
    address: &Address,
    path: &Path,
    umask: Option<u32>,
    mode: Option<u32>,
) -> Result<Result<(), Errno>, BindError> {
    let failed = |step, errno: Errno| BindError::System { address: address.clone(), step, source: errno.into() };
    let at = SocketAddrUnix::new(path).map_err(|errno| failed("the path", errno))?;
    clear_stale(address, path, &at)?;
    // A node born with its permissions never stands there with others: bind(2) makes it 0777 less the umask.
    let umask = mode.map(|mode| !mode & 0o777).or(umask);
    let before = umask.map(|umask| rustix::process::umask(Mode::from_bits_truncate(umask)));
    let bound = rustix::net::bind(socket, &at);
    if let Some(before) = before {
        rustix::process::umask(before);
    }
    if bound.is_ok()
        && let Some(mode) = mode
    {
        // A default ACL of the directory counts instead of the umask.
        rustix::fs::chmod(path, Mode::from_bits_truncate(mode & 0o777)).map_err(|errno| failed("chmod", errno))?;
    }
    Ok(bound)
}

/// Removes a socket file that nobody accepts on. What is no socket, and what somebody listens on, is an error.
fn clear_stale(address: &Address, path: &Path, at: &SocketAddrUnix) -> Result<(), BindError> {
    let failed = |step, errno: Errno| BindError::System { address: address.clone(), step, source: errno.into() };
    let kind = match lstat(path) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        // Anything but "nothing there" shows again, and better, when bind(2) is tried.
        Err(_) => return Ok(()),
    };
    let what = match kind {
        FileType::Socket => None,
        FileType::RegularFile => Some("a regular file"),
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a FIFO"),
        FileType::CharacterDevice | FileType::BlockDevice => Some("a device"),
        FileType::Unknown => Some("something that is no socket"),
    };
    if let Some(what) = what {
        return Err(BindError::NotASocket { path: path.to_owned(), what });
    }
    let found = socket_file(path);
    // A full queue would block a blocking connect for ever.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    let probe = probe.map_err(|errno| failed("socket", errno))?;
    match rustix::net::connect(&probe, at) {
        Err(Errno::CONNREFUSED) => {
            // Another one may have replaced the stale file in between; then bind(2) says so.
            if socket_file(path) == found {
                match rustix::fs::unlink(path) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed("the stale socket file cannot be removed", errno)),
                }
            }
            Ok(())
        }
        Err(Errno::NOENT) => Ok(()),
        Ok(()) => Err(BindError::InUse { address: address.clone(), holder: peer(probe) }),
        // A socket with a full queue (EAGAIN) is somebody's too, and so is one of another type (EPROTOTYPE).
        Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            Err(BindError::InUse { address: address.clone(), holder: holder_of(address) })
        }
        Err(errno) => Err(failed("the socket file there cannot be tried", errno)),
    }
}

/// The process that called listen(2) on the other end (SO_PEERCRED of unix(7)); it may be systemd.
///
/// Asked through tokio, because rustix cannot represent the pid 0 that the kernel gives for a process outside our pid
/// name space.
fn peer(probe: OwnedFd) -> Option<SocketOwner> {
    let stream = UnixStream::from(probe);
    let runtime;
    let handle = match Handle::try_current() {
        Ok(handle) => handle,
        Err(_) => {
            runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
            runtime.handle().clone()
        }
    };
    let _inside = handle.enter();
    let stream = tokio::net::UnixStream::from_std(stream).ok()?;
    stream.peer_cred().ok()?.pid().filter(|pid| *pid > 0).map(SocketOwner::of_pid)
}

/// Who listens on an address, by the socket's inode.
fn holder_of(address: &Address) -> Option<SocketOwner> {
    match address {
        Address::Tcp(address) => SocketOwner::of_sockets(&sock_diag::tcp_holders(*address).ok()?),
        Address::Unix(path) => SocketOwner::of_sockets(&sock_diag::unix_holders(path.as_os_str().as_bytes()).ok()?),
        Address::Abstract(name) => {
            SocketOwner::of_sockets(&sock_diag::unix_holders(&[&[0], name.as_bytes()].concat()).ok()?)
        }
    }
}
