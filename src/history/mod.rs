//! The history of an instance: the file it is kept in, the commit of a release, and which release a rollback goes back to.
//!
//! Owns: how many entries there are, how long their texts may be, and the format of the file.
//! Never: waits in the event loop: the daemon reads and writes in a thread. What stands in the file may be anybody's who is
//! the service's user: it is bounded, and nothing is done because of it but what a reload does.
#![forbid(unsafe_code)]

mod commit;
mod file;
mod rollback;

pub use commit::commit;
pub use file::{ASIDE, FILE_NAME, Kept, read, set_aside, write};
pub use rollback::{NoRollback, previous};

use crate::control::HistoryEntry;

/// So many entries are kept; the oldest go first.
pub const MAX_ENTRIES: usize = 100;
/// A reason is cut after so many bytes.
const MAX_REASON: usize = 1000;
/// The longest path (PATH_MAX), commit or name.
const MAX_TEXT: usize = 4096;
/// So many who shared a reload are kept.
const MAX_ASKERS: usize = 4;
/// A name is cut after so many bytes.
const MAX_NAME: usize = 64;

/// No moment is later, in milliseconds since 1970.
const END_OF_9999: u64 = 253_402_300_799_999;
/// Nothing takes longer, in milliseconds.
const TEN_YEARS: u64 = 10 * 366 * 86_400_000;

/// Cuts what is too long, so that the whole history has a bound.
pub fn bounded(mut entry: HistoryEntry) -> HistoryEntry {
    entry.at_unix_ms = entry.at_unix_ms.min(END_OF_9999);
    entry.took_ms = entry.took_ms.min(TEN_YEARS);
    entry.generation = entry.generation.min(u32::MAX.into());
    entry.asked_by.truncate(MAX_ASKERS);
    for asker in &mut entry.asked_by {
        [&mut asker.user, &mut asker.login_user].into_iter().flatten().for_each(|name| cut(name, MAX_NAME));
    }
    if entry.release.as_ref().is_some_and(|release| release.directory.len() > MAX_TEXT) {
        entry.release = None;
    }
    if let Some(commit) = entry.release.as_mut().and_then(|release| release.commit.as_mut()) {
        cut(commit, 64);
    }
    entry.reason.iter_mut().for_each(|reason| cut(reason, MAX_REASON));
    entry
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('\u{2026}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Asker, Release};

    #[test]
    fn an_entry_has_a_bound_whatever_is_in_it() {
        let long = "\u{e9}".repeat(1 << 20);
        let asker = Asker { user: Some(long.clone()), login_user: Some(long.clone()), ..Asker::default() };
        let entry = HistoryEntry {
            asked_by: vec![asker; 1000],
            release: Some(Release { directory: "/srv".to_owned(), commit: Some(long.clone()) }),
            reason: Some(long.clone()),
            ..HistoryEntry::default()
        };
        let line = serde_json::to_string(&bounded(entry)).expect("JSON");
        assert!(line.len() < 10_000, "{}", line.len());
        // At their longest, in JSON, they fit into an answer and into the file.
        let release = Some(Release { directory: "\u{1}".repeat(MAX_TEXT), commit: Some("\u{1}".repeat(64)) });
        let asker = Asker { user: Some("\u{1}".repeat(64)), login_user: Some("\u{1}".repeat(64)), ..Asker::default() };
        let reason = Some("\u{1}".repeat(MAX_REASON));
        let entry = HistoryEntry { asked_by: vec![asker; 9], release, reason, ..HistoryEntry::default() };
        let longest = serde_json::to_string(&bounded(entry)).expect("JSON").len() + 1;
        assert!((longest + 100) * MAX_ENTRIES < crate::control::RESPONSE_LIMIT, "{longest}");
        let release = Some(Release { directory: format!("/{long}"), commit: None });
        assert_eq!(bounded(HistoryEntry { release, ..HistoryEntry::default() }).release, None);
    }
}
