//! Where entries of the recording go: to the files in the state directory, by a thread; without one, to memory.
//!
//! Owns: what is not written yet, bounded, and the writer. Never: has the loop wait for a disk.

use crate::control::recording::{Entry, Recording};
use crate::control::{RefusalKind, Replier};
use crate::daemon::message::Message;
use crate::daemon::outbox::Outbox;
use crate::recording::{self, Writer, Written, bounded};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// So many entries wait for a disk; the oldest go first.
const MAX_PENDING: usize = 300;
/// What is kept in memory may be so long, in bytes.
const MAX_MEMORY: usize = 384 << 10;
/// A disk that does not answer is not waited for longer: by who asks, and at the end of sockd.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Store {
    /// None: the recording lives in memory.
    directory: Option<PathBuf>,
    /// Opened by the thread that writes first.
    writer: Arc<Mutex<Option<Writer>>>,
    pending: VecDeque<Entry>,
    writing: bool,
    /// It was said that it cannot be written.
    failed: bool,
    /// So many entries were lost.
    lost: u64,
    memory: Memory,
}

/// Entries as lines of JSON, which take a fraction of their room.
#[derive(Debug, Default)]
struct Memory {
    lines: VecDeque<Box<str>>,
    bytes: usize,
}

impl Memory {
    fn push(&mut self, entry: &Entry) {
        let line = serde_json::to_string(entry).unwrap_or_default().into_boxed_str();
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > MAX_MEMORY || self.lines.len() > recording::MAX_ENTRIES {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Store {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            writer: Arc::default(),
            pending: VecDeque::new(),
            writing: false,
            failed: false,
            lost: 0,
            memory: Memory::default(),
        }
    }

    /// Keeps an entry.
    pub(super) fn push(&mut self, entry: Entry, outbox: &Outbox) {
        let entry = bounded(entry);
        if self.directory.is_none() {
            self.memory.push(&entry);
            return;
        }
        self.pending.push_back(entry);
        self.trim();
        self.write(outbox);
    }

    fn trim(&mut self) {
        while self.pending.len() > MAX_PENDING {
            self.pending.pop_front();
            self.lost += 1;
        }
    }

    /// Has a thread write what is pending, unless one does already: then it is done afterwards.
    fn write(&mut self, outbox: &Outbox) {
        if self.writing || self.pending.is_empty() {
            return;
        }
        if let Some(writing) = self.writing() {
            self.writing = true;
            let writing = spawn_blocking(writing);
            outbox.later(async move { Some(Message::RecordingWritten(writing.await.unwrap_or(Ok(None)))) });
        }
    }

    fn writing(&mut self) -> Option<impl FnOnce() -> Written + Send + use<>> {
        let (directory, writer) = (self.directory.clone()?, Arc::clone(&self.writer));
        let mut entries = std::mem::take(&mut self.pending);
        Some(move || {
            let mut writer = lock(&writer);
            let mut aside = None;
            if writer.is_none() {
                match Writer::open(&directory) {
                    Ok((opened, moved)) => (*writer, aside) = (Some(opened), moved),
                    Err(why) => return Err((why, entries)),
                }
            }
            while let (Some(open), Some(entry)) = (writer.as_mut(), entries.front()) {
                if let Err(why) = open.append(std::slice::from_ref(entry)) {
                    // What was written in part ends where the file is opened again.
                    *writer = None;
                    return Err((why, entries));
                }
                entries.pop_front();
            }
            Ok(aside)
        })
    }

    /// What came of writing.
    pub(super) fn was_written(&mut self, written: Written, outbox: &Outbox) {
        self.writing = false;
        match written {
            Ok(aside) => {
                self.failed = false;
                if let Some(aside) = aside {
                    tracing::warn!(SOCKD_EVENT = "recording-unreadable", "the recording of before is lost: {aside}");
                }
                self.write(outbox);
            }
            Err((why, mut rest)) => {
                // It is tried again when the next entry comes.
                rest.append(&mut self.pending);
                self.pending = rest;
                self.trim();
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(
                        SOCKD_EVENT = "recording-not-kept",
                        "{why}; the last {MAX_PENDING} entries of the recording are kept in memory, ignoring"
                    );
                }
            }
        }
    }

    /// Answers who asks for all of it.
    pub(super) fn answer(&self, replier: Replier) {
        let pending: Vec<Entry> = self.pending.iter().cloned().collect();
        let Some(directory) = self.directory.clone() else {
            let entries = self.memory.entries();
            return replier.recording(Recording { entries, in_memory: true, problem: None });
        };
        let lost = (self.lost > 0).then(|| format!("{} entries could not be written and are lost", self.lost));
        let writer = Arc::clone(&self.writer);
        let reading = spawn_blocking(move || {
            let _complete = lock(&writer);
            recording::read(&directory)
        });
        tokio::spawn(async move {
            let mut recording = match timeout(DISK_TIMEOUT, reading).await {
                Ok(Ok(recording)) => recording,
                Ok(Err(_)) => return replier.refuse(RefusalKind::NotPossible, "the recording cannot be read"),
                Err(_) => {
                    let problem = Some("the disk that it is kept on does not answer".to_owned());
                    Recording { problem, ..Recording::default() }
                }
            };
            recording.entries.extend(pending);
            recording.problem = recording.problem.or(lost);
            replier.recording(recording);
        });
    }

    /// The end: what is not written yet gets a moment.
    pub(super) async fn finish(&mut self) {
        if !self.failed
            && !self.pending.is_empty()
            && let Some(writing) = self.writing()
        {
            let _ = timeout(DISK_TIMEOUT, spawn_blocking(writing)).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::recording::{Event, EventKind};

    fn event(text: &str) -> Entry {
        Entry::Event(Event { at_unix_ms: 1, kind: EventKind::WorkerDied, text: text.to_owned(), ..Event::default() })
    }

    #[test]
    fn memory_has_a_bound_and_drops_the_oldest() {
        let mut memory = Memory::default();
        for number in 0..10_000 {
            memory.push(&event(&format!("{number:0200}")));
        }
        assert!(memory.bytes <= MAX_MEMORY && memory.lines.len() > 1000, "{}", memory.lines.len());
        assert_eq!(memory.entries().last(), Some(&event(&format!("{:0200}", 9999))));
    }

    #[test]
    fn what_cannot_be_written_waits_within_a_bound_and_comes_in_order() {
        let directory = std::env::temp_dir().join(format!("sockd-store-{}", std::process::id()));
        let mut store = Store::new(Some(directory.clone()));
        store.pending.extend((0..5).map(|number| event(&number.to_string())));
        let written = store.writing().expect("a directory")();
        let (why, rest) = written.expect_err("there is no directory");
        assert!(why.starts_with("cannot write ") && rest.len() == 5, "{why}");
        store.pending = rest;
        std::fs::create_dir_all(&directory).expect("made");
        assert_eq!(store.writing().expect("a directory")(), Ok(None));
        let expected: Vec<Entry> = (0..5).map(|number| event(&number.to_string())).collect();
        assert_eq!(recording::read(&directory).entries, expected);
        store.pending.extend((0..MAX_PENDING + 7).map(|number| event(&number.to_string())));
        store.trim();
        assert_eq!((store.pending.len(), store.lost), (MAX_PENDING, 7));
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
