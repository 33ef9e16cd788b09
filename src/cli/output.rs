//! Writing to stdout and stderr without dying of a closed pipe.
//!
//! Owns: the rule when colour is used, and what a failed write means.
//! Never: panics as `println!` does: `sockd status | head` is nothing wrong.

use std::io::{self, IsTerminal, Write};

/// Whether stdout is a terminal and NO_COLOR is unset or empty (no-color.org).
pub fn colour_wanted() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How many columns stdout shows; `None` when it is no terminal: then nothing is broken into lines.
pub fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    // A serial console does not know its size and says 0.
    Some(if size.ws_col == 0 { 80 } else { size.ws_col.into() })
}

/// How many lines stdout shows; `None` when it is no terminal.
pub fn height() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(if size.ws_row == 0 { 24 } else { size.ws_row.into() })
}

/// Writes the text to stdout. A reader that has gone away is no error.
///
/// # Errors
/// Any other reason why stdout cannot be written, a full disk for one.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes `sockd: error: message` to stderr. When even that fails there is no one left to tell.
pub fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "sockd: error: {message}");
}
