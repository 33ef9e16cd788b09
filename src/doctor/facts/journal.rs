//! The service's lines in the journal: those of its last run, since it last loaded its code.
//!
//! What an earlier run said, or the code before a reload, is answered for: the page that is asked for tells what is wrong
//! at this moment.
//!
//! Owns: which lines count. Never: reads more than [`LINES`] entries.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::doctor::target;
use crate::journal::message_id;
use crate::systemd::details::Details;
use crate::systemd::show;

/// So many entries of the journal are read.
const LINES: &str = "600";
/// How long ago a recent line was written, at most.
pub const RECENT: Duration = Duration::from_secs(600);
/// systemd's own message id: a unit was reloaded (`sd-messages.h`, SD_MESSAGE_UNIT_RELOADED).
const UNIT_RELOADED: &str = "7b05ebc668384222baa8881179cfda54";
/// What gunicorn says before it loads the code again.
const GUNICORN_RELOADS: &str = "Handling signal: hup";

/// The lines that count, and how many of the last ones are recent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub lines: Vec<String>,
    pub recent: usize,
}

/// One entry, as `journalctl --output=json` prints it.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE", default)]
    message: Message,
    #[serde(rename = "MESSAGE_ID")]
    id: Option<String>,
    /// Of a process of the unit.
    #[serde(rename = "_SYSTEMD_INVOCATION_ID")]
    own_run: Option<String>,
    /// Of systemd itself, about the unit.
    #[serde(rename = "INVOCATION_ID")]
    run: Option<String>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: String,
}

/// A text, or its bytes where it is none in UTF-8; nothing where it is too long for the output.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "serde_json::Value")]
struct Message(String);

impl From<serde_json::Value> for Message {
    fn from(value: serde_json::Value) -> Self {
        let list = value.as_array().into_iter().flatten();
        let bytes: Vec<u8> = list.filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
        let text = value.as_str().map(str::to_owned);
        Self(text.unwrap_or_else(|| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Reads the lines of a service.
///
/// # Errors
/// Why there are none to see.
pub fn read(service: &Details) -> Result<Lines, String> {
    let fields = "--output-fields=MESSAGE,MESSAGE_ID,_SYSTEMD_INVOCATION_ID,INVOCATION_ID";
    let arguments =
        ["--unit", &service.name, "--lines", LINES, "--output=json", fields, "--no-pager", "--quiet", "--boot"];
    let (succeeded, text) = show::output("journalctl", &arguments)?;
    if !succeeded {
        return Err(text.lines().next().unwrap_or("journalctl fails").to_owned());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(select(&text, service, now))
}

fn select(text: &str, service: &Details, now: Duration) -> Lines {
    let entries: Vec<Entry> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_run = |entry: &Entry| {
        let run = entry.own_run.as_ref().or(entry.run.as_ref());
        run.is_none_or(|run| *run == service.invocation_id)
    };
    // An entry without a run belongs to the one before it.
    let last_stranger = entries.iter().rposition(|entry| !of_run(entry)).map_or(0, |at| at + 1);
    let entries = &entries[last_stranger..];
    let sockd = target::runs_sockd(service);
    let loads = |entry: &Entry| match entry.id.as_deref() {
        // systemd says so of a signal that was sent, whatever sockd makes of it.
        Some(UNIT_RELOADED) => !sockd,
        Some(message_id::RELOAD_FINISHED) => sockd,
        Some(_) | None => !sockd && entry.message.0.ends_with(GUNICORN_RELOADS),
    };
    let loaded = entries.iter().rposition(loads).map_or(0, |at| at + 1);
    let entries = &entries[loaded..];
    let recent = |entry: &Entry| {
        let written = Duration::from_micros(entry.time.parse().unwrap_or_default());
        written + RECENT >= now
    };
    let lines_of = |entries: &[Entry]| -> Vec<String> {
        entries.iter().flat_map(|entry| entry.message.0.lines().map(str::to_owned)).collect()
    };
    let first_recent = entries.iter().position(recent).unwrap_or(entries.len());
    Lines { lines: lines_of(entries), recent: lines_of(&entries[first_recent..]).len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(10_000);

    fn service(line: &str) -> Details {
        let exec_start = line.split(' ').map(str::to_owned).collect();
        Details { invocation_id: "b".to_owned(), exec_start, ..Details::default() }
    }

    fn entry(message: &str, id: &str, run: &str, seconds_ago: u64) -> String {
        let time = (NOW.as_secs() - seconds_ago) * 1_000_000;
        format!(
            r#"{{"MESSAGE":{message},"MESSAGE_ID":"{id}","_SYSTEMD_INVOCATION_ID":"{run}","__REALTIME_TIMESTAMP":"{time}"}}"#
        )
    }

    #[test]
    fn only_the_last_run_counts() {
        let text = [
            entry("\"old\"", "", "a", 900),
            entry("\"first\\nsecond\"", "", "b", 800),
            entry("[99,97,102,233]", "", "b", 5),
        ]
        .join("\n");
        let found = select(&text, &service("/v/bin/gunicorn a:b"), NOW);
        assert_eq!(found, Lines { lines: vec!["first".into(), "second".into(), "caf\u{fffd}".into()], recent: 1 });
        assert_eq!(select("nonsense\n{}", &service("x"), NOW), Lines::default());
    }

    #[test]
    fn what_came_before_the_last_load_is_answered_for() {
        let plain = [
            entry("\"refused\"", "", "b", 50),
            entry("\"[2026-11-25 03:00:00 +0000] [7] [INFO] Handling signal: hup\"", "", "b", 40),
            entry("\"since\"", "", "b", 30),
        ]
        .join("\n");
        assert_eq!(select(&plain, &service("/v/bin/gunicorn a:b"), NOW).lines, ["since"]);
        let sockd = [
            entry("\"before\"", "", "b", 50),
            entry("\"generation 2 serves\"", message_id::RELOAD_FINISHED, "b", 40),
            entry("\"since\"", "", "b", 30),
            // A refused reload loads nothing, though systemd calls it done.
            entry("\"Reloaded\"", UNIT_RELOADED, "b", 20),
        ]
        .join("\n");
        assert_eq!(select(&sockd, &service("/usr/bin/sockd run -- x"), NOW).lines, ["since", "Reloaded"]);
    }
}
