//! What of an adopted unit no longer counts, because its command was changed where the drop-in's own line wins: for `check`
//! and `status`.

use super::find;
use super::proposal::MARK;
use super::service::{drop_in_path, start};
use super::unit::{Setting, Unit};
use crate::adapter::shlex;
use crate::cli::atomic_files::{self, Found};
use crate::diagnostic::Diagnostic;
use crate::systemd::UnitName;
use std::ffi::OsString;
use std::path::Path;

/// A warning, if the unit's own line was changed after it was adopted.
pub fn overridden(unit: &UnitName) -> Option<Diagnostic> {
    let drop_in = drop_in_path(unit.as_str(), unit.manager());
    let Ok(Found::Ours(text)) = atomic_files::find(&drop_in, MARK) else { return None };
    compare(&find::find(unit).ok()?.unit, &drop_in, &text)
}

/// A command that was changed in the unit itself after it was adopted: the drop-in, whose text is given, has another one
/// and wins. The unit is without that drop-in.
pub fn compare(unit: &Unit, drop_in: &Path, text: &str) -> Option<Diagnostic> {
    let start = start(unit).ok()?;
    let adopted = Unit::read(&unit.name, [(drop_in.to_owned(), text)]);
    let counts = adopted.last("Service", "ExecStart")?;
    let (_, command) = counts.value.split_once(" -- ")?;
    let words: Vec<OsString> = shlex::split(command).ok()?.into_iter().map(OsString::from).collect();
    let place = |setting: &Setting| format!("{}:{}", setting.file.display(), setting.line);
    (words != start.words).then(|| {
        let (written, counts) = (place(start.setting), place(counts));
        let message = format!("{written}: this ExecStart= has no effect: {counts} has another command, and wins");
        let name = &unit.name;
        let help = format!("`sudo sockd adopt --write {name}` takes it over, `sudo systemctl restart {name}` runs it");
        Diagnostic::warning(message).help(help)
    })
}
