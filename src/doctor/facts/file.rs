//! Reading a small file that somebody else wrote.

use super::File;
use crate::regular_file;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The longest configuration file that is read, in bytes.
const FILE_LIMIT: u64 = 256 << 10;

/// A file's text, if it is a regular one of a sensible size.
pub fn read(path: &Path) -> std::io::Result<File> {
    let (bytes, metadata) = regular_file::read_and_metadata(path, FILE_LIMIT)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let shared = metadata.mode() & 0o022 != 0;
    let writer = if shared { File::ANYBODY } else { metadata.uid() };
    let real = fs::canonicalize(path).unwrap_or_default();
    let real = if real == path { String::new() } else { real.display().to_string() };
    Ok(File { path: path.display().to_string(), real, text, writer })
}
