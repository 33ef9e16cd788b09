//! What can be typed next where a name is missing, unknown or that of something else.
//!
//! Owns: the search for units by the words of their files, and the list of commands. Never: asks systemd, which may be
//! what is missing.

use std::collections::BTreeSet;

use crate::adapter::ADAPTERS;
use crate::systemd::Manager;
use crate::systemd::unit_files::UnitFiles;
use crate::systemd::unit_name::INSTANCES;

/// So many commands are listed.
const MAX_CANDIDATES: usize = 12;

/// The units that run sockd, by their files, and the instances that have a configuration.
pub fn running() -> Vec<String> {
    let mut units = mentioning("sockd run");
    for entry in std::fs::read_dir(INSTANCES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".toml"));
        units.extend(name.map(|name| format!("sockd@{name}.service")));
    }
    units.into_iter().collect()
}

/// The units that run a server by themselves, by their files.
pub fn adoptable() -> Vec<String> {
    let ours = mentioning("sockd");
    // The name of an application server gives its unit away.
    let servers = ADAPTERS.iter().flat_map(|adapter| mentioning(adapter.conventions.name));
    servers.collect::<BTreeSet<_>>().difference(&ours).cloned().collect()
}

/// The units of all managers whose files hold a word.
fn mentioning(word: &str) -> BTreeSet<String> {
    let of = |manager: &Manager| UnitFiles::search(*manager, word).services().map(str::to_owned).collect::<Vec<_>>();
    Manager::all().iter().flat_map(of).collect()
}

/// How what runs a server by itself is adopted; how an application begins where nothing does.
pub fn adopt() -> String {
    match adoptable() {
        units if units.is_empty() => "no unit here runs an application server: `sockd new NAME` makes one".to_owned(),
        units => list("what runs a server here by itself", "adopt", &units),
    }
}

/// The same command for each unit that runs sockd; how there comes to be one where there is none.
pub fn of_running(command: &str) -> String {
    match running() {
        units if units.is_empty() => format!("no unit runs sockd; {}", adopt()),
        units => list("what runs sockd here", command, &units),
    }
}

/// The same where this unit does not run: if it runs sockd, its own next step.
pub fn of_stopped(command: &str, unit: &str) -> String {
    let has_it = |manager: &&Manager| UnitFiles::search(**manager, "sockd run").services().any(|known| known == unit);
    let instance = running().iter().any(|known| known == unit).then_some(&Manager::System);
    match Manager::all().iter().find(has_it).or(instance) {
        Some(manager) => {
            let systemctl = manager.systemctl();
            format!("`{systemctl} start {unit}` starts it, and `sockd doctor {unit}` says what keeps it from that")
        }
        None => of_running(command),
    }
}

fn list(what: &str, command: &str, units: &[String]) -> String {
    let mut text = format!("{what}:");
    units.iter().take(MAX_CANDIDATES).for_each(|unit| text.push_str(&format!("\n  sockd {command} {unit}")));
    if units.len() > MAX_CANDIDATES {
        text.push_str(&format!("\n  and {} more", units.len() - MAX_CANDIDATES));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut() {
        let units: Vec<String> = (0..MAX_CANDIDATES + 3).map(|number| format!("a{number}.service")).collect();
        let text = list("these", "reload", &units);
        assert!(text.starts_with("these:\n  sockd reload a0.service\n") && text.ends_with("\n  and 3 more"), "{text}");
        assert_eq!(text.lines().count(), MAX_CANDIDATES + 2);
        assert_eq!(list("this", "adopt", &units[..1]), "this:\n  sockd adopt a0.service");
    }
}
