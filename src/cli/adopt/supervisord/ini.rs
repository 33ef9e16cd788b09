//! supervisord's configuration files, read as supervisord 4 reads them: by Python's `RawConfigParser` with `;` and `#` for
//! comments, values that go on in indented lines, and keys without regard to case.
//!
//! Owns: what a section says, and where. Never: reads a file, or expands a value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The file, and the line on which the key stands, counted from 1.
    pub file: PathBuf,
    /// See `file`.
    pub line: usize,
    /// Its lines, each without blanks at its ends.
    pub text: String,
}

impl Value {
    /// `FILE:LINE`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// A section, perhaps of several files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// What stands between the brackets.
    pub name: String,
    /// Where it begins in each of its files: the file, and the line counted from 1.
    pub places: Vec<(PathBuf, usize)>,
    /// Its keys in lower case; of two values the later one counts.
    pub keys: BTreeMap<String, Value>,
}

/// All sections of all files, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    sections: Vec<Section>,
}

impl Configuration {
    /// Reads one more file, as supervisord reads those that `[include]` names.
    ///
    /// # Errors
    /// The line for which supervisord would not start.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), String> {
        let cannot = |line: usize, why: &str| format!("{}:{line}: {why}", file.display());
        let (mut here, mut key): (Option<usize>, Option<String>) = (None, None);
        // How far the line is indented after which a value goes on.
        let mut indent = 0;
        // Python takes all three for the end of a line.
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        for (number, line) in (1..).zip(text.split('\n')) {
            let comment = comment(line);
            let bare = line[..comment.unwrap_or(line.len())].trim_matches(is_blank);
            let open = here.and_then(|at| self.sections[at].keys.get_mut(key.as_ref()?));
            if bare.is_empty() {
                if let (None, Some(open)) = (comment, open) {
                    open.text.push('\n');
                }
                continue;
            }
            let begins = line.chars().take_while(|c| is_blank(*c)).count();
            if let Some(open) = open.filter(|_| begins > indent) {
                open.text.push('\n');
                open.text.push_str(bare);
                continue;
            }
            indent = begins;
            let header = bare.strip_prefix('[').and_then(|rest| rest.rsplit_once(']')).map(|(name, _)| name);
            if let Some(name) = header.filter(|name| !name.is_empty()) {
                if name == "DEFAULT" {
                    return Err(cannot(number, "[DEFAULT] sets keys of every section: write them out there first"));
                }
                here = Some(self.begin(name, file, number));
                key = None;
                continue;
            }
            let Some(at) = here else { return Err(cannot(number, "there is no [section] above this line")) };
            let (name, value) = bare.split_once(['=', ':']).unwrap_or_default();
            let name = name.trim_end_matches(is_blank).to_lowercase();
            if name.is_empty() {
                return Err(cannot(number, "it is no KEY=VALUE, and supervisord does not start with it"));
            }
            let text = value.trim_matches(is_blank).to_owned();
            self.sections[at].keys.insert(name.clone(), Value { file: file.to_owned(), line: number, text });
            key = Some(name);
        }
        for value in self.sections.iter_mut().flat_map(|section| section.keys.values_mut()) {
            value.text.truncate(value.text.trim_end_matches(is_blank).len());
        }
        Ok(())
    }

    fn begin(&mut self, name: &str, file: &Path, line: usize) -> usize {
        let known = self.sections.iter().position(|section| section.name == name);
        let at = known.unwrap_or_else(|| {
            self.sections.push(Section { name: name.to_owned(), ..Section::default() });
            self.sections.len() - 1
        });
        self.sections[at].places.push((file.to_owned(), line));
        at
    }

    /// The section with this name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Every section, as first written.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The value of a key.
    pub fn value(&self, section: &str, key: &str) -> Option<&Value> {
        self.section(section)?.keys.get(key)
    }
}

/// What Python's `str.strip` takes off.
fn is_blank(letter: char) -> bool {
    letter.is_whitespace() || ('\x1c'..='\x1f').contains(&letter)
}

/// Where the comment of a line begins: `RawConfigParser._read`. It looks for both signs in turn and takes the first turn
/// in which one stands at the beginning or behind a blank.
fn comment(line: &str) -> Option<usize> {
    if line.trim_matches(is_blank).starts_with(['#', ';']) {
        return Some(0);
    }
    let mut places: Vec<_> = [';', '#'].map(|sign| line.match_indices(sign).map(|(at, _)| at)).into();
    loop {
        let turn: Vec<usize> = places.iter_mut().filter_map(Iterator::next).collect();
        if turn.is_empty() {
            return None;
        }
        let begins = |at: &usize| line[..*at].chars().next_back().is_none_or(is_blank);
        if let Some(first) = turn.into_iter().filter(begins).min() {
            return Some(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of these was read by `configparser` of Python 3.11 as supervisord calls it.
    #[test]
    fn files_are_read_as_python_reads_them() {
        let text = "; head\n[program:a] ; one\nCommand = /bin/a --x;y \\ ; said\n# c\n  --b\n\n  --c ; d\n; e\nuser: sammy\n\
                    odd=a;b ; c # d\ncolour=a#b;c\n[group:g]\nprograms=a\n\tb\n[program:a]\nuser=root\r\n";
        let mut configuration = Configuration::default();
        configuration.add(Path::new("/c"), text).expect("read");
        let value = |key| configuration.value("program:a", key).map(|value| (value.line, value.text.as_str()));
        assert_eq!(value("command"), Some((3, "/bin/a --x;y \\\n--b\n\n--c")));
        assert_eq!(value("user"), Some((16, "root")));
        assert_eq!(value("odd"), Some((10, "a;b ; c")));
        assert_eq!(value("colour"), Some((11, "a#b;c")));
        assert_eq!(configuration.value("group:g", "programs").map(|value| value.text.as_str()), Some("a\nb"));
        assert_eq!(configuration.section("program:a").map(|section| section.places.len()), Some(2));
    }

    #[test]
    fn what_supervisord_would_not_start_with_is_refused_with_its_line() {
        for (text, line) in
            [("a=b\n", 1), ("[x]\nno setting\n", 2), ("[x]\n=b\n", 2), ("[x]\n\n[\n", 3), ("[DEFAULT]\nuser=root\n", 1)]
        {
            let said = Configuration::default().add(Path::new("/c"), text).expect_err(text);
            assert!(said.starts_with(&format!("/c:{line}: ")), "{said}");
        }
    }
}
