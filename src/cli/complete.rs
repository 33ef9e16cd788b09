//! What a shell completes: the words of the command line, which clap knows, and the names of units on this machine.
//!
//! The scripts in `packaging/completions` ask this program, with [`VARIABLE`] in the environment, at each Tab.
//!
//! Owns: which units a place in the command line wants. Never: asks systemd, which may be slow.

use std::ffi::OsStr;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::CompleteEnv;

use super::next_step::{adoptable, running};

/// Holds the shell's name where a shell asks.
pub const VARIABLE: &str = "SOCKD_COMPLETE";

/// Answers a shell that asks what can stand in a line of `command`, and ends the program; returns where none does. A shell
/// asks with `--` in the place of a subcommand: what the environment of a unit holds cannot keep `run`, or `reload` in its
/// ExecReload=, from what they are there for.
pub fn answer_a_shell(command: fn() -> clap::Command) {
    if std::env::args_os().nth(1).is_none_or(|word| word == "--") {
        CompleteEnv::with_factory(command).var(VARIABLE).complete();
    }
}

/// The units that run sockd.
pub fn units() -> Vec<CompletionCandidate> {
    candidates(running())
}

/// These, and the units that run a server by themselves.
pub fn all_units() -> Vec<CompletionCandidate> {
    candidates(running().into_iter().chain(adoptable()))
}

/// What `adopt` takes: the units that run a server by themselves, and files.
pub fn adoptable_or_file(written: &OsStr) -> Vec<CompletionCandidate> {
    with_files(written, candidates(adoptable()), |path| {
        path.extension().is_some_and(|end| end == "ini" || end == "conf")
    })
}

/// What `check` takes: units and files.
pub fn unit_or_file(written: &OsStr) -> Vec<CompletionCandidate> {
    with_files(written, all_units(), |_| true)
}

/// An instance by its name alone, which all commands take: bash would break a longer one at the `@`.
fn candidates(units: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let name = |unit: &str| unit.strip_prefix("sockd@")?.strip_suffix(".service").map(str::to_owned);
    units.into_iter().map(|unit| CompletionCandidate::new(name(&unit).unwrap_or(unit))).collect()
}

fn with_files(
    written: &OsStr,
    units: Vec<CompletionCandidate>,
    wanted: impl Fn(&std::path::Path) -> bool + Send + Sync + 'static,
) -> Vec<CompletionCandidate> {
    let begins =
        |unit: &CompletionCandidate| unit.get_value().as_encoded_bytes().starts_with(written.as_encoded_bytes());
    let units: Vec<_> = units.into_iter().filter(begins).collect();
    let files = PathCompleter::file().filter(wanted).complete(written);
    units.into_iter().chain(files).collect()
}
