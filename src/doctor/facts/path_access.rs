//! Looking at a path and every directory on the way to it, as `namei` does.
//!
//! Owns: stat(2) and the access control lists.
//! Never: opens anything.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Directory, PathFacts, Permissions};

/// The longest access control list that is read, in bytes: some five hundred entries.
const ACL_LIMIT: usize = 4096;

/// Looks at a path.
pub fn look(path: &str) -> PathFacts {
    let mut place = PathFacts { path: path.to_owned(), ..PathFacts::default() };
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    let real = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
    // The way as it is written may pass other directories than the real one.
    for directory in parent
        .ancestors()
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .chain(real.ancestors().collect::<Vec<_>>().into_iter().rev())
    {
        let shown = directory.display().to_string();
        if place.way.iter().any(|known| known.path == shown) {
            continue;
        }
        let permissions = fs::metadata(directory).map(|metadata| of(directory, &metadata));
        // Behind a directory that we may not pass nothing is known; it is not missing.
        let hidden = permissions.as_ref().is_err_and(|error| error.kind() != std::io::ErrorKind::NotFound);
        if !hidden {
            place.way.push(Directory { path: shown, permissions: permissions.ok() });
        }
    }
    match fs::metadata(path) {
        Ok(metadata) => {
            let kind = metadata.file_type();
            place.kind = if kind.is_socket() {
                "socket"
            } else if kind.is_dir() {
                "directory"
            } else {
                "file"
            }
            .to_owned();
            // sock_diag tells the lower half, too.
            place.inode = metadata.ino() as u32;
            place.permissions = of(Path::new(path), &metadata);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => place.kind = "missing".to_owned(),
        Err(_) => {}
    }
    place
}

/// The permissions of what a path leads to. `None`: there is nothing, or we may not look.
pub fn permissions(path: &Path) -> Option<Permissions> {
    Some(of(path, &fs::metadata(path).ok()?))
}

fn of(path: &Path, metadata: &Metadata) -> Permissions {
    let mut list = [0_u8; ACL_LIMIT];
    let size = rustix::fs::getxattr(path, "system.posix_acl_access", &mut list).unwrap_or(0);
    Permissions {
        mode: format!("{:04o}", metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        acl: acl(&list[..size.min(ACL_LIMIT)]),
    }
}

/// The entries that say more than the mode bits (`linux/posix_acl_xattr.h`: a version, then tag, bits and id each).
fn acl(bytes: &[u8]) -> Vec<String> {
    let entries = bytes.get(4..).unwrap_or_default().chunks_exact(8);
    let entry = |entry: &[u8]| {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bits = entry[2];
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let letter = |bit, letter| if bits & bit != 0 { letter } else { '-' };
        let letters: String = [letter(4, 'r'), letter(2, 'w'), letter(1, 'x')].into_iter().collect();
        match tag {
            0x02 => Some(format!("user:{id}:{letters}")),
            0x04 => Some(format!("group::{letters}")),
            0x08 => Some(format!("group:{id}:{letters}")),
            0x10 => Some(format!("mask::{letters}")),
            // The owner and the others are the mode's.
            _ => None,
        }
    };
    entries.filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_way_and_the_end_are_looked_at() {
        let room = std::env::temp_dir().join(format!("sockd-doctor-place-{}", std::process::id()));
        fs::create_dir_all(room.join("a")).expect("made");
        fs::set_permissions(room.join("a"), fs::Permissions::from_mode(0o710)).expect("set");
        std::os::unix::fs::symlink(room.join("a"), room.join("link")).expect("linked");
        fs::write(room.join("a/file"), "").expect("written");
        let path = |name: &str| room.join(name).display().to_string();
        let place = look(&path("link/file"));
        assert_eq!(place.kind, "file");
        let mode = |way: &str| place.way.iter().find(|d| d.path == path(way))?.permissions.clone().map(|p| p.mode);
        assert_eq!((mode("link").as_deref(), mode("a").as_deref()), (Some("0710"), Some("0710")));
        assert_eq!(place.way[0].path, "/");
        let missing = look(&path("b/c.sock"));
        assert_eq!(
            (missing.kind.as_str(), missing.way.last().map(|d| d.permissions.is_none())),
            ("missing", Some(true))
        );
        fs::remove_dir_all(&room).expect("removed");
    }

    #[test]
    fn lists_are_read() {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, bits, id) in
            [(1_u16, 7_u8, u32::MAX), (2, 1, 33), (4, 5, u32::MAX), (8, 4, 7), (16, 5, u32::MAX), (32, 0, 0)]
        {
            bytes.extend(tag.to_le_bytes());
            bytes.extend([bits, 0]);
            bytes.extend(id.to_le_bytes());
        }
        assert_eq!(acl(&bytes), ["user:33:--x", "group::r-x", "group:7:r--", "mask::r-x"]);
        assert!(acl(&[]).is_empty() && acl(&[2, 0, 0, 0, 1]).is_empty());
    }
}
