//! Writing to stdout and stderr without dying of a closed pipe.
//!
//! Owns: the rule when colour is used, what a failed write means, and that nothing that others wrote acts on a terminal:
//! no other file of the command line writes to stdout or stderr (`tests/layering`).
//! Never: panics as `println!` does: `sockd status | head` is nothing wrong.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use super::status::terminal::{Paint, screen};
use crate::printable::{escaped_json, for_terminal};

/// Whether stdout is a terminal and NO_COLOR is unset or empty (no-color.org).
pub fn colour_wanted() -> bool {
    io::stdout().is_terminal() && !no_colour()
}

/// How many columns stdout shows; `None` when it is no terminal: then nothing is broken into lines.
pub fn width() -> Option<usize> {
    size_of(io::stdout()).ok().map(|(width, _)| width.into())
}

/// How many lines stdout shows; `None` when it is no terminal.
pub fn height() -> Option<usize> {
    size_of(io::stdout()).ok().map(|(_, height)| height.into())
}

/// How many columns and lines a terminal has. A serial console does not know its size and says 0.
///
/// # Errors
/// It is no terminal, or has gone away.
pub fn size_of(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    let or = |size: u16, usual| if size == 0 { usual } else { size };
    Ok((or(size.ws_col, 80), or(size.ws_row, 24)))
}

/// Stdout, for who shows nothing there but what was made harmless, and sequences of its own.
///
/// # Errors
/// There is no descriptor left.
pub fn screen_file() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Writes the text to stdout, harmless. A reader that has gone away is no error.
///
/// # Errors
/// Any other reason why stdout cannot be written, a full disk for one.
pub fn print(text: &str) -> io::Result<()> {
    write(&for_terminal(text, colour_wanted()))
}

/// Shows the text, harmless, in the place of what the terminal shows.
///
/// # Errors
/// As [`print()`].
pub fn show_screen(text: &str) -> io::Result<()> {
    write(&screen(&for_terminal(text, colour_wanted()), height().unwrap_or(usize::MAX)))
}

/// A value as JSON for [`print()`], with a line break at its end.
pub fn json(value: &impl Serialize) -> String {
    // Strings, numbers and booleans alone: serialising them cannot fail.
    escaped_json(&serde_json::to_string_pretty(value).unwrap_or_default()) + "\n"
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes `sockd: error: message` to stderr. When even that fails there is no one left to tell.
pub fn complain(message: &str) {
    let colour = is_watched() && !no_colour();
    let word = Paint::Bad.on("error:", colour);
    let _ = io::stderr().write_all(format!("sockd: {word} {}\n", for_terminal(message, false)).as_bytes());
}

/// Writes the text to stderr, harmless and without colour.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(for_terminal(text, false).as_bytes());
}

/// Whether stderr is a terminal: then people read what is said there.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// What clap says of a command line: on stderr what is wrong with it, on stdout the help that was asked for.
pub fn explain(error: &clap::Error) {
    // What was typed is quoted: it has no colours of its own.
    let typed = std::env::args_os().any(|word| word.to_string_lossy().contains('\u{1b}'));
    let text = error.render();
    match error.use_stderr() {
        true => {
            let colour = io::stderr().is_terminal() && !no_colour() && !typed;
            let text = if colour { text.ansi().to_string() } else { text.to_string() };
            let _ = io::stderr().write_all(for_terminal(&text, colour).as_bytes());
        }
        false => {
            let text = if colour_wanted() && !typed { text.ansi().to_string() } else { text.to_string() };
            let _ = print(&text);
        }
    }
}

fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
