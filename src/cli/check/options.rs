//! Options that a Python server does not have, found by its own source as it is installed.
//!
//! Every one of these servers writes its options' names into one file. What stands there in quotes is what this version
//! knows; a list of ours would be that of another version.
//!
//! Owns: where that file is, and the reading of its names. Never: runs Python.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::module::read;
use crate::suggestion::nearest;

/// Where a server's options are written.
struct Source {
    /// Its console script.
    script: &'static str,
    /// The file below site-packages.
    file: &'static str,
    /// Whether a beginning that only one option has stands for it: argparse and getopt have it so, click has not.
    abbreviates: bool,
}

const SOURCES: [Source; 6] = [
    Source { script: "gunicorn", file: "gunicorn/config.py", abbreviates: true },
    Source { script: "uvicorn", file: "uvicorn/main.py", abbreviates: false },
    Source { script: "hypercorn", file: "hypercorn/__main__.py", abbreviates: true },
    Source { script: "granian", file: "granian/cli.py", abbreviates: false },
    Source { script: "daphne", file: "daphne/cli.py", abbreviates: true },
    Source { script: "waitress-serve", file: "waitress/adjustments.py", abbreviates: true },
];

/// The long options of one installed server.
#[derive(Debug)]
pub(super) struct Known {
    names: BTreeSet<String>,
    abbreviates: bool,
}

impl Known {
    /// Reads the options of the server with this console script from one of these directories of packages. `None`: its
    /// source is not there.
    pub(super) fn installed(script: &str, packages: &[PathBuf]) -> Option<Self> {
        let source = SOURCES.iter().find(|source| source.script == script)?;
        let text = packages.iter().find_map(|directory| read(&directory.join(source.file)))?;
        let mut names = match source.script {
            "waitress-serve" => parameters(&text),
            _ => quoted_options(&text),
        };
        // The parsers' own.
        names.extend(["--help", "--version"].map(str::to_owned));
        Some(Self { names, abbreviates: source.abbreviates })
    }

    /// What is wrong with each option among these words.
    pub(super) fn problems(&self, server: &str, words: &[OsString]) -> Vec<String> {
        let options = words.iter().map(|word| word.to_string_lossy()).take_while(|word| word != "--");
        let options = options.filter(|word| word.starts_with("--"));
        options.filter_map(|word| self.problem(server, word.split('=').next().unwrap_or_default())).collect()
    }

    fn problem(&self, server: &str, name: &str) -> Option<String> {
        if self.has(name) {
            return None;
        }
        let meant: Vec<&str> =
            self.names.iter().map(String::as_str).filter(|known| self.abbreviates && known.starts_with(name)).collect();
        match meant.as_slice() {
            [] => {
                let help = nearest(name, self.names.iter().map(String::as_str));
                let help = help.map_or(String::new(), |near| format!("; did you mean {near}?"));
                Some(format!("{server} has no option {name}{help}"))
            }
            [_] => None,
            several => Some(format!("{server}: {name} may mean {}", several.join(" or "))),
        }
    }

    /// Whether there is an option of exactly this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// `"--workers"`, and click's `"--reload/--no-reload"`.
fn quoted_options(text: &str) -> BTreeSet<String> {
    let quoted = text.split(['"', '\'']).filter(|part| part.starts_with("--"));
    let plain = |name: &&str| {
        name.len() > 2 && name[2..].chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter))
    };
    quoted
        .flat_map(|part| part.split('/'))
        .map(str::trim)
        .filter(|name| name.starts_with("--"))
        .filter(plain)
        .map(str::to_owned)
        .collect()
}

/// waitress makes its options of its parameters: `("unix_socket", str),`, with `no-` before those that are switches.
fn parameters(text: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["--call", "--app"].map(str::to_owned).into();
    for line in text.lines() {
        let parameter = line.trim().strip_prefix("(\"").and_then(|rest| rest.split_once("\", "));
        let Some((name, kind)) = parameter else { continue };
        let name = name.replace('_', "-");
        names.extend(kind.starts_with("asbool").then(|| format!("--no-{name}")));
        names.insert(format!("--{name}"));
    }
    names
}

/// The directories of packages that belong to a program: those of its virtual environment, or of the system.
pub(super) fn packages_of(program: &Path) -> Vec<PathBuf> {
    let Some(prefix) = program.parent().and_then(Path::parent) else { return Vec::new() };
    let versions = fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_python = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3"));
    let mut found: Vec<PathBuf> = versions
        .filter(is_python)
        .flat_map(|version| ["site-packages", "dist-packages"].map(|name| version.join(name)))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(abbreviates: bool, text: &str) -> Known {
        Known { names: quoted_options(text), abbreviates }
    }

    fn problems(known: &Known, line: &str) -> Vec<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        known.problems("server", &words)
    }

    #[test]
    fn unknown_and_ambiguous_options_are_reported() {
        let text =
            "cli = ['-w', \"--workers\"]\n'--worker-class', \"--bind\" '--reload/--no-reload' \"--%s\" # -- '--'\n";
        let argparse = known(true, text);
        for line in ["--workers 3 a:b", "--workers=3", "--bi x", "--no-reload", "a:b -- --what", "-x"] {
            assert_eq!(problems(&argparse, line), [""; 0], "{line}");
        }
        assert_eq!(problems(&argparse, "--worker 3 a:b"), ["server: --worker may mean --worker-class or --workers"]);
        assert_eq!(problems(&argparse, "--wrokers=3"), ["server has no option --wrokers; did you mean --workers?"]);
        assert_eq!(problems(&argparse, "--frobnicate"), ["server has no option --frobnicate"]);
        // click takes whole names alone.
        assert_eq!(
            problems(&known(false, text), "--worker 3"),
            ["server has no option --worker; did you mean --workers?"]
        );
    }

    #[test]
    fn waitress_has_its_parameters() {
        let text = "    _params = (\n        (\"unix_socket\", str),\n        (\"ipv6\", asbool),\n    )\n";
        let names = parameters(text);
        for name in ["--unix-socket", "--ipv6", "--no-ipv6", "--call"] {
            assert!(names.contains(name), "{name}: {names:?}");
        }
        assert!(!names.contains("--no-unix-socket"));
    }
}
