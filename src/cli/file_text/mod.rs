//! The text of the files that `adopt` and `new` write as root, line by line.
//!
//! Most of what stands in them comes from others: a user's .ini, a server's options, the name of a directory. A [`Line`]
//! is made by the functions of [`mod@unit`], [`mod@toml`] and [`mod@nginx`] alone, each of which refuses or quotes what would end the
//! line, begin another one or mean something else in its language. [`super::atomic_files`] writes nothing but lines.
//!
//! Owns: that one line is one line.
//! Never: decides what is written.

pub mod nginx;
pub mod toml;
pub mod unit;

use crate::printable::is_command;

/// One line of a file, or, of a setting that is taken over with its continued lines, all of them. Only this module and
/// those below it can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(String);

/// The whole text of a file: lines, each with its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileText(String);

impl Line {
    /// An empty line.
    pub fn blank() -> Self {
        Self(String::new())
    }

    /// A comment in all three languages. What cannot stand in a line is replaced: nobody reads a comment but people.
    pub fn comment(text: &str) -> Self {
        let text: String = text.chars().map(|c| if is_command(c) { '\u{fffd}' } else { c }).collect();
        Self(format!("# {text}").trim_end().to_owned())
    }

    /// The line without its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FileText {
    /// The text as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromIterator<Line> for FileText {
    fn from_iter<T: IntoIterator<Item = Line>>(lines: T) -> Self {
        Self(lines.into_iter().map(|line| line.0 + "\n").collect())
    }
}

/// Refuses what can stand in a line of no language.
fn plain(value: &str) -> Result<&str, String> {
    match value.chars().find(|c| is_command(*c)) {
        Some(c) => Err(format!("it holds U+{:04X}, which no line of a file can hold", u32::from(c))),
        None => Ok(value),
    }
}
