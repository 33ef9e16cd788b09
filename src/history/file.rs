//! The history file: a head line with the version, then one entry a line, as JSON, the oldest first.
//!
//! A file that is cut off loses its last line and no other. A file of another version, or of somebody else, is moved aside and
//! kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MAX_ENTRIES, bounded};
use crate::control::HistoryEntry;
use crate::state_file;

/// Its name in the state directory of the unit.
pub const FILE_NAME: &str = "sockd-history";
/// What is put behind the name of a file that is not ours to replace.
pub const ASIDE: &str = ".aside";
/// The version of the format. A new field needs no other one.
const VERSION: u32 = 1;
/// No more is read of the file, in bytes: a hundred entries at their longest.
const LARGEST: u64 = 4 << 20;
#[derive(Serialize, Deserialize)]
struct Head {
    sockd_history: u32,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The entries, the oldest first.
    pub entries: Vec<HistoryEntry>,
    /// What of the file could not be used, in one line.
    pub problem: Option<String>,
    /// Whether it is no file of this version, and must not be replaced.
    pub is_foreign: bool,
}

/// Reads the file of a directory. One that is not there has no entries. A symbolic link is not followed, and neither is a
/// file believed that belongs to somebody else than the directory, or root.
pub fn read(directory: &Path) -> Kept {
    let path = directory.join(FILE_NAME);
    let problem = |why: &dyn std::fmt::Display| Some(format!("cannot use {}: {why}", path.display()));
    let bytes = match state_file::read(directory, FILE_NAME, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Kept::default(),
        Err(error) => return Kept { problem: problem(&error), ..Kept::default() },
    };
    let mut kept = parse(&bytes);
    kept.problem = kept.problem.and_then(|why| problem(&why));
    kept
}

/// Reads what a file holds: every whole line that is an entry.
fn parse(bytes: &[u8]) -> Kept {
    let mut kept = Kept::default();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    match lines.next().map(serde_json::from_slice::<Head>) {
        Some(Ok(Head { sockd_history: VERSION })) => {}
        Some(Ok(Head { sockd_history: version })) => {
            kept.problem = Some(format!("it is of version {version}, and this sockd knows version {VERSION}"));
            kept.is_foreign = true;
            return kept;
        }
        Some(Err(_)) | None => {
            kept.problem = Some("it is no history of sockd".to_owned());
            kept.is_foreign = true;
            return kept;
        }
    }
    let mut broken = 0_usize;
    for line in lines.filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(entry) => kept.entries.push(bounded(entry)),
            Err(_) => broken += 1,
        }
    }
    kept.entries.drain(..kept.entries.len().saturating_sub(MAX_ENTRIES));
    kept.problem = (broken > 0).then(|| format!("{broken} of its lines are cut off or no entries"));
    kept
}

/// Writes the file again: those who read it meet the one before or this one, whole.
///
/// # Errors
/// Why it cannot be written, with its path. The one before is still there.
pub fn write(directory: &Path, entries: &[HistoryEntry]) -> Result<(), String> {
    let written = state_file::replace(directory, FILE_NAME, text(entries).as_bytes());
    written.map_err(|error| format!("cannot write {}: {error}", directory.join(FILE_NAME).display()))
}

fn text(entries: &[HistoryEntry]) -> String {
    let mut text = format!("{{\"sockd_history\":{VERSION}}}\n");
    for entry in entries {
        // These types hold text, numbers and lists: there is no map whose keys could fail to be written.
        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// Moves a file that is not ours aside, in the place of an older one.
///
/// # Errors
/// The directory cannot be written to.
pub fn set_aside(directory: &Path) -> io::Result<PathBuf> {
    let aside = directory.join(format!("{FILE_NAME}{ASIDE}"));
    fs::rename(directory.join(FILE_NAME), &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::HistoryResult;
    use std::os::unix::fs::symlink;

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sockd-history-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("made");
            Self(path)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn entries(count: u64) -> Vec<HistoryEntry> {
        (0..count).map(|generation| HistoryEntry { generation, ..HistoryEntry::default() }).collect()
    }

    #[test]
    fn what_is_written_is_read_again_and_no_more_than_the_newest() {
        let room = Room::new("whole");
        assert_eq!(read(&room.0), Kept::default(), "there is none yet");
        write(&room.0, &entries(3)).expect("written");
        // What an earlier write has left is no hindrance.
        fs::write(room.0.join(format!(".{FILE_NAME}.new")), "rubbish").expect("written");
        write(&room.0, &entries(3)).expect("written");
        assert_eq!(read(&room.0), Kept { entries: entries(3), ..Kept::default() });
        write(&room.0, &entries(250)).expect("written");
        let kept = read(&room.0).entries;
        assert_eq!((kept.len(), kept[0].generation), (MAX_ENTRIES, 150));
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_loses_its_last_line_alone() {
        let whole = text(&entries(3));
        let head = whole.find('\n').expect("a line");
        for length in 0..whole.len() {
            let kept = parse(&whole.as_bytes()[..length]);
            let lines = whole[..length].matches('\n').count().saturating_sub(1);
            // The last line may be whole but for its end.
            assert!((lines..=lines + 1).contains(&kept.entries.len()), "{length}: {kept:?}");
            assert_eq!(kept.entries, entries(kept.entries.len() as u64));
            assert!(length >= head || kept.problem.is_some(), "{length}: {kept:?}");
        }
    }

    #[test]
    fn a_foreign_file_is_not_read_and_is_kept() {
        let room = Room::new("version");
        let newer = "{\"sockd_history\":2}\n{\"generation\":\"five\"}\n";
        fs::write(room.0.join(FILE_NAME), newer).expect("written");
        let kept = read(&room.0);
        assert!(kept.is_foreign && kept.entries.is_empty(), "{kept:?}");
        assert!(kept.problem.expect("said").contains("it is of version 2"));
        let aside = set_aside(&room.0).expect("moved");
        assert_eq!(fs::read_to_string(aside).expect("kept"), newer);
        // Fields and words of a later sockd are no other version.
        let later =
            b"{\"sockd_history\":1,\"x\":2}\n{\"generation\":5,\"action\":\"paint\",\"result\":\"blue\",\"y\":[]}\n";
        let later = parse(later);
        assert_eq!((later.entries[0].generation, later.entries[0].result), (5, HistoryResult::Unknown));
    }

    #[test]
    fn each_result_has_its_word_in_the_file() {
        let words = ["serving", "waiting", "refused", "taken-back", "not-started", "cut-short", "unknown"];
        let file = words.map(|word| format!("{{\"result\":\"{word}\"}}\n")).concat();
        let kept = parse(format!("{{\"sockd_history\":1}}\n{file}").as_bytes());
        let results: Vec<HistoryResult> = kept.entries.iter().map(|entry| entry.result).collect();
        assert_eq!(
            results,
            [
                HistoryResult::Serving,
                HistoryResult::Waiting,
                HistoryResult::Refused,
                HistoryResult::TakenBack,
                HistoryResult::NotStarted,
                HistoryResult::CutShort,
                HistoryResult::Unknown,
            ]
        );
        let written: Vec<_> = results.iter().map(|result| serde_json::to_value(result).expect("JSON")).collect();
        assert_eq!(written, words);
    }

    #[test]
    fn nothing_but_a_regular_file_of_a_sensible_size_is_read() {
        let room = Room::new("hostile");
        let path = room.0.join(FILE_NAME);
        let refuse = |what: &str| {
            let kept = read(&room.0);
            assert!(kept.entries.is_empty() && kept.problem.is_some(), "{what}: {kept:?}");
            let _ = fs::remove_file(&path);
        };
        let elsewhere = room.0.join("elsewhere");
        fs::write(&elsewhere, text(&entries(1))).expect("written");
        symlink(&elsewhere, &path).expect("linked");
        refuse("a link");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("a pipe");
        refuse("a pipe");
        fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a hole");
        refuse("a file without end");
        for rubbish in [&b""[..], b"\0\xff\xfe", b"[]\n", b"{\"sockd_history\":-1}\n", &b"[".repeat(100_000)] {
            fs::write(&path, rubbish).expect("written");
            refuse("rubbish");
        }
        fs::write(&path, [b"{\"sockd_history\":1}\n".to_vec(), b"{".repeat(100_000), b"\n{}\n".to_vec()].concat())
            .expect("written");
        let kept = read(&room.0);
        assert!(kept.entries.len() == 1 && kept.problem.is_some(), "{kept:?}");
    }

    #[test]
    fn a_write_that_fails_says_why_and_leaves_what_was_there() {
        let room = Room::new("failing");
        write(&room.0, &entries(1)).expect("written");
        // Root may write everywhere: a directory in the place of the file stands for all that forbids it.
        fs::create_dir(room.0.join(format!(".{FILE_NAME}.new"))).expect("made");
        let why = write(&room.0, &entries(2)).expect_err("in the way");
        assert!(why.starts_with(&format!("cannot write {}", room.0.join(FILE_NAME).display())), "{why}");
        assert_eq!(read(&room.0).entries, entries(1));
        assert!(write(&room.0.join("missing"), &entries(1)).is_err());
    }
}
