//! The recording's files: a head line with the version, then one entry a line, as JSON, the oldest first. What is written is
//! written behind the rest, in one write(2) for each look: it is there when the writer is killed. A file that is full or old
//! enough takes the place of the one before it, and a new one begins.
//!
//! A file that is cut off loses its last line and no other. A file of another version, or of somebody else, is moved aside and
//! kept.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MAX_ENTRIES, PERIOD, bounded};
use crate::control::recording::{Entry, Recording};
use crate::regular_file;
use crate::state_file;

/// Its name in the state directory of the unit.
pub const FILE_NAME: &str = "sockd-recording";
/// The name of the one before it.
pub const BEFORE: &str = "sockd-recording.before";
/// What is put behind the name of a file that is not ours to replace.
pub const ASIDE: &str = ".aside";
/// The version of the format. A new field, and a new kind of event, need no other one.
const VERSION: u32 = 1;
/// A file is not written to beyond this size, in bytes: fifteen minutes of busy seconds.
const LARGEST: u64 = 640 << 10;
/// The longest head line that is read, in bytes.
const MAX_HEAD: u64 = 256;

#[derive(Serialize, Deserialize)]
struct Head {
    sockd_recording: u32,
}

/// Why the first line is no head of ours.
fn check_head(line: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<Head>(line) {
        Ok(Head { sockd_recording: VERSION }) => Ok(()),
        Ok(Head { sockd_recording: version }) => {
            Err(format!("it is of version {version}, and this sockd knows version {VERSION}"))
        }
        Err(_) => Err("it is no recording of sockd".to_owned()),
    }
}

/// Reads both files of a directory. One that is not there has no entries. A symbolic link is not followed, and neither is a
/// file believed that belongs to somebody else than the directory, or root.
pub fn read(directory: &Path) -> Recording {
    let mut recording = Recording::default();
    let mut problems = Vec::new();
    for name in [BEFORE, FILE_NAME] {
        match state_file::read(directory, name, LARGEST) {
            Ok(bytes) => {
                let (entries, problem) = parse(&bytes);
                recording.entries.extend(entries);
                problems.extend(problem.map(|why| (name, why)));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => problems.push((name, error.to_string())),
        }
    }
    let excess = recording.entries.len().saturating_sub(MAX_ENTRIES);
    recording.entries.drain(..excess);
    let problems: Vec<String> =
        problems.iter().map(|(name, why)| format!("cannot use {}: {why}", directory.join(name).display())).collect();
    recording.problem = Some(problems.join("; ")).filter(|text| !text.is_empty());
    recording
}

/// Every whole line that is an entry, and what is wrong with the others.
fn parse(bytes: &[u8]) -> (Vec<Entry>, Option<String>) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let head = lines.next().unwrap_or_default();
    if head.is_empty() && bytes.len() <= 1 {
        // Its writer was killed, or found the disk full, just then.
        return (Vec::new(), None);
    }
    if let Err(why) = check_head(head) {
        return (Vec::new(), Some(why));
    }
    let mut broken = 0_usize;
    let mut entries = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(entry) => entries.push(bounded(entry)),
            Err(_) => broken += 1,
        }
    }
    (entries, (broken > 0).then(|| format!("{broken} of its lines are cut off or no entries")))
}

/// What came of writing entries: what was moved aside, or why the rest could not be written, and the rest.
pub type Written = Result<Option<String>, (String, VecDeque<Entry>)>;

/// Writes entries behind those that are there.
#[derive(Debug)]
pub struct Writer {
    directory: PathBuf,
    file: File,
    length: u64,
    /// When its first entry was, in milliseconds since 1970.
    begun_unix_ms: Option<u64>,
}

impl Writer {
    /// Goes on with the file of a directory, or begins one. Also: what was moved aside, in one line.
    ///
    /// # Errors
    /// Why the file cannot be written, with its path.
    pub fn open(directory: &Path) -> Result<(Self, Option<String>), String> {
        let cannot = |error: io::Error| format!("cannot write {}: {error}", directory.join(FILE_NAME).display());
        let mut aside = None;
        if let Some(why) = foreign(directory) {
            let to = directory.join(format!("{FILE_NAME}{ASIDE}"));
            fs::rename(directory.join(FILE_NAME), &to).map_err(cannot)?;
            aside = Some(format!(
                "cannot use {}: {why}; it is kept as {}",
                directory.join(FILE_NAME).display(),
                to.display()
            ));
        }
        let begun_unix_ms = read(directory).entries.first().map(Entry::at_unix_ms);
        let mut file = state_file::append(directory, FILE_NAME).map_err(cannot)?;
        let mut length = file.metadata().map_err(cannot)?.len();
        // What was cut off ends here.
        let begin = if length == 0 { head() } else { "\n".to_owned() };
        file.write_all(begin.as_bytes()).map_err(cannot)?;
        length += begin.len() as u64;
        Ok((Self { directory: directory.to_owned(), file, length, begun_unix_ms }, aside))
    }

    /// Writes these entries.
    ///
    /// # Errors
    /// Why they cannot be written, with the path. Some of them may be there, the last of those in part.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        for entry in entries {
            // These types hold text, numbers and lists: there is no map whose keys could fail to be written.
            let line = serde_json::to_string(entry).unwrap_or_default() + "\n";
            let at = entry.at_unix_ms();
            let begun = *self.begun_unix_ms.get_or_insert(at);
            let is_old = at.saturating_sub(begun) > u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX);
            if is_old || self.length + line.len() as u64 > LARGEST {
                self.turn().map_err(|error| self.cannot(&error))?;
                self.begun_unix_ms = Some(at);
            }
            self.file.write_all(line.as_bytes()).map_err(|error| self.cannot(&error))?;
            self.length += line.len() as u64;
        }
        Ok(())
    }

    fn cannot(&self, error: &io::Error) -> String {
        format!("cannot write {}: {error}", self.directory.join(FILE_NAME).display())
    }

    /// The file takes the place of the one before it, and a new one begins.
    fn turn(&mut self) -> io::Result<()> {
        match fs::rename(self.directory.join(FILE_NAME), self.directory.join(BEFORE)) {
            // Somebody has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.file = state_file::append(&self.directory, FILE_NAME)?;
        let head = head();
        self.file.write_all(head.as_bytes())?;
        self.length = head.len() as u64;
        Ok(())
    }
}

fn head() -> String {
    format!("{{\"sockd_recording\":{VERSION}}}\n")
}

/// Why the file that is there is none to go on with.
fn foreign(directory: &Path) -> Option<String> {
    let path = directory.join(FILE_NAME);
    let metadata = path.symlink_metadata().ok()?;
    if !metadata.is_file() {
        return Some("it is no regular file".to_owned());
    }
    let head = regular_file::head(&path, MAX_HEAD).unwrap_or_default();
    if head.is_empty() {
        return None;
    }
    check_head(head.split(|byte| *byte == b'\n').next().unwrap_or_default()).err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::recording::{Event, EventKind, Sample};
    use std::os::unix::fs::symlink;

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sockd-recording-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("made");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join(FILE_NAME)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// One sample a second.
    fn samples(seconds: std::ops::Range<u64>) -> Vec<Entry> {
        let sample = |second| Sample { at_unix_ms: second * 1000, span_ms: 1000, ..Sample::default() };
        seconds.map(|second| Entry::Sample(Box::new(sample(second)))).collect()
    }

    #[test]
    fn what_is_written_is_read_again_also_by_the_next_writer() {
        let room = Room::new("whole");
        assert_eq!(read(&room.0), Recording::default(), "there is none yet");
        let (mut writer, aside) = Writer::open(&room.0).expect("opened");
        assert_eq!(aside, None);
        writer.append(&samples(0..3)).expect("written");
        // The first one was killed in the middle of a line.
        fs::OpenOptions::new()
            .append(true)
            .open(room.file())
            .and_then(|mut file| file.write_all(b"{\"sample\":{\"at_un"))
            .expect("written");
        let (mut writer, aside) = Writer::open(&room.0).expect("opened");
        assert_eq!(aside, None);
        writer.append(&samples(3..5)).expect("written");
        let recording = read(&room.0);
        assert_eq!(recording.entries, samples(0..5));
        assert!(recording.problem.expect("said").contains("1 of its lines"));
    }

    #[test]
    fn it_wraps_by_time_and_by_size_and_keeps_fifteen_minutes() {
        let room = Room::new("wrap");
        let (mut writer, _) = Writer::open(&room.0).expect("opened");
        for second in 0..4000 {
            writer.append(&samples(second..second + 1)).expect("written");
        }
        let entries = read(&room.0).entries;
        assert!((900..=1810).contains(&entries.len()), "{}", entries.len());
        assert_eq!(entries.last(), samples(3999..4000).last());
        let event = Event { kind: EventKind::WorkerDied, text: "x".repeat(290), ..Event::default() };
        let events = vec![Entry::Event(Event { at_unix_ms: 4_000_000, ..event }); 6000];
        writer.append(&events).expect("written");
        for name in [FILE_NAME, BEFORE] {
            let length = fs::metadata(room.0.join(name)).expect("it is there").len();
            assert!(length <= LARGEST, "{name}: {length}");
        }
        assert_eq!(read(&room.0).problem, None);
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_loses_its_last_line_alone() {
        let room = Room::new("cut");
        let (mut writer, _) = Writer::open(&room.0).expect("opened");
        writer.append(&samples(0..3)).expect("written");
        let whole = fs::read(room.file()).expect("read");
        let head = whole.iter().position(|byte| *byte == b'\n').expect("a line");
        for length in 0..whole.len() {
            let (entries, problem) = parse(&whole[..length]);
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
            assert!((lines..=lines + 1).contains(&entries.len()), "{length}");
            assert_eq!(entries, samples(0..entries.len() as u64));
            assert!(length >= head || length == 0 || problem.is_some(), "{length}");
        }
    }

    #[test]
    fn a_foreign_file_is_not_read_and_is_kept() {
        let room = Room::new("foreign");
        let elsewhere = room.0.join("elsewhere");
        fs::write(&elsewhere, head()).expect("written");
        for (text, why) in [
            (&b"{\"sockd_recording\":2}\nx\n"[..], "it is of version 2"),
            (b"\0\xff\xfe", "it is no recording of sockd"),
            (b"[]\n", "it is no recording of sockd"),
        ] {
            fs::write(room.file(), text).expect("written");
            let recording = read(&room.0);
            assert!(recording.entries.is_empty() && recording.problem.is_some_and(|said| said.contains(why)));
            let (mut writer, aside) = Writer::open(&room.0).expect("opened");
            assert!(aside.is_some_and(|said| said.contains(why) && said.contains("it is kept as")));
            assert_eq!(fs::read(room.0.join(format!("{FILE_NAME}{ASIDE}"))).expect("kept"), text);
            writer.append(&samples(0..1)).expect("written");
            assert_eq!(read(&room.0).entries, samples(0..1));
        }
        fs::remove_file(room.file()).expect("removed");
        symlink(&elsewhere, room.file()).expect("linked");
        assert!(read(&room.0).problem.is_some(), "a link");
        let (mut writer, aside) = Writer::open(&room.0).expect("opened");
        assert!(aside.is_some_and(|said| said.contains("no regular file")));
        writer.append(&samples(0..1)).expect("written");
        assert_eq!(fs::read_to_string(&elsewhere).expect("untouched"), head());
    }

    #[test]
    fn nothing_but_a_regular_file_of_a_sensible_size_is_read() {
        let room = Room::new("hostile");
        rustix::fs::mknodat(rustix::fs::CWD, room.file(), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("a pipe");
        assert!(read(&room.0).problem.is_some());
        fs::remove_file(room.file()).expect("removed");
        File::create(room.file()).and_then(|file| file.set_len(1 << 40)).expect("a hole");
        assert!(read(&room.0).problem.is_some());
        fs::write(room.file(), [head().into_bytes(), b"{".repeat(100_000), b"\n".to_vec()].concat()).expect("written");
        let recording = read(&room.0);
        assert!(recording.entries.is_empty() && recording.problem.is_some());
        assert!(Writer::open(&room.0.join("missing")).is_err());
    }
}
