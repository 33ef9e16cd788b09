//! `sockd reload`: reloads a unit and waits for the outcome.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::instance::{self, Failure, answered, fail, is_exec_reload, no_answer};
use super::whose::Whose;
use super::{complete, output};
use crate::config::duration;
use crate::config::share::{self, Share};
use crate::control::{self, Instance, Origin, Request, Trial};
use crate::systemd::UnitName;

/// The options of `reload`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sockd reload gunicorn\n  sockd reload --canary 1 --for 5min --requests 500 gunicorn\n\nIn a unit file, where it finds its unit by itself:\n  ExecReload=/usr/bin/sockd reload"
)]
pub struct Arguments {
    /// The unit, with or without ".service"; within a unit, that one
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Return as soon as the reload has begun
    #[arg(long)]
    no_wait: bool,
    /// Have visitors try the new code on so many workers first: 3, or "25%"
    #[arg(long, value_name = "WORKERS", value_parser = share::parse)]
    canary: Option<Share>,
    /// How long they try it at most [default: canary-time]
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse_positive, requires = "canary")]
    time: Option<Duration>,
    /// So many requests decide [default: canary-requests]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), requires = "canary")]
    requests: Option<u32>,
    /// End the trial well: the new code that visitors try takes every slot
    #[arg(long, conflicts_with_all = ["canary", "no_wait", "abort"])]
    promote: bool,
    /// Call off the reload that is under way: the old workers serve on
    #[arg(long, conflicts_with_all = ["canary", "no_wait"])]
    abort: bool,
}

impl Arguments {
    /// How visitors shall try the new code. None: as the configuration says.
    fn trial(&self) -> Option<Trial> {
        let (workers, percent) = match self.canary? {
            Share::Workers(count) => (Some(count), None),
            Share::Percent(percent) => (None, Some(percent)),
        };
        let time_ms = self.time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
        Some(Trial { workers, percent, requests: self.requests, time_ms })
    }
}

/// The end of a supervisor is taken for a stop of its unit if systemd ends this command, too, within this time; it sends both
/// signals in one go.
const CALL_OFF_LIMIT: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    /// A reload of what is configured, which visitors try first like this.
    Reload(Option<Trial>),
    /// A reload of the release that served before.
    Rollback,
    /// The end of what is under way.
    Decide {
        /// Whether the new code takes every slot, or is called off.
        promote: bool,
    },
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Reload(_) | Self::Decide { .. } => "reload",
            Self::Rollback => "rollback",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Reload(_) | Self::Decide { .. } => "reload",
            Self::Rollback => "roll back",
        }
    }

    fn request(self, wait: bool, exec_reload: bool) -> Request {
        let origin = Origin { login_uid: login_uid(), exec_reload };
        match self {
            Self::Reload(None) => Request::Reload { wait, origin },
            Self::Reload(Some(trial)) => Request::Trial { wait, origin, trial },
            Self::Rollback => Request::Rollback { wait, origin },
            Self::Decide { promote: true } => Request::Promote,
            Self::Decide { promote: false } => Request::Abort,
        }
    }
}

/// The user who had logged in before this process became root's, as the kernel keeps it: no environment says it.
fn login_uid() -> Option<u32> {
    const NOBODY: u32 = u32::MAX;
    std::fs::read_to_string("/proc/self/loginuid").ok()?.trim().parse().ok().filter(|uid| *uid != NOBODY)
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let unit = arguments.unit.as_ref().map(|unit| arguments.whose.unit(unit));
    let command = match arguments.promote || arguments.abort {
        true => Command::Decide { promote: arguments.promote },
        false => Command::Reload(arguments.trial()),
    };
    run_command(command, unit.as_ref(), !arguments.no_wait)
}

/// Asks for it, waits for the outcome and says it.
pub(super) fn run_command(command: Command, unit: Option<&UnitName>, wait: bool) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot make an event loop: {error}")),
    };
    runtime.block_on(async {
        let mut stop = Stop::of(unit);
        let failure = tokio::select! {
            biased;
            () = stop.called() => return ExitCode::SUCCESS,
            outcome = reload(command, unit, wait) => match outcome {
                Ok(()) => return ExitCode::SUCCESS,
                Err(failure) => failure,
            },
        };
        // What the supervisor says of its stop may overtake the signal.
        if failure.by_a_stop && stop.is_awaited() && timeout(CALL_OFF_LIMIT, stop.called()).await.is_ok() {
            return ExitCode::SUCCESS;
        }
        failure.details.iter().for_each(|line| output::say(&format!("{line}\n")));
        fail(&failure.message)
    })
}

/// systemd's end of this command, which it runs for ExecReload=, because the unit is stopped. A command that ends by the
/// signal, or fails, would leave the unit "failed" though its stop is clean (systemd 252 to 257). A reload that takes too long
/// has failed for systemd whatever its command's exit status.
struct Stop(Option<Signal>);

impl Stop {
    fn of(unit: Option<&UnitName>) -> Self {
        Self(is_exec_reload(unit).then(|| signal(SignalKind::terminate()).ok()).flatten())
    }

    fn is_awaited(&self) -> bool {
        self.0.is_some()
    }

    async fn called(&mut self) {
        match &mut self.0 {
            Some(terminate) => drop(terminate.recv().await),
            None => std::future::pending().await,
        }
    }
}

async fn reload(command: Command, unit: Option<&UnitName>, wait: bool) -> Result<(), Failure> {
    let instance = instance::find(command.name(), unit).await.map_err(no_answer)?;
    // A journal need not hold each step: the supervisor writes its own.
    let steps = output::is_watched();
    let step = |step: &str| {
        if steps {
            output::say(&format!("{step}\n"));
        }
    };
    let message = if let Command::Decide { promote } = command {
        answered(control::decide(&instance, promote).await, command.verb(), &instance)?
    } else {
        let trial = if let Command::Reload(trial) = command { trial } else { None };
        let mut interrupt = trial.and_then(|_| signal(SignalKind::interrupt()).ok());
        let mut called_off = false;
        let mut asked = std::pin::pin!(ask(&instance, command, wait, is_exec_reload(unit), step));
        loop {
            tokio::select! {
                message = &mut asked => break message?,
                () = interrupted(&mut interrupt) => {
                    if std::mem::replace(&mut called_off, true) {
                        return Err(no_answer("interrupted again: what comes of the reload is in the journal".to_owned()));
                    }
                    // Its answer is what the reload ends with.
                    output::complain("interrupted: calling the reload off");
                    drop(control::decide(&instance, false).await);
                }
            }
        }
    };
    let until = match command {
        Command::Rollback if wait => ", until the next reload or restart: those run the configured directory",
        Command::Rollback | Command::Reload(_) | Command::Decide { .. } => "",
    };
    let _ = output::print(&format!("{message}{until}\n"));
    Ok(())
}

/// Asks a supervisor to reload, and calls `step` for each line of progress; what came of it, in one line.
pub(super) async fn ask(
    instance: &Instance,
    command: Command,
    wait: bool,
    exec_reload: bool,
    step: impl FnMut(&str),
) -> Result<String, Failure> {
    answered(control::follow(instance, command.request(wait, exec_reload), step).await, command.verb(), instance)
}

/// A person at the terminal, or a script, ends the command.
async fn interrupted(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
