//! `sockd status`, rendered: each report in `status/*.json` against the text beside it, at 80 and at 120 columns; one of
//! several instances also against the list of them.
//!
//! SOCKD_BLESS=1 writes the texts again; read the difference before it is committed.

use std::path::{Path, PathBuf};

use sockd::cli::status::list::list;
use sockd::cli::status::render::render;
use sockd::cli::status::report::StatusReport;
use sockd::cli::status::terminal::columns;

use super::golden::{self, Differences};

fn cases() -> Vec<PathBuf> {
    golden::cases("tests/cli/status", "json", 8)
}

fn report(case: &Path) -> StatusReport {
    let text = std::fs::read_to_string(case).expect("a case");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

#[test]
fn each_report_is_rendered_as_its_text_says() {
    let mut wrong = Differences::default();
    let listed = cases().into_iter().filter(|case| report(case).entries.len() > 1).map(|case| (case, true));
    for (case, listed) in cases().into_iter().map(|case| (case, false)).chain(listed) {
        for width in [80, 120] {
            let (shown, kind) = match listed {
                true => (list(&report(&case), Some(width), false), "list."),
                false => (render(&report(&case), Some(width), false), ""),
            };
            for line in shown.lines() {
                assert!(columns(line) <= width, "{}: wider than {width}: {line}", case.display());
            }
            let file = case.with_extension(format!("{kind}{width}.txt"));
            wrong.compare(&file, &shown);
        }
    }
    wrong.assert_none();
}

#[test]
fn no_text_is_without_its_report() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/status");
    for entry in std::fs::read_dir(directory).expect("the cases") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        let case = name.split('.').next().expect("a name");
        assert!(cases().iter().any(|path| path.file_stem().is_some_and(|stem| stem == case)), "{name}");
    }
}

#[test]
fn colour_changes_no_letter() {
    for case in cases() {
        let report = report(&case);
        let mut stripped = String::new();
        let coloured = render(&report, Some(80), true);
        let mut parts = coloured.split("\x1b[");
        stripped.push_str(parts.next().expect("a first part"));
        for part in parts {
            stripped.push_str(part.split_once('m').expect("a whole sequence").1);
        }
        assert_eq!(stripped, render(&report, Some(80), false), "{}", case.display());
        assert!(!render(&report, None, false).contains('\x1b'), "{}", case.display());
    }
}

#[test]
fn the_keys_for_programs_stay() {
    for name in ["running.json", "busy.json"] {
        let case = cases().into_iter().find(|case| case.ends_with(name)).expect(name);
        let shown: serde_json::Value = serde_json::from_str(&sockd::cli::status::json(&report(&case))).expect("JSON");
        let written: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(case).expect("a case")).expect("JSON");
        assert_eq!(shown, written["entries"]);
    }
}
