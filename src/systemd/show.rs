//! `systemctl show`: what systemd says of a unit where there is no D-Bus, and for `sockd check`.
//!
//! Owns: the calling of systemctl and the reading of what it prints.
//! Never: waits longer than [`TIME_LIMIT`], keeps more than [`SIZE_LIMIT`], or changes a unit.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::Manager;

/// The longest wait for systemctl.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The most that is read of its answer, in bytes.
pub const SIZE_LIMIT: u64 = 1 << 20;

/// A unit's properties; one that is there several times has several values.
pub type Properties = BTreeMap<String, Vec<String>>;

/// Asks a manager for the named properties (separated by commas) of a unit.
///
/// # Errors
/// Why there is no answer: no systemctl, no systemd, a name that is none. A unit that does not exist is no error here:
/// LoadState says so.
pub fn properties(manager: Manager, unit: &str, names: &str) -> Result<Properties, String> {
    let arguments = ["show", manager.option(), "--no-pager", "--property", names, "--", unit];
    let (ok, text) = output("systemctl", &arguments)?;
    match ok {
        true => Ok(parse(&text)),
        false => Err(format!("systemctl show {unit}: {}", text.lines().next().unwrap_or_default())),
    }
}

/// systemd's version, as 257; 0 where there is none.
pub fn version() -> u32 {
    let text = output("systemctl", &["--version"]).map(|(_, text)| text).unwrap_or_default();
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    word.split(|letter: char| !letter.is_ascii_digit()).next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Runs a program for what it prints, stdout and stderr together; whether it succeeded comes first. Input is empty,
/// and messages are in English.
///
/// # Errors
/// It cannot be run, or did not end within [`TIME_LIMIT`].
pub fn output(program: &str, arguments: &[&str]) -> Result<(bool, String), String> {
    let cannot = |error: std::io::Error| format!("cannot run {program}: {error}");
    let (reader, writer) = std::io::pipe().map_err(cannot)?;
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    command.stdout(writer.try_clone().map_err(cannot)?).stderr(writer);
    let mut child = command.spawn().map_err(cannot)?;
    // Its copies of the pipe's end: the reader would wait for them.
    drop(command);
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut reader = reader.take(SIZE_LIMIT);
        let read = reader.read_to_end(&mut text);
        // Nobody waits any more when the time was up.
        let _ = send.send(read.map(|_| text));
    });
    let Ok(read) = received.recv_timeout(TIME_LIMIT) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{program} did not end within {} s", TIME_LIMIT.as_secs()));
    };
    let text = read.map_err(cannot)?;
    if text.len() as u64 == SIZE_LIMIT {
        let _ = child.kill();
    }
    let status = child.wait().map_err(cannot)?;
    Ok((status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// `KEY=VALUE`, one a line.
pub fn parse(text: &str) -> Properties {
    let mut properties = Properties::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        properties.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    properties
}

/// The first value of a property; empty without one.
pub fn first<'a>(properties: &'a Properties, key: &str) -> &'a str {
    properties.get(key).and_then(|values| values.first()).map_or("", String::as_str)
}

/// The words of a command as `systemctl show` prints them: `{ path=… ; argv[]=… ; ignore_errors=… }`. It puts spaces
/// between the words and quotes nothing, so that a word with a space in it comes out as two.
pub fn arguments(line: &str) -> Option<Vec<String>> {
    let (_, rest) = line.split_once("argv[]=")?;
    let (words, _) = rest.split_once(" ; ignore_errors=")?;
    Some(words.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_words_and_its_end_are_reported() {
        assert_eq!(output("sh", &["-c", "echo out; echo err >&2"]), Ok((true, "out\nerr\n".to_owned())));
        assert_eq!(output("sh", &["-c", "exit 3"]), Ok((false, String::new())));
        assert!(output("/nowhere/at-all", &[]).expect_err("it is not there").starts_with("cannot run /nowhere/at-all"));
    }

    #[test]
    fn a_program_without_end_is_cut() {
        let (ok, text) = output("sh", &["-c", "yes"]).expect("it ran");
        assert_eq!((ok, text.len() as u64), (false, SIZE_LIMIT));
    }
}
