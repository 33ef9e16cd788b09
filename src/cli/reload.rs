//! `sockd reload`: reloads a unit and waits for the outcome.

use std::process::ExitCode;

use clap::Args;

use super::{next_step, output, status};
use crate::control::{self, Instance};
use crate::exit;
use crate::systemd::{UnitName, environment, show};

/// The options of `reload`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sockd reload gunicorn\n\nIn a unit file, where it finds its unit by itself:\n  ExecReload=/usr/bin/sockd reload"
)]
pub struct Arguments {
    /// The unit, with or without ".service"; within a unit, that one
    #[arg(value_name = "UNIT")]
    unit: Option<UnitName>,
    /// Return as soon as the reload has begun
    #[arg(long)]
    no_wait: bool,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot make an event loop: {error}")),
    };
    runtime.block_on(async {
        let instance = match find(arguments.unit.as_ref()).await {
            Ok(instance) => instance,
            Err(message) => return fail(&message),
        };
        // A journal need not hold each step: the supervisor writes its own.
        let steps = output::is_watched();
        let step = |step: &str| {
            if steps {
                output::say(&format!("{step}\n"));
            }
        };
        match control::reload(&instance, !arguments.no_wait, step).await {
            Ok(outcome) if outcome.ok => {
                let _ = output::print(&format!("{}\n", outcome.message));
                ExitCode::SUCCESS
            }
            Ok(outcome) => {
                outcome.details.iter().for_each(|line| output::say(&format!("{line}\n")));
                fail(&outcome.message)
            }
            Err(error) if error.is_denial() => fail(&format!("cannot reload: {}", who_may(instance.uid))),
            Err(error) => fail(&format!("{error}; is the unit running? sockd status tells")),
        }
    })
}

/// Whom a supervisor that runs as this user answers.
fn who_may(uid: u32) -> String {
    match uid {
        0 => "only root may".to_owned(),
        uid => format!("only root and {} may", status::user_name(uid)),
    }
}

fn fail(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}

/// Who is asked: the main process of the unit that is named, or of the one that we run in ourselves, as the service
/// manager tells it; without a unit the only instance of our own user. Others that listen under a name like sockd's,
/// other users or workers, are never asked.
async fn find(unit: Option<&UnitName>) -> Result<Instance, String> {
    let (pid, what) = match unit {
        Some(unit) => (main_process(&unit.to_string())?, unit.to_string()),
        // ExecReload= (systemd.exec(5)).
        None => match std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok()) {
            Some(pid) => (pid, "this unit".to_owned()),
            None => match environment::unit() {
                Some(unit) => (main_process(&unit)?, unit),
                None => return only().await,
            },
        },
    };
    control::of_process(pid).await.map_err(|error| {
        format!("cannot ask the main process of {what}: {error}; does it run sockd, and without PrivateNetwork=?")
    })
}

/// The main process of a running unit: of the system's manager, or else of the user's own.
fn main_process(unit: &str) -> Result<u32, String> {
    let ask = |whose| {
        let properties = show::properties_of(whose, unit, "MainPID")?;
        Ok(show::first(&properties, "MainPID").parse().unwrap_or(0))
    };
    let managers: &[show::Manager] = match rustix::process::geteuid().is_root() {
        true => &[show::Manager::System],
        false => &[show::Manager::System, show::Manager::User],
    };
    let answers: Vec<Result<u32, String>> = managers.iter().map(|manager| ask(*manager)).collect();
    if let Some(pid) = answers.iter().flatten().find(|pid| **pid != 0) {
        return Ok(*pid);
    }
    let nobody = || format!("{unit} does not run; {}", next_step::of_running("reload"));
    Err(answers.into_iter().find_map(Result::err).unwrap_or_else(nobody))
}

/// The only instance that our own user runs.
async fn only() -> Result<Instance, String> {
    let mut instances = control::discover().await.map_err(|error| format!("cannot look for instances: {error}"))?;
    instances.retain(|instance| instance.uid == rustix::process::geteuid().as_raw());
    match instances.len() {
        1 => Ok(instances.remove(0)),
        0 => Err(format!("no instance of sockd is running as you: name the unit; {}", next_step::of_running("reload"))),
        _ => Err(format!("several instances are running: name the unit; {}", next_step::of_running("reload"))),
    }
}
