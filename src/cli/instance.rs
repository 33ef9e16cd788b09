//! Which supervisor a command asks, and what its answer means: what `reload`, `rollback`, `pause` and `resume` share.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{next_step, output, status};
use crate::control::{self, AskError, Instance, Outcome, RefusalKind};
use crate::exit;
use crate::systemd::{Manager, UnitName, environment, show};

/// Runs what asks a supervisor.
pub(super) fn in_event_loop<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(no_answer(format!("cannot make an event loop: {error}"))),
    }
}

/// Says what came of it.
pub(super) fn say(outcome: Result<String, Failure>) -> ExitCode {
    match outcome {
        Ok(message) => {
            let _ = output::print(&format!("{message}\n"));
            ExitCode::SUCCESS
        }
        Err(failure) => fail(&failure.message),
    }
}

/// Says why it was not done.
pub(super) fn fail(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}

/// Why it was not done.
pub(super) struct Failure {
    /// Why, in one line.
    pub(super) message: String,
    /// More lines: the diagnostics of a configuration, the last lines of a traceback.
    pub(super) details: Vec<String>,
    /// Whether a stop of the unit could be why: the supervisor is stopping, or does not answer.
    pub(super) by_a_stop: bool,
}

/// What an answer means.
pub(super) fn answered(answer: Result<Outcome, AskError>, verb: &str, instance: &Instance) -> Result<String, Failure> {
    match answer {
        Ok(outcome) if outcome.ok => Ok(outcome.message),
        Ok(Outcome { message, details, stopping, .. }) => Err(Failure { message, details, by_a_stop: stopping }),
        Err(error) if error.is_denial() => {
            let message = format!("cannot {}: {}", verb, who_may(instance.uid));
            Err(Failure { message, details: Vec::new(), by_a_stop: false })
        }
        Err(AskError::Refused(refusal))
            if matches!(refusal.kind, RefusalKind::BadRequest | RefusalKind::NotPossible) =>
        {
            let old = refusal.kind == RefusalKind::BadRequest;
            let hint =
                if old { "; a sockd that was started before its package was upgraded cannot do this" } else { "" };
            let message = format!("cannot {}: {}{hint}", verb, refusal.message);
            Err(Failure { message, details: Vec::new(), by_a_stop: false })
        }
        Err(error) => Err(no_answer(format!("{error}; is the unit running? sockd status tells"))),
    }
}

/// The failure that the unit's stop may be the reason of.
pub(super) fn no_answer(message: String) -> Failure {
    Failure { message, details: Vec::new(), by_a_stop: true }
}

/// Whom a supervisor that runs as this user answers.
pub(super) fn who_may(uid: u32) -> String {
    match uid {
        0 => "only root may".to_owned(),
        uid => format!("only root and {} may", status::user_name(uid)),
    }
}

/// Who is asked: the main process of the unit that is named, or of the one that we run in ourselves, as the service
/// manager tells it; without a unit the only instance of our own user. Others that listen under a name like sockd's,
/// other users or workers, are never asked.
pub(super) async fn find(command: &str, unit: Option<&UnitName>) -> Result<Instance, String> {
    let (pid, what) = match unit {
        Some(unit) => (main_process(command, unit.as_str(), &[unit.manager()])?, unit.to_string()),
        None => match main_pid() {
            Some(pid) => (pid, "this unit".to_owned()),
            None => match environment::unit() {
                Some(unit) => (main_process(command, &unit, Manager::all())?, unit),
                None => return only(command).await,
            },
        },
    };
    control::of_process(pid).await.map_err(|error| format!("cannot ask the main process of {what}: {error}"))
}

/// Where a unit keeps what outlives it: the first of its StateDirectory= below each place where its manager has them. Empty:
/// it has none.
pub(super) fn state_directories(manager: Manager, unit: &str) -> Result<Vec<PathBuf>, String> {
    let properties = show::properties(manager, unit, "StateDirectory")?;
    // Several stand beside each other, each perhaps with links to it behind a colon.
    let name = show::first(&properties, "StateDirectory").split([' ', ':']).next().unwrap_or_default();
    let below = if name.is_empty() { Vec::new() } else { manager.state_directories() };
    Ok(below.iter().map(|below| below.join(name)).collect())
}

/// Whether this is the command of a unit's ExecReload=.
pub(super) fn is_exec_reload(unit: Option<&UnitName>) -> bool {
    unit.is_none() && main_pid().is_some()
}

/// The main process of the unit whose ExecReload= this is (systemd.exec(5)).
fn main_pid() -> Option<u32> {
    std::env::var("MAINPID").ok()?.parse().ok()
}

/// The main process of a running unit of the first of these managers that has one.
fn main_process(command: &str, unit: &str, managers: &[Manager]) -> Result<u32, String> {
    let ask = |manager: &Manager| {
        let properties = show::properties(*manager, unit, "MainPID")?;
        Ok(show::first(&properties, "MainPID").parse().unwrap_or(0))
    };
    let answers: Vec<Result<u32, String>> = managers.iter().map(ask).collect();
    if let Some(pid) = answers.iter().flatten().find(|pid| **pid != 0) {
        return Ok(*pid);
    }
    let nobody = || format!("{unit} does not run; {}", next_step::of_stopped(command, unit));
    Err(answers.into_iter().find_map(Result::err).unwrap_or_else(nobody))
}

/// The only instance that our own user runs.
async fn only(command: &str) -> Result<Instance, String> {
    let mut instances = control::discover().await.map_err(|error| format!("cannot look for instances: {error}"))?;
    instances.retain(|instance| instance.uid == rustix::process::geteuid().as_raw());
    match instances.len() {
        1 => Ok(instances.remove(0)),
        0 => Err(format!("no instance of sockd is running as you: name the unit; {}", next_step::of_running(command))),
        _ => Err(format!("several instances are running: name the unit; {}", next_step::of_running(command))),
    }
}
