//! The maintenance that is on: what visitors read, and keeping that over a restart.
//!
//! Owns: the file, which a thread reads and writes. Never: decides whether workers serve; the core does.

use crate::maintenance::{Maintenance, read, write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// A disk that does not answer is not waited for longer.
const DISK_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct MaintenanceState {
    /// Where it is kept; None: nowhere.
    directory: Option<PathBuf>,
    on: Option<Maintenance>,
    /// What visitors are to read once the core has agreed.
    asked: Option<Maintenance>,
    file: Arc<FileState>,
    writing: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct FileState {
    /// What is to be in the file, for the thread that writes next.
    wanted: Mutex<Option<Maintenance>>,
    /// Held by the one that writes.
    writes: Mutex<()>,
}

impl MaintenanceState {
    /// What this directory holds, which is StateDirectory=.
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        let (on, problem) = directory.clone().map(read_in_time).unwrap_or_default();
        if let Some(why) = problem {
            tracing::warn!(SOCKD_EVENT = "maintenance-unreadable", "{why}, ignoring what it holds");
        }
        Self { directory, on, ..Self::default() }
    }

    /// What is on.
    pub(super) fn on(&self) -> Option<&Maintenance> {
        self.on.as_ref()
    }

    /// Whether a restart would know of it.
    pub(super) fn is_kept(&self) -> bool {
        self.directory.is_some()
    }

    /// Somebody wants it with this.
    pub(super) fn asked(&mut self, maintenance: Maintenance) {
        self.asked = Some(maintenance);
    }

    /// The core has decided whether it is on. Returns whether visitors read something else from here on.
    pub(super) fn decided(&mut self, on: bool) -> bool {
        let asked = self.asked.take();
        let before = self.on.clone();
        // What is not asked for with words was on before a restart.
        let since = before.as_ref().map(|before| before.since_unix_ms);
        let asked = asked.map(|asked| Maintenance { since_unix_ms: since.unwrap_or(asked.since_unix_ms), ..asked });
        self.on = if on { asked.or_else(|| before.clone()).or_else(|| Some(Maintenance::default())) } else { None };
        let changed = self.on != before;
        if changed {
            self.write();
        }
        changed
    }

    fn write(&mut self) {
        let Some(directory) = self.directory.clone() else { return };
        *lock(&self.file.wanted) = self.on.clone();
        let file = Arc::clone(&self.file);
        self.writing = Some(spawn_blocking(move || {
            let _writes = lock(&file.writes);
            let wanted = lock(&file.wanted).clone();
            if let Err(why) = write(&directory, wanted.as_ref()) {
                tracing::error!(SOCKD_EVENT = "maintenance-not-kept", "{why}: after a restart it is as before");
            }
        }));
    }

    /// At the end: waits for the thread that writes.
    pub(super) async fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = timeout(DISK_TIMEOUT, writing).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_in_time(directory: PathBuf) -> (Option<Maintenance>, Option<String>) {
    let (sender, receiver) = mpsc::channel();
    let path = directory.display().to_string();
    let begun = std::thread::Builder::new().spawn(move || sender.send(read(&directory)));
    let late = || (None, Some(format!("cannot look whether {path} says that maintenance is on: it does not answer")));
    if begun.is_ok() { receiver.recv_timeout(DISK_TIMEOUT).unwrap_or_else(|_| late()) } else { late() }
}
