//! Words that stay out of prose, names and messages: metaphors and old-fashioned words, which nobody would search for.
//!
//! A failure names every place with its word, and what to write instead.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A word in lower case, and what says the same in plain English. Two words are found as `last_words` and `LastWords` too.
const FORBIDDEN: [(&str, &str); 21] = [
    ("told", "asked, sent, reported, notified; `told apart`: distinguished"),
    ("whoever", "the client, the caller, those who"),
    ("anew", "again, from scratch"),
    ("dice", "random, generator"),
    ("grave", "defunct"),
    ("graves", "defunct"),
    ("bury", "finish, remove, hide"),
    ("buried", "finished, removed, hidden"),
    ("ails", "unhealthy"),
    ("mend", "fix, repair"),
    ("mends", "fixes, repairs"),
    ("mended", "fixed, repaired"),
    ("mending", "the fix, the repair"),
    ("unborn", "never spawned"),
    ("mute", "silent"),
    ("narrate", "log, report"),
    ("narrates", "logs, reports"),
    ("narrated", "logged, reported"),
    ("narrating", "logging, reporting"),
    ("lookout", "monitor"),
    ("last words", "last lines, recent stderr"),
];
/// Where prose stands.
const PLACES: [&str; 9] =
    [".ci", "CHANGELOG.md", "Cargo.toml", "README.md", "clippy.toml", "packaging", "src", "tests", "units"];
/// Lines that quote an old name, by their file and a part of them.
const QUOTES: [(&str, &str); 1] = [("CHANGELOG.md", "SOCKD_EVENT=worker-ails is worker-unhealthy")];

#[test]
fn plain_words_are_used() {
    let mut offences = Vec::new();
    let mut advice = BTreeSet::new();
    for path in files() {
        // What is no text has no prose.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        let quotes = |line: &str| QUOTES.iter().any(|(file, part)| path == *file && line.contains(part));
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !quotes(line)) {
            for (word, instead) in forbidden(line) {
                offences.push(format!("{path}:{}: {word}", index + 1));
                advice.insert(format!("{word}: {instead}"));
            }
        }
    }
    let advice: Vec<String> = advice.into_iter().collect();
    assert!(offences.is_empty(), "{}\n\nUse a plain word:\n{}\n", offences.join("\n"), advice.join("\n"));
}

/// The reader finds what it should; without this the test above could pass by finding nothing.
#[test]
fn the_reader_reads() {
    let found = |line: &str| forbidden(line).into_iter().map(|(word, _)| word).collect::<Vec<_>>();
    assert_eq!(found("// It is told, Whoever asks."), ["told", "whoever"]);
    assert_eq!(found("let told_since = Change::Unborn; LAST_WORDS"), ["told", "unborn", "last words"]);
    assert_eq!(found("made_anew, lastWords and DiceRoll"), ["anew", "dice", "last words"]);
    assert_eq!(found("Mutex recommends details gravel words at last"), [""; 0]);
    let files = files();
    assert!(files.len() > 500 && files.iter().any(|path| path == "README.md"), "{} files", files.len());
}

fn forbidden(line: &str) -> Vec<(&'static str, &'static str)> {
    let words = words(line);
    let pairs = words.windows(2).map(|pair| pair.join(" "));
    let all: Vec<String> = words.iter().cloned().chain(pairs).collect();
    all.iter().filter_map(|word| FORBIDDEN.iter().find(|(forbidden, _)| forbidden == word).copied()).collect()
}

/// The words of a line in lower case, with the parts of each identifier: `oldName` and `old_name` are two.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in line.chars() {
        if !letter.is_alphabetic() || (before.is_lowercase() && letter.is_uppercase()) {
            words.push(String::new());
        }
        words
            .last_mut()
            .expect("it begins with one")
            .extend(letter.to_lowercase().filter(|letter| letter.is_alphabetic()));
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of [`PLACES`] but this one, relative to the repository.
fn files() -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<_> = PLACES.iter().map(|place| root().join(place)).filter(|path| path.exists()).collect();
    while let Some(path) = left.pop() {
        let name = path.strip_prefix(root()).expect("below it").to_string_lossy().into_owned();
        if name == file!() {
            continue;
        }
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}
