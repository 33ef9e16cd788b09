//! Opening files that others may have made, so that no file keeps the one who looks waiting.
//!
//! A path that a user or a configuration names may lead to a named pipe, a device, a socket or a file without end, and
//! may lead elsewhere a moment later. Owns: the one way in which such a file is opened and read. Never: waits for a
//! writer, or holds more than the caller asked for.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file for reading.
///
/// # Errors
/// It cannot be opened, or is no regular file: that error's kind is `InvalidInput`.
pub fn open(path: &Path) -> io::Result<File> {
    let regular = |metadata: &Metadata| match (metadata.is_file(), metadata.is_dir()) {
        (true, _) => Ok(()),
        (false, true) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a directory, no regular file")),
        (false, false) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    };
    // Before it is opened: opening a device can have an effect of its own. What was looked at may be gone by then, so
    // that only the descriptor's own word counts.
    regular(&path.metadata()?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// The bytes of a regular file.
///
/// # Errors
/// As [`open`], or it has more than `limit` bytes: that error's kind is `FileTooLarge`.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path)?, limit)
}

/// The text of a regular file.
///
/// # Errors
/// As [`read`], or it is not UTF-8: that error's kind is `InvalidData`.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// The text of a regular file, and what its descriptor says of it.
///
/// # Errors
/// As [`read_text`].
pub fn read_text_and_metadata(path: &Path, limit: u64) -> io::Result<(String, Metadata)> {
    let (bytes, metadata) = read_and_metadata(path, limit)?;
    Ok((text(bytes)?, metadata))
}

/// The bytes of a regular file, and what its descriptor says of it.
///
/// # Errors
/// As [`read`].
pub fn read_and_metadata(path: &Path, limit: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    Ok((read_opened(file, limit)?, metadata))
}

/// The bytes of a regular file, and what its descriptor says of it, where the last part of the path is no symbolic link: in
/// a directory of somebody else's a link could lead to what only the reader may read.
///
/// # Errors
/// As [`read`]; a symbolic link is no regular file.
pub fn read_unlinked(path: &Path, limit: u64) -> io::Result<(Vec<u8>, Metadata)> {
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
    if !path.symlink_metadata()?.is_file() {
        return Err(no_file());
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(no_file());
    }
    Ok((read_opened(file, limit)?, metadata))
}

/// The first bytes of a regular file, at most so many.
///
/// # Errors
/// As [`open`].
pub fn head(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_opened(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        false => Ok(bytes),
        true => {
            let (size, unit) = if limit >= 1 << 20 { (limit >> 20, "MiB") } else { (limit >> 10, "KiB") };
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {size} {unit}")))
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_regular_file_of_a_sensible_size_is_read() {
        let room = std::env::temp_dir().join(format!("sockd-regular-file-{}", std::process::id()));
        std::fs::create_dir_all(&room).expect("made");
        let (pipe, link, file) = (room.join("pipe"), room.join("link"), room.join("file"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("a pipe");
        std::os::unix::fs::symlink(&pipe, &link).expect("linked");
        std::fs::write(&file, b"caf\xe9").expect("written");
        // Without O_NONBLOCK the first two would wait for a writer for ever.
        for path in [&pipe, &link, &room, Path::new("/dev/zero"), Path::new("/dev/null")] {
            let error = read(path, 10).expect_err("no regular file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}: {error}", path.display());
        }
        assert_eq!(read(&file, 4).expect("just so long"), b"caf\xe9");
        let (linked, to_file) = (room.join("linked"), read_unlinked(&file, 4).expect("no link").0);
        std::os::unix::fs::symlink(&file, &linked).expect("linked");
        assert_eq!(to_file, b"caf\xe9");
        for path in [&linked, &link, &pipe] {
            assert_eq!(read_unlinked(path, 4).expect_err("no file").kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(head(&file, 2).expect("its head"), b"ca");
        assert_eq!(read(&file, 3).expect_err("too long").kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read_text(&file, 4).expect_err("no text").kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(&room.join("missing"), 4).expect_err("missing").kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(room).expect("removed");
    }
}
