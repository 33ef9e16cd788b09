//! File systems that the site writes to, and directories of static files.
//!
//! Owns: statvfs(3) of a few paths. Never: waits longer than [`DISKS_TIMEOUT`] for a disk, or reads a file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::{FileSystem, Served};
use crate::doctor::nginx::Server;

/// How long the disks may take, all together: a network's may not answer at all.
const DISKS_TIMEOUT: Duration = Duration::from_secs(2);
/// Where logs, temporary files, uploads and databases are, on every system.
const WRITTEN: [&str; 7] = ["/tmp", "/var/tmp", "/run", "/var/log", "/var/lib/nginx", "/var/lib/postgresql", "/"];

/// Looks at the file systems of the working directory and of what every site writes. Each is named by its first path.
pub fn file_systems(working_directory: &str) -> Vec<FileSystem> {
    let paths: Vec<String> =
        [working_directory].into_iter().chain(WRITTEN).filter(|path| !path.is_empty()).map(str::to_owned).collect();
    within_patience(move || {
        let mut seen = BTreeSet::new();
        let new = |path: &String| fs::metadata(path).is_ok_and(|metadata| seen.insert(metadata.dev()));
        paths.into_iter().filter(new).filter_map(|path| look(&path)).collect()
    })
}

fn look(path: &str) -> Option<FileSystem> {
    let found = statvfs(path).ok()?;
    // One that is read-only is full by nature, and nobody writes to it.
    (!found.f_flag.contains(StatVfsMountFlags::RDONLY) && found.f_blocks > 0).then_some(())?;
    Some(FileSystem {
        path: path.to_owned(),
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        // A file system that makes inodes as they are needed tells none.
        free_inodes: (found.f_files > 0).then_some(found.f_favail),
    })
}

/// What Nginx serves itself of these servers.
pub fn served(servers: &[&Server]) -> Vec<Served> {
    let roots: Vec<_> =
        servers.iter().flat_map(|server| &server.roots).filter(|root| !root.location.is_empty()).cloned().collect();
    within_patience(move || {
        let state = |directory: &str| match fs::read_dir(directory) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    "files"
                } else {
                    "empty"
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "missing",
            Err(_) => "",
        };
        let served = roots.into_iter().map(|root| {
            let directory = root.directory();
            Served { location: root.location, state: state(&directory).to_owned(), directory }
        });
        served.collect()
    })
}

/// What a look gives; nothing when the disk does not answer. The thread that hangs then ends with the program.
fn within_patience<T: Send + 'static>(look: impl FnOnce() -> Vec<T> + Send + 'static) -> Vec<T> {
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more when the time was up.
        let _ = send.send(look());
    });
    received.recv_timeout(DISKS_TIMEOUT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_looked_at_once() {
        let found = file_systems("/");
        assert_eq!(found[0].path, "/");
        assert!(found[0].size_bytes > 0 && found[0].free_bytes <= found[0].size_bytes, "{found:?}");
        let paths: BTreeSet<_> = found.iter().map(|found| &found.path).collect();
        assert_eq!(paths.len(), found.len());
    }
}
