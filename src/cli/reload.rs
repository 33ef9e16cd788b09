//! `sockd reload`: reloads a unit and waits for the outcome.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::output;
use crate::control::{self, Instance};
use crate::exit;
use crate::systemd::{UnitName, environment};

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
        let steps = io::stderr().is_terminal();
        let step = |step: &str| {
            if steps {
                let _ = writeln!(io::stderr(), "{step}");
            }
        };
        match control::reload(&instance, !arguments.no_wait, step).await {
            Ok(outcome) if outcome.ok => {
                let _ = output::print(&format!("{}\n", outcome.message));
                ExitCode::SUCCESS
            }
            Ok(outcome) => {
                let mut stderr = io::stderr().lock();
                for line in &outcome.details {
                    let _ = writeln!(stderr, "{line}");
                }
                drop(stderr);
                fail(&outcome.message)
            }
            Err(error) => fail(&format!("{error}; is the unit running? sockd status tells")),
        }
    })
}

fn fail(message: &str) -> ExitCode {
    output::complain(message);
    ExitCode::from(exit::FAILURE)
}

/// The instance of the unit that is named, or of the one that we run in ourselves (as ExecReload=), or the only one.
async fn find(unit: Option<&UnitName>) -> Result<Instance, String> {
    let unit = unit.map(UnitName::to_string).or_else(environment::unit);
    let mut instances = control::discover().await.map_err(|error| format!("cannot look for instances: {error}"))?;
    let Some(unit) = unit else {
        return match instances.len() {
            1 => Ok(instances.remove(0)),
            0 => Err("no instance of sockd runs here".to_owned()),
            _ => Err("several instances run: name the unit, as in `sockd reload gunicorn`".to_owned()),
        };
    };
    let found = instances.into_iter().find(|instance| environment::unit_of_pid(instance.pid).as_ref() == Some(&unit));
    found.ok_or_else(|| format!("no instance of sockd runs as {unit}: `sockd status` shows what there is"))
}
