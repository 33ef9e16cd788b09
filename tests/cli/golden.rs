//! Golden texts: what is shown, against the file that holds what should be.

use std::path::{Path, PathBuf};

/// The files with this extension in a directory of the tests, sorted; so many at least.
pub fn cases(directory: &str, extension: &str, least: usize) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = std::fs::read_dir(directory).expect("the cases").map(|entry| entry.expect("an entry").path());
    let mut cases: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    cases.sort();
    assert!(cases.len() >= least, "{cases:?}");
    cases
}

/// What is not as its text says.
#[derive(Default)]
pub struct Differences(String);

impl Differences {
    /// Compares; SOCKD_BLESS=1 writes the text again.
    pub fn compare(&mut self, file: &Path, shown: &str) {
        if std::env::var_os("SOCKD_BLESS").is_some() {
            std::fs::write(file, shown).expect("written");
        } else if std::fs::read_to_string(file).ok().as_deref() != Some(shown) {
            self.0.push_str(&format!("{} should hold:\n{shown}\n", file.display()));
        }
    }

    /// There is none.
    pub fn assert_none(self) {
        assert!(self.0.is_empty(), "{}", self.0);
    }
}
