//! The commands that findings print, for a root shell.
//!
//! Owns: the one way to make such a command. What a later step can refuse is undone then: a fix that fails leaves every
//! file as it was.
//! Never: writes over a file that somebody else may have made.

use serde::{Serialize, Serializer};

use crate::adapter::shlex;
use crate::systemd::details::Details;

/// A command, as it is to be typed. Empty: no command can fix it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fix {
    command: String,
    /// What it costs visitors.
    note: String,
}

impl Fix {
    /// A command that leaves nothing behind when it fails.
    pub(super) fn run(command: impl Into<String>) -> Self {
        Self { command: command.into(), note: String::new() }
    }

    /// What is done once this has succeeded. This stays when that fails.
    pub(super) fn then(mut self, next: Self) -> Self {
        let between = if self.is_empty() || next.is_empty() { "" } else { " && " };
        self.command = format!("{}{between}{}", self.command, next.command);
        let note = if self.note.is_empty() { next.note } else { self.note };
        Self { note, ..self }
    }

    /// Says what it costs visitors.
    pub(super) fn noting(self, note: &str) -> Self {
        Self { note: note.to_owned(), ..self }
    }

    /// What it costs visitors; empty when nothing that is not plain.
    pub(super) fn note(&self) -> &str {
        &self.note
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.command.is_empty()
    }

    /// The command.
    pub fn as_str(&self) -> &str {
        &self.command
    }
}

impl Serialize for Fix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.command)
    }
}

/// A change of files, with what takes it back.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// What is kept of the time before.
    keep: Option<String>,
    make: String,
    undo: String,
    /// What removes that which was kept.
    forget: Option<String>,
    /// What is done once it is taken back.
    afterwards: Fix,
}

impl Change {
    fn made(make: String, undo: String) -> Self {
        Self { keep: None, make, undo, forget: None, afterwards: Fix::default() }
    }

    /// A file, its links followed, changed by a script of sed(1). `by` stands before every command: `runuser -u sammy -- `.
    pub(super) fn edit(by: &str, file: &str, script: &str) -> Self {
        let (file, script) = (quote(file), quote(script));
        Self {
            // mktemp(1) lets nobody else read the copy.
            keep: Some(format!("old=$({by}mktemp) && {by}cp {file} \"$old\"")),
            make: format!("{by}sed -i --follow-symlinks {script} {file}"),
            undo: format!("{by}cp \"$old\" {file} && {by}rm \"$old\""),
            forget: Some(format!("{by}rm \"$old\"")),
            afterwards: Fix::default(),
        }
    }

    /// A text in one line of a file, counted from 1, replaced by another; in every line for 0. Done twice, it is as done
    /// once.
    pub(super) fn replace(by: &str, file: &str, line: usize, old: &str, new: &str) -> Self {
        let pattern = |text: &str| text.chars().flat_map(|letter| escaped(letter, ".*[]^$\\|")).collect::<String>();
        let replacement: String = new.chars().flat_map(|letter| escaped(letter, "\\&|")).collect();
        let script = format!("s|{}|{replacement}|", pattern(old));
        let at = if line == 0 { String::new() } else { line.to_string() };
        let script = match new.contains(old) {
            true => format!("{at}{{\\|{}|!{script}}}", pattern(new)),
            false => format!("{at}{script}"),
        };
        Self::edit(by, file, &script)
    }

    /// A file that is not there yet.
    pub(super) fn new_file(path: &str, text: &str) -> Self {
        let path = quote(path);
        Self::made(format!("test ! -e {path} && printf {} > {path}", quote(text)), format!("rm {path}"))
    }

    /// A symbolic link in a directory, named as what it leads to.
    pub(super) fn link(path: &str, directory: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default();
        Self::made(
            format!("ln -s {} {directory}/", quote(path)),
            format!("rm {}", quote(&format!("{directory}/{name}"))),
        )
    }

    /// A directory, moved beside itself; not onto another one.
    pub(super) fn moved(by: &str, path: &str) -> Self {
        let (old, failed) = (quote(&format!("{path}.old")), quote(&format!("{path}.failed")));
        let path = quote(path);
        let undo = format!("{{ test ! -e {path} || {by}mv -T {path} {failed}; }} && {by}mv -T {old} {path}");
        Self::made(format!("test ! -e {old} && {by}mv -T {path} {old}"), undo)
    }

    /// What else is done once it was taken back.
    pub(super) fn afterwards(self, afterwards: Fix) -> Self {
        Self { afterwards, ..self }
    }

    /// The change, then at once a check by the program that reads it: the change is taken back if that fails.
    pub(super) fn checked(self, check: Fix) -> Fix {
        let afterwards =
            if self.afterwards.is_empty() { String::new() } else { format!("{}; ", self.afterwards.command) };
        let kept = self.keep.map_or_else(String::new, |keep| format!("{keep} && "));
        let forget = self.forget.map_or_else(String::new, |forget| format!(" && {forget}"));
        let command = format!(
            "{kept}{} && {{ {} || {{ {}; {afterwards}false; }}; }}{forget}",
            self.make, check.command, self.undo
        );
        Fix { command, note: check.note }
    }

    /// The change, which stays: it is right by itself, and what fails later has another cause.
    pub(super) fn lasting(self) -> Fix {
        Fix::run(self.make)
    }
}

fn escaped(letter: char, special: &str) -> impl Iterator<Item = char> {
    special.contains(letter).then_some('\\').into_iter().chain([letter])
}

/// Nginx reads its configuration again, if there is no mistake in it.
pub(super) fn reload_nginx() -> Fix {
    test_nginx().then(Fix::run("systemctl reload nginx"))
}

fn test_nginx() -> Fix {
    Fix::run("nginx -t")
}

/// A change of Nginx's configuration, which Nginx then reads. Where it would not, for this or for another mistake,
/// nothing has changed.
pub(super) fn of_nginx(change: Change) -> Fix {
    change.checked(test_nginx()).then(Fix::run("systemctl reload nginx"))
}

/// Lines that are added to a unit by a drop-in of our own, which sorts behind `override.conf`. systemd reads it.
pub(super) fn drop_in(unit: &str, file: &str, section: &str, lines: &[&str]) -> Fix {
    let directory = quote(&format!("/etc/systemd/system/{unit}.d"));
    let text = format!("[{section}]\\n{}\\n", lines.join("\\n"));
    let write = format!("mkdir -p {directory} && printf '{text}' > {directory}/sockd-{file}.conf");
    Fix::run(write).then(daemon_reload())
}

/// systemd reads the files of its units.
pub(super) fn daemon_reload() -> Fix {
    Fix::run("systemctl daemon-reload")
}

/// One command of systemctl's, about some units.
pub(super) fn systemctl<'a>(verb: &str, units: impl IntoIterator<Item = &'a Details>) -> Fix {
    let names: Vec<String> = units.into_iter().map(|unit| quote(&unit.name)).collect();
    if names.is_empty() { Fix::default() } else { Fix::run(format!("systemctl {verb} {}", names.join(" "))) }
}

/// A word for a shell.
pub fn quote(text: &str) -> String {
    shlex::join(&[text])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_safe_for_a_shell_and_for_sed() {
        assert_eq!(
            Change::replace("", "/etc/a b", 3, "/run/a.sock", "/run/b&c").lasting().as_str(),
            r"sed -i --follow-symlinks '3s|/run/a\.sock|/run/b\&c|' '/etc/a b'"
        );
    }

    #[test]
    fn a_line_is_changed_once() {
        let file = std::env::temp_dir().join(format!("sockd-fix-{}", std::process::id()));
        std::fs::write(&file, "[Service]\nExecStart=venv/bin/g a\n").expect("written");
        let change = Change::replace("", &file.to_string_lossy(), 2, "venv/bin/g", "/home/[a]/venv/bin/g").lasting();
        for _ in 0..2 {
            let done = std::process::Command::new("sh").args(["-c", change.as_str()]).status().expect("sh");
            assert!(done.success());
            let text = std::fs::read_to_string(&file).expect("read");
            assert_eq!(text, "[Service]\nExecStart=/home/[a]/venv/bin/g a\n");
        }
        std::fs::remove_file(&file).expect("removed");
    }

    #[test]
    fn what_is_refused_is_taken_back() {
        let change = || Change::replace("runuser -u sammy -- ", "/a", 1, "b", "c");
        assert_eq!(
            change().afterwards(Fix::run("again")).checked(Fix::run("check")).then(Fix::run("go")).as_str(),
            "old=$(runuser -u sammy -- mktemp) && runuser -u sammy -- cp /a \"$old\" && \
             runuser -u sammy -- sed -i --follow-symlinks '1s|b|c|' /a && \
             { check || { runuser -u sammy -- cp \"$old\" /a && runuser -u sammy -- rm \"$old\"; again; false; }; } && runuser -u sammy -- rm \"$old\" && go"
        );
        assert_eq!(
            Change::link("/a/b", "/c").checked(Fix::run("check").noting("slow")).note(),
            "slow",
            "what the check costs"
        );
    }
}
