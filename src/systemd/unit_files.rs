//! The unit files on disk: for finding units that systemd has not loaded.
//!
//! Owns: which file speaks of which unit.
//! Never: interprets a unit file. What a unit really does is asked of systemd; a file only says whom to ask about.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Manager;
use crate::regular_file;

/// Unit files are far smaller; anything longer is none of ours.
const FILE_LIMIT: u64 = 64 << 10;

/// The file of this unit that counts; a masked one has one, too.
pub fn find(manager: Manager, unit: &str) -> Option<PathBuf> {
    let files = manager.unit_directories().into_iter().map(|directory| directory.join(unit));
    files.into_iter().find(|file| file.symlink_metadata().is_ok())
}

/// Which services' files and drop-ins hold a word.
#[derive(Debug, Default)]
pub struct UnitFiles {
    /// By the name of the file or the directory of drop-ins: units, templates (`a@.service`) and the prefixes of drop-ins
    /// (`a-.service`).
    mentioning: BTreeSet<String>,
    /// Every unit and template whose file was read.
    read: BTreeSet<String>,
}

impl UnitFiles {
    /// Reads every service's file and drop-ins: a few milliseconds for some hundred.
    pub fn search(manager: Manager, word: &str) -> Self {
        let mut found = Self::default();
        let mut seen = BTreeSet::new();
        for directory in manager.unit_directories() {
            // /lib is a link to /usr/lib on today's systems.
            let Ok(directory) = fs::canonicalize(directory) else { continue };
            if seen.insert(directory.clone()) {
                found.search_directory(&directory, word);
            }
        }
        found
    }

    /// The units that hold the word, without templates: only their instances are units.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        let names = self.mentioning.iter().map(String::as_str);
        names.filter(|name| !name.ends_with("@.service") && !name.ends_with("-.service"))
    }

    /// Whether a loaded unit may hold the word: `false` only when its file was read and nothing that concerns it does.
    pub fn may_mention(&self, unit: &str) -> bool {
        let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
        let holds = |name: &str| self.mentioning.contains(name);
        let prefixed = |name: &String| name.strip_suffix("-.service").is_some_and(|start| unit.starts_with(start));
        if holds(unit) || template.as_deref().is_some_and(holds) || self.mentioning.iter().any(prefixed) {
            return true;
        }
        !self.read.contains(unit) && !template.is_some_and(|template| self.read.contains(&template))
    }

    fn search_directory(&mut self, directory: &Path, word: &str) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(file) = file.to_str() else { continue };
            let found = if let Some(name) = file.strip_suffix(".service.d") {
                let drop_ins = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let mut held = drop_ins.filter_map(|drop_in| mentions(&drop_in.path(), word));
                held.any(|held| held).then(|| format!("{name}.service"))
            } else if file.ends_with(".service") {
                let held = mentions(&entry.path(), word);
                if held.is_some() {
                    self.read.insert(file.to_owned());
                }
                (held == Some(true)).then(|| file.to_owned())
            } else {
                None
            };
            self.mentioning.extend(found);
        }
    }
}

/// Whether a file holds the word; `None` when it is none, cannot be read, or is too long.
fn mentions(file: &Path, word: &str) -> Option<bool> {
    let text = regular_file::read(file, FILE_LIMIT).ok()?;
    Some(String::from_utf8_lossy(&text).contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whom_to_ask_about() {
        let directory = std::env::temp_dir().join(format!("sockd-test-unit-files-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        let line = "ExecStart=/usr/bin/sockd run -- gunicorn\n";
        write("a.service", line);
        write("b.service", "ExecStart=/usr/bin/gunicorn\n");
        write("b.service.d/50-sockd.conf", line);
        write("c.service", "ExecStart=/usr/bin/gunicorn\n");
        write("d@.service", line);
        write("e-.service.d/x.conf", line);
        write("h@.service", "ExecStart=/usr/bin/gunicorn\n");
        write("f.socket", line);
        write("g.service", &"#".repeat(100_000));
        std::os::unix::fs::symlink("/dev/null", directory.join("masked.service")).expect("linked");
        std::os::unix::fs::symlink("/dev/zero", directory.join("endless.service")).expect("linked");
        let mut found = UnitFiles::default();
        found.search_directory(&directory, "sockd");
        found.search_directory(&directory.join("missing"), "sockd");
        fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(found.services().collect::<Vec<_>>(), ["a.service", "b.service"]);
        // The last three have no file that was read: only systemd knows.
        let may =
            ["a.service", "b.service", "d@x.service", "e-1.service", "g.service", "masked.service", "run-u1.service"];
        for unit in may {
            assert!(found.may_mention(unit), "{unit}");
        }
        assert!(!found.may_mention("c.service"));
        assert!(!found.may_mention("h@x.service"));
    }
}
