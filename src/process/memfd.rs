//! A text in memory that a process finds as one of its descriptors: it needs no file on disk that could be changed,
//! missing or left behind.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

/// Puts a text into a file of its own, open for reading and writing, called `name` in `/proc/PID/fd`.
///
/// # Errors
/// EMFILE or ENOMEM.
pub fn memory_file(name: &str, text: &str) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text.as_bytes())?;
    Ok(file.into())
}
