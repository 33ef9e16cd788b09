//! Takes a TOML table apart, key by key, and reports everything wrong with it at once.
//!
//! serde stops at the first error. Here a section is asked for its keys one after the other; what cannot be used is
//! reported and read as absent, and what nobody asked for is an unknown key. So the code that asks is the only list
//! of the keys there are.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::suggestion;

/// A value with its place in the file.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// What one pass over a file found.
pub(super) struct Reader<'f> {
    file: Option<&'f Path>,
    problems: Diagnostics,
    /// Every key that was asked for: its section ("" at the top) and its name.
    keys: Vec<(&'static str, &'static str)>,
    /// Where the values that are in the file are.
    spans: BTreeMap<(&'static str, &'static str), Range<usize>>,
    /// Keys that nobody asked for.
    unknown: Vec<(&'static str, String, Range<usize>)>,
}

/// One table of the file.
pub(super) struct Section<'r, 'f, 't> {
    reader: &'r mut Reader<'f>,
    name: &'static str,
    left: BTreeMap<&'t str, (Range<usize>, &'t Value<'t>)>,
}

impl<'f> Reader<'f> {
    /// Begins a pass over a file, or over nothing.
    pub(super) fn new(file: Option<&'f Path>, text: &str) -> Self {
        let mut problems = Diagnostics::default();
        if let Some(file) = file {
            problems.add_source(file, text, secret(file, text));
        }
        Self { file, problems, keys: Vec::new(), spans: BTreeMap::new(), unknown: Vec::new() }
    }

    /// Parses the text. A table comes out in any case: what can be understood of it.
    pub(super) fn parse<'t>(&mut self, text: &'t str) -> Spanned<DeTable<'t>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        // What is not closed makes nonsense of all that follows: then the first slip is the only one that is certain.
        let unclosed = |error: &toml::de::Error| error.message().starts_with("unclosed");
        let open = errors.iter().any(unclosed);
        let mut slips: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(0..0), error)).collect();
        slips.sort_by_key(|(span, error)| (span.start, unclosed(error)));
        // Of the slips in one line, the first is the cause of the others.
        slips.dedup_by(|(later, _), (first, _)| !text.get(first.start..later.start).unwrap_or("\n").contains('\n'));
        for (span, error) in slips.into_iter().take(if open { 1 } else { usize::MAX }) {
            self.error(span, error.message(), None);
        }
        table
    }

    /// Reads the whole file's table.
    pub(super) fn top<T>(&mut self, table: &DeTable<'_>, read: impl FnOnce(&mut Section<'_, 'f, '_>) -> T) -> T {
        self.section("", Some(table), read)
    }

    fn section<'t, T>(
        &mut self,
        name: &'static str,
        table: Option<&'t DeTable<'t>>,
        read: impl FnOnce(&mut Section<'_, 'f, 't>) -> T,
    ) -> T {
        let entries = table.into_iter().flatten();
        let left = entries.map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value))).collect();
        let mut section = Section { reader: self, name, left };
        let result = read(&mut section);
        let left = section.left;
        self.unknown.extend(left.into_iter().map(|(key, (span, _))| (name, key.to_owned(), span)));
        result
    }

    /// Reports an error at a place of the file.
    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        self.report(Some(span), Diagnostic { help, ..Diagnostic::error(message) });
    }

    /// Reports a problem with the value of a key: at its place if it is in the file.
    pub(super) fn about(&mut self, section: &'static str, key: &'static str, diagnostic: Diagnostic) {
        self.report(self.spans.get(&(section, key)).cloned(), diagnostic);
    }

    /// Where the value of a key is in the file.
    pub(super) fn location(&self, section: &'static str, key: &'static str) -> Option<Location> {
        let span = self.spans.get(&(section, key))?.clone();
        Some(Location { file: self.file?.to_owned(), span })
    }

    /// The file, if there is one.
    pub(super) fn file(&self) -> Option<&'f Path> {
        self.file
    }

    /// Whether something was reported.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether a key is in the file.
    pub(super) fn has(&self, section: &'static str, key: &'static str) -> bool {
        self.spans.contains_key(&(section, key))
    }

    /// Whether a key is in the file under a name that is spelled alike.
    pub(super) fn has_misspelt(&self, section: &'static str, key: &'static str) -> bool {
        let mut unknown = self.unknown.iter().filter(|(home, _, _)| *home == section);
        unknown.any(|(_, name, _)| self.alike(section, name) == Some(key))
    }

    fn report(&mut self, span: Option<Range<usize>>, diagnostic: Diagnostic) {
        self.problems.push(match (self.file, span) {
            (Some(file), Some(span)) => diagnostic.at(file, span),
            _ => diagnostic,
        });
    }

    /// Every key that was asked for, as `section.key`.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|(section, key)| match *section {
            "" => (*key).to_owned(),
            section => format!("{section}.{key}"),
        })
    }

    /// Ends the pass: reports the keys that nobody asked for, and returns all problems in the order of the lines.
    pub(super) fn finish(mut self) -> Diagnostics {
        for (section, key, span) in std::mem::take(&mut self.unknown) {
            let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
            let help = self.help_for_unknown(section, &key);
            self.error(span, format!("unknown key `{}`{place}", key.escape_debug()), Some(help));
        }
        self.problems.sort();
        self.problems
    }

    /// The key that was probably meant: one of this section that is spelled alike, or the same one elsewhere.
    fn help_for_unknown(&self, section: &str, key: &str) -> String {
        if let Some(name) = self.alike(section, key) {
            return format!("did you mean `{name}`?");
        }
        match self.keys.iter().find(|(_, name)| *name == plain(key)) {
            Some(("", name)) => format!("`{name}` belongs at the top of the file, above the first [section]"),
            Some((home, name)) => format!("`{name}` belongs in [{home}]"),
            None => format!("the keys here are {}", self.keys_of(section).collect::<Vec<_>>().join(", ")),
        }
    }

    fn alike(&self, section: &str, key: &str) -> Option<&'static str> {
        suggestion::nearest(&plain(key), self.keys_of(section))
    }

    fn keys_of(&self, section: &str) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(move |(home, _)| *home == section).map(|(_, name)| *name)
    }
}

/// A key without what is no difference: underscores and capitals, which other programs' files use.
fn plain(key: &str) -> String {
    key.to_lowercase().replace('_', "-")
}

impl<'f, 't> Section<'_, 'f, 't> {
    /// Takes a key's value. `None`: the key is absent, or `convert` has reported why its value is of no use.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&Value<'_>, &mut Reader<'f>) -> Option<T>,
    ) -> Option<T> {
        self.reader.keys.push((self.name, key));
        let (_, value) = self.left.remove(key)?;
        self.reader.spans.insert((self.name, key), value.span());
        convert(value, self.reader)
    }

    /// Reads a section. One that is absent is read as if it were empty.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_, 'f, 't>) -> T) -> T {
        self.reader.keys.push((self.name, key));
        let value = self.left.remove(key).map(|(_, value)| value);
        let table = value.and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                let help = format!("write [{key}] on a line of its own, above its keys");
                self.reader.error(value.span(), format!("`{key}` is a section, found {}", kind(value)), Some(help));
            }
            table
        });
        self.reader.section(key, table, read)
    }
}

/// What of a configuration is never shown: the values of its variables; and all of a file that is none, by its real
/// name, because somebody has named or linked another one, which may be full of passwords.
fn secret(file: &Path, text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let real = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if real.extension().is_none_or(|end| end != "toml") {
        found.push(0..text.len());
        return found;
    }
    let (mut begin, mut at) = (None, 0);
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        // A line of a value may look like much: what it surely is not ends the section.
        let head = bare.split('#').next().unwrap_or_default().trim_end();
        let name = head.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).map(|name| name.trim_matches('['));
        let other = name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'));
        let named = bare.trim_start_matches(['[', ' ', '\t', '"', '\'']);
        let rest = named.strip_prefix("environment").map(|rest| rest.trim_start_matches(['"', '\'']));
        if rest.is_some_and(|rest| rest.starts_with([' ', '\t', '=', '.', ']'])) {
            begin = begin.or(Some(at));
        } else if other {
            found.extend(begin.take().map(|begin| begin..at - 1));
        }
        at += line.len();
    }
    found.extend(begin.map(|begin| begin..text.len()));
    found
}

/// What a value is, for messages: `a string`.
pub(super) fn kind(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
