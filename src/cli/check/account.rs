//! The user of a service, and whether the mode bits let it pass.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::diagnostic::{Diagnostic, Diagnostics};

/// What a user wants of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Work in it.
    Enter,
    /// Run it.
    Execute,
    /// Read it.
    Read,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Enter => "enter",
            Self::Execute => "execute",
            Self::Read => "read",
        }
    }

    /// The mode bit that permits it.
    fn bit(self) -> u32 {
        match self {
            Self::Enter | Self::Execute => 1,
            Self::Read => 4,
        }
    }
}

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) groups: BTreeSet<u32>,
}

impl Account {
    /// Looks a user up as the system does (`id`, `getent`), with a unit's `Group=` and `SupplementaryGroups=`.
    ///
    /// # Errors
    /// Which of them does not exist.
    pub(super) fn find(user: &str, group: &str, supplementary: &[String]) -> Result<Self, String> {
        let id = |option| ask(Command::new("id").args([option, "--", user]));
        let uid = id("-u").and_then(|text| text.trim().parse().ok());
        let uid = uid.ok_or_else(|| format!("there is no user {user}"))?;
        let mut groups: BTreeSet<u32> = BTreeSet::new();
        groups.extend(id("-G").unwrap_or_default().split_whitespace().filter_map(|gid| gid.parse::<u32>().ok()));
        for group in supplementary.iter().map(String::as_str).chain([group]).filter(|group| !group.is_empty()) {
            let entry = ask(Command::new("getent").args(["group", "--", group]));
            let gid = entry.and_then(|line| line.split(':').nth(2)?.parse().ok()).or_else(|| group.parse().ok());
            groups.insert(gid.ok_or_else(|| format!("there is no group {group}"))?);
        }
        Ok(Self { name: user.to_owned(), uid, groups })
    }

    /// Whether this user can get where it must, and do there what it must, as far as mode bits tell.
    pub(super) fn check_ways<'a>(&self, ways: impl Iterator<Item = (&'a Path, Way)>) -> Diagnostics {
        let mut problems = Diagnostics::default();
        for (path, want) in ways {
            let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            // The way as it is written may pass other directories than the real one.
            let ways = path.ancestors().skip(1).chain(real.ancestors().skip(1));
            let closed = ways.filter(|part| !self.may(Way::Enter, part)).min_by_key(|part| part.as_os_str().len());
            let (part, want) = match closed {
                Some(part) => (part, Way::Enter),
                None if !self.may(want, &real) => (real.as_path(), want),
                None => continue,
            };
            let problem = self.denied(part, want);
            if !problems.iter().any(|known| *known == problem) {
                problems.push(problem);
            }
        }
        problems
    }

    fn denied(&self, path: &Path, want: Way) -> Diagnostic {
        let what = want.word();
        let shown = path.display();
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.mode() & 0o7777);
        let message = format!("the service's user {} cannot {what} {shown} (mode {mode:04o})", self.name);
        let letter = if want == Way::Read { 'r' } else { 'x' };
        let help = format!("chmod o+{letter} {shown}, or give both a common group, or move it elsewhere");
        Diagnostic::error(message).help(help)
    }

    /// Whether the mode bits permit it. Where they do not tell (no such file, an access control list): yes.
    fn may(&self, want: Way, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else { return true };
        let listed =
            rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0_u8; 1024]).is_ok_and(|size| size > 0);
        self.uid == 0 || listed || self.permitted(want, &metadata)
    }

    /// The one triple of mode bits that is for this user, as in path_resolution(7).
    fn permitted(&self, want: Way, metadata: &Metadata) -> bool {
        let shift = if metadata.uid() == self.uid {
            6
        } else if self.groups.contains(&metadata.gid()) {
            3
        } else {
            0
        };
        (metadata.mode() >> shift) & want.bit() != 0
    }
}

/// What a program prints, if it succeeds.
fn ask(process: &mut Command) -> Option<String> {
    let output = process.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    #[test]
    fn users_and_groups_are_looked_up() {
        let root = Account::find("root", "", &[]).expect("root is everywhere");
        assert_eq!((root.uid, root.groups.contains(&0)), (0, true));
        let groups = Account::find("root", "daemon", &["4242".to_owned()]).expect("numbers need no entry").groups;
        assert!(groups.contains(&1) && groups.contains(&4242));
        assert_eq!(Account::find("no-such-user", "", &[]), Err("there is no user no-such-user".to_owned()));
        assert_eq!(Account::find("root", "no-such-group", &[]), Err("there is no group no-such-group".to_owned()));
        assert_eq!(Account::find("-G", "", &[]), Err("there is no user -G".to_owned()));
    }

    #[test]
    fn the_way_is_followed_by_mode_bits() {
        let room = std::env::temp_dir().join(format!("sockd-account-{}", std::process::id()));
        fs::create_dir_all(room.join("a/b")).expect("directories can be made");
        for file in ["a/b/run", "a/page"] {
            fs::write(room.join(file), "").expect("a file can be written");
        }
        let mode = |name: &str, mode| {
            let path: PathBuf = room.join(name);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode can be set");
        };
        let owner = fs::metadata(&room).expect("it is there");
        // Nobody of the real system: its identity is none of the owner's.
        let account = |own_group: bool| Account {
            name: "sammy".to_owned(),
            uid: owner.uid() + 4242,
            groups: BTreeSet::from([if own_group { owner.gid() } else { owner.gid() + 4242 }]),
        };
        let denied = |own_group| {
            let lines: Vec<String> = account(own_group)
                .check_ways(
                    [
                        (room.join("a").as_path(), Way::Enter),
                        (&room.join("a/b/run"), Way::Execute),
                        (&room.join("a/page"), Way::Read),
                    ]
                    .into_iter(),
                )
                .iter()
                .map(|d| d.message.clone())
                .collect();
            lines.join("; ").replace(&room.display().to_string(), "")
        };
        ["", "a", "a/b", "a/b/run", "a/page"].iter().for_each(|name| mode(name, 0o755));
        assert_eq!(denied(false), "");
        mode("a/page", 0o640);
        assert_eq!(denied(false), "the service's user sammy cannot read /a/page (mode 0640)");
        assert_eq!(denied(true), "");
        mode("a/page", 0o644);
        mode("a/b/run", 0o744);
        assert_eq!(denied(false), "the service's user sammy cannot execute /a/b/run (mode 0744)");
        mode("a/b", 0o750);
        assert_eq!(denied(false), "the service's user sammy cannot enter /a/b (mode 0750)");
        assert_eq!(denied(true), "the service's user sammy cannot execute /a/b/run (mode 0744)");
        mode("a", 0o705);
        assert_eq!(denied(true), "the service's user sammy cannot enter /a (mode 0705)");
        mode("", 0o700);
        assert_eq!(denied(true), "the service's user sammy cannot enter  (mode 0700)");
        fs::remove_dir_all(&room).expect("it can be removed");
    }
}
