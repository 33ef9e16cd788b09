//! Whether a trial of new code by visitors (`reload.canary-workers`) can see how their requests are answered.
//!
//! Owns: one warning. Never: an opinion of a program that may count its answers by itself; that only its workers show.

use crate::adapter::python::Launcher;
use crate::adapter::{self, Adapter, Making};
use crate::app::Command;
use crate::config::{self, Script, Settings};
use crate::diagnostic::{Diagnostic, Location};

/// What a trial without counts comes to.
const BLIND: &str = "a trial by canary-workers notices only workers that die or hang, and takes all of canary-time";

/// Warns of a trial that has no answers to compare.
pub(super) fn check(settings: &Settings, command: &Command, canary_workers: Option<Location>) -> Option<Diagnostic> {
    settings.reload.canary_workers?;
    let (message, help) = match counts(settings, command)? {
        Counts::Never(server) => (
            format!("{server} does not count its answers by status: {BLIND}"),
            "leave canary-workers out, or set canary-time to the time in which a crash or a hang would show",
        ),
        Counts::Hidden => (
            format!("with show = false in [requests] no answers are counted: {BLIND}"),
            "leave show out of [requests], or canary-workers out of [reload]",
        ),
        Counts::ByItself => (
            format!("unless the program itself counts its answers in SOCKD_SCOREBOARD, {BLIND}"),
            "see sockd-scoreboard(5) for how it counts them; if it does not, leave canary-workers out",
        ),
        Counts::Always => return None,
    };
    Some(Diagnostic { location: canary_workers, ..Diagnostic::warning(message).help(help) })
}

/// Whether the workers count their answers by status.
enum Counts {
    Always,
    /// They would, and the configuration forbids it.
    Hidden,
    /// A program of which nothing is known may.
    ByItself,
    /// This server has no place for it.
    Never(&'static str),
}

/// None: it cannot be known, and why has been reported.
fn counts(settings: &Settings, command: &Command) -> Option<Counts> {
    let adapter = adapter::recognise(&settings.command);
    let takes_scoreboard = match adapter.making {
        Making::Exec(exec) => config::plan(exec, &settings.command, command).ok()?.takes_scoreboard(),
        Making::Template(_) => true,
    };
    Some(if !takes_scoreboard {
        Counts::Never(adapter.conventions.name)
    } else if !settings.requests.show {
        Counts::Hidden
    } else if is_run_as_it_is(adapter, settings, command) {
        Counts::ByItself
    } else {
        Counts::Always
    })
}

/// Whether no template is made of it: it is no Python server, or is named like one and is no program of Python's.
fn is_run_as_it_is(adapter: &Adapter, settings: &Settings, command: &Command) -> bool {
    let Making::Template(server) = adapter.making else { return true };
    let by_script = |launcher| matches!(launcher, Launcher::Script(_)) && command.program.is_absolute();
    server.invocation(&settings.command).is_some_and(|invocation| by_script(invocation.launcher))
        && matches!(config::script(&command.program), Ok(Script::Other(_)))
}
