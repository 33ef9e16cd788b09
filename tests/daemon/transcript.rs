//! What was heard of one instance, in order, and waiting for more.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// No event takes longer than this, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What sockd said last may still be on its way to us.
const AFTER_THE_END: Duration = Duration::from_secs(3);
/// So many of the last entries are shown when an event does not come.
const SHOWN: usize = 150;

/// Where something was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// sockd's stderr: its log, and the workers' stderr that it passes on.
    Log,
    /// The workers' stdout.
    Output,
    /// A datagram to the service manager.
    Manager,
}

/// One line or datagram.
#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub source: Source,
    pub text: String,
    /// Its place in the transcript.
    index: usize,
}

impl Entry {
    /// The moment just after it.
    pub fn mark(&self) -> Mark {
        Mark(self.index + 1)
    }

    /// The value of `NAME=` in a datagram.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

/// A moment: what came before it does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

/// The beginning.
pub const START: Mark = Mark(0);

#[derive(Debug, Default)]
pub struct Transcript {
    entries: Mutex<Vec<Entry>>,
    news: Condvar,
    /// When the log ended, which is when sockd did.
    ended: OnceLock<Instant>,
}

impl Transcript {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, source: Source, text: String) {
        let mut entries = self.entries();
        let index = entries.len();
        entries.push(Entry { at: Instant::now(), source, text, index });
        self.news.notify_all();
    }

    /// Copies lines from a pipe in a thread of its own, until every writer is gone.
    pub fn follow(self: &Arc<Self>, source: Source, pipe: impl Read + Send + 'static) {
        let transcript = Arc::clone(self);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                transcript.push(source, String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
            if source == Source::Log {
                let _ = transcript.ended.set(Instant::now());
                transcript.news.notify_all();
            }
        });
    }

    /// This moment.
    pub fn mark(&self) -> Mark {
        Mark(self.entries().len())
    }

    /// Waits for the first entry after `since` that satisfies `wanted`.
    pub fn wait(&self, since: Mark, source: Source, what: &str, wanted: impl Fn(&str) -> bool) -> Entry {
        let deadline = Instant::now() + PATIENCE;
        let mut next = since.0;
        let mut entries = self.entries();
        loop {
            if let Some(entry) = entries[next..].iter().find(|e| e.source == source && wanted(&e.text)) {
                return entry.clone();
            }
            next = entries.len();
            // What was said before the end may still be on its way, and nothing else.
            let deadline = self.ended.get().map_or(deadline, |ended| deadline.min(*ended + AFTER_THE_END));
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(entries);
                let why = if self.ended.get().is_some() { "before sockd ended" } else { "in time" };
                panic!("{what}: it did not come {why}\n{}", self.show());
            }
            entries = self.news.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything from one source after `since`.
    pub fn all(&self, since: Mark, source: Source) -> Vec<Entry> {
        self.entries()[since.0..].iter().filter(|entry| entry.source == source).cloned().collect()
    }

    /// The last entries, for the message of a failed test.
    pub fn show(&self) -> String {
        let entries = self.entries();
        if entries.is_empty() {
            return "--- nothing was heard".to_owned();
        }
        let skipped = entries.len().saturating_sub(SHOWN);
        let began = entries.first().map_or_else(Instant::now, |first| first.at);
        let mut text = format!("--- what was heard ({skipped} earlier entries left out)\n");
        for (entry, next) in entries[skipped..].iter().zip(entries[skipped + 1..].iter().map(Some).chain([None])) {
            // Of equal lines the last one will do.
            if next.is_some_and(|next| next.text == entry.text) {
                continue;
            }
            let at = entry.at.duration_since(began).as_secs_f64();
            let line: String = entry.text.trim_end().replace('\n', " | ").chars().take(200).collect();
            text.push_str(&format!("{at:8.3} {:?}: {line}\n", entry.source));
        }
        text
    }
}
