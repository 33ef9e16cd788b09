//! `sockd reload`: reloads a unit and waits for the outcome.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use super::whose::Whose;
use super::{complete, next_step, output, status};
use crate::config::duration;
use crate::config::share::{self, Share};
use crate::control::{self, AskError, Instance, Origin, Outcome, RefusalKind, Request, Trial};
use crate::exit;
use crate::systemd::{Manager, UnitName, environment, show};

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

/// Why the new code does not serve.
pub(super) struct Failure {
    /// Why, in one line.
    pub(super) message: String,
    /// More lines: the diagnostics of a configuration, the last lines of a traceback.
    pub(super) details: Vec<String>,
    /// Whether a stop of the unit could be why: the supervisor is stopping, or does not answer.
    by_a_stop: bool,
}

async fn reload(command: Command, unit: Option<&UnitName>, wait: bool) -> Result<(), Failure> {
    let instance = find(command, unit).await.map_err(no_answer)?;
    // A journal need not hold each step: the supervisor writes its own.
    let steps = output::is_watched();
    let step = |step: &str| {
        if steps {
            output::say(&format!("{step}\n"));
        }
    };
    let message = if let Command::Decide { promote } = command {
        answered(control::decide(&instance, promote).await, command, &instance)?
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
    answered(control::reload(instance, command.request(wait, exec_reload), step).await, command, instance)
}

/// What an answer means.
fn answered(answer: Result<Outcome, AskError>, command: Command, instance: &Instance) -> Result<String, Failure> {
    match answer {
        Ok(outcome) if outcome.ok => Ok(outcome.message),
        Ok(Outcome { message, details, stopping, .. }) => Err(Failure { message, details, by_a_stop: stopping }),
        Err(error) if error.is_denial() => {
            let message = format!("cannot {}: {}", command.verb(), who_may(instance.uid));
            Err(Failure { message, details: Vec::new(), by_a_stop: false })
        }
        Err(AskError::Refused(refusal))
            if matches!(refusal.kind, RefusalKind::BadRequest | RefusalKind::NotPossible) =>
        {
            let old = refusal.kind == RefusalKind::BadRequest;
            let hint =
                if old { "; a sockd that was started before its package was upgraded cannot do this" } else { "" };
            let message = format!("cannot {}: {}{hint}", command.verb(), refusal.message);
            Err(Failure { message, details: Vec::new(), by_a_stop: false })
        }
        Err(error) => Err(no_answer(format!("{error}; is the unit running? sockd status tells"))),
    }
}

/// A person at the terminal, or a script, ends the command.
async fn interrupted(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The failure that the unit's stop may be the reason of.
fn no_answer(message: String) -> Failure {
    Failure { message, details: Vec::new(), by_a_stop: true }
}

/// Whom a supervisor that runs as this user answers.
pub(super) fn who_may(uid: u32) -> String {
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
async fn find(command: Command, unit: Option<&UnitName>) -> Result<Instance, String> {
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

/// Whether this is the command of a unit's ExecReload=.
fn is_exec_reload(unit: Option<&UnitName>) -> bool {
    unit.is_none() && main_pid().is_some()
}

/// The main process of the unit whose ExecReload= this is (systemd.exec(5)).
fn main_pid() -> Option<u32> {
    std::env::var("MAINPID").ok()?.parse().ok()
}

/// The main process of a running unit of the first of these managers that has one.
fn main_process(command: Command, unit: &str, managers: &[Manager]) -> Result<u32, String> {
    let ask = |manager: &Manager| {
        let properties = show::properties(*manager, unit, "MainPID")?;
        Ok(show::first(&properties, "MainPID").parse().unwrap_or(0))
    };
    let answers: Vec<Result<u32, String>> = managers.iter().map(ask).collect();
    if let Some(pid) = answers.iter().flatten().find(|pid| **pid != 0) {
        return Ok(*pid);
    }
    let nobody = || format!("{unit} does not run; {}", next_step::of_stopped(command.name(), unit));
    Err(answers.into_iter().find_map(Result::err).unwrap_or_else(nobody))
}

/// The only instance that our own user runs.
async fn only(command: Command) -> Result<Instance, String> {
    let mut instances = control::discover().await.map_err(|error| format!("cannot look for instances: {error}"))?;
    instances.retain(|instance| instance.uid == rustix::process::geteuid().as_raw());
    match instances.len() {
        1 => Ok(instances.remove(0)),
        0 => Err(format!(
            "no instance of sockd is running as you: name the unit; {}",
            next_step::of_running(command.name())
        )),
        _ => Err(format!("several instances are running: name the unit; {}", next_step::of_running(command.name()))),
    }
}
