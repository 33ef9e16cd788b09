//! The command line: one file for each subcommand, this one for what they share.
//!
//! Owns: the definition of the command line and the way a program ends.
//! Never: does the work of a subcommand: those call the daemon, the configuration, the drivers.
//!
//! Each file has `pub struct Arguments` (clap) and `pub fn run(&Arguments) -> ExitCode`.
#![forbid(unsafe_code)]

pub mod adopt;
mod atomic_files;
mod check;
pub mod complete;
mod demo;
mod demo_worker;
pub mod doctor;
mod drain;
pub mod explain;
mod fallback;
mod file_text;
pub mod history;
mod instance;
mod logs;
mod maintenance;
mod metrics;
mod new;
mod next_step;
mod output;
mod overview;
mod pause;
mod ready;
mod reload;
mod resume;
mod rollback;
mod run;
pub mod status;
pub mod top;
mod whose;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{config, exit};

use whose::Whose;

pub use output::{colour_wanted, complain, print, width};

/// The systemd-native way to run an application server.
///
/// systemd owns the socket, the user, the sandbox and the journal; sockd owns the workers: each is proven before it
/// serves, watched while it serves and replaced before it is missed.
#[derive(Debug, Parser)]
#[command(
    name = "sockd",
    version,
    propagate_version = true,
    after_help = "In a unit file:\n  ExecStart=/usr/bin/sockd run -- venv/bin/gunicorn --workers 3 myproject.wsgi:application\n\n\
                  Without set-up:\n  sockd demo\n\nWhat there is on this machine:\n  sockd"
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an application server: what ExecStart= names
    Run(run::Arguments),
    /// See it work without systemd, Python or set-up
    Demo(demo::Arguments),
    /// Show every instance: unit, sockets, workers
    Status(status::Arguments),
    /// Watch instances and workers live, reload them, end a worker
    Top(top::Arguments),
    /// Check a configuration or a unit and show every problem at once
    Check(check::Arguments),
    /// Find the broken link between browser and application, and the command that fixes it
    Doctor(doctor::Arguments),
    /// Say what was wrong at a time, and what most likely caused it
    Explain(explain::Arguments),
    /// Reload a unit and wait for the outcome
    Reload(reload::Arguments),
    /// Reload a unit back to the release that served before
    Rollback(rollback::Arguments),
    /// Let visitors wait in the queue while a command runs that needs the application to stand still
    Pause(pause::Arguments),
    /// End a pause
    Resume(resume::Arguments),
    /// Have visitors get a page and no worker serve, until it is ended
    Maintenance(maintenance::Arguments),
    /// Have balancers send no visitors any more, and wait until none is left
    Drain(drain::Arguments),
    /// End a drain
    Ready(ready::Arguments),
    /// Show every reload and start: when, who, which release, how it ended
    History(history::Arguments),
    /// Show what the journal holds of a unit or a worker
    Logs(logs::Arguments),
    /// Write the metrics of every instance, for Prometheus
    Metrics(metrics::Arguments),
    /// Turn a service that runs its server itself into one that sockd runs
    Adopt(adopt::Arguments),
    /// Write configuration, service and Nginx site of a new application
    New(new::Arguments),
    /// Answer 503 on inherited sockets: started by sockd itself
    #[command(hide = true)]
    Fallback(fallback::Arguments),
    /// The application of `demo`
    #[command(hide = true)]
    DemoWorker(demo_worker::Arguments),
}

impl Command {
    /// Whose unit is meant, where one is.
    fn whose(&self) -> Option<Whose> {
        match self {
            Self::Status(status::Arguments { whose, .. })
            | Self::Top(top::Arguments { whose, .. })
            | Self::Check(check::Arguments { whose, .. })
            | Self::Doctor(doctor::Arguments { whose, .. })
            | Self::Explain(explain::Arguments { whose, .. })
            | Self::Reload(reload::Arguments { whose, .. })
            | Self::Rollback(rollback::Arguments { whose, .. })
            | Self::Pause(pause::Arguments { whose, .. })
            | Self::Resume(resume::Arguments { whose, .. })
            | Self::Maintenance(maintenance::Arguments { whose, .. })
            | Self::Drain(drain::Arguments { whose, .. })
            | Self::Ready(ready::Arguments { whose, .. })
            | Self::History(history::Arguments { whose, .. })
            | Self::Logs(logs::Arguments { whose, .. })
            | Self::Metrics(metrics::Arguments { whose, .. })
            | Self::Adopt(adopt::Arguments { whose, .. }) => Some(*whose),
            Self::Run(_) | Self::Demo(_) | Self::New(_) | Self::Fallback(_) | Self::DemoWorker(_) => None,
        }
    }
}

/// Parses the command line and runs what it names.
pub fn main() -> ExitCode {
    complete::answer_a_shell(command);
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return not_understood(&error),
    };
    let Some(command) = line.command else { return overview::run() };
    if let Err(why) = command.whose().unwrap_or_default().check() {
        complain(&why);
        return ExitCode::from(exit::USAGE);
    }
    match command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Rollback(arguments) => rollback::run(&arguments),
        Command::Pause(arguments) => pause::run(&arguments),
        Command::Resume(arguments) => resume::run(&arguments),
        Command::Maintenance(arguments) => maintenance::run(&arguments),
        Command::Drain(arguments) => drain::run(&arguments),
        Command::Ready(arguments) => ready::run(&arguments),
        Command::History(arguments) => history::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Adopt(arguments) => adopt::run(&arguments),
        Command::New(arguments) => new::run(&arguments),
        Command::Fallback(arguments) => fallback::run(&arguments),
        Command::DemoWorker(arguments) => demo_worker::run(&arguments),
    }
}

/// What clap says of a command line, or the one that was meant. Its exit codes are clap's: 0 for --help and --version.
fn not_understood(error: &clap::Error) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let of_run = words.split_first().filter(|(command, _)| *command == "run");
    match of_run.and_then(|(_, words)| config::with_dashes(words, error)) {
        Some(right) => complain(&format!("the server's command stands behind --: write\n  {right}")),
        None => output::explain(error),
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE))
}

/// The definition of the whole command line: for manual pages, completions and tests.
pub fn command() -> clap::Command {
    CommandLine::command()
}
