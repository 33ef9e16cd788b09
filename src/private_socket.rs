//! Where sockets are bound that sockd shares with one worker: at no path that lasts.
//!
//! A unix socket needs a path for the moment in which it is bound. Its file is opened (O_PATH) and unlinked at once: from
//! then on the open file is the only way to it, as `/proc/PID/fd/N`. So no cleaner of directories takes it away, no other
//! instance has its name, nothing stays behind when sockd is killed, and only processes that may look into sockd, those
//! of its own user and root, reach it (ptrace(2), PTRACE_MODE_READ_FSCREDS). Programs take it for a path like any other.
//!
//! Owns: the open files. Never: takes a name that others can guess, where no directory can be written to and the socket
//! is an abstract one.
#![forbid(unsafe_code)]

use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::SocketAddrUnix;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Binds private sockets.
#[derive(Debug)]
pub struct Binder {
    directories: Vec<PathBuf>,
}

impl Binder {
    /// `given` (systemd's RuntimeDirectory=), if there is one, is tried before the directories that everybody may use.
    pub fn new(given: Option<PathBuf>) -> Self {
        let shared = ["/dev/shm".into(), std::env::temp_dir()];
        Self { directories: given.into_iter().chain(shared).collect() }
    }

    /// Binds a unix socket.
    ///
    /// # Errors
    /// No descriptor is left. A directory that cannot be used is no error: then the next one is tried, and in the end an
    /// abstract name.
    pub fn bind(&self, socket: impl AsFd) -> io::Result<Binding> {
        let name = format!("sockd-{}-{}", std::process::id(), random());
        for directory in &self.directories {
            match bind_and_unlink(&socket, &directory.join(&name)) {
                Ok(file) => return Ok(Binding { reach: Reach::File(file) }),
                Err(error @ (rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)) => return Err(error.into()),
                Err(_) => {}
            }
        }
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(Binding { reach: Reach::Abstract(name) })
    }
}

fn bind_and_unlink(socket: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::net::bind(socket, &SocketAddrUnix::new(path)?)?;
    let file = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    let unlinked = rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::empty());
    let file = file?;
    unlinked?;
    Ok(file)
}

fn random() -> String {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    bytes[..filled].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The way to a private socket. It is lost with this value.
#[derive(Debug)]
pub struct Binding {
    reach: Reach,
}

#[derive(Debug)]
enum Reach {
    File(OwnedFd),
    Abstract(String),
}

impl Binding {
    /// The address for this process: a path, or `@` and an abstract name.
    pub fn own_address(&self) -> String {
        self.address_seen_from("self")
    }

    /// The address for other processes of our user, in the same form, as NOTIFY_SOCKET has it (sd_notify(3)).
    pub fn address(&self) -> String {
        self.address_seen_from(&std::process::id().to_string())
    }

    fn address_seen_from(&self, process: &str) -> String {
        match &self.reach {
            Reach::File(file) => format!("/proc/{process}/fd/{}", file.as_raw_fd()),
            Reach::Abstract(name) => format!("@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    fn socket() -> UnixDatagram {
        use rustix::net::{AddressFamily, SocketFlags, SocketType};
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        fd.expect("a socket").into()
    }

    #[test]
    fn nothing_is_left_in_the_directory_and_the_socket_is_reached_all_the_same() {
        let directory = std::env::temp_dir().join(format!("sockd-private-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        let binder = Binder::new(Some(directory.clone()));
        let (one, two) = (socket(), socket());
        let bound = [binder.bind(&one).expect("bound"), binder.bind(&two).expect("bound")];
        assert_eq!(std::fs::read_dir(&directory).expect("readable").count(), 0);
        std::fs::remove_dir_all(&directory).expect("ours");
        for (text, binding) in [("one", &bound[0]), ("two", &bound[1])] {
            for address in [binding.own_address(), binding.address()] {
                UnixDatagram::unbound().expect("a socket").send_to(text.as_bytes(), address).expect("sent");
            }
        }
        let mut buffer = [0; 8];
        for (text, socket) in [("one", &one), ("two", &two)] {
            for _ in 0..2 {
                let length = socket.recv(&mut buffer).expect("received");
                assert_eq!(&buffer[..length], text.as_bytes());
            }
        }
    }

    #[test]
    fn without_a_directory_the_name_is_abstract_and_never_the_same() {
        let binder = Binder { directories: vec!["/nowhere".into()] };
        let (one, two) = (socket(), socket());
        let bound = [binder.bind(&one).expect("bound"), binder.bind(&two).expect("bound")];
        assert!(bound[0].address().starts_with("@sockd-"), "{bound:?}");
        assert_ne!(bound[0].address(), bound[1].address());
    }
}
