//! Where sockets stand that one worker and sockd share: a directory that nobody else can enter, and names in it.
//!
//! Owns: the directory, and the files, which go with the values here.
//! Never: takes a name that others can guess, where there is no directory.
#![forbid(unsafe_code)]

use rustix::net::SocketAddrUnix;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// A directory that only we can enter, for sockets that live as long as we do.
#[derive(Debug)]
pub struct Directory {
    path: Option<PathBuf>,
    made: bool,
    token: String,
}

impl Directory {
    /// `given` (systemd's RuntimeDirectory=) if there is one, else a directory of our own in /tmp, else none at all:
    /// then the sockets are abstract ones with a name that cannot be guessed.
    pub fn open(given: Option<PathBuf>) -> Self {
        let token = token();
        if let Some(path) = given {
            return Self { path: Some(path), made: false, token };
        }
        let path = std::env::temp_dir().join(format!("sockd-{}-{token}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path).is_ok();
        Self { path: made.then_some(path), made, token }
    }

    /// The address for a socket of this name, as NOTIFY_SOCKET and the like have it: a path, or `@` and an abstract name.
    pub fn address(&self, name: &str) -> String {
        match &self.path {
            Some(path) => format!("{}/{name}", path.display()),
            None => format!("@sockd-{}-{}/{name}", std::process::id(), self.token),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(path) = self.path.as_deref().filter(|_| self.made) {
            // What stands in it are sockets of ours alone.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn token() -> String {
    let mut bytes = [0u8; 8];
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    bytes[..filled].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name that a unix socket of ours is bound to. Its file goes with this value.
#[derive(Debug)]
pub struct Name {
    file: Option<PathBuf>,
}

impl Name {
    /// Binds a unix socket to an address of [`Directory::address`].
    ///
    /// # Errors
    /// A path longer than 107 bytes, a full or read-only file system.
    pub fn bind(socket: impl AsFd, address: &str) -> io::Result<Self> {
        let (name, file) = match address.strip_prefix('@') {
            Some(name) => (SocketAddrUnix::new_abstract_name(name.as_bytes())?, None),
            None => (SocketAddrUnix::new(address)?, Some(PathBuf::from(address))),
        };
        if let Some(file) = &file {
            // The number of a worker is never used again, so what stands here was left by a predecessor of ours.
            let _ = std::fs::remove_file(file);
        }
        rustix::net::bind(socket, &name)?;
        Ok(Self { file })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use std::path::Path;

    #[test]
    fn neither_a_socket_nor_its_directory_leaves_a_file_behind() {
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let fd = fd.expect("a socket");
        let directory = Directory::open(None);
        let address = directory.address("probe-1");
        std::fs::write(&address, "a predecessor's").expect("written");
        let name = Name::bind(&fd, &address).expect("bound");
        assert!(Path::new(&address).exists());
        drop(name);
        assert!(!Path::new(&address).exists());
        let path = Path::new(&address).parent().expect("a directory");
        assert!(path.exists());
        drop(directory);
        assert!(!path.exists());
    }
}
