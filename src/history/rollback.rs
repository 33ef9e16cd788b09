//! Which release a rollback goes back to: the one that served before the one that serves.
//!
//! A release that was rolled back from is not gone back to: two rollbacks in a row go back by two releases.

use crate::control::{Action, HistoryEntry, Release};

/// Why there is no release to go back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRollback {
    /// Nothing has served yet.
    #[error("the history holds no release that has served")]
    NothingServed,
    /// All that served ran from this directory.
    #[error(
        "there is no release to go back to: all that served in the history ran from {directory}{}. A rollback needs a \
         directory for each release, and `directory` in sockd.toml (or --directory) that names a link to the one that \
         serves. Where each deploy changes the files in the same directory, bring the old files back{} and run \
         `sockd reload`",
        .serving.as_ref().map(|commit| format!(" (commit {})", short(commit))).unwrap_or_default(),
        .before.as_ref().map(|commit| format!(" (the commit that served before is {commit})")).unwrap_or_default()
    )]
    InPlace {
        /// Where all ran.
        directory: String,
        /// The commit that serves.
        serving: Option<String>,
        /// The last other commit that served.
        before: Option<String>,
    },
    /// What served before in another directory was rolled back from.
    #[error("there is no release before {0} in the history: what served later was rolled back from")]
    Oldest(String),
}

/// The release that served before the one that serves.
///
/// # Errors
/// There is none.
pub fn previous(entries: &[HistoryEntry]) -> Result<Release, NoRollback> {
    let mut served: Vec<&Release> = Vec::new();
    let good = || entries.iter().filter(|entry| entry.result.is_good());
    for (entry, release) in good().filter_map(|entry| Some((entry, entry.release.as_ref()?))) {
        let place = served.iter().position(|before| before.directory == release.directory);
        match (entry.action, place) {
            (Action::Rollback, Some(place)) => served.truncate(place),
            // A deploy into a directory of before is a new release.
            (Action::Start | Action::Reload | Action::Unknown, Some(place)) => drop(served.remove(place)),
            (_, None) => {}
        }
        served.push(release);
    }
    match &*served {
        [] => Err(NoRollback::NothingServed),
        [.., before, _] => Ok((*before).clone()),
        [only] => {
            let elsewhere = good().filter_map(|e| e.release.as_ref()).any(|r| r.directory != only.directory);
            let commits = good().rev().filter_map(|entry| entry.release.as_ref()?.commit.clone());
            Err(match elsewhere {
                true => NoRollback::Oldest(only.directory.clone()),
                false => NoRollback::InPlace {
                    directory: only.directory.clone(),
                    serving: only.commit.clone(),
                    before: commits.into_iter().find(|commit| Some(commit) != only.commit.as_ref()),
                },
            })
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::HistoryResult;

    /// `=` a start, `>` a reload, `<` a rollback, `!` a reload that was refused, `~` one that was cut short; then the
    /// release, and its commit.
    fn goes_back_to(history: &str) -> Result<String, NoRollback> {
        let entry = |word: &str| {
            let (action, name) = word.split_at(1);
            let (name, commit) = name.split_once('@').map_or((name, None), |(name, commit)| (name, Some(commit)));
            HistoryEntry {
                action: match action {
                    "=" => Action::Start,
                    "<" => Action::Rollback,
                    _ => Action::Reload,
                },
                result: match action {
                    "!" => HistoryResult::Refused,
                    "~" => HistoryResult::CutShort,
                    _ => HistoryResult::Serving,
                },
                release: Some(Release { directory: format!("/srv/{name}"), commit: commit.map(str::to_owned) }),
                ..HistoryEntry::default()
            }
        };
        let entries: Vec<_> = history.split_whitespace().map(entry).collect();
        previous(&entries).map(|release| release.directory["/srv/".len()..].to_owned())
    }

    #[test]
    fn it_is_what_served_before_what_serves() {
        for (history, release) in [
            ("=a >b", "a"),
            ("=a >b >b =b", "a"),
            ("=a >b !c", "a"),
            // A reload that a stop has cut short proves nothing, unless its release serves after that or did before.
            ("=a >b ~c =b", "a"),
            ("=a >b ~c =c", "b"),
            ("=a >b ~a =b", "a"),
            // Twice goes back by two, and not forward again.
            ("=a >b >c <b", "a"),
            // What was rolled back from comes up again with a restart, and is left again.
            ("=a >b <a =b", "a"),
            ("=a >b <a >c", "a"),
            // Two directories that take turns.
            ("=blue >green >blue", "green"),
            ("=blue >green >blue >green", "blue"),
        ] {
            assert_eq!(goes_back_to(history), Ok(release.to_owned()), "{history}");
        }
    }

    #[test]
    fn where_there_is_none_it_says_what_a_rollback_needs() {
        assert_eq!(goes_back_to(""), Err(NoRollback::NothingServed));
        assert_eq!(goes_back_to("!a"), Err(NoRollback::NothingServed));
        assert_eq!(goes_back_to("~a"), Err(NoRollback::NothingServed));
        assert_eq!(goes_back_to("=a >b <a"), Err(NoRollback::Oldest("/srv/a".to_owned())));
        let why = goes_back_to("=a@111 >a@111 >a@222 >a@222").expect_err("in place").to_string();
        assert!(why.contains("ran from /srv/a (commit 222)") && why.contains("served before is 111"), "{why}");
        let why = goes_back_to("=a >a").expect_err("in place").to_string();
        assert!(why.contains("a directory for each release") && !why.contains("commit"), "{why}");
    }
}
