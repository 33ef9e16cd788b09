//! `sockd top`: instances and workers live, with keys that act on them.
//!
//! Owns: the options, and the loop from looks, keys and outcomes to the screen. A thread of its own looks, as `sockd status`
//! does, so that no instance keeps a key waiting.
//! Never: changes anything by itself, or leaves the terminal in another state than it was in.
//!
//! ```text
//!   the terminal -- keys.rs --> steering.rs --> model.rs --> screen/ --> the terminal
//!   status/collect.rs, each second ------------>   ^  |
//!   actions.rs: what came of it --------------> ---+  +--> a command: actions.rs
//! ```

mod actions;
pub mod keys;
pub mod model;
pub mod screen;
mod steering;
mod terminal;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCandidates;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::status::Collector;
use super::status::report::StatusReport;
use super::whose::Whose;
use super::{complete, output};
use crate::exit;
use crate::systemd::{Manager, UnitName};
use model::{Command, Model, Said, Target};
use steering::KEYS;
use terminal::Terminal;

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// A supervisor that does not answer for so long is shown without its numbers, and holds up the others for no longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// What systemd says of the units is believed for so long: to ask for it is most of what a look costs.
const SYSTEMD_PERIOD: Duration = Duration::from_secs(5);
/// Lines of progress that wait to be shown.
const MAX_STEPS: usize = 64;

/// The options of `top`.
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub struct Arguments {
    /// The units to show, with or without ".service"; all of sockd's when none is named
    #[arg(value_name = "UNIT", add = ArgValueCandidates::new(complete::units))]
    units: Vec<UnitName>,
    #[command(flatten)]
    pub(super) whose: Whose,
}

fn after_help() -> String {
    let keys: String = KEYS.iter().map(|(keys, what)| format!("  {keys:12}  {what}\n")).collect();
    format!(
        "Examples:\n  sockd top               all of sockd's instances\n  sockd top gunicorn\n\nKeys:\n{keys}\n\
         For programs there is `sockd status --json`."
    )
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let units = arguments.units.iter().map(|unit| arguments.whose.unit(unit)).collect();
    match watch(units, arguments.whose.managers()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&why);
            ExitCode::from(exit::FAILURE)
        }
    }
}

fn watch(units: Vec<UnitName>, managers: &'static [Manager]) -> Result<(), String> {
    if output::width().is_none() || !rustix::termios::isatty(io::stdin()) {
        return Err(
            "top wants a terminal, for its keys too; without one there is sockd status, for programs with --json"
                .to_owned(),
        );
    }
    if std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb") {
        return Err(
            "this terminal cannot move its cursor (TERM says so); sockd status needs no more than lines".to_owned()
        );
    }
    let cannot = |error: io::Error| format!("cannot set up: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let (sender, looks) = mpsc::channel(1);
    let looker = std::thread::Builder::new().name("looks".to_owned());
    looker.spawn(move || look(&units, managers, &sender)).map_err(cannot)?;
    runtime.block_on(async {
        // From here on no signal ends the program before the terminal is put back.
        let signals = Signals::new().map_err(cannot)?;
        let keys = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(cannot)?);
        let terminal = Terminal::open(output::screen_file().map_err(cannot)?, keys).map_err(cannot)?;
        Top::new(terminal, looks, signals).run().await
    })
}

/// What was seen, and when.
type Look = (Instant, StatusReport);

/// Looks each second, until nobody wants to know any more. While a look is not taken, none is made.
fn look(units: &[UnitName], managers: &[Manager], looks: &mpsc::Sender<Look>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let mut collector = Collector::new(units, managers).looking_often(ANSWER_LIMIT, SYSTEMD_PERIOD);
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok(place) = looks.reserve().await else { return };
            let report = collector.report().await;
            place.send((Instant::now(), report));
        }
    });
}

/// The loop, and what it goes through.
struct Top {
    terminal: Terminal,
    model: Model,
    began: Instant,
    looks: mpsc::Receiver<Look>,
    /// What was begun and has not ended.
    actions: JoinSet<Done>,
    /// The worker whose last lines are being asked for.
    asks: Option<u64>,
    steps: (mpsc::Sender<String>, mpsc::Receiver<String>),
    signals: Signals,
}

/// What came of an action.
enum Done {
    Said(Said),
    Stacks(Target, u64, Result<Vec<String>, String>),
    LastLines(Target, u64, Vec<String>),
}

/// The signals that are heeded.
struct Signals {
    /// The window has another size.
    resized: Signal,
    interrupted: Signal,
    terminated: Signal,
    /// The terminal was closed.
    hung_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            resized: signal(SignalKind::window_change())?,
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
            hung_up: signal(SignalKind::hangup())?,
        })
    }
}

impl Top {
    fn new(terminal: Terminal, looks: mpsc::Receiver<Look>, signals: Signals) -> Self {
        Self {
            terminal,
            model: Model::default(),
            began: Instant::now(),
            looks,
            actions: JoinSet::new(),
            asks: None,
            steps: mpsc::channel(MAX_STEPS),
            signals,
        }
    }

    async fn run(mut self) -> Result<(), String> {
        let colour = output::colour_wanted();
        loop {
            // A terminal that was closed is no error, and nobody would read of it.
            if self.terminal.show(|picture| screen::draw(picture, &self.model, colour)).is_err() {
                return Ok(());
            }
            tokio::select! {
                keys = self.terminal.keys() => {
                    let Ok(keys) = keys else { return Ok(()) };
                    for key in keys {
                        match self.model.press(key) {
                            None => self.ask_for_last_lines(),
                            Some(Command::Quit) => return Ok(()),
                            Some(command) => self.obey(command).await?,
                        }
                    }
                }
                look = self.looks.recv() => {
                    let (at, report) = look.ok_or("the looks at the instances have ended")?;
                    self.model.take(report, at.duration_since(self.began));
                    self.ask_for_last_lines();
                }
                Some(done) = self.actions.join_next() => {
                    match done.map_err(|error| format!("an action has failed: {error}"))? {
                        Done::Said(said) => {
                            // No step of before takes the place of the outcome.
                            while self.steps.1.try_recv().is_ok() {}
                            self.model.said = Some(said);
                        }
                        Done::Stacks(target, worker, stacks) => self.model.keep_stacks(&target, worker, stacks),
                        Done::LastLines(target, worker, lines) => {
                            self.asks = None;
                            self.model.keep_last_lines(&target, worker, lines);
                        }
                    }
                }
                Some(step) = self.steps.1.recv() => self.model.say(vec![step], false),
                _ = self.signals.resized.recv() => {}
                _ = self.signals.interrupted.recv() => return Ok(()),
                _ = self.signals.terminated.recv() => return Ok(()),
                _ = self.signals.hung_up.recv() => return Ok(()),
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Quit => {}
            Command::Reload(target) => {
                let steps = self.steps.0.clone();
                let name = target.name.clone();
                self.model.say(vec![format!("{name}: the reload begins")], false);
                self.actions.spawn(async move {
                    // A step that there is no room for is overtaken by the next.
                    let step = |step: &str| drop(steps.try_send(format!("{name}: {step}")));
                    Done::Said(actions::reload(target, step).await)
                });
            }
            Command::Replace(target, worker) => {
                self.actions.spawn(async move { Done::Said(actions::replace(target, worker).await) });
            }
            Command::Stacks(target, worker) => {
                self.actions.spawn(async move {
                    let stacks = actions::stacks(&target, worker).await;
                    Done::Stacks(target, worker, stacks)
                });
            }
            Command::Journal { unit, user, worker } => self.show_journal(unit, user, worker).await?,
        }
        Ok(())
    }

    /// Asks what the chosen worker wrote last: at each look, and where another one was chosen. Not twice at a time.
    fn ask_for_last_lines(&mut self) {
        let (Some(worker), Ok(target)) = (self.model.worker().map(|worker| worker.id), self.model.target()) else {
            return;
        };
        if self.asks.replace(worker) != Some(worker) {
            self.actions.spawn(async move {
                let lines = actions::last_lines(&target, worker).await;
                Done::LastLines(target, worker, lines)
            });
        }
    }

    /// Lends the terminal to the journal. Ctrl-C is for that alone.
    async fn show_journal(&mut self, unit: String, user: bool, worker: Option<u64>) -> Result<(), String> {
        let interrupted = &mut self.signals.interrupted;
        let shown = self.terminal.lend(async {
            let journal = actions::journal(unit, user, worker);
            tokio::pin!(journal);
            loop {
                tokio::select! {
                    biased;
                    _ = interrupted.recv() => {}
                    shown = &mut journal => return shown,
                }
            }
        });
        let Ok(shown) = shown.await else { return Ok(()) };
        if let Err(why) = shown {
            self.model.say(vec![why], true);
        }
        Ok(())
    }
}
