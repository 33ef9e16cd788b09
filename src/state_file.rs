//! Files that an instance keeps in its state directory, which belongs to the service's user.
//!
//! Owns: how one is read and replaced. Never: follows a link, waits for a pipe, believes a file of somebody else's, or leaves
//! half a file.
#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::regular_file;

/// For the service's user alone: what is kept may quote what the application says.
const MODE: u32 = 0o600;

/// The bytes of a file, at most so many.
///
/// # Errors
/// As [`regular_file::read_unlinked`], or it belongs neither to the owner of its directory nor to root.
pub fn read(directory: &Path, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let (bytes, metadata) = regular_file::read_unlinked(&directory.join(name), limit)?;
    let owner = fs::metadata(directory).map(|directory| directory.uid());
    if metadata.uid() != 0 && !owner.is_ok_and(|owner| owner == metadata.uid()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not of the owner of its directory"));
    }
    Ok(bytes)
}

/// Replaces a file: those who read it meet the one before or this one, whole.
///
/// # Errors
/// Why it cannot be written. The one before is still there.
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary: PathBuf = directory.join(format!(".{name}.new"));
    let written = (|| {
        remove(directory, &format!(".{name}.new"))?;
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(MODE).custom_flags(flags).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, directory.join(name))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Opens a file to write behind what it holds; one that is not there is made.
///
/// # Errors
/// It is a link, no regular file, or cannot be written.
pub fn append(directory: &Path, name: &str) -> io::Result<File> {
    // A pipe would wait for a reader.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file =
        OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(flags).open(directory.join(name))?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
