//! A unit's files, read as systemd reads them (systemd.syntax(7)): sections, continued lines, lists and their resets.
//!
//! Owns: what holds of a unit by its text alone, and where it is written.
//! Never: reads a file, or expands a specifier.

use crate::adapter::shlex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// One `KEY=VALUE` of a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The file, and the line on which the setting begins, counted from 1.
    pub file: PathBuf,
    /// See `file`.
    pub line: usize,
    section: String,
    key: String,
    /// The whole setting as it is written, continued lines and all.
    pub written: String,
    /// The value with its lines joined by spaces.
    pub value: String,
}

impl Setting {
    /// The value as it is written, with its continued lines.
    pub fn raw(&self) -> &str {
        self.written.split_once('=').map_or("", |(_, value)| value.trim_start())
    }
}

/// A unit: its file and its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its name with the type; a template's ends in `@.service`.
    pub name: String,
    settings: Vec<Setting>,
}

impl Unit {
    /// Reads a unit: its file first, then its drop-ins in systemd's order, each with its path.
    pub fn read<'a>(name: &str, files: impl IntoIterator<Item = (PathBuf, &'a str)>) -> Self {
        let settings = files.into_iter().flat_map(|(file, text)| settings(file, text)).collect();
        Self { name: name.to_owned(), settings }
    }

    /// What holds of a key with one value: the last setting, unless that one is empty.
    pub fn last(&self, section: &str, key: &str) -> Option<&Setting> {
        self.all(section, key).last().filter(|setting| !setting.value.is_empty())
    }

    /// The value of [`Unit::last`], empty without one.
    pub fn value(&self, section: &str, key: &str) -> &str {
        self.last(section, key).map_or("", |setting| &setting.value)
    }

    /// What holds of a key with many values: every setting since the last empty one.
    pub fn list(&self, section: &str, key: &str) -> Vec<&Setting> {
        let mut list = Vec::new();
        for setting in self.all(section, key) {
            if setting.value.is_empty() { list.clear() } else { list.push(setting) }
        }
        list
    }

    /// Every setting of a key, resets included, in systemd's order.
    pub fn all(&self, section: &str, key: &str) -> impl Iterator<Item = &Setting> {
        self.settings.iter().filter(move |setting| setting.section == section && setting.key == key)
    }
}

/// What systemd skips at both ends of a line.
const BLANK: [char; 2] = [' ', '\t'];

fn settings(file: PathBuf, text: &str) -> Vec<Setting> {
    let mut found: Vec<Setting> = Vec::new();
    let mut section = String::new();
    // A setting of which more lines follow.
    let mut open = false;
    // Lines end as systemd ends them.
    let text = text.replace("\r\n", "\n");
    for (index, line) in text.split(['\n', '\r', '\0']).enumerate() {
        let bare = line.trim_matches(BLANK);
        // A comment does not end a continued line, and is no part of it.
        if bare.starts_with(['#', ';']) || (bare.is_empty() && !open) {
            continue;
        }
        // A space behind a backslash makes it a letter like others.
        let ends_in = line.len() - line.trim_end_matches('\\').len();
        let continued = ends_in % 2 == 1;
        let part = if continued { bare[..bare.len() - 1].trim_end_matches(BLANK) } else { bare };
        if open {
            let last = found.last_mut().expect("only a setting is open");
            last.written.push('\n');
            last.written.push_str(line.trim_end_matches(BLANK));
            let space = if part.is_empty() || last.value.is_empty() { "" } else { " " };
            last.value.push_str(&format!("{space}{part}"));
            open = continued;
        } else if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = part.split_once('=') {
            found.push(Setting {
                file: file.clone(),
                line: index + 1,
                section: section.clone(),
                key: key.trim_end_matches(BLANK).to_owned(),
                written: bare.to_owned(),
                value: value.trim_start_matches(BLANK).to_owned(),
            });
            open = continued;
        }
    }
    found
}

/// The variables of a unit's Environment=.
pub fn environment(unit: &Unit) -> BTreeMap<OsString, OsString> {
    let lists = unit.list("Service", "Environment");
    let all = lists.iter().flat_map(|setting| shlex::split(&setting.value).unwrap_or_default());
    all.filter_map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_systemd_does() {
        let unit = "\
[Unit]
Description = one \\
  two
; ExecStart=no
[Service]
ExecStart=/bin/a \\
          --b \\
# a comment between
          c
ExecReload=/bin/x
Environment=A=1 \\\\
User=sammy
no setting
";
        let drop_in = "[Service]\nUser=\nExecReload=\nExecReload=/bin/y\nExecReload=/bin/z\n";
        let unit = Unit::read("a.service", [("/a".into(), unit), ("/b".into(), drop_in)]);
        assert_eq!(unit.value("Unit", "Description"), "one two");
        let start = unit.last("Service", "ExecStart").expect("it is there");
        assert_eq!(start.value, "/bin/a --b c");
        assert_eq!(start.raw(), "/bin/a \\\n          --b \\\n          c");
        assert_eq!((start.line, start.file.to_str()), (6, Some("/a")));
        assert_eq!(unit.value("Service", "Environment"), "A=1 \\\\");
        assert_eq!(unit.last("Service", "User"), None);
        let reload: Vec<_> = unit.list("Service", "ExecReload").iter().map(|setting| setting.value.clone()).collect();
        assert_eq!(reload, ["/bin/y", "/bin/z"]);
        assert_eq!(unit.all("Service", "ExecReload").count(), 4);
        assert_eq!(unit.value("Unit", "User"), "");
    }
}
