//! `sockd history`, rendered: each `history/*.json` against the text beside it, at 80 and at 120 columns.
//!
//! SOCKD_BLESS=1 writes the texts again; read the difference before it is committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use sockd::cli::history::render::render;
use sockd::cli::history::report::InstanceHistory;
use sockd::cli::status::terminal::columns;
use sockd::history::bounded;

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/history");
    let entries = std::fs::read_dir(directory).expect("the cases").map(|entry| entry.expect("an entry").path());
    let mut cases: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    cases.sort();
    assert!(cases.len() >= 3, "{cases:?}");
    cases
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
    let bless = std::env::var_os("SOCKD_BLESS").is_some();
    let mut wrong = String::new();
    for (case, width) in cases().into_iter().flat_map(|case| [(case.clone(), 80), (case, 120)]) {
        let shown = render(&histories(&case), Some(width), false);
        for line in shown.lines() {
            assert!(columns(line) <= width, "{}: wider than {width}: {line}", case.display());
        }
        let file = case.with_extension(format!("{width}.txt"));
        if bless {
            std::fs::write(&file, &shown).expect("written");
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(&shown) {
            wrong.push_str(&format!("{} should hold:\n{shown}\n", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_keys_for_programs_stay() {
    for case in cases() {
        let text = std::fs::read_to_string(&case).expect("a case");
        let written = serde_json::to_value(histories(&case)).expect("JSON");
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        if case.ends_with("deploys.json") {
            assert_eq!(written, read);
        }
    }
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
