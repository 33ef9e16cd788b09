//! `sockd doctor`'s rules: the facts of each `cases/*.toml` against the rendered diagnosis beside it.
//!
//! A case names the site that it is about (`site = "guide"`: sites/guide.toml, where all is well) and what differs.
//! Tables are merged key by key, lists of tables element by element; every other value, an empty list among them,
//! takes the place of the site's, and so do `answers` and
//! `way`, which only make sense whole.
//!
//! SOCKD_BLESS=1 writes the texts again; read the difference before it is committed.

mod fixes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sockd::cli::doctor::{json, render::render};
use sockd::doctor::{Diagnosis, Facts, diagnose, idle};
use toml::{Table, Value};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor")
}

fn read(path: &Path) -> Table {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory().join("cases")).expect("the cases");
    let mut cases: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|end| end == "toml"));
    cases.sort();
    cases
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Table(into), Value::Table(from)) => {
            for (key, value) in from {
                match into.get_mut(&key) {
                    Some(old) if !matches!(key.as_str(), "answers" | "way") => merge(old, value),
                    Some(_) | None => drop(into.insert(key, value)),
                }
            }
        }
        (Value::Array(into), Value::Array(from)) if from.first().is_some_and(Value::is_table) => {
            let mut from = from.into_iter();
            for (old, new) in into.iter_mut().zip(from.by_ref()) {
                merge(old, new);
            }
            into.extend(from);
        }
        (into, from) => *into = from,
    }
}

fn facts(case: &Path) -> Facts {
    let mut table = read(case);
    let site = table.remove("site").unwrap_or_else(|| panic!("{}: no site", case.display()));
    let site = directory().join("sites").join(format!("{}.toml", site.as_str().expect("a name")));
    let mut merged = Value::Table(read(&site));
    merge(&mut merged, Value::Table(table));
    merged.try_into().unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

fn diagnosis(case: &Path) -> Diagnosis {
    diagnose(&facts(case))
}

#[test]
fn each_case_is_reported_as_its_text_says() {
    let bless = std::env::var_os("SOCKD_BLESS").is_some();
    let mut wrong = String::new();
    for case in cases() {
        let shown = render(&[diagnosis(&case)], Some(120), false);
        let file = case.with_extension("txt");
        if bless {
            std::fs::write(&file, &shown).expect("written");
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(&shown) {
            wrong.push_str(&format!("{} should hold:\n{shown}\n", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A case is named after the rule that it is for, and that rule is the first that the reader is asked to fix.
#[test]
fn each_case_finds_what_it_is_named_after() {
    let mut found = BTreeSet::new();
    for case in cases() {
        let name = case.file_stem().expect("a name").to_str().expect("text").to_owned();
        let diagnosis = diagnosis(&case);
        // `import-error.sockd` is the same fault on another site.
        let (rule, _) = name.split_once('.').unwrap_or((&name, ""));
        match rule {
            "well" => assert!(diagnosis.findings.is_empty(), "{name}: {:?}", diagnosis.findings),
            _ => {
                let first = diagnosis.findings.first().unwrap_or_else(|| panic!("{name}: nothing was found"));
                assert_eq!(first.id, rule, "{name}: {diagnosis:?}");
                let says_how = !first.fix.is_empty() || first.by_hand.is_some();
                assert!(!first.why.is_empty() && says_how, "{name}: {first:?}");
                found.insert(first.id);
            }
        }
    }
    assert!(found.len() >= 30, "{} rules have a case: {found:?}", found.len());
}

/// Every id that stands in a rule's text has its case.
#[test]
fn each_rule_has_a_case() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/doctor/rules");
    let mut ids = BTreeSet::new();
    for entry in std::fs::read_dir(rules).expect("the rules") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
        // An id is the first argument of a finding, or the first of a pair that becomes one.
        let mut parts = text.split("(\"").collect::<Vec<_>>().into_iter();
        let mut before = parts.next().unwrap_or_default();
        for part in parts {
            let word = part.split('"').next().unwrap_or_default();
            let first = ["error", "warning", "finding", " "].iter().any(|end| before.ends_with(end));
            let plain = word.len() > 3 && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if first && plain && part[word.len()..].starts_with("\",") {
                ids.insert(word.to_owned());
            }
            before = part;
        }
    }
    assert!(ids.contains("trigger-limit") && ids.contains("socket-lost") && ids.contains("nginx-no-site"), "{ids:?}");
    let cases: BTreeSet<String> =
        cases().iter().map(|case| case.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    let known = |id: &str| cases.iter().any(|case| case.split('.').next() == Some(id));
    // The states of links.
    let others = ["broken", "warning"];
    let missing: Vec<&String> = ids.iter().filter(|id| !known(id) && !others.contains(&id.as_str())).collect();
    assert!(missing.is_empty(), "rules without a case: {missing:?}");
}

/// Nobody has asked about it, nobody uses it, and it is no reason to exit with a failure.
#[test]
fn a_unit_that_nobody_uses_is_one_line() {
    let mut facts = Facts::default();
    facts.service.name = "uwsgi-emperor.service".to_owned();
    facts.service.load_state = "loaded".to_owned();
    facts.service.active_state = "inactive".to_owned();
    facts.service.unit_file_state = "disabled".to_owned();
    let found = idle(&facts).expect("it is disabled, and does not run");
    assert!(!found.is_broken());
    let shown = render(&[found], None, false);
    assert_eq!(
        shown,
        "uwsgi-emperor.service: disabled, and does not run; `sockd doctor uwsgi-emperor.service` looks at it\n"
    );
    for (key, value) in [("active_state", "failed"), ("active_state", "active"), ("unit_file_state", "enabled")] {
        let mut used = facts.clone();
        match key {
            "active_state" => value.clone_into(&mut used.service.active_state),
            _ => value.clone_into(&mut used.service.unit_file_state),
        }
        assert_eq!(idle(&used), None, "{key} = {value}");
    }
    // Visitors are sent to it: the Flask guide's service before it was started.
    let mut meant = self::facts(&directory().join("cases/service-not-started.toml"));
    meant.service.unit_file_state = "disabled".to_owned();
    assert_eq!(idle(&meant), None);
}

#[test]
fn no_text_is_without_its_case() {
    for entry in std::fs::read_dir(directory().join("cases")).expect("the cases") {
        let path = entry.expect("an entry").path();
        assert!(path.with_extension("toml").exists(), "{}", path.display());
    }
}

#[test]
fn nothing_acts_on_the_terminal_and_lines_fit() {
    for case in cases() {
        let mut facts = facts(&case);
        facts.service.description = "\u{1b}[2Jboo".repeat(40);
        facts.journal.push("\u{1b}]0;x\u{7}".to_owned());
        let shown = render(&[diagnose(&facts)], Some(60), false);
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
        let prose = shown.lines().filter(|line| !line.starts_with("   fix:  ") && !line.starts_with("   then: "));
        for line in prose {
            assert!(sockd::cli::status::terminal::columns(line) <= 60, "{}: {line}", case.display());
        }
    }
}

#[test]
fn colour_changes_no_letter() {
    for case in cases() {
        let found = [diagnosis(&case)];
        let coloured = render(&found, Some(100), true);
        let mut parts = coloured.split("\x1b[");
        let mut stripped = parts.next().expect("a first part").to_owned();
        for part in parts {
            stripped.push_str(part.split_once('m').expect("a whole sequence").1);
        }
        assert_eq!(stripped, render(&found, Some(100), false), "{}", case.display());
    }
}

#[test]
fn the_keys_for_programs_stay() {
    let case = directory().join("cases/socket-not-started.toml");
    let shown: serde_json::Value = serde_json::from_str(&json(&[diagnosis(&case)])).expect("JSON");
    let finding = &shown[0]["findings"][0];
    assert_eq!(shown[0]["unit"], "gunicorn.service");
    assert_eq!(shown[0]["walk"][3]["link"], "socket");
    assert_eq!(shown[0]["walk"][3]["state"], "broken");
    assert_eq!(
        (&finding["id"], &finding["link"], &finding["severity"]),
        (&"socket-not-started".into(), &"socket".into(), &"error".into())
    );
    assert_eq!(finding["fix"], "systemctl enable --now gunicorn.socket");
    for key in ["what", "why", "by_hand"] {
        assert!(finding.get(key).is_some(), "{key}");
    }
}
