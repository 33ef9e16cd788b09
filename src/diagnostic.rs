//! Problems with what people wrote, shown so that a tired reader can fix them.
//!
//! Owns the rendering of problems: a one-line form for the journal, and a long one with the line, a caret and a help.
//! It never decides what is a problem, never reads a file and never asks whether it writes to a terminal.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::printable::{for_terminal, is_command};

/// So many problems are shown at most; the others are only counted.
const MAX_SHOWN: usize = 50;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, and is probably not what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// The bytes in question, counted from the start of the file.
    pub span: Range<usize>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: one line without a full stop.
    pub message: String,
    /// Where it was written, if in a file.
    pub location: Option<Location>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), location: None, help: None }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same problem with a help.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same problem at a place: bytes of a file.
    #[must_use]
    pub fn at(self, file: &Path, span: Range<usize>) -> Self {
        Self { location: Some(Location { file: file.to_owned(), span }), ..self }
    }
}

/// All problems of one attempt, with the texts they point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    sources: BTreeMap<PathBuf, Source>,
}

/// The text of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Source {
    text: String,
    /// Bytes that are counted, and never shown.
    secret: Vec<Range<usize>>,
}

impl Source {
    fn is_secret(&self, bytes: &Range<usize>) -> bool {
        self.secret.iter().any(|secret| secret.start <= bytes.end && bytes.start <= secret.end)
    }
}

impl Diagnostics {
    /// Remembers the text of a file, so that its lines can be shown: all but those that touch the `secret` bytes. Of
    /// these only line and column are shown.
    pub fn add_source(&mut self, file: &Path, text: impl Into<String>, secret: Vec<Range<usize>>) {
        self.sources.insert(file.to_owned(), Source { text: text.into(), secret });
    }

    /// Remembers the text of a file of which nothing may be shown, so that lines and columns can be named.
    pub fn add_secret_source(&mut self, file: &Path, text: impl Into<String>) {
        let text = text.into();
        let all = 0..text.len();
        self.add_source(file, text, vec![all]);
    }

    /// Adds a problem.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// Adds all problems of another collection.
    pub fn append(&mut self, other: Self) {
        self.list.extend(other.list);
        self.sources.extend(other.sources);
    }

    /// The problems, in the order they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many problems there are, warnings included.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Puts the problems in the order of the files' lines; those without a place come last.
    pub fn sort(&mut self) {
        self.list.sort_by(|a, b| match (&a.location, &b.location) {
            (Some(a), Some(b)) => (&a.file, a.span.start).cmp(&(&b.file, b.span.start)),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }

    /// Line and column of a place, both counted from 1, the column in characters. `None` without the file's text.
    pub fn line_and_column(&self, location: &Location) -> Option<(usize, usize)> {
        let place = Place::find(&self.sources.get(&location.file)?.text, &location.span);
        Some((place.line, place.column))
    }

    /// One problem as one line for the journal: `FILE:LINE:COLUMN: MESSAGE; HELP`.
    pub fn line(&self, diagnostic: &Diagnostic) -> String {
        let mut line = String::new();
        if let Some(location) = &diagnostic.location {
            line.push_str(&location.file.display().to_string());
            if let Some((row, column)) = self.line_and_column(location) {
                line.push_str(&format!(":{row}:{column}"));
            }
            line.push_str(": ");
        }
        line.push_str(&diagnostic.message);
        if let Some(help) = &diagnostic.help {
            line.push_str("; ");
            line.push_str(help);
        }
        line.replace(['\n', '\r'], " ")
    }

    /// All problems in the one-line form, without line ends.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|diagnostic| self.line(diagnostic))
    }

    /// All problems for a reader: message, place, the line, a caret, a help. Ends with a line end unless empty.
    ///
    /// `colour` is for terminals; the caller decides.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in self.list.iter().take(MAX_SHOWN) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&self.render_one(diagnostic, &renderer));
            text.push('\n');
        }
        if let Some(more) = self.list.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
            text.push_str(&format!("\nand {more} more\n"));
        }
        for_terminal(&text, colour)
    }

    fn render_one(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(printable(&diagnostic.message)));
        if let Some(location) = &diagnostic.location {
            let file = printable(&location.file.display().to_string());
            group = match self.sources.get(&location.file) {
                None => group.element(Origin::path(file)),
                Some(source) => {
                    let place = Place::find(&source.text, &location.span);
                    if source.is_secret(&place.bytes) {
                        let origin = Origin::path(file).line(place.line).char_column(place.column);
                        group = group.element(origin);
                        return with_help(group, diagnostic, renderer);
                    }
                    let mark = AnnotationKind::Primary.span(place.mark);
                    group.element(Snippet::source(place.text).path(file).line_start(place.line).annotation(mark))
                }
            };
        }
        with_help(group, diagnostic, renderer)
    }
}

fn with_help<'a>(group: Group<'a>, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let help = diagnostic.help.as_ref().map(|help| Level::HELP.message(printable(help)));
    renderer.render(&[group.elements(help)])
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<T: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: T) {
        self.list.extend(diagnostics);
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { list: vec![diagnostic], sources: BTreeMap::new() }
    }
}

/// The journal's form: one problem a line.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Where a span is in its line.
struct Place<'a> {
    line: usize,
    column: usize,
    text: &'a str,
    /// The line's own bytes.
    bytes: Range<usize>,
    mark: Range<usize>,
}

impl<'a> Place<'a> {
    /// Finds the line of a span. A span over several lines is cut at the end of its first one; one beyond the end of
    /// the text, or between the bytes of a character, is moved to the nearest place before.
    fn find(source: &'a str, span: &Range<usize>) -> Self {
        let start = boundary(source, span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let line_end = line_end - usize::from(line_end > start && source[..line_end].ends_with('\r'));
        let end = boundary(source, span.end).clamp(start, line_end);
        Self {
            line: source[..line_start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            text: &source[line_start..line_end],
            bytes: line_start..line_end,
            mark: start - line_start..end - line_start,
        }
    }
}

/// The nearest border between characters at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A text on one line: what a file says must not write to the reader's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if is_command(c) { '\u{fffd}' } else { c }).collect()
}
