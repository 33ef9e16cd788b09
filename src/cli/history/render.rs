//! The history for people.
//!
//! Owns: every word and its place. A pure function: histories, width, colour in, text out (`tests/cli/history/`).
//! Never: lets through what others wrote without making it harmless.

use super::report::InstanceHistory;
use crate::cli::status::format::{moment, span_ms};
use crate::cli::status::terminal::{Cell, Paint, harmless, table, wrap};
use crate::control::{Action, Asker, HistoryEntry, HistoryResult, Means, Proof};

const HEADS: [&str; 6] = ["WHEN (UTC)", "ACTION", "GEN", "RESULT", "TOOK", "ASKED BY"];
/// Words; numbers stand to the right.
const LEFT: [usize; 4] = [0, 1, 3, 5];
/// Where the lines below an entry begin.
const INDENT: usize = 4;
/// So much of a commit's name is shown, as git does.
const COMMIT: usize = 12;

/// Renders all of them, the newest entry first. `width` is the terminal's, `None` when the reader is a program or a file.
pub fn render(histories: &[InstanceHistory], width: Option<usize>, colour: bool) -> String {
    let mut text = String::new();
    for history in histories {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", harmless(&history.name)));
        match (&*history.entries, &history.error) {
            ([], None) => text.push_str("  no reload and no start is known yet\n"),
            ([], Some(_)) => text.push_str("  its history is not known\n"),
            (entries, _) => text.push_str(&list(entries, width, colour)),
        }
    }
    if histories.is_empty() {
        text.push_str("No sockd is running, and no unit is known that would run one.\n");
    }
    text
}

fn list(entries: &[HistoryEntry], width: Option<usize>, colour: bool) -> String {
    let rows: Vec<Vec<Cell>> = entries.iter().rev().map(row).collect();
    let table = table(&HEADS, &LEFT, &rows, 2, width, colour);
    let mut lines = table.lines();
    let mut text = lines.next().map(|head| format!("{head}\n")).unwrap_or_default();
    for (line, entry) in lines.zip(entries.iter().rev()) {
        text.push_str(&format!("{line}\n"));
        for detail in details(entry) {
            for line in wrap(&detail, width.map_or(usize::MAX, |width| width.saturating_sub(INDENT))) {
                text.push_str(&format!("{}{line}\n", " ".repeat(INDENT)));
            }
        }
    }
    text
}

fn row(entry: &HistoryEntry) -> Vec<Cell> {
    let (result, paint) = match entry.result {
        HistoryResult::Serving => ("serving", Paint::Good),
        HistoryResult::Waiting => ("waiting", Paint::Good),
        HistoryResult::Refused => ("refused", Paint::Bad),
        HistoryResult::TakenBack => ("taken back", Paint::Bad),
        HistoryResult::NotStarted => ("not started", Paint::Bad),
        HistoryResult::CutShort => ("cut short", Paint::Plain),
        HistoryResult::Unknown => ("?", Paint::Plain),
    };
    let action = match entry.action {
        Action::Start => "start",
        Action::Reload => "reload",
        Action::Rollback => "rollback",
        Action::Unknown => "?",
    };
    let when = moment(entry.at_unix_ms);
    let by: Vec<String> = entry.asked_by.iter().map(asker).collect();
    vec![
        Cell::plain(when.trim_end_matches(" UTC")),
        Cell::plain(action),
        Cell::plain(entry.generation.to_string()),
        Cell::painted(result, paint),
        Cell::plain(span_ms(entry.took_ms)),
        Cell::plain(if by.is_empty() { "-".to_owned() } else { by.join(", ") }),
    ]
}

fn asker(asker: &Asker) -> String {
    let named = |uid: Option<u32>, name: &Option<String>| match (uid, name) {
        (_, Some(name)) => harmless(name),
        (Some(uid), None) => format!("uid {uid}"),
        (None, None) => "?".to_owned(),
    };
    let user = named(asker.uid, &asker.user);
    match asker.means {
        Means::ControlSocket => match asker.login_uid {
            Some(login) => format!("{} as {user}", named(Some(login), &asker.login_user)),
            None => user,
        },
        Means::ExecReload => "systemctl reload".to_owned(),
        Means::Signal => format!("SIGHUP of {user}"),
        Means::Systemd => "SIGHUP of systemd".to_owned(),
        Means::Sockd => "sockd".to_owned(),
        Means::Unknown => "?".to_owned(),
    }
}

fn details(entry: &HistoryEntry) -> Vec<String> {
    let release = entry.release.as_ref().map(|release| {
        let commit = release.commit.as_ref().map(|commit| {
            let commit: String = harmless(commit).chars().take(COMMIT).collect();
            format!(", commit {commit}")
        });
        format!("release: {}{}", harmless(&release.directory), commit.unwrap_or_default())
    });
    let reason = entry.reason.as_ref().map(|reason| format!("reason: {}", harmless(reason)));
    let how = if entry.result.is_good() { "proven by" } else { "passed" };
    let proof = proof(&entry.proof).map(|parts| format!("{how}: {parts}"));
    release.into_iter().chain(reason).chain(proof).collect()
}

/// What proved the code, as far as it came.
fn proof(proof: &Proof) -> Option<String> {
    let count = |number: u64, one: &str| match number {
        0 => None,
        1 => Some(format!("1 {one}")),
        number => Some(format!("{number} {one}s")),
    };
    let parts = [
        count(proof.checks.into(), "check"),
        proof.canary.then(|| "canary".to_owned()),
        count(proof.tried, "visitors' answer"),
        count(proof.workers.into(), "worker"),
        (proof.soak_ms > 0).then(|| format!("watched for {}", span_ms(proof.soak_ms))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
