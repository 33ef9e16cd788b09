//! `sockd explain`, rendered: each `explain/*.recording`, as a sockd has recorded it with real workers, against the text beside
//! it, at 80 and at 120 columns.
//!
//! SOCKD_BLESS=1 writes the texts again; read the difference before it is committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use sockd::cli::explain::render::render;
use sockd::cli::explain::report::InstanceExplanation;
use sockd::cli::status::terminal::columns;
use sockd::control::recording::Entry;
use sockd::explain::explain;
use sockd::recording::{FILE_NAME, read};

use super::golden::{self, Differences};

fn cases() -> Vec<PathBuf> {
    golden::cases("tests/cli/explain", "recording", 5)
}

/// What is said of a recording two seconds after its end, and when that is.
fn explained(case: &Path) -> (InstanceExplanation, u64) {
    let room = std::env::temp_dir().join(format!("sockd-explain-{}-{:p}", std::process::id(), &case));
    std::fs::create_dir_all(&room).expect("made");
    std::fs::copy(case, room.join(FILE_NAME)).expect("copied");
    let recording = read(&room);
    std::fs::remove_dir_all(&room).expect("removed");
    let now = recording.entries.last().map_or(0, Entry::at_unix_ms) + 2_000;
    let found = InstanceExplanation {
        name: "web.service".to_owned(),
        explanation: Some(explain(&recording.entries, "web", None, now)),
        problem: recording.problem.map(|problem| problem.replace(&room.display().to_string(), "/var/lib/web")),
        ..InstanceExplanation::default()
    };
    (found, now)
}

#[test]
fn each_recording_is_explained_as_its_text_says() {
    let mut wrong = Differences::default();
    for (case, width) in cases().into_iter().flat_map(|case| [(case.clone(), 80), (case, 120)]) {
        let (found, now) = explained(&case);
        let shown = render(&[found], now, Some(width), false);
        for line in shown.lines() {
            assert!(columns(line) <= width, "{}: wider than {width}: {line}", case.display());
        }
        wrong.compare(&case.with_extension(format!("{width}.txt")), &shown);
    }
    wrong.assert_none();
}

#[test]
fn nothing_that_was_recorded_acts_on_a_terminal() {
    let case = cases().into_iter().find(|case| case.ends_with("hostile.recording")).expect("it is there");
    let (found, now) = explained(&case);
    let text = render(&[found], now, Some(80), false);
    assert!(text.chars().all(|letter| letter == '\n' || !sockd::printable::is_command(letter)), "{text:?}");
}

#[test]
fn the_keys_for_programs_stay() {
    let (found, _) = explained(&cases()[0]);
    let written = serde_json::to_value(&found).expect("JSON");
    let keys =
        |value: &serde_json::Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&written), "error explanation in_memory pid problem unit user");
    let explanation = &written["explanation"];
    let top = "before causes events from_unix_ms is_recorded is_trouble slowest then to_unix_ms unit";
    assert_eq!(keys(explanation), top);
    assert_eq!(keys(&explanation["causes"][0]), "advice evidence id likelihood next what");
    let figures = "aborted all_busy busy cpu cpu_stall cpus finished in_flight io_stall machine_cpu median_ms \
                   memory_bytes memory_limit_bytes memory_stall percentile_95_ms queue_limit rate ready seconds \
                   server_errors steal throttled turned_away waiting waiting_max";
    assert_eq!(keys(&explanation["then"]), figures);
}

#[test]
fn without_anybody_to_ask_it_fails() {
    let run = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_sockd")).arg("explain").args(words).output().expect("it runs")
    };
    let output = run(&["no-such-unit-of-this-test"]);
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    let output = run(&["web", "half past ten"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("5min ago"), "{output:?}");
}
