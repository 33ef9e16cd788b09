//! Files that belong together: all of them are written, or none.
//!
//! Owns: the writing and the taking away, and that a file is whole at every moment.
//! Never: overwrites or removes a file that the caller does not call its own.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::file_text::FileText;
use crate::regular_file;

/// Configuration is for everybody to read.
const MODE: u32 = 0o644;
/// What may hold secrets is not.
const SECRET_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o755;
/// What we write is far shorter; of anything longer only the beginning is looked at.
const READ_LIMIT: u64 = 64 << 10;

/// What a file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file with this text, for everybody to read.
    Text(FileText),
    /// The same, for root alone to read.
    Secret(FileText),
    /// A symbolic link.
    Link(PathBuf),
}

/// One file to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Where; an absolute path.
    pub path: PathBuf,
    /// What.
    pub content: Content,
}

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A file that begins with the mark: ours, with its text.
    Ours(String),
    /// Anything else.
    Foreign,
}

/// Looks what lies at a path; ours is what begins with `mark`.
///
/// # Errors
/// It cannot be read: "cannot read PATH: why".
pub fn find(path: &Path, mark: &str) -> Result<Found, String> {
    let cannot = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(cannot(error)),
    };
    if !metadata.is_file() {
        return Ok(Found::Foreign);
    }
    let text = regular_file::head(path, READ_LIMIT).map_err(cannot)?;
    match String::from_utf8(text) {
        Ok(text) if text.starts_with(mark) => Ok(Found::Ours(text)),
        Ok(_) | Err(_) => Ok(Found::Foreign),
    }
}

/// Writes all files, or none. A file that is there is an error, unless it begins with `mark`: then it is replaced.
///
/// # Errors
/// "cannot write PATH: why"; what was there before is there again.
pub fn write_all(files: &[NewFile], mark: Option<&str>) -> Result<(), String> {
    let mut done = Transaction::default();
    let written = files.iter().try_for_each(|file| {
        let why = |why: &dyn std::fmt::Display| format!("cannot write {}: {why}", file.path.display());
        let before = match (mark, find(&file.path, mark.unwrap_or_default())?) {
            (_, Found::Nothing) => None,
            (Some(_), Found::Ours(text)) => Some(text),
            (_, Found::Ours(_) | Found::Foreign) => return Err(why(&"it is there already, and not ours to change")),
        };
        done.write(file, before).map_err(|error| why(&error))
    });
    if written.is_err() {
        done.take_back();
    }
    written
}

/// Removes files, and the directories of drop-ins that are empty without them.
///
/// # Errors
/// "cannot remove PATH: why".
pub fn remove_all<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), String> {
    for path in paths {
        fs::remove_file(path).map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
        // Drop-ins of others keep it alive.
        let drop_ins = path.parent().filter(|parent| parent.extension().is_some_and(|end| end == "d"));
        let _ = drop_ins.map(fs::remove_dir);
    }
    Ok(())
}

/// What has been done so far.
#[derive(Default)]
struct Transaction {
    /// Files with what was there before.
    files: Vec<(PathBuf, u32, Option<String>)>,
    directories: Vec<PathBuf>,
}

impl Transaction {
    fn write(&mut self, file: &NewFile, before: Option<String>) -> io::Result<()> {
        let directory = file.path.parent().unwrap_or(Path::new("/"));
        self.make_directories(directory)?;
        let mode = if matches!(file.content, Content::Secret(_)) { SECRET_MODE } else { MODE };
        match &file.content {
            Content::Link(target) => symlink(target, &file.path)?,
            Content::Text(text) | Content::Secret(text) => put(&file.path, text.as_str(), mode, before.is_some())?,
        }
        self.files.push((file.path.clone(), mode, before));
        Ok(())
    }

    fn make_directories(&mut self, directory: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = directory.ancestors().take_while(|part| !part.exists()).collect();
        for part in missing.into_iter().rev() {
            DirBuilder::new().mode(DIRECTORY_MODE).create(part)?;
            self.directories.push(part.to_owned());
            // Whatever the umask: others must be able to read their configuration.
            fs::set_permissions(part, Permissions::from_mode(DIRECTORY_MODE))?;
        }
        Ok(())
    }

    /// As far as it can: there is an error to be reported already.
    fn take_back(self) {
        for (path, mode, before) in self.files.into_iter().rev() {
            let _ = match before {
                Some(text) => put(&path, &text, mode, true),
                None => fs::remove_file(&path),
            };
        }
        self.directories.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

/// Puts a text at a path in one step, on the disk when this returns.
fn put(path: &Path, text: &str, mode: u32, replace: bool) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // systemd and Nginx read neither names that begin with a dot nor those that end so.
    let draft = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    let placed = file
        .write_all(text.as_bytes())
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        // A link, unlike a renaming, never takes the place of what somebody else has put there meanwhile.
        .and_then(|()| if replace { fs::rename(&draft, path) } else { fs::hard_link(&draft, path) });
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => placed.and(Err(error)),
        Ok(()) | Err(_) => placed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::file_text::Line;

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let room = std::env::temp_dir().join(format!("sockd-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&room).expect("made");
            Self(room)
        }

        fn file(&self, name: &str, text: &str) -> NewFile {
            let lines = text.lines().map(|line| Line::comment(line.trim_start_matches("# ")));
            NewFile { path: self.0.join(name), content: Content::Text(lines.collect()) }
        }

        /// Every file and directory, by its path in here.
        fn list(&self) -> Vec<String> {
            let mut found = Vec::new();
            let mut left = vec![self.0.clone()];
            while let Some(directory) = left.pop() {
                for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("an entry")) {
                    if entry.file_type().expect("known").is_dir() {
                        left.push(entry.path());
                    }
                    found.push(entry.path().strip_prefix(&self.0).expect("below").display().to_string());
                }
            }
            found.sort();
            found
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn all_are_written_for_everybody_to_read() {
        let room = Room::new("all");
        let link = NewFile { path: room.0.join("d/l"), content: Content::Link("f".into()) };
        let Content::Text(text) = room.file("s", "# three").content else { panic!("a text") };
        let secret = NewFile { path: room.0.join("s"), content: Content::Secret(text) };
        write_all(&[room.file("a", "# one"), room.file("d/e/f", "# two"), link, secret], None).expect("written");
        assert_eq!(room.list(), ["a", "d", "d/e", "d/e/f", "d/l", "s"]);
        let mode = |name: &str| fs::metadata(room.0.join(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("d"), mode("d/e/f"), mode("s")), (0o644, 0o755, 0o644, 0o600));
        assert_eq!(fs::read_to_string(room.0.join("d/e/f")).expect("text"), "# two\n");
        assert_eq!(fs::read_link(room.0.join("d/l")).expect("a link"), Path::new("f"));
    }

    #[test]
    fn none_is_written_where_one_cannot_be() {
        let room = Room::new("none");
        fs::write(room.0.join("theirs"), "theirs").expect("written");
        fs::write(room.0.join("ours"), "# ours, old").expect("written");
        let files = [room.file("ours", "# ours, new"), room.file("d/new", "x"), room.file("theirs", "x")];
        let said = write_all(&files, Some("# ours")).expect_err("it is theirs");
        assert!(said.starts_with("cannot write ") && said.contains("theirs: it is there already"), "{said}");
        assert_eq!(room.list(), ["ours", "theirs"]);
        assert_eq!(fs::read_to_string(room.0.join("ours")).expect("text"), "# ours, old");
        assert_eq!(fs::read_to_string(room.0.join("theirs")).expect("text"), "theirs");
        // A file in the place of a directory.
        assert!(write_all(&[room.file("ours/x", "x")], None).is_err());
        // A dangling link is something that is there.
        symlink("/nonexistent/x", room.0.join("dangling")).expect("linked");
        assert!(write_all(&[room.file("dangling", "x")], Some("")).is_err());
        // Without a mark nothing is ours, whatever it begins with.
        assert!(write_all(&[room.file("ours", "x")], None).is_err());
    }

    #[test]
    fn ours_is_replaced_and_removed() {
        let room = Room::new("ours");
        write_all(&[room.file("x.d/f", "# ours 1\n")], Some("# ours")).expect("written");
        write_all(&[room.file("x.d/f", "# ours 2\n")], Some("# ours")).expect("written again");
        assert_eq!(find(&room.0.join("x.d/f"), "# ours"), Ok(Found::Ours("# ours 2\n".to_owned())));
        assert_eq!(find(&room.0.join("x.d/f"), "# theirs"), Ok(Found::Foreign));
        assert_eq!(find(&room.0.join("x.d"), ""), Ok(Found::Foreign));
        remove_all([room.0.join("x.d/f").as_path()]).expect("removed");
        assert_eq!(room.list(), Vec::<String>::new());
        assert_eq!(find(&room.0.join("x.d/f"), ""), Ok(Found::Nothing));
        assert!(remove_all([room.0.join("x.d/f").as_path()]).is_err());
    }
}
