//! The commit that lies in a directory, read from the files of a repository, or from REVISION, which deployment tools write.
//!
//! Never: runs git, which obeys what a repository configures.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::regular_file;

/// The longest file with one line, in bytes.
const MAX_LINE: u64 = 4096;
/// No more is read of packed-refs, in bytes.
const MAX_PACKED: u64 = 8 << 20;

/// The commit of the code in this directory: of the repository that it is in, as git looks for it, up to the root.
pub fn commit(directory: &Path) -> Option<String> {
    if let Some(revision) = line(&directory.join("REVISION")).and_then(hash) {
        return Some(revision);
    }
    let git = directory.ancestors().map(|ancestor| ancestor.join(".git")).find(|git| git.exists())?;
    // A work tree of its own, or a submodule, has a file there.
    let repository = match line(&git) {
        Some(text) => git.parent()?.join(OsStr::from_bytes(text.strip_prefix(b"gitdir: ")?)),
        None => git,
    };
    let head = line(&repository.join("HEAD"))?;
    let Some(name) = head.strip_prefix(b"ref: ") else { return hash(head) };
    let name = Path::new(OsStr::from_bytes(name));
    let is_plain = name.starts_with("refs") && name.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_plain {
        return None;
    }
    let common = line(&repository.join("commondir")).map(|text| repository.join(OsStr::from_bytes(&text)));
    let places: Vec<PathBuf> = std::iter::once(repository).chain(common).collect();
    let loose = places.iter().find_map(|place| line(&place.join(name)).and_then(hash));
    loose.or_else(|| places.iter().find_map(|place| packed(&place.join("packed-refs"), name)))
}

/// The first line of a short file.
fn line(path: &Path) -> Option<Vec<u8>> {
    let head = regular_file::head(path, MAX_LINE).ok()?;
    Some(head.split(|byte| *byte == b'\n').next()?.trim_ascii_end().to_owned())
}

/// A commit's name: SHA-1 or SHA-256.
fn hash(text: Vec<u8>) -> Option<String> {
    let is_hash = matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit);
    String::from_utf8(text).ok().filter(|_| is_hash)
}

fn packed(path: &Path, name: &Path) -> Option<String> {
    let lines = BufReader::new(regular_file::open(path).ok()?.take(MAX_PACKED)).split(b'\n');
    lines.map_while(Result::ok).find_map(|line| {
        let at = line.iter().position(|byte| *byte == b' ')?;
        (&line[at + 1..] == name.as_os_str().as_bytes()).then(|| hash(line[..at].to_vec()))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_commit_is_found_as_git_lays_it_down_and_nothing_else_is_taken_for_one() {
        let room = std::env::temp_dir().join(format!("sockd-commit-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = room.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        let (one, two, three) = ("1".repeat(40), "2".repeat(64), "3".repeat(40));
        write("site/app/wsgi.py", "");
        assert_eq!(commit(&room.join("site")), None);
        write("site/.git/HEAD", &format!("{one}\n"));
        assert_eq!(commit(&room.join("site")), Some(one.clone()), "a detached head");
        assert_eq!(commit(&room.join("site/app")), Some(one.clone()), "below it");
        write("site/.git/HEAD", "ref: refs/heads/main\n");
        assert_eq!(commit(&room.join("site")), None, "no commit yet");
        write(
            "site/.git/packed-refs",
            &format!("# pack-refs with: peeled\n{one} refs/heads/old\n{two} refs/heads/main\n"),
        );
        assert_eq!(commit(&room.join("site")), Some(two));
        write("site/.git/refs/heads/main", &format!("{three}\n"));
        assert_eq!(commit(&room.join("site")), Some(three.clone()));
        // A work tree has its own head and the refs of its repository.
        write("tree/.git", "gitdir: ../site/.git/worktrees/tree\n");
        write("site/.git/worktrees/tree/HEAD", "ref: refs/heads/main\n");
        write("site/.git/worktrees/tree/commondir", "../..\n");
        assert_eq!(commit(&room.join("tree")), Some(three));
        for head in ["ref: /etc/passwd", "ref: refs/../../../secret", "ref: ", "", "zz", &"g".repeat(40)] {
            write("secret", &format!("{one}\n"));
            write("site/.git/HEAD", head);
            assert_eq!(commit(&room.join("site")), None, "{head}");
        }
        write("site/REVISION", &format!("{one}\n"));
        assert_eq!(commit(&room.join("site")), Some(one));
        fs::remove_dir_all(room).expect("removed");
    }
}
