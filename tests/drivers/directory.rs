//! A directory of a test's own, and waiting for what must come true.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The umask belongs to the whole process: who changes it, or makes files, holds this.
static UMASK: Mutex<()> = Mutex::new(());

pub fn umask_lock() -> MutexGuard<'static, ()> {
    UMASK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removed when dropped. Its path is short, for a socket's path has at most 107 bytes.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let _umask = umask_lock();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sockd-drivers-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks again and again until it is so; fails after ten seconds.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
