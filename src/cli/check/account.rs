//! The user of a service, and whether the mode bits let it pass.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::doctor::facts::{Account, path_access};
use crate::doctor::permission;

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

/// Whether a user can get where it must, and do there what it must, as far as mode bits and lists tell.
pub(super) fn check_ways<'a>(account: &Account, ways: impl Iterator<Item = (&'a Path, Way)>) -> Diagnostics {
    let mut problems = Diagnostics::default();
    for (path, want) in ways {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        // The way as it is written may pass other directories than the real one.
        let ways = path.ancestors().skip(1).chain(real.ancestors().skip(1));
        let closed = ways.filter(|part| !may(account, Way::Enter, part)).min_by_key(|part| part.as_os_str().len());
        let (part, want) = match closed {
            Some(part) => (part, Way::Enter),
            None if !may(account, want, &real) => (real.as_path(), want),
            None => continue,
        };
        let problem = denied(account, part, want);
        if !problems.iter().any(|known| *known == problem) {
            problems.push(problem);
        }
    }
    problems
}

fn denied(account: &Account, path: &Path, want: Way) -> Diagnostic {
    let what = want.word();
    let shown = path.display();
    let mode = fs::metadata(path).map_or(0, |metadata| metadata.mode() & 0o7777);
    let message = format!("the service's user {} cannot {what} {shown} (mode {mode:04o})", account.name);
    let letter = if want == Way::Read { 'r' } else { 'x' };
    let help = format!("chmod o+{letter} {shown}, or give both a common group, or move it elsewhere");
    Diagnostic::error(message).help(help)
}

/// Whether it is permitted. Where that cannot be decided (no such file, no way to it): yes.
fn may(account: &Account, want: Way, path: &Path) -> bool {
    path_access::permissions(path).is_none_or(|permissions| permission::may(account, &permissions, want.bit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

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
            let (run, page) = (room.join("a/b/run"), room.join("a/page"));
            let ways = [(room.join("a"), Way::Enter), (run, Way::Execute), (page, Way::Read)];
            let ways = ways.iter().map(|(path, want)| (path.as_path(), *want));
            let lines: Vec<String> = check_ways(&account(own_group), ways).iter().map(|d| d.message.clone()).collect();
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
