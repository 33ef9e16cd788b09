//! The history of this instance: who asked for which reload, of which release, and how it ended; and where a rollback leads.
//!
//! Owns: the entries, the releases of the generations that are there, and the threads that read and write the file, one at a
//! time. Never: waits for them. A disk that is full, read-only or silent costs one line in the log, and what was to be kept
//! is kept in memory.

use super::message::Message;
use super::outbox::Outbox;
use crate::control::{Action, Asker, Call, HistoryEntry, HistoryResult, Means, Origin, Proof, Release};
use crate::history::{self, Kept, MAX_ENTRIES, NoRollback};
use crate::regular_file;
use crate::supervisor::{GenerationId, Record, RecordResult, ReleaseId, RequestId, Source};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// No more is read of /etc/passwd, in bytes.
const MAX_PASSWD: u64 = 1 << 20;
/// So many names of users are kept in memory.
const MAX_USERS: usize = 64;
/// The longest reading.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// So long the end of sockd waits for what is not written yet.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The history.
#[derive(Debug)]
pub(super) struct History {
    /// Where its file is. `None`: it lives as long as this sockd.
    directory: Option<PathBuf>,
    /// The oldest first.
    entries: VecDeque<HistoryEntry>,
    /// Who asks before the file was read waits. `None`: it was read.
    waiting: Option<Vec<Call>>,
    /// Who has asked for reloads that have not ended.
    askers: BTreeMap<RequestId, Asker>,
    /// Names of users, by their number.
    users: BTreeMap<u32, Option<String>>,
    /// What the generations that are there run from.
    releases: BTreeMap<GenerationId, Release>,
    /// What rollbacks were asked to lead to, by [`ReleaseId`].
    targets: Vec<Release>,
    file: FileState,
}

/// What is to be written.
#[derive(Debug, Default)]
struct FileState {
    changed: bool,
    writing: bool,
    /// It was said that it cannot be written.
    failed: bool,
    /// Held by the thread that writes: the last one, at the end of sockd, may meet another.
    lock: Arc<Mutex<()>>,
}

impl History {
    /// The history that this directory keeps; a thread reads it.
    pub(super) fn new(directory: Option<PathBuf>, outbox: &Outbox) -> Self {
        let mut history = Self {
            directory,
            entries: VecDeque::new(),
            waiting: None,
            askers: BTreeMap::new(),
            users: BTreeMap::new(),
            releases: BTreeMap::new(),
            targets: Vec::new(),
            file: FileState::default(),
        };
        if let Some(directory) = history.directory.clone() {
            history.waiting = Some(Vec::new());
            let reading = spawn_blocking(move || read(&directory));
            outbox.later(async move {
                let read = timeout(READ_TIMEOUT, reading).await;
                Some(Message::HistoryRead(read.ok().and_then(Result::ok)))
            });
        }
        history
    }

    /// What the file held was read, or (None) could not be in time; those who wait for it.
    #[must_use = "they wait for an answer"]
    pub(super) fn was_read(&mut self, kept: Option<Kept>, outbox: &Outbox) -> Vec<Call> {
        let Some(waiting) = self.waiting.take() else { return Vec::new() };
        let kept = kept.unwrap_or_else(|| {
            // What it holds is not to be replaced by what there was since.
            self.directory = None;
            let seconds = READ_TIMEOUT.as_secs();
            let problem =
                format!("the disk has not answered for {seconds} s, and nothing is kept on it until a restart");
            Kept { problem: Some(problem), ..Kept::default() }
        });
        kept.problem.iter().for_each(|why| {
            tracing::warn!(
                SOCKD_EVENT = "history-unreadable",
                "the history of before is lost in part: {why}, ignoring"
            );
        });
        let since = std::mem::replace(&mut self.entries, kept.entries.into());
        self.entries.extend(since);
        self.trim();
        self.write(outbox);
        waiting
    }

    /// Whether the call has to wait until the file was read.
    pub(super) fn defers(&mut self, call: Call) -> Option<Call> {
        match &mut self.waiting {
            Some(waiting) => {
                waiting.push(call);
                None
            }
            None => Some(call),
        }
    }

    /// The entries, the oldest first.
    pub(super) fn entries(&self) -> Vec<HistoryEntry> {
        self.entries.iter().cloned().collect()
    }

    /// Somebody has asked for a reload.
    pub(super) fn asked(&mut self, request: RequestId, asker: Asker, outbox: &Outbox) {
        let unknown = |uid: &u32| !self.users.contains_key(uid);
        let unknown: Vec<u32> = [asker.uid, asker.login_uid].into_iter().flatten().filter(unknown).collect();
        if !unknown.is_empty() && self.users.len() < MAX_USERS {
            // Nobody looks for them twice.
            self.users.extend(unknown.iter().map(|uid| (*uid, None)));
            let naming = spawn_blocking(move || names_of(&unknown));
            outbox.later(async move { Some(Message::UsersNamed(naming.await.ok()?)) });
        }
        self.askers.insert(request, asker);
    }

    /// These are the names of users.
    pub(super) fn users_named(&mut self, names: Vec<(u32, Option<String>)>, outbox: &Outbox) {
        self.users.extend(names);
        let Self { entries, users, file, .. } = self;
        // A reload that ended before they were known.
        for asker in entries.iter_mut().rev().take(2).flat_map(|entry| &mut entry.asked_by) {
            file.changed |= name(asker, users);
        }
        self.write(outbox);
    }

    /// A generation was read from this release.
    pub(super) fn read_from(&mut self, generation: GenerationId, release: Release) {
        self.releases.insert(generation, release);
    }

    /// Effect::Record: a reload or the start has ended.
    pub(super) fn record(&mut self, record: Record, outbox: &Outbox) {
        let Record { generation, requests, source, result, proof, took } = record;
        let (result, reason) = match result {
            RecordResult::Started | RecordResult::Serving => (HistoryResult::Serving, None),
            RecordResult::Waiting => (HistoryResult::Waiting, None),
            RecordResult::Refused { why } => (HistoryResult::Refused, Some(why)),
            RecordResult::TakenBack { why } => (HistoryResult::TakenBack, Some(why)),
            RecordResult::NotStarted { why } => (HistoryResult::NotStarted, Some(why)),
            RecordResult::CutShort => (HistoryResult::CutShort, None),
        };
        let action = match (requests.is_empty(), source) {
            (true, _) => Action::Start,
            (false, Source::Configured) => Action::Reload,
            (false, Source::Release(_)) => Action::Rollback,
        };
        // A rollback to a release that is gone never got there.
        let release = self.releases.get(&generation).cloned().or_else(|| self.target(source).cloned());
        let mut asked_by: Vec<Asker> = Vec::new();
        for mut asker in requests.iter().filter_map(|request| self.askers.remove(request)) {
            name(&mut asker, &self.users);
            if !asked_by.contains(&asker) {
                asked_by.push(asker);
            }
        }
        match result.is_good() {
            true => self.releases.retain(|known, _| *known >= generation),
            false if action != Action::Start => drop(self.releases.remove(&generation)),
            false => {}
        }
        let entry = HistoryEntry {
            at_unix_ms: now_unix_ms(),
            took_ms: milliseconds(took),
            action,
            asked_by,
            generation: generation.0.into(),
            release,
            result,
            reason,
            proof: Proof {
                checks: proof.checks,
                canary: proof.canary,
                tried: proof.tried,
                workers: proof.workers,
                soak_ms: milliseconds(proof.soak),
            },
        };
        self.entries.push_back(history::bounded(entry));
        self.trim();
        self.write(outbox);
    }

    /// The release that a rollback leads to, while this generation serves.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn previous(&mut self, serving: GenerationId) -> Result<ReleaseId, NoRollback> {
        let mut entries = self.entries();
        let good = entries.iter().rev().find(|entry| entry.result.is_good()).and_then(|entry| entry.release.as_ref());
        // What waits for its first connection, or cannot start, is in no entry yet; what could not be read has no name.
        let now = self.releases.get(&serving).cloned();
        let now = now.or_else(|| good.map(|_| Release::default()));
        if let Some(now) = now.filter(|now| good.is_none_or(|good| good.directory != now.directory)) {
            let (release, result) = (Some(now), HistoryResult::Serving);
            entries.push(HistoryEntry { release, result, ..HistoryEntry::default() });
        }
        let release = history::previous(&entries)?;
        let known = self.targets.iter().position(|known| *known == release);
        let number = known.unwrap_or_else(|| {
            self.targets.push(release);
            self.targets.len() - 1
        });
        Ok(ReleaseId(number as u64))
    }

    /// The release that something is read from, where it is not the configured one.
    pub(super) fn target(&self, source: Source) -> Option<&Release> {
        match source {
            Source::Configured => None,
            Source::Release(ReleaseId(number)) => self.targets.get(usize::try_from(number).ok()?),
        }
    }

    /// A release of [`Self::previous`], for people.
    pub(super) fn name(&self, release: ReleaseId) -> Option<String> {
        let Release { directory, commit } = self.target(Source::Release(release))?;
        Some(match commit {
            Some(commit) => format!("{directory}, commit {commit}"),
            None => directory.clone(),
        })
    }

    fn trim(&mut self) {
        self.entries.drain(..self.entries.len().saturating_sub(MAX_ENTRIES));
        self.file.changed = true;
    }

    /// Has a thread write what has changed, unless one does already: then it is done afterwards.
    fn write(&mut self, outbox: &Outbox) {
        if !self.file.changed || self.file.writing || self.waiting.is_some() {
            return;
        }
        if let Some(writing) = self.writing() {
            self.file.changed = false;
            self.file.writing = true;
            let writing = spawn_blocking(writing);
            outbox.later(async move { Some(Message::HistoryWritten(writing.await.unwrap_or(Ok(())))) });
        }
    }

    fn writing(&self) -> Option<impl FnOnce() -> Result<(), String> + Send + use<>> {
        let (directory, entries, lock) = (self.directory.clone()?, self.entries(), Arc::clone(&self.file.lock));
        Some(move || {
            let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
            history::write(&directory, &entries)
        })
    }

    /// What came of writing it.
    pub(super) fn was_written(&mut self, result: Result<(), String>, outbox: &Outbox) {
        self.file.writing = false;
        match result {
            Ok(()) => self.file.failed = false,
            Err(why) if !std::mem::replace(&mut self.file.failed, true) => {
                tracing::warn!(
                    SOCKD_EVENT = "history-not-kept",
                    "{why}; the history is kept in memory until it can be written, ignoring"
                );
            }
            Err(_) => {}
        }
        self.write(outbox);
    }

    /// The end: what is not written yet gets a moment.
    pub(super) async fn finish(&mut self) {
        if (self.file.changed || self.file.writing)
            && self.waiting.is_none()
            && !self.file.failed
            && let Some(writing) = self.writing()
        {
            let _ = timeout(LAST_WRITE_TIMEOUT, spawn_blocking(writing)).await;
        }
    }
}

/// Who asks over the control socket: the kernel tells the user. Who had logged in is believed of root alone, who may
/// write what they like into the history anyway.
pub(super) fn client(uid: Option<u32>, origin: Origin) -> Asker {
    let means = if origin.exec_reload { Means::ExecReload } else { Means::ControlSocket };
    let login_uid = origin.login_uid.filter(|login| uid == Some(0) && *login != 0);
    Asker { means, uid, login_uid, ..Asker::default() }
}

/// Who sent SIGHUP.
pub(super) fn sender(pid: u32, uid: u32) -> Asker {
    Asker { means: if pid == 1 { Means::Systemd } else { Means::Signal }, uid: Some(uid), ..Asker::default() }
}

fn read(directory: &Path) -> Kept {
    let mut kept = history::read(directory);
    if kept.is_foreign {
        let what = match history::set_aside(directory) {
            Ok(aside) => format!("it is kept as {}", aside.display()),
            Err(error) => format!("it cannot be moved aside: {error}"),
        };
        kept.problem = kept.problem.map(|problem| format!("{problem}; {what}"));
    }
    kept
}

/// Fills in the names that are known; whether there was one.
fn name(asker: &mut Asker, users: &BTreeMap<u32, Option<String>>) -> bool {
    let Asker { uid, user, login_uid, login_user, .. } = asker;
    let mut named = false;
    for (uid, user) in [(uid, user), (login_uid, login_user)] {
        if user.is_none()
            && let Some(Some(name)) = uid.as_ref().and_then(|uid| users.get(uid))
        {
            *user = Some(name.clone());
            named = true;
        }
    }
    named
}

/// The names of these users in /etc/passwd.
fn names_of(uids: &[u32]) -> Vec<(u32, Option<String>)> {
    let text = regular_file::read(Path::new("/etc/passwd"), MAX_PASSWD).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let name = |uid: u32| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
    };
    uids.iter().map(|uid| (*uid, name(*uid))).collect()
}

fn now_unix_ms() -> u64 {
    milliseconds(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_had_logged_in_is_believed_of_root_alone() {
        let origin = Origin { login_uid: Some(1000), exec_reload: false };
        assert_eq!(client(Some(0), origin).login_uid, Some(1000));
        assert_eq!(client(Some(33), origin).login_uid, None);
        assert_eq!(client(Some(0), Origin { login_uid: Some(0), exec_reload: true }).login_uid, None);
        assert_eq!(client(Some(33), Origin { exec_reload: true, ..origin }).means, Means::ExecReload);
        assert_eq!((sender(1, 0).means, sender(77, 0).means), (Means::Systemd, Means::Signal));
    }

    #[test]
    fn users_have_the_names_of_passwd() {
        assert_eq!(names_of(&[0, 4_294_000_000]), [(0, Some("root".to_owned())), (4_294_000_000, None)]);
    }
}
