//! One site's options: gathered from the command line, the environment and the files, and sorted into what is sockd's
//! and what stays uWSGI's.

use std::ffi::{OsStr, OsString};

use super::super::exec::ServerInputs;
use super::ini::{self, Letters, Placeholder, Reference};
use super::options::{Fate, by_letter, fate, takes_value};

/// Files within files, at most.
const DEPTH: usize = 8;
/// Lines of all files together, at most.
const LINES: usize = 10_000;

/// All that is known of one site.
#[derive(Debug, Default)]
pub(super) struct Site {
    /// What is left of the command line.
    pub(super) words: Vec<Word>,
    /// What is left of the files, one for each that the command line or the environment names.
    pub(super) files: Vec<String>,
    /// The variables whose options are taken out.
    pub(super) unset: Vec<OsString>,
    pub(super) sockets: Vec<Socket>,
    pub(super) processes: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) mercy: Option<String>,
    pub(super) directory: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Every option with its value: what `%(NAME)` looks up.
    all: Vec<(String, String)>,
    lines: usize,
}

/// A part of the command line that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Kept(OsString),
    /// In place of a file's name: [`Site::files`] by index.
    File(usize),
}

/// What uWSGI was to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) option: &'static str,
    /// As written.
    pub(super) value: String,
}

/// Where an option stands.
struct Place<'a> {
    /// For messages.
    name: &'a dyn std::fmt::Display,
    depth: usize,
    /// The file it stands in, and its letters.
    file: Option<(&'a str, &'a Letters)>,
}

/// What becomes of one option.
enum Sorted {
    /// It stays.
    Kept,
    /// It is gone.
    Gone,
    /// This stands in its place.
    Lines(String),
}

impl Site {
    /// Reads all. The environment comes first and the command line wins, as with uWSGI.
    ///
    /// # Errors
    /// What cannot be read, and what cannot be run under sockd.
    pub(super) fn read(inputs: &ServerInputs<'_>) -> Result<Self, String> {
        let mut site = Self::default();
        site.environment(inputs)?;
        site.arguments(inputs)?;
        Ok(site)
    }

    /// `UWSGI_CHMOD_SOCKET=660` is `chmod-socket = 660`.
    fn environment(&mut self, inputs: &ServerInputs<'_>) -> Result<(), String> {
        for (variable, value) in inputs.environment {
            let Some(name) = variable.to_str().and_then(|name| name.strip_prefix("UWSGI_")) else { continue };
            let (name, value) = (name.to_ascii_lowercase().replace('_', "-"), value.to_string_lossy());
            let place = Place { name: &variable.display(), depth: 0, file: None };
            match self.sort(&name, &value, &place, inputs)? {
                Sorted::Kept => {}
                Sorted::Gone => self.unset.push(variable.clone()),
                Sorted::Lines(lines) => {
                    self.unset.push(variable.clone());
                    self.file(lines);
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, lines: String) {
        self.words.push(Word::File(self.files.len()));
        self.files.push(format!("[uwsgi]\n{lines}"));
    }

    fn arguments(&mut self, inputs: &ServerInputs<'_>) -> Result<(), String> {
        let mut words = inputs.command.iter().skip(1).peekable();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            if let Some(long) = text.strip_prefix("--").filter(|long| !long.is_empty()) {
                let (name, joined) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                let mut kept = vec![word.clone()];
                let mut value = joined;
                if value.is_none() && takes_value(name) == Some(true) {
                    let next = words.next().ok_or_else(|| format!("uWSGI's --{name} has no value"))?;
                    value = Some(next.to_string_lossy().into_owned());
                    kept.push(next.clone());
                }
                self.argument(name, &value.unwrap_or_default(), kept, inputs)?;
            } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                let mut rest = letters.chars();
                while let Some(letter) = rest.next() {
                    let (name, takes) = by_letter(letter).ok_or_else(|| format!("uWSGI has no option -{letter}"))?;
                    let mut kept = vec![OsString::from(format!("-{letter}"))];
                    let mut value = String::new();
                    if takes || letter == 'C' {
                        value = rest.by_ref().collect();
                        kept[0].push(&value);
                    }
                    if takes && value.is_empty() {
                        let next = words.next().ok_or_else(|| format!("uWSGI's -{letter} has no value"))?;
                        value = next.to_string_lossy().into_owned();
                        kept.push(next.clone());
                    }
                    self.argument(name, &value, kept, inputs)?;
                }
            } else {
                self.positional(word, &text, inputs)?;
            }
        }
        Ok(())
    }

    /// A word of its own: a file, or the value of an option before it that is none of ours.
    fn positional(&mut self, word: &OsStr, text: &str, inputs: &ServerInputs<'_>) -> Result<(), String> {
        let name = match Reference::parse(text).file.rsplit_once('.').map(|(_, extension)| extension) {
            Some("ini") => "ini",
            Some(other @ ("xml" | "yaml" | "yml" | "json" | "js")) => other,
            Some(_) | None => {
                self.words.push(Word::Kept(word.to_owned()));
                return Ok(());
            }
        };
        self.argument(name, text, vec![word.to_owned()], inputs)
    }

    fn argument(
        &mut self,
        name: &str,
        value: &str,
        kept: Vec<OsString>,
        inputs: &ServerInputs<'_>,
    ) -> Result<(), String> {
        let place = Place { name: &"the command line", depth: 0, file: None };
        match self.sort(name, value, &place, inputs)? {
            Sorted::Kept => self.words.extend(kept.into_iter().map(Word::Kept)),
            Sorted::Gone => {}
            Sorted::Lines(lines) => self.file(lines),
        }
        Ok(())
    }

    /// Decides about one option and takes note of it.
    fn sort(
        &mut self,
        name: &str,
        value: &str,
        place: &Place<'_>,
        inputs: &ServerInputs<'_>,
    ) -> Result<Sorted, String> {
        // `set = NAME=VALUE` is NAME = VALUE.
        if matches!(name, "set" | "set-placeholder" | "set-ph")
            && let Some((name, value)) = value.split_once('=')
        {
            return self.sort(name, value, place, inputs);
        }
        self.all.push((name.to_owned(), value.to_owned()));
        match fate(name) {
            Fate::Kept => return Ok(Sorted::Kept),
            Fate::Directory => {
                self.directory = Some(value.to_owned());
                return Ok(Sorted::Kept);
            }
            Fate::Socket(option) => {
                // The address of `http` and its like may be followed by more.
                let value = value.split(',').next().unwrap_or_default().to_owned();
                self.sockets.push(Socket { option, value });
            }
            Fate::Processes => self.processes = Some(value.to_owned()),
            Fate::Mode => self.mode = Some(value.to_owned()),
            Fate::Mercy => self.mercy = Some(value.to_owned()),
            Fate::Ini => return self.included(value, place, inputs).map(Sorted::Lines),
            Fate::Include | Fate::Inherit => {
                if !Reference::parse(value).file.ends_with(".ini") {
                    return Err(format!("{}: {name} = {value}: sockd reads .ini files alone", place.name));
                }
                return self.included(value, place, inputs).map(Sorted::Lines);
            }
            Fate::Dropped => {}
            Fate::Replaced(instead) => {
                self.warnings.push(format!("{}: uWSGI's {name} is left out: {instead}", place.name));
            }
            Fate::Refused(instead) => return Err(format!("{}: uWSGI's {name} is refused: {instead}", place.name)),
        }
        Ok(Sorted::Gone)
    }

    /// The lines of a file that stay.
    fn included(&mut self, written: &str, place: &Place<'_>, inputs: &ServerInputs<'_>) -> Result<String, String> {
        let refused = |why: &str| Err(format!("{}: ini = {written}: {why}", place.name));
        let depth = place.depth + 1;
        if depth > DEPTH {
            return refused("the files include each other");
        }
        if written.contains("://") || written == "-" {
            return refused("sockd reads files alone");
        }
        let expanded = self.value(written, inputs);
        let Some(expanded) = expanded.as_deref() else {
            return refused("sockd cannot tell which file that is");
        };
        let reference = Reference::parse(expanded);
        let file = match (reference.file, &place.file) {
            ("", Some((file, _))) => file,
            ("", None) => return refused("it names no file"),
            (file, _) => file,
        };
        let path = inputs.directory.join(file);
        let text = (inputs.read)(&path)?;
        let section = expanded.contains(':').then_some(reference.section);
        let letters = Letters::new(file, &path.to_string_lossy(), section, place.file.as_ref().map(|(_, l)| *l));
        let text = letters.put_in(&text).map_err(|why| format!("{}: {why}", path.display()))?;
        let lines = ini::lines(&text, reference.section);
        if lines.is_empty() {
            return Err(format!("{} has no section [{}]", path.display(), reference.section));
        }
        self.lines += lines.len();
        if self.lines > LINES {
            return Err(format!("{}: the files have more than {LINES} lines", path.display()));
        }
        let (mut out, mut last) = (String::new(), String::new());
        for line in lines {
            let name = format!("{}:{}", path.display(), line.number);
            let here = Place { name: &name, depth, file: Some((file, &letters)) };
            let target = if fate(line.key) == Fate::Inherit { &mut last } else { &mut out };
            match self.sort(line.key, line.value, &here, inputs)? {
                Sorted::Kept => target.push_str(&format!("{} = {}\n", line.key, line.value)),
                Sorted::Gone => {}
                Sorted::Lines(lines) => target.push_str(&lines),
            }
        }
        Ok(out + &last)
    }

    /// A value with `%(NAME)`, `$(NAME)` and what else uWSGI puts in, as far as that is known here.
    pub(super) fn value(&self, text: &str, inputs: &ServerInputs<'_>) -> Option<String> {
        let known = |placeholder: Placeholder<'_>| match placeholder {
            Placeholder::Option(name) => {
                self.all.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }
            Placeholder::Variable(name) => inputs.environment.get(OsStr::new(name))?.to_str().map(str::to_owned),
            Placeholder::Letter('k') => Some(inputs.processors.to_string()),
            Placeholder::Letter('v') => Some(inputs.directory.to_string_lossy().into_owned()),
            Placeholder::Letter(_) => None,
        };
        ini::expand(text, known).ok()
    }
}
