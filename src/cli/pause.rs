//! `sockd pause`: the workers finish their requests and leave, visitors wait in the queue, a command runs, and workers serve
//! again.
//!
//! Owns: the command and its signals. Never: leaves a pause behind when it is interrupted; the supervisor ends one that is
//! forgotten.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{self, SignalKind};
use tokio::task::spawn_blocking;

use super::instance::{Failure, answered, fail, find, in_event_loop, no_answer};
use super::resume::resume;
use super::whose::Whose;
use super::{complete, output};
use crate::config::duration;
use crate::control::message::LONGEST_PAUSE;
use crate::control::{self, Instance, Request};
use crate::exit;
use crate::systemd::UnitName;

/// The options of `pause`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sockd pause gunicorn --max 2min -- venv/bin/python manage.py migrate\n  \
                  sockd pause gunicorn; …; sockd resume gunicorn\n\n\
                  The workers finish the requests that they have and leave; nobody is turned away: connections wait\n\
                  in the queue of the socket. The command runs once the last worker has left, as the one who calls\n\
                  it and in this directory. When it has ended, well or not, workers start and serve who waits.\n\n\
                  --max begins with the request. If it is over before the last worker has left, nothing was paused\n\
                  and the command does not run; if it is over while the command runs, workers serve again and a\n\
                  warning says so. Proxies wait for a limited time, too: proxy_read_timeout of Nginx is 60 s.\n\
                  While half of the queue is full, or more, visitors get 503.\n\n\
                  A sockd reload meanwhile proves the new code by a canary, and it serves when workers start again:\n  \
                  sockd pause gunicorn -- sh -c './migrate && ln -sfn releases/8 current && sockd reload gunicorn'\n\n\
                  Exit codes:\n  0  paused; with a command: it ended well, and visitors are served\n  \
                  1  not paused, or no worker can start after it: why is on stderr\n  \
                  the command's own, or 128 and the number of the signal that ended it")]
pub struct Arguments {
    /// The unit, with or without ".service"; within a unit, that one
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    unit: Option<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// It ends by itself after this time, an hour at most
    #[arg(long, value_name = "TIME", value_parser = limit, default_value = "60s")]
    max: Duration,
    /// What runs meanwhile; without it, sockd resume ends the pause
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn limit(text: &str) -> Result<Duration, String> {
    match duration::parse_positive(text)? {
        time if time > LONGEST_PAUSE => Err("no pause lasts longer than an hour".to_owned()),
        time => Ok(time),
    }
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let unit = arguments.unit.as_ref().map(|unit| arguments.whose.unit(unit));
    match in_event_loop(pause(arguments, unit.as_ref())) {
        Ok(code) => code,
        Err(failure) => fail(&failure.message),
    }
}

async fn pause(arguments: &Arguments, unit: Option<&UnitName>) -> Result<ExitCode, Failure> {
    let instance = find("pause", unit).await.map_err(no_answer)?;
    let mut signals = Signals::new().map_err(|error| no_answer(format!("cannot wait for signals: {error}")))?;
    let max_ms = u64::try_from(arguments.max.as_millis()).unwrap_or(u64::MAX).max(1);
    let asked = control::follow(&instance, Request::Pause { max_ms }, |_| ());
    let message = tokio::select! {
        answer = asked => answered(answer, "pause", &instance)?,
        _ = signals.next() => {
            resume(&instance).await?;
            return Err(no_answer("interrupted: nothing is paused".to_owned()));
        }
    };
    if output::is_watched() || arguments.command.is_empty() {
        output::say(&format!("{message}\n"));
    }
    let Some((program, words)) = arguments.command.split_first() else {
        let unit = unit.map_or_else(String::new, |unit| format!(" {unit}"));
        output::say(&format!("sockd resume{unit} ends it\n"));
        return Ok(ExitCode::SUCCESS);
    };
    let ended = match Command::new(program).args(words).spawn() {
        Ok(child) => wait(child, &mut signals).await,
        Err(error) => Err(format!("cannot run {}: {error}", program.display())),
    };
    end(&instance, arguments.max).await?;
    match ended {
        Ok(status) => Ok(ExitCode::from(code(status))),
        Err(why) => Err(no_answer(why)),
    }
}

/// Ends the pause, or warns that it was over before.
async fn end(instance: &Instance, max: Duration) -> Result<(), Failure> {
    if control::status(instance).await.is_ok_and(|status| status.pause.is_none()) {
        output::complain(&format!(
            "the pause was over after {max:?}, before the command had ended: visitors were served meanwhile; a longer --max \
             would have kept them waiting"
        ));
        return Ok(());
    }
    let message = resume(instance).await?;
    if output::is_watched() {
        output::say(&format!("{message}\n"));
    }
    Ok(())
}

/// Waits for the command. What ends a command is passed on, except for what a terminal sends to both.
async fn wait(mut child: Child, signals: &mut Signals) -> Result<ExitStatus, String> {
    let pidfd = Pid::from_raw(child.id().cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let mut waiting = spawn_blocking(move || child.wait());
    loop {
        tokio::select! {
            ended = &mut waiting => {
                let ended = ended.map_err(|error| error.to_string())?;
                return ended.map_err(|error| format!("cannot wait for the command: {error}"));
            }
            signal = signals.next() => {
                if let (Some(pidfd), Some(signal)) = (&pidfd, signal) {
                    let _ = pidfd_send_signal(pidfd, signal);
                }
            }
        }
    }
}

/// As shells have it.
fn code(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map_or(i32::from(exit::FAILURE), |signal| 128 + signal);
    u8::try_from(status.code().unwrap_or_else(by_signal)).unwrap_or(exit::FAILURE)
}

/// The signals that would end this command, and leave a pause behind.
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one, as it is passed on. None: the terminal sends it to the command as well.
    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            _ = self.interrupt.recv() => None,
            _ = self.terminate.recv() => Some(Signal::TERM),
            _ = self.hangup.recv() => Some(Signal::HUP),
        }
    }
}
