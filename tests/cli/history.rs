//! `sockd history`, rendered: each `history/*.json` against the text beside it, at 80 and at 120 columns.
//!
//! SOCKD_BLESS=1 writes the texts again; read the difference before it is committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use sockd::cli::history::render::render;
use sockd::cli::history::report::InstanceHistory;
use sockd::cli::status::terminal::columns;
use sockd::history::bounded;

use super::golden::{self, Differences};

fn cases() -> Vec<PathBuf> {
    golden::cases("tests/cli/history", "json", 3)
}

fn histories(case: &Path) -> Vec<InstanceHistory> {
    let text = std::fs::read_to_string(case).expect("a case");
    let mut histories: Vec<InstanceHistory> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    for history in &mut histories {
        history.entries = history.entries.drain(..).map(bounded).collect();
        history.name = history.unit.clone().unwrap_or_else(|| "sockd".to_owned());
    }
    histories
}

#[test]
fn each_history_is_rendered_as_its_text_says() {
    let mut wrong = Differences::default();
    for (case, width) in cases().into_iter().flat_map(|case| [(case.clone(), 80), (case, 120)]) {
        let shown = render(&histories(&case), Some(width), false);
        for line in shown.lines() {
            assert!(columns(line) <= width, "{}: wider than {width}: {line}", case.display());
        }
        let file = case.with_extension(format!("{width}.txt"));
        wrong.compare(&file, &shown);
    }
    wrong.assert_none();
}

#[test]
fn the_keys_for_programs_stay() {
    let case = cases().into_iter().find(|case| case.ends_with("deploys.json")).expect("it has every key");
    let text = std::fs::read_to_string(&case).expect("a case");
    let written = serde_json::to_value(histories(&case)).expect("JSON");
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(&text).expect("JSON"));
}

#[test]
fn a_rollback_without_anybody_to_ask_fails() {
    let output = Command::new(env!("CARGO_BIN_EXE_sockd"))
        .args(["rollback", "no-such-unit-of-this-test"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("sockd: error: "));
}
