//! What an adoption would write, and how it is shown.
//!
//! Owns: the form of the files (a word why above each line), the comparison with what holds, and the words around it.
//! Never: decides what is written, or writes it.

use std::path::{Path, PathBuf};

use super::super::files::{Content, NewFile};
use super::super::status::layout::{Paint, harmless, wrap};

/// How every file begins that `adopt` writes: by this it is known again.
pub const MARK: &str = "# Written by `sockd adopt";
/// Where a comment is broken.
const COMMENT_WIDTH: usize = 98;

/// What an adoption comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// What is adopted, for the commands that are named: `gunicorn.service`.
    pub name: String,
    /// The command that writes it.
    pub write: String,
    /// The files that it consists of.
    pub files: Vec<Draft>,
    /// What the reader should know besides.
    pub notes: Vec<String>,
    /// What is to be typed when the files are written, and what each does.
    pub next: Vec<(String, String)>,
}

/// A file that would be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Where.
    pub path: PathBuf,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Section(String),
    Comment(String),
    Blank,
    /// What is written, and what holds in its place.
    Setting(String, Vec<String>),
}

impl Draft {
    /// A file that begins with the mark of `adopt`, and with the command that takes it away again.
    pub fn new(path: impl Into<PathBuf>, name: &str) -> Self {
        // One line, however long: a command that is broken cannot be copied.
        let mark = format!("{} {name}`; `sockd adopt --undo {name}` removes it.", &MARK[2..]);
        Self { path: path.into(), lines: vec![Line::Comment(mark)] }
    }

    /// Begins a section, or a part without a name.
    pub fn section(&mut self, name: &str) -> &mut Self {
        self.lines.push(Line::Blank);
        self.lines.extend((!name.is_empty()).then(|| Line::Section(name.to_owned())));
        self
    }

    /// A comment of its own.
    pub fn comment(&mut self, text: &str) -> &mut Self {
        self.lines.extend(wrap(text, COMMENT_WIDTH).into_iter().map(Line::Comment));
        self
    }

    /// A line, with a word why, and the settings that it takes the place of.
    pub fn set(&mut self, why: &str, line: &str, replaced: impl IntoIterator<Item = String>) -> &mut Self {
        if !why.is_empty() {
            self.comment(why);
        }
        self.lines.push(Line::Setting(line.to_owned(), replaced.into_iter().collect()));
        self
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Section(name) => text.push_str(&format!("[{name}]\n")),
                Line::Comment(comment) => text.push_str(&format!("# {comment}\n")),
                Line::Blank => text.push('\n'),
                Line::Setting(setting, _) => text.push_str(&format!("{setting}\n")),
            }
        }
        text
    }

    /// The file for those who write it.
    pub fn file(&self) -> NewFile {
        NewFile { path: self.path.clone(), content: Content::Text(self.text()) }
    }

    /// The file against what holds: `-` for what it takes the place of, `+` for what is new.
    fn difference(&self, colour: bool) -> String {
        let mut text = String::new();
        let mut line = |mark: &str, written: &str, paint: Paint| {
            for part in written.lines() {
                text.push_str(&paint.on(format!("{mark} {}", harmless(part)).trim_end(), colour));
                text.push('\n');
            }
        };
        for part in &self.lines {
            match part {
                Line::Section(name) => line(" ", &format!("[{name}]"), Paint::Plain),
                Line::Comment(comment) => line("+", &format!("# {comment}"), Paint::Faint),
                Line::Blank => line(" ", " ", Paint::Plain),
                Line::Setting(setting, replaced) if replaced.iter().any(|old| old == setting) => {
                    line(" ", setting, Paint::Plain);
                }
                Line::Setting(setting, replaced) => {
                    replaced.iter().for_each(|old| line("-", old, Paint::Bad));
                    line("+", setting, Paint::Good);
                }
            }
        }
        text
    }
}

/// How much of a proposal is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Nothing yet: it is shown.
    Shown,
    /// Its files lie there word for word.
    Before,
    /// Its files have just been written.
    Written,
}

impl Proposal {
    /// What the reader sees. Who is not root is shown the commands with `sudo`.
    pub fn render(&self, done: Done, root: bool, colour: bool) -> String {
        let mut text = String::new();
        let file = |path: &Path| harmless(&path.display().to_string());
        match done {
            Done::Shown => {
                for draft in &self.files {
                    let head = file(&draft.path);
                    text.push_str(&format!("{head}\n\n{}\n", draft.difference(colour)));
                }
            }
            Done::Before => text.push_str(&format!("{} is adopted already.\n", self.name)),
            Done::Written => {
                self.files.iter().for_each(|draft| text.push_str(&format!("wrote {}\n", file(&draft.path))));
                text.push_str("systemd has read its units anew.\n");
            }
        }
        for note in &self.notes {
            text.push_str(&format!("{}\n", Paint::Passing.on(&format!("Note: {}", harmless(note)), colour)));
        }
        let steps: Vec<(String, String)> = match done {
            Done::Shown => vec![(self.write.clone(), "writes what is shown here; nothing is written yet".to_owned())],
            Done::Before | Done::Written => {
                let undo = (format!("sockd adopt --undo {}", self.name), "takes everything back".to_owned());
                self.next.iter().cloned().chain([undo]).collect()
            }
        };
        if !self.notes.is_empty() || done != Done::Shown {
            text.push('\n');
        }
        text.push_str("Next:\n");
        let sudo = if root { "" } else { "sudo " };
        let commands: Vec<String> = steps
            .iter()
            .map(|(command, _)| format!("{sudo}{}", command.replace("&& ", &format!("&& {sudo}"))))
            .collect();
        let width = commands.iter().map(String::len).max().unwrap_or(0);
        for (command, (_, what)) in commands.iter().zip(&steps) {
            text.push_str(&format!("  {command:width$}  {what}\n"));
        }
        text
    }
}
