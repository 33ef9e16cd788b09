//! `sockd` alone: what there is on this machine for sockd to do, and the commands that do it.
//!
//! Owns: which commands are named. Never: names one that could leave a site with less than it has.

use std::process::ExitCode;

use super::status::{self, list, render, terminal::Paint};
use super::{next_step, output};
use crate::exit;
use crate::systemd::{Manager, UnitName};
use status::report::{Entry, StatusReport};

/// systemd is asked about so many units that run a server by themselves.
const MAX_PLAIN: usize = 64;

/// Runs without a subcommand: 0 when it could be shown.
pub fn run() -> ExitCode {
    let (ours, plain) = match collect() {
        Ok(found) => found,
        Err(why) => return failed(&why),
    };
    let text = text(&ours, &plain, output::width(), output::colour_wanted());
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("cannot write to stdout: {error}")),
    }
}

/// What runs sockd, and what runs a server by itself.
fn collect() -> Result<(StatusReport, StatusReport), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot set up: {error}"))?;
    let ours = runtime.block_on(status::Collector::new(&[], Manager::all()).report());
    let plain: Vec<UnitName> =
        next_step::adoptable().iter().filter_map(|name| UnitName::complete(name).ok()).take(MAX_PLAIN).collect();
    if plain.is_empty() {
        return Ok((ours, StatusReport::default()));
    }
    let mut plain = runtime.block_on(status::Collector::new(&plain, &[]).report());
    plain.entries.retain(is_used);
    Ok((ours, plain))
}

/// Whether a unit is one that somebody cares about, so far as systemd can say. A server that was installed with something
/// else and is stopped is none.
fn is_used(entry: &Entry) -> bool {
    let listens = entry.triggers.iter().any(|trigger| trigger.active_state == "active");
    entry
        .systemd
        .as_ref()
        .is_none_or(|unit| unit.load_state == "loaded" && (unit.active_state != "inactive" || listens))
}

/// The whole text. `width`, `colour`: as [`render::render`].
pub fn text(ours: &StatusReport, plain: &StatusReport, width: Option<usize>, colour: bool) -> String {
    let mut text =
        format!("sockd {}: the systemd-native way to run an application server\n\n", env!("CARGO_PKG_VERSION"));
    text.push_str(&render::systemd_error(ours, width, colour));
    for (what, report) in [("Run by sockd:", ours), ("Running a server by itself:", plain)] {
        if !report.entries.is_empty() {
            text.push_str(&format!("{what}\n{}\n", list::list(report, width, colour)));
        }
    }
    if ours.entries.is_empty() && plain.entries.is_empty() {
        text.push_str("No unit here runs an application server.\n\n");
    }
    let commands = commands(ours, plain);
    let longest = commands.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    text.push_str("Next:\n");
    for (command, what) in commands {
        text.push_str(&format!("  {command:longest$}  {}\n", Paint::Faint.on(what, colour)));
    }
    text
}

/// What can be typed, the most urgent first.
fn commands(ours: &StatusReport, plain: &StatusReport) -> Vec<(String, &'static str)> {
    let unhealthy = |entry: &&Entry| render::bullet(entry).1 == Paint::Bad;
    let named = |command: &str, entry: &Entry| {
        let manager = if entry.user { Manager::User } else { Manager::System };
        Some(format!("sockd {command} {}", manager.name_typed(entry.unit.as_ref()?)))
    };
    let mut commands = Vec::new();
    let mut add = |command: Option<String>, what| commands.extend(command.map(|command| (command, what)));
    let first = ours.entries.iter().chain(&plain.entries).find(unhealthy);
    match first {
        Some(entry) if entry.user => add(named("logs", entry), "shows what it says"),
        Some(entry) => add(named("doctor", entry), "finds the broken link, and what fixes it"),
        None => {}
    }
    let well = ours.entries.iter().find(|entry| entry.unit.is_some() && !unhealthy(entry));
    add(well.and_then(|entry| named("status", entry)), "shows its sockets and workers");
    let runs = well.filter(|entry| entry.systemd.as_ref().is_some_and(|unit| unit.main_pid != 0));
    add(runs.and_then(|entry| named("reload", entry)), "takes new code over, or refuses it and says why");
    add(runs.map(|_| "sockd top".to_owned()), "watches all of them live");
    let plain = plain.entries.iter().find(|entry| entry.runs_sockd != Some(true));
    add(plain.and_then(|entry| named("adopt", entry)), "shows how sockd would run it; nothing is changed");
    if ours.entries.is_empty() {
        add(Some("sockd demo".to_owned()), "shows it at work, with nothing set up");
        add(Some("sockd new NAME".to_owned()), "asks for a new application, and writes its units");
    }
    add(Some("sockd --help".to_owned()), "lists all commands");
    commands
}

fn failed(why: &str) -> ExitCode {
    output::complain(why);
    ExitCode::from(exit::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::report::Trigger;
    use crate::control::Status;
    use crate::systemd::bus::UnitState;

    fn unit(name: &str, state: &str, runs_sockd: bool) -> Entry {
        let systemd =
            UnitState { load_state: "loaded".into(), active_state: state.into(), main_pid: 1, ..UnitState::default() };
        Entry { unit: Some(name.into()), systemd: Some(systemd), runs_sockd: Some(runs_sockd), ..Entry::default() }
    }

    fn typed(ours: Vec<Entry>, plain: Vec<Entry>) -> Vec<String> {
        let report = |entries| StatusReport { entries, ..StatusReport::default() };
        commands(&report(ours), &report(plain)).into_iter().map(|(command, _)| command).collect()
    }

    #[test]
    fn the_commands_fit_what_there_is() {
        assert_eq!(typed(vec![], vec![]), ["sockd demo", "sockd new NAME", "sockd --help"]);
        let plain = || vec![unit("blog.service", "active", false)];
        assert_eq!(typed(vec![], plain())[..2], ["sockd adopt blog.service", "sockd demo"]);
        let well = unit("shop.service", "active", true);
        let expected = ["status shop.service", "reload shop.service", "top", "adopt blog.service", "--help"]
            .map(|words| format!("sockd {words}"));
        assert_eq!(typed(vec![well.clone()], plain()), expected);
        // Nothing that waits for its first connection can be reloaded, and what is in no unit has no name.
        let waits = Entry { systemd: Some(UnitState::default()), ..well.clone() };
        assert_eq!(typed(vec![Entry::default(), waits], vec![]), ["sockd status shop.service", "sockd --help"]);
        let unhealthy =
            Entry { sockd: Some(Status { fallback: true, ..Status::default() }), ..unit("a.service", "active", true) };
        assert_eq!(typed(vec![well, unhealthy], vec![])[0], "sockd doctor a.service");
        assert_eq!(typed(vec![], vec![unit("blog.service", "failed", false)])[0], "sockd doctor blog.service");
    }

    #[test]
    fn a_server_that_nobody_uses_is_not_shown() {
        assert!(is_used(&unit("blog.service", "active", false)) && is_used(&unit("blog.service", "failed", false)));
        let stopped = unit("php-fpm.service", "inactive", false);
        assert!(!is_used(&stopped));
        let socket = Trigger { unit: "php-fpm.socket".into(), active_state: "active".into() };
        assert!(is_used(&Entry { triggers: vec![socket], ..stopped }));
    }

    #[test]
    fn what_is_there_is_named_and_no_line_is_wider_than_the_terminal() {
        let status =
            Status { status_line: "answering 503: ".to_owned() + &"no worker ".repeat(30), ..Status::default() };
        let unhealthy =
            Entry { sockd: Some(Status { fallback: true, ..status }), ..unit("shop.service", "active", true) };
        let ours = StatusReport { entries: vec![unhealthy], ..StatusReport::default() };
        let plain = StatusReport { entries: vec![unit("blog.service", "active", false)], ..StatusReport::default() };
        let text = text(&ours, &plain, Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?} is not in\n{text}"));
        assert!(place("Run by sockd:") < place("shop.service"), "{text}");
        assert!(place("Running a server by itself:") < place("blog.service"), "{text}");
        assert!(!text.contains("No unit here"), "{text}");
    }
}
