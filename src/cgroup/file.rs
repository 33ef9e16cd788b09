//! The files of a control group: short texts, and numbers in them. One that is missing, because its controller or the
//! kernel does not have it, reads as None.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The file's text.
pub(super) fn text(directory: &Path, name: &str) -> Option<String> {
    fs::read_to_string(directory.join(name)).ok()
}

/// The file's only number; None also for `max`, which is no limit.
pub(super) fn number(directory: &Path, name: &str) -> Option<u64> {
    text(directory, name)?.trim().parse().ok()
}

/// The number behind a key, in a file of lines such as `oom_kill 2`.
pub(super) fn keyed(directory: &Path, name: &str, key: &str) -> Option<u64> {
    text(directory, name)?.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `total=` of the line `some`, in microseconds: for how long some process had to wait (PSI, pressure files).
pub(super) fn stalled(directory: &Path, name: &str) -> Option<u64> {
    let text = text(directory, name)?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_whitespace().find_map(|field| field.strip_prefix("total=")?.parse().ok())
}

/// Writes to a file that is there: the kernel's files are never made.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(directory.join(name))?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_formats_are_read() {
        let directory = std::env::temp_dir().join(format!("sockd-cgroup-file-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        for (name, text) in [
            ("memory.current", "1048576\n"),
            ("memory.max", "max\n"),
            ("memory.events", "low 0\nhigh 12\nmax 3\noom 1\noom_kill 2\noom_group_kill 0\n"),
            ("memory.pressure", "some avg10=1.00 avg60=0.50 avg300=0.00 total=4711\nfull avg10=0.00 total=12\n"),
        ] {
            fs::write(directory.join(name), text).expect("a file");
        }
        assert_eq!(number(&directory, "memory.current"), Some(1_048_576));
        assert_eq!(number(&directory, "memory.max"), None);
        assert_eq!(number(&directory, "memory.peak"), None);
        assert_eq!(keyed(&directory, "memory.events", "oom"), Some(1));
        assert_eq!(keyed(&directory, "memory.events", "oom_kill"), Some(2));
        assert_eq!(keyed(&directory, "memory.events", "frozen"), None);
        assert_eq!(stalled(&directory, "memory.pressure"), Some(4711));
        assert_eq!(stalled(&directory, "memory.events"), None);
        let missing = write(&directory, "cgroup.kill", "1").expect_err("it is not made");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::remove_dir_all(&directory).expect("ours");
    }
}
