//! What an adoption would write, and how it is shown.
//!
//! Owns: the form of the files (a word why above each line), the comparison with what holds, and the words around it.
//! Never: decides what is written, or writes it.

use std::path::{Path, PathBuf};

use super::super::atomic_files::{Content, NewFile};
use super::super::file_text::{FileText, Line, unit};
use super::super::status::terminal::{Paint, harmless, wrap};
use crate::systemd::Manager;

/// How every file begins that `adopt` writes: by this it is known again.
pub const MARK: &str = "# Written by `sockd adopt";
/// Where a comment is broken.
const COMMENT_WIDTH: usize = 98;

/// What an adoption comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// What is adopted, for the commands that are named: `gunicorn.service`.
    pub name: String,
    /// Whose unit it is.
    pub manager: Manager,
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
    lines: Vec<Part>,
    root_alone: bool,
}

/// One line, by how it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Section(Line),
    Comment(Line),
    Blank,
    /// What is written, and what holds in its place.
    Setting(Line, Vec<String>),
    /// What is written, and what is shown of it.
    Secret(Line, Line),
}

impl Draft {
    /// A file that begins with the mark of `adopt`, and with the command that takes it away again.
    pub fn new(path: impl Into<PathBuf>, name: &str) -> Self {
        // One line, however long: a command that is broken cannot be copied.
        let mark = format!("{} {name}`; `sockd adopt --undo {name}` removes it.", &MARK[2..]);
        Self { path: path.into(), lines: vec![Part::Comment(Line::comment(&mark))], root_alone: false }
    }

    /// Nobody but root is to read the file.
    pub fn for_root_alone(&mut self) -> &mut Self {
        self.root_alone = true;
        self
    }

    /// Begins a part without a name.
    pub fn part(&mut self) -> &mut Self {
        self.lines.push(Part::Blank);
        self
    }

    /// Begins a section of a unit.
    pub fn section(&mut self, name: &'static str) -> &mut Self {
        self.part().lines.push(Part::Section(unit::section(name)));
        self
    }

    /// A comment of its own.
    pub fn comment(&mut self, text: &str) -> &mut Self {
        self.lines.extend(wrap(text, COMMENT_WIDTH).iter().map(|line| Part::Comment(Line::comment(line))));
        self
    }

    /// A line, with a word why, and the settings that it takes the place of.
    pub fn set(&mut self, why: &str, line: Line, replaced: impl IntoIterator<Item = String>) -> &mut Self {
        if !why.is_empty() {
            self.comment(why);
        }
        self.lines.push(Part::Setting(line, replaced.into_iter().collect()));
        self
    }

    /// A line of which another text is shown: a terminal is not the place for what may be a secret.
    pub fn set_secret(&mut self, why: &str, line: Line, shown: Line) -> &mut Self {
        if !why.is_empty() {
            self.comment(why);
        }
        self.lines.push(Part::Secret(line, shown));
        self
    }

    /// The text of the file.
    pub fn text(&self) -> FileText {
        let line = |part: &Part| match part {
            Part::Section(line) | Part::Comment(line) | Part::Setting(line, _) | Part::Secret(line, _) => line.clone(),
            Part::Blank => Line::blank(),
        };
        self.lines.iter().map(line).collect()
    }

    /// The file for those who write it.
    pub fn file(&self) -> NewFile {
        let content = if self.root_alone { Content::Secret(self.text()) } else { Content::Text(self.text()) };
        NewFile { path: self.path.clone(), content }
    }

    /// Whether a line of it is another than what holds.
    pub fn changes_anything(&self) -> bool {
        self.lines.iter().any(|part| match part {
            Part::Setting(setting, replaced) => !replaced.iter().any(|old| old == setting.as_str()),
            Part::Secret(..) => true,
            Part::Section(_) | Part::Comment(_) | Part::Blank => false,
        })
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
                Part::Section(name) => line(" ", name.as_str(), Paint::Plain),
                Part::Comment(comment) => line("+", comment.as_str(), Paint::Faint),
                Part::Blank => line(" ", " ", Paint::Plain),
                Part::Secret(_, shown) => line("+", shown.as_str(), Paint::Good),
                Part::Setting(setting, replaced) if replaced.iter().any(|old| old == setting.as_str()) => {
                    line(" ", setting.as_str(), Paint::Plain);
                }
                Part::Setting(setting, replaced) => {
                    replaced.iter().for_each(|old| line("-", old, Paint::Bad));
                    line("+", setting.as_str(), Paint::Good);
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
                text.push_str("systemd has read its units again.\n");
            }
        }
        for note in &self.notes {
            text.push_str(&format!("{}\n", Paint::Passing.on(&format!("Note: {}", harmless(note)), colour)));
        }
        let steps: Vec<(String, String)> = match done {
            Done::Shown => vec![(self.write.clone(), "writes what is shown here; nothing is written yet".to_owned())],
            Done::Before | Done::Written => {
                let name = self.manager.name_typed(&self.name);
                let undo = (format!("sockd adopt --undo {name}"), "takes everything back".to_owned());
                self.next.iter().cloned().chain([undo]).collect()
            }
        };
        if !self.notes.is_empty() || done != Done::Shown {
            text.push('\n');
        }
        text.push_str("Next:\n");
        let sudo = if root || self.manager == Manager::User { "" } else { "sudo " };
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
