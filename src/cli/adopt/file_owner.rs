//! Who may write a file, and so decide what root would run by it.
//!
//! Owns: the looking at owners and modes of a file and of every directory on the way to it.
//! Never: trusts a name: a link or a directory of somebody else's makes a file theirs.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::app::Address;
use crate::systemd::show;

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Who may write a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Root alone.
    Root,
    /// One user, and root.
    User(Owner),
    /// More than one user, or one without a name: what makes it so.
    Others(String),
}

/// A user that a file belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The name of its own group.
    pub group: String,
    /// The names and numbers of all its groups.
    pub groups: BTreeSet<String>,
}

impl Owner {
    /// Whether a name or a number, as an .ini has it, is this user's.
    pub fn is(&self, user: &str) -> bool {
        user == self.name || user == self.uid.to_string()
    }

    /// Whether this user is in a group, by its name or its number.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.contains(group)
    }

    fn find(uid: u32) -> Result<Self, String> {
        let without = || format!("it belongs to the user {uid}, who has no name");
        let (known, line) = show::output("getent", &["passwd", "--", &uid.to_string()]).unwrap_or_default();
        let name = line.split(':').next().filter(|name| known && !name.is_empty()).ok_or_else(without)?;
        let id = |option| match show::output("id", &[option, "--", name]) {
            Ok((true, text)) => text.split_whitespace().map(str::to_owned).collect(),
            Ok((false, _)) | Err(_) => Vec::new(),
        };
        let group = id("-gn").pop().ok_or_else(without)?;
        let groups = id("-Gn").into_iter().chain(id("-G")).collect();
        Ok(Self { name: name.to_owned(), uid, group, groups })
    }
}

impl Writers {
    /// Finds who may write the file at `path` (absolute), whose descriptor says `metadata` of it.
    pub fn of(path: &Path, metadata: &Metadata) -> Self {
        let way = match way(path) {
            Ok(way) => way,
            Err(error) => return Self::Others(format!("cannot follow its path: {error}")),
        };
        let parts = || way.iter().map(|(part, found)| (part.as_path(), found)).chain([(path, metadata)]);
        let mut uids: BTreeSet<u32> = parts().map(|(_, found)| found.uid()).collect();
        let open = parts().find_map(|(part, found)| others_may_write(part, found));
        uids.remove(&0);
        match (open, uids.len(), uids.first()) {
            (Some(what), _, _) => Self::Others(what),
            (None, _, None) => Self::Root,
            (None, 1, Some(uid)) => Owner::find(*uid).map_or_else(Self::Others, Self::User),
            (None, _, Some(_)) => Self::Others("it and its directories belong to several users".to_owned()),
        }
    }

    /// Refuses an address at which systemd, as root, would listen for somebody who could not: a path where something of
    /// somebody else's lies, which systemd would replace, or a port below 1024.
    ///
    /// # Errors
    /// Why.
    pub fn may_listen(&self, address: &Address) -> Result<(), String> {
        let Self::User(owner) = self else { return Ok(()) };
        match address {
            Address::Unix(path) => match fs::symlink_metadata(path) {
                Ok(there) if there.uid() != owner.uid => Err(format!(
                    "what lies there belongs to the user {}, and the file is {}'s: remove it first if it is left over",
                    there.uid(),
                    owner.name
                )),
                Ok(_) | Err(_) => Ok(()),
            },
            Address::Tcp(address) if address.port() < 1024 => {
                Err(format!("the file is {}'s, and ports below 1024 are root's to give", owner.name))
            }
            Address::Tcp(_) | Address::Abstract(_) => Ok(()),
        }
    }
}

/// Every directory and every link that a path passes, and what it leads to: the owner of one of them can lead the path
/// elsewhere.
fn way(path: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut left: VecDeque<PathBuf> = path.components().map(|part| part.as_os_str().into()).collect();
    let (mut here, mut way, mut links) = (PathBuf::from("/"), Vec::new(), 0);
    while let Some(part) = left.pop_front() {
        let next = here.join(part);
        let metadata = fs::symlink_metadata(&next)?;
        if metadata.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::other("too many links"));
            }
            let target = fs::read_link(&next)?;
            target.components().rev().for_each(|part| left.push_front(part.as_os_str().into()));
        } else {
            here.clone_from(&next);
        }
        way.push((next, metadata));
    }
    Ok(way)
}

/// Whether others than the owner may write it, or exchange what is in it.
fn others_may_write(path: &Path, metadata: &Metadata) -> Option<String> {
    let mode = metadata.mode();
    // Who may write to a directory with the sticky bit exchanges nothing of others' there. A link's mode means nothing.
    if metadata.is_symlink() || (metadata.is_dir() && mode & 0o1000 != 0) {
        return None;
    }
    // What a user shares with a group is that user's to share.
    let by_group = mode & 0o020 != 0 && metadata.gid() != 0 && metadata.uid() == 0;
    let by_all = mode & 0o002 != 0;
    (by_group || by_all).then(|| {
        let who = if by_all { "everybody".to_owned() } else { format!("the group {}", metadata.gid()) };
        format!("{who} may write {}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_file_is_whose_may_write_it_or_lead_it_elsewhere() {
        let room = std::env::temp_dir().join(format!("sockd-holder-{}", std::process::id()));
        let place: PathBuf = room.join("site");
        fs::create_dir_all(&place).expect("made");
        let file = place.join("a.ini");
        fs::write(&file, "").expect("written");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        let holder = |path: &Path| Writers::of(path, &fs::metadata(path).expect("there"));
        let own = |found: &Writers| match found {
            Writers::Root => rustix::process::getuid().is_root(),
            Writers::User(owner) => owner.uid == rustix::process::getuid().as_raw() && owner.is(&owner.name),
            Writers::Others(_) => false,
        };
        for (path, bits) in [(&file, 0o644), (&place, 0o755), (&room, 0o755)] {
            mode(path, bits);
        }
        assert!(own(&holder(&file)), "{:?}", holder(&file));
        for (open, bits, closed) in [(&file, 0o666, 0o644), (&place, 0o777, 0o755), (&room, 0o757, 0o755)] {
            mode(open, bits);
            let found = holder(&file);
            assert!(matches!(&found, Writers::Others(what) if what.contains("everybody")), "{found:?}");
            mode(open, closed);
        }
        // A sticky directory keeps what is in it; a link in an open one does not make the file safe.
        mode(&place, 0o1777);
        assert!(own(&holder(&file)), "{:?}", holder(&file));
        let link = room.join("link.ini");
        symlink(&file, &link).expect("linked");
        mode(&room, 0o777);
        assert!(matches!(holder(&link), Writers::Others(_)));
        mode(&room, 0o755);
        if rustix::process::getuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(65_533), None).expect("given away");
            assert!(!own(&holder(&link)), "who owns the link leads it elsewhere");
            std::os::unix::fs::chown(&room, Some(65_533), None).expect("given away");
            assert!(!own(&holder(&file)), "who owns a directory exchanges what is in it");
        }
        fs::remove_dir_all(room).expect("removed");
    }
}
