//! supervisord's files on this machine: its own, and those that `[include]` names.
//!
//! Owns: the looking for them, how many and how large they may be, and who may read and write them.
//! Never: changes one.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::expand::{self, Known};
use super::ini::Configuration;
use crate::cli::adopt::file_owner::Writers;
use crate::regular_file;

/// Where supervisord has its configuration, in the packages of Debian and of others.
const MAINS: [&str; 2] = ["/etc/supervisor/supervisord.conf", "/etc/supervisord.conf"];
/// What is put behind the name of a file whose program sockd runs.
pub const SUFFIX: &str = ".sockd-adopted";
/// A file is far shorter.
const FILE_LIMIT: u64 = 256 << 10;
/// So many files are read.
const MAX_FILES: usize = 256;
/// So many names of a directory are looked at.
const MAX_NAMES: usize = 10_000;

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it lies.
    pub path: PathBuf,
    /// Who may write it.
    pub writers: Writers,
    /// Whether not everybody may read it.
    pub private: bool,
    /// Whether supervisord would read it with [`SUFFIX`], too.
    pub still_read: bool,
}

/// All files.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// What they say.
    pub configuration: Configuration,
    /// The files themselves; the first is supervisord's own.
    pub sources: Vec<Source>,
}

impl Layout {
    /// Reads supervisord's files. `None`: there is no supervisord.
    ///
    /// # Errors
    /// What cannot be read, and why.
    pub fn read(host: &str) -> Result<Option<Self>, String> {
        let Some(main) = MAINS.into_iter().map(Path::new).find(|path| path.exists()) else { return Ok(None) };
        let mut layout = Self::default();
        layout.add(main, false)?;
        let Some(include) = layout.configuration.value("include", "files").cloned() else { return Ok(Some(layout)) };
        let here = main.parent().unwrap_or(Path::new("/"));
        let known = |name: &str| match name {
            "here" => Some(Known::Text(here.display().to_string())),
            "host_node_name" => Some(Known::Text(host.to_owned())),
            _ => None,
        };
        let cannot = |why: String| format!("{}: files=: {why}", include.place());
        for pattern in expand::expand(&include.text, &known).map_err(cannot)?.split_whitespace() {
            let pattern = here.join(pattern);
            let mut files = matching(&pattern).map_err(cannot)?;
            // Those that were renamed, too: to name them back, and to say that they are adopted already.
            let renamed = PathBuf::from(format!("{}{SUFFIX}", pattern.display()));
            let with_suffix = matching(&renamed).map_err(cannot)?;
            files.extend(with_suffix.into_iter().filter(|file| !files.contains(file)).collect::<Vec<_>>());
            for file in files {
                let known = layout.sources.iter().any(|source| source.path == file);
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let last = pattern.file_name().unwrap_or_default().to_string_lossy();
                if !known {
                    layout.add(&file, matches(&last, &format!("{name}{SUFFIX}")))?;
                }
            }
        }
        Ok(Some(layout))
    }

    fn add(&mut self, path: &Path, still_read: bool) -> Result<(), String> {
        if self.sources.len() >= MAX_FILES {
            return Err(format!("supervisord has more than {MAX_FILES} files"));
        }
        let (text, metadata) = regular_file::read_text_and_metadata(path, FILE_LIMIT).map_err(|error| {
            let advice = if error.kind() == io::ErrorKind::PermissionDenied { "; try it with sudo" } else { "" };
            format!("cannot read {}: {error}{advice}", path.display())
        })?;
        self.configuration.add(path, &text)?;
        let private = metadata.mode() & 0o004 == 0;
        let writers = Writers::of(path, &metadata);
        self.sources.push(Source { path: path.to_owned(), writers, private, still_read });
        Ok(())
    }

    /// The names of the programs in a file, under either of its names.
    pub fn programs(&self, file: &Path) -> Vec<&str> {
        let (kept, renamed) = names(file);
        let sections = self.configuration.sections().iter();
        let here = sections.filter(|section| section.places.iter().any(|(path, _)| *path == kept || *path == renamed));
        here.filter_map(|section| section.name.strip_prefix("program:")).collect()
    }

    /// The file of a program.
    pub fn file(&self, program: &str) -> Option<&Path> {
        let section = self.configuration.section(&format!("program:{program}"))?;
        section.places.first().map(|(file, _)| file.as_path())
    }

    /// Whether supervisord has something with this name, be it a program or not.
    pub fn knows(&self, name: &str) -> bool {
        let of_name = |kind: &str| self.configuration.section(&format!("{kind}:{name}")).is_some();
        ["program", "fcgi-program", "eventlistener", "group"].into_iter().any(of_name)
    }

    /// What is known of a program's file together with supervisord's own, which says as whom it runs and what it reads.
    pub fn source(&self, file: &Path) -> Option<Source> {
        let own = self.sources.iter().find(|source| source.path == file)?;
        let main = self.sources.first()?;
        let writers = match (&own.writers, &main.writers) {
            (writers, Writers::Root) | (Writers::Root, writers) => writers.clone(),
            (Writers::User(one), Writers::User(other)) if one.uid == other.uid => own.writers.clone(),
            (Writers::Others(what), _) | (_, Writers::Others(what)) => Writers::Others(what.clone()),
            (Writers::User(_), Writers::User(_)) => {
                Writers::Others("it and supervisord's own file belong to several users".to_owned())
            }
        };
        Some(Source { writers, private: own.private || main.private, ..own.clone() })
    }
}

/// The file under the name at which supervisord reads it, and under the other.
pub fn names(file: &Path) -> (PathBuf, PathBuf) {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let kept = name.strip_suffix(SUFFIX).unwrap_or(&name);
    (file.with_file_name(kept), file.with_file_name(format!("{kept}{SUFFIX}")))
}

/// The files that a pattern with `*` and `?` means, sorted (Python's `glob.glob`).
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    if pattern.to_string_lossy().contains('[') {
        return Err(format!("what {} means is not known here: write it with * and ? alone", pattern.display()));
    }
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.components() {
        let Component::Normal(part) = part else {
            if part == Component::ParentDir {
                found = found.into_iter().map(|path| path.join("..")).collect();
            }
            continue;
        };
        let part = part.to_string_lossy();
        if !part.contains(['*', '?']) {
            found = found
                .into_iter()
                .map(|path| path.join(&*part))
                .filter(|path| path.symlink_metadata().is_ok())
                .collect();
            continue;
        }
        let mut names = Vec::new();
        for directory in found {
            let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            for name in entries.take(MAX_NAMES).map(|entry| entry.file_name()) {
                let text = name.to_string_lossy();
                if matches(&part, &text) && text.starts_with('.') == part.starts_with('.') {
                    names.push(directory.join(&name));
                }
            }
        }
        names.sort();
        names.truncate(MAX_FILES + 1);
        found = names;
    }
    Ok(found)
}

/// Whether a name is one of a pattern's: `*` any letters, `?` one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut of) = (0, 0);
    // Where the last `*` stands, and how far it has reached.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(of) {
            Some('*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(letter) if *letter == '?' || *letter == name[at] => {
                of += 1;
                at += 1;
            }
            _ => {
                let Some((begin, reached)) = star else { return false };
                star = Some((begin, reached + 1));
                (of, at) = (begin + 1, reached + 1);
            }
        }
    }
    pattern[of..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "site.conf", true),
            ("*.conf", "site.conf.sockd-adopted", false),
            ("*", "site.conf.sockd-adopted", true),
            ("s?te*", "site", true),
            ("*a*b", "xaaxbxb", true),
            ("*a*b", "xaaxbxc", false),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        let room = std::env::temp_dir().join(format!("sockd-layout-{}", std::process::id()));
        std::fs::create_dir_all(room.join("b.d")).expect("made");
        for name in ["b.d/2.conf", "b.d/1.conf", "b.d/.hidden.conf", "b.d/x.ini"] {
            std::fs::write(room.join(name), "").expect("written");
        }
        let found = matching(&room.join("*.d/*.conf"));
        std::fs::remove_dir_all(&room).expect("removed");
        assert_eq!(found, Ok(vec![room.join("b.d/1.conf"), room.join("b.d/2.conf")]));
        assert!(matching(Path::new("/etc/[a-z].conf")).is_err());
    }
}
