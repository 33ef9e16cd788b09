//! Socket activation: taking over the descriptors of LISTEN_FDS (sd_listen_fds(3)).

use std::env;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Resource, getrlimit};

use super::Listener;
use crate::app::Address;

/// Why the descriptors of LISTEN_FDS cannot be used. Nothing is served then: a descriptor that is taken and never
/// accepted from leaves its clients waiting for ever.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// A variable that must hold a number does not.
    #[error("cannot take over the sockets: {variable}={value:?} is not a number that makes sense")]
    NotANumber {
        /// LISTEN_FDS, LISTEN_PID or LISTEN_FDS_FIRST_FD.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
    /// More descriptors are promised than a process can have.
    #[error("cannot take over the sockets: LISTEN_FDS={count}, but a process here has at most {limit} descriptors")]
    TooMany {
        /// LISTEN_FDS.
        count: usize,
        /// RLIMIT_NOFILE, the hard limit.
        limit: usize,
    },
    /// LISTEN_FDNAMES has not one name for each descriptor, so that no name can be trusted.
    #[error("cannot take over the sockets: LISTEN_FDS={count}, but LISTEN_FDNAMES has {names} names ({value:?})")]
    Names {
        /// LISTEN_FDS.
        count: usize,
        /// How many names there are.
        names: usize,
        /// LISTEN_FDNAMES.
        value: String,
    },
    /// Some descriptors are not listening stream sockets: all that are wrong, one to a line.
    #[error("cannot take over the sockets: {}", lines(.0))]
    Descriptors(Vec<BadDescriptor>),
}

/// A descriptor of LISTEN_FDS that cannot be served from.
#[derive(Debug)]
pub struct BadDescriptor {
    /// Its place in LISTEN_FDS, from 0.
    pub index: usize,
    /// Its number.
    pub descriptor: i32,
    /// Its name in LISTEN_FDNAMES.
    pub name: Option<String>,
    /// What it is.
    pub kind: Kind,
}

/// What a descriptor is that is no listening stream socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not open at all.
    Closed,
    /// A datagram socket: ListenDatagram=.
    Datagram,
    /// A sequential-packet socket: ListenSequentialPacket=.
    SequentialPacket,
    /// A stream socket with a peer: Accept=yes, or StandardInput=socket.
    Connected,
    /// A stream socket on which listen(2) was never called.
    NotListening,
    /// A socket of a family other than AF_UNIX, AF_INET and AF_INET6.
    OtherSocket,
    /// A FIFO or pipe: ListenFIFO=.
    Fifo,
    /// A file or device: ListenSpecial=.
    File(PathBuf),
    /// Something else that the kernel calls by this name, such as `anon_inode:[eventfd]`.
    Other(String),
}

impl Kind {
    /// What to do about it, in the words of the unit file.
    fn remedy(&self) -> &'static str {
        match self {
            Self::Closed => "LISTEN_FDS promises more descriptors than were handed over",
            Self::Datagram => "the socket unit says ListenDatagram=; use ListenStream=",
            Self::SequentialPacket => "the socket unit says ListenSequentialPacket=; use ListenStream=",
            Self::Connected => "the socket unit says Accept=yes; use Accept=no",
            Self::NotListening => "hand over a socket after listen(2), as ListenStream= does",
            Self::OtherSocket => "use ListenStream= with a path, a port or an address",
            Self::Fifo => "the socket unit says ListenFIFO=; use ListenStream=",
            Self::File(_) => {
                "the socket unit says ListenSpecial= or OpenFile=, or a file was stored; use ListenStream="
            }
            Self::Other(_) => "only sockets of ListenStream= can be served from",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Datagram => f.write_str("a datagram socket"),
            Self::SequentialPacket => f.write_str("a sequential-packet socket"),
            Self::Connected => f.write_str("a connected socket"),
            Self::NotListening => f.write_str("a socket that does not listen"),
            Self::OtherSocket => f.write_str("a socket that is neither unix nor TCP"),
            Self::Fifo => f.write_str("a FIFO"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Other(what) => write!(f, "{what:?}"),
        }
    }
}

impl fmt::Display for BadDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {} (number {} of LISTEN_FDS", self.descriptor, self.index + 1)?;
        if let Some(name) = &self.name {
            write!(f, ", {name:?}")?;
        }
        write!(f, ") is {}; {}", self.kind, self.kind.remedy())
    }
}

fn lines(bad: &[BadDescriptor]) -> String {
    bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Takes every descriptor that the service manager handed over, in its order; none when there are none.
///
/// Call it first in `main`, before any thread or runtime exists: it removes LISTEN_FDS and LISTEN_PID from the
/// environment (LISTEN_FDNAMES stays; the code that makes a worker's environment drops it), and no other code may have
/// opened a descriptor in between. A second call finds none.
///
/// - LISTEN_FDS unset or 0: none. LISTEN_PID of another process: none, for they are not meant for us. LISTEN_PID unset
///   or empty: accepted, as the crate listenfd does, so that a plain shell can hand over sockets.
/// - LISTEN_FDS_FIRST_FD, an extension of listenfd's, moves the first descriptor from 3 to a higher number.
/// - Without LISTEN_FDNAMES each listener is called by its address.
///
/// # Errors
/// [`InheritError`]: a number that is none, more descriptors than can be, names that do not match, or any descriptor
/// that is not a listening stream socket. All bad descriptors are reported at once, closed ones only once.
pub fn inherit() -> Result<Vec<Listener>, InheritError> {
    let promise = Promise::from_environment(&|name| env::var_os(name))?;
    // listenfd reads the environment once more and then removes what it read, also when it is not for us.
    let mut fds = ListenFd::from_env();
    let Some(promise) = promise else { return Ok(Vec::new()) };
    let mut listeners = Vec::new();
    let mut bad = Vec::new();
    for index in 0..promise.count {
        let name = promise.names.as_ref().map(|names| names[index].clone());
        let descriptor = promise.first + i32::try_from(index).unwrap_or(i32::MAX);
        match take(&mut fds, index, descriptor, name.clone()) {
            Ok(listener) => listeners.push(listener),
            Err(kind) => {
                let closed = kind == Kind::Closed;
                bad.push(BadDescriptor { index, descriptor, name, kind });
                if closed {
                    break;
                }
            }
        }
    }
    if bad.is_empty() { Ok(listeners) } else { Err(InheritError::Descriptors(bad)) }
}

/// What the environment promises.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    count: usize,
    first: i32,
    names: Option<Vec<String>>,
}

impl Promise {
    fn from_environment(read: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> Result<Option<Self>, InheritError> {
        let number = |variable: &'static str, least: i64, most: i64| -> Result<Option<i64>, InheritError> {
            let Some(value) = read(variable) else { return Ok(None) };
            let value = value.to_string_lossy().into_owned();
            if value.is_empty() && variable == "LISTEN_PID" {
                return Ok(None);
            }
            match value.parse::<i64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
                _ => Err(InheritError::NotANumber { variable, value }),
            }
        };
        let pid = number("LISTEN_PID", 1, i32::MAX.into())?;
        if pid.is_some_and(|pid| pid != i64::from(std::process::id())) {
            return Ok(None);
        }
        let Some(count) = number("LISTEN_FDS", 0, i32::MAX.into())? else { return Ok(None) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count == 0 {
            return Ok(None);
        }
        let limit = getrlimit(Resource::Nofile).maximum.and_then(|limit| usize::try_from(limit).ok());
        // The kernel's own ceiling (fs.nr_open) is 2^20 unless raised.
        let limit = limit.unwrap_or(1 << 20).min(1 << 20);
        if count > limit {
            return Err(InheritError::TooMany { count, limit });
        }
        // Descriptors 0 to 2 are the standard ones: to take them for listeners would close them.
        let first = number("LISTEN_FDS_FIRST_FD", 3, 1 << 20)?.unwrap_or(3);
        let first = i32::try_from(first).unwrap_or(3);
        let names = match read("LISTEN_FDNAMES") {
            None => None,
            Some(value) => {
                let value = value.to_string_lossy().into_owned();
                let names: Vec<_> = value.split(':').map(str::to_owned).collect();
                if names.len() != count {
                    return Err(InheritError::Names { count, names: names.len(), value });
                }
                Some(names)
            }
        };
        Ok(Some(Self { count, first, names }))
    }
}

/// Takes one descriptor. listenfd marks it close-on-exec and checks family and type; the rest is checked here.
fn take(fds: &mut ListenFd, index: usize, descriptor: i32, name: Option<String>) -> Result<Listener, Kind> {
    let unreadable = |error: io::Error| Kind::Other(error.to_string());
    if let Ok(Some(listener)) = fds.take_unix_listener(index) {
        listens(&listener)?;
        let address = unix_address(&listener).map_err(unreadable)?;
        return Listener::new(listener.into(), name, address, None, false).map_err(unreadable);
    }
    // For listenfd AF_INET6 is TCP as well.
    if let Ok(Some(listener)) = fds.take_tcp_listener(index) {
        listens(&listener)?;
        let address = tcp_address(&listener).map_err(unreadable)?;
        return Listener::new(listener.into(), name, address, None, false).map_err(unreadable);
    }
    Err(kind_of(fds, index, descriptor))
}

fn listens(socket: impl AsFd) -> Result<(), Kind> {
    if sockopt::socket_acceptconn(&socket).unwrap_or(false) {
        return Ok(());
    }
    let connected = rustix::net::getpeername(&socket).is_ok();
    Err(if connected { Kind::Connected } else { Kind::NotListening })
}

fn unix_address(listener: &UnixListener) -> io::Result<Address> {
    let address = listener.local_addr()?;
    if let Some(path) = address.as_pathname() {
        return Ok(Address::Unix(path.to_owned()));
    }
    let name = address.as_abstract_name().unwrap_or_default();
    Ok(Address::Abstract(String::from_utf8_lossy(name).into_owned()))
}

fn tcp_address(listener: &TcpListener) -> io::Result<Address> {
    Ok(Address::Tcp(listener.local_addr()?))
}

/// Says what a descriptor is that listenfd did not give as a stream socket of a family we serve.
fn kind_of(fds: &mut ListenFd, index: usize, descriptor: i32) -> Kind {
    // The link in /proc tells what a bare number stands for without taking it over.
    let Ok(link) = Path::new("/proc/self/fd").join(descriptor.to_string()).read_link() else { return Kind::Closed };
    if !link.to_string_lossy().starts_with("socket:[") {
        return match link.to_string_lossy() {
            text if text.starts_with("pipe:[") => Kind::Fifo,
            text if !text.starts_with('/') => Kind::Other(text.into_owned()),
            _ => match std::fs::metadata(format!("/proc/self/fd/{descriptor}")) {
                Ok(metadata) if std::os::unix::fs::FileTypeExt::is_fifo(&metadata.file_type()) => Kind::Fifo,
                _ => Kind::File(link),
            },
        };
    }
    let datagram = fds.take_unix_datagram(index).is_ok_and(|found| found.is_some())
        || fds.take_udp_socket(index).is_ok_and(|found| found.is_some());
    if datagram {
        return Kind::Datagram;
    }
    let (unix, packets) = (AddressFamily::UNIX.as_raw().into(), SocketType::SEQPACKET.as_raw().cast_signed());
    match fds.take_custom::<OwnedFd>(index, unix, packets, "sequential-packet socket") {
        Ok(Some(_)) => Kind::SequentialPacket,
        Ok(None) | Err(_) => Kind::OtherSocket,
    }
}
