//! The log for people: one line on stderr for each message.
//!
//! Owns: the form of the line: `12:34:56Z sockd: warning: worker 3: message`. Time and colour only on a terminal; colour
//! never when NO_COLOR is set (no-color.org).
//! Never: fails; a stderr that is gone loses messages and nothing else. It waits for its reader, in the log thread.

use std::fmt::{self, Write as _};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::printable::for_terminal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// A layer of tracing that writes lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stderr {
    colour: bool,
    time: bool,
}

impl Stderr {
    /// For a terminal, or for what is none.
    pub(super) fn new(terminal: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: terminal && !no_color, time: terminal }
    }

    fn line(self, level: Level, parts: &Parts, now: SystemTime) -> String {
        let mut line = String::new();
        if self.time {
            line.push_str(&time_of_day(now));
        }
        line.push_str("sockd: ");
        let (word, paint) = match level {
            Level::ERROR => ("error: ", "\x1b[1;31m"),
            Level::WARN => ("warning: ", "\x1b[1;33m"),
            Level::INFO => ("", ""),
            _ => ("debug: ", "\x1b[2m"),
        };
        match self.colour && !word.is_empty() {
            true => line.extend([paint, word, "\x1b[0m"]),
            false => line.push_str(word),
        }
        // What sockd itself says of a worker names it; what the worker wrote does not.
        if let Some(worker) = parts.worker.as_ref().filter(|_| parts.quoted) {
            line.extend(["worker ", worker, ": "]);
        }
        // A message of several lines (a diagnostic) keeps them; other control characters would act on the terminal.
        line.push_str(&for_terminal(&parts.message, false));
        line.push('\n');
        line
    }
}

impl<S: Subscriber> Layer<S> for Stderr {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        write_fully(self.line(*event.metadata().level(), &parts, SystemTime::now()).as_bytes());
    }
}

/// Writes a line, with one call where it is taken whole, so that lines of several processes on one stderr do not mix.
pub(super) fn write_fully(mut line: &[u8]) {
    let stderr = io::stderr();
    while !line.is_empty() {
        match rustix::io::write(&stderr, line) {
            Ok(count) => line = &line[count..],
            Err(Errno::INTR) => {}
            // Somebody who shares it has set it not to block.
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)),
            Err(_) => return,
        }
    }
}

/// What of an event is shown.
#[derive(Default)]
struct Parts {
    message: String,
    worker: Option<String>,
    /// Whether the message is a line that the worker wrote.
    quoted: bool,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                // Writing to a string does not fail.
                let _ = write!(self.message, "{value:?}");
            }
            "SOCKD_EVENT" => self.quoted = format!("{value:?}") == "stderr",
            "SOCKD_WORKER" => self.worker = Some(format!("{value:?}")),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// `HH:MM:SSZ `: UTC, because the time zone would need a library or a file of its own.
fn time_of_day(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) % 86_400;
    format!("{:02}:{:02}:{:02}Z ", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parts(message: &str, worker: Option<&str>, quoted: bool) -> Parts {
        Parts { message: message.to_owned(), worker: worker.map(str::to_owned), quoted }
    }

    #[test]
    fn lines_for_a_pipe_and_for_a_terminal() {
        let now = UNIX_EPOCH + Duration::from_secs(86_400 * 20_000 + 3 * 3600 + 25 * 60 + 7);
        let pipe = Stderr { colour: false, time: false };
        assert_eq!(
            pipe.line(Level::INFO, &parts("worker 3 is ready", Some("3"), false), now),
            "sockd: worker 3 is ready\n"
        );
        assert_eq!(
            pipe.line(Level::WARN, &parts("a\u{1b}[2Jb\nc", Some("3"), true), now),
            "sockd: warning: worker 3: a\u{fffd}[2Jb\nc\n"
        );
        let terminal = Stderr { colour: true, time: true };
        assert_eq!(
            terminal.line(Level::ERROR, &parts("cannot bind", None, false), now),
            "03:25:07Z sockd: \x1b[1;31merror: \x1b[0mcannot bind\n"
        );
    }
}
