//! Reading what a generation is made from: configuration, environment files, directory, program. All that is on a disk,
//! which may take as long as it likes (a network file system, FUSE), so a thread of its own reads it, and the event loop
//! waits for it no longer than [`READ_TIMEOUT`].
//!
//! Owns: the threads that read, bounded in number. Never: changes anything.

use super::generation::{Generation, Read};
use super::setup::Setup;
use crate::adapter::exec::LaunchPlan;
use crate::adapter::python::{self, Launcher, Python};
use crate::adapter::{self, Adapter, Making};
use crate::app::Command;
use crate::config::{self, Script, Settings};
use crate::control::Release;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::history;
use crate::process;
use crate::supervisor::GenerationId;
use rustix::io::Errno;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// The longest reading: shorter than the core waits for a preparation without a template.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// No more threads than this wait for a disk that does not answer.
const MAX_READERS: usize = 4;

/// The threads that read.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// Each holds it.
    alive: Arc<()>,
    /// The generations that are being read.
    wanted: BTreeSet<GenerationId>,
}

impl Readers {
    /// Has everything read for a generation: in the configured directory, or in that of a release that served before.
    pub(super) fn begin(
        &mut self,
        id: GenerationId,
        setup: &Arc<Setup>,
        rollback: Option<Release>,
    ) -> impl Future<Output = Read> + Send + use<> {
        self.wanted.insert(id);
        self.read(setup, rollback)
    }

    /// It was read, or is not wanted any more. Whether it was wanted until now.
    pub(super) fn end(&mut self, id: GenerationId) -> bool {
        self.wanted.remove(&id)
    }

    fn read(&self, setup: &Arc<Setup>, rollback: Option<Release>) -> impl Future<Output = Read> + Send + use<> {
        let reader = Arc::clone(&self.alive);
        let free = Arc::strong_count(&self.alive) <= MAX_READERS + 1;
        let setup = Arc::clone(setup);
        let began = Arc::new(AtomicBool::new(false));
        let has_thread = Arc::clone(&began);
        let reading = free.then(|| {
            tokio::task::spawn_blocking(move || {
                has_thread.store(true, Ordering::Relaxed);
                let read = read(&setup, rollback.as_ref());
                drop(reader);
                read
            })
        });
        async move {
            let what = "the configuration, the program or its directory cannot be read";
            let Some(reading) = reading else {
                return Read::failed(format!("{what}: the disk still does not answer"));
            };
            match timeout(READ_TIMEOUT, reading).await {
                Ok(Ok(read)) => read,
                Ok(Err(fault)) => Read::failed(format!("{what}: {fault}")),
                Err(_) if !began.load(Ordering::Relaxed) => {
                    Read::failed(format!("{what}: {}", process::explain(&Errno::AGAIN.into())))
                }
                Err(_) => {
                    let seconds = READ_TIMEOUT.as_secs();
                    Read::failed(format!("{what}: the disk has not answered for {seconds} s"))
                }
            }
        }
    }
}

fn read(setup: &Setup, rollback: Option<&Release>) -> Read {
    let mut read = Read::failed(String::new());
    if let Some(why) = rollback.and_then(unusable) {
        return Read::failed(why);
    }
    read.generation = read_generation(setup, rollback, &mut read.problems, &mut read.page, &mut read.template);
    if let Ok(generation) = &read.generation {
        let directory = config::release(&generation.settings, &generation.command);
        let commit = history::commit(&directory);
        read.release = Some(Release { directory: directory.to_string_lossy().into_owned(), commit });
    }
    if let (Some(wanted), Some(found)) = (rollback, &read.release)
        && wanted.directory != found.directory
    {
        read.generation = Err(format!(
            "{} would not be run: with this configuration the application is in {}",
            wanted.directory, found.directory
        ));
    }
    read
}

/// Why a release that served before cannot be gone back to.
fn unusable(release: &Release) -> Option<String> {
    let Release { directory, commit } = release;
    let path = Path::new(directory);
    if let Err(error) = path.read_dir() {
        return Some(format!(
            "the release {directory} cannot be gone back to: {error}; bring it back there, or lead the configured \
             directory to a release that is there and run `sockd reload`"
        ));
    }
    let served = commit.as_ref()?;
    match history::commit(path) {
        Some(found) if found != *served => Some(format!(
            "the release {directory} cannot be gone back to: it holds the commit {found}, and what served from it was \
             {served}; bring that commit back there, or run `sockd reload` for what is there"
        )),
        Some(_) | None => None,
    }
}

fn read_generation(
    setup: &Setup,
    rollback: Option<&Release>,
    problems: &mut Vec<String>,
    page: &mut Option<Option<PathBuf>>,
    template: &mut Option<(Command, &'static Python)>,
) -> Result<Generation, String> {
    let mut keep = |found: Diagnostics| {
        problems.extend(found.lines());
        found.lines().next().unwrap_or_default()
    };
    let mut settings = config::load(None, &setup.options).map_err(&mut keep)?.settings;
    let (mut environment, mut directory) = (Cow::Borrowed(&setup.environment), Cow::Borrowed(&*setup.directory));
    if let Some(release) = rollback {
        config::lead_to(Path::new(&release.directory), &mut settings, environment.to_mut(), directory.to_mut());
    }
    *page = Some(settings.fallback.page.clone());
    let mut command = config::resolve(&settings, &environment, &directory).map_err(&mut keep)?;
    let mut warnings = Vec::new();
    let adapter = runnable(adapter::recognise(&settings.command), &settings, &mut command, &mut warnings)?;
    let several = adapter::is_unknown(adapter) && settings.workers.count.is_some_and(|count| count > 1);
    let hidden = adapter::hidden_server(&settings.command).filter(|_| several);
    warnings.extend(hidden.map(adapter::hidden_server_note));
    let health_command = config::resolve_health_command(&settings, &command).map_err(|problem| problem.message)?;
    // A start and the reload itself do without them.
    let checks: Result<_, Diagnostic> = config::resolve_checks(&settings, &command).into_iter().collect();
    let checks = checks.map_err(|problem| problem.message);
    warnings.extend(checks.as_ref().err().map(|why| format!("{why}: no reload will be accepted")));
    let after = config::resolve_after(&settings, &command).unwrap_or_else(|problem| {
        warnings.push(format!("{}, ignoring", problem.message));
        None
    });
    let mut generation = Generation {
        settings,
        adapter,
        command,
        plan: LaunchPlan::default(),
        spec: None,
        silent_when_busy: false,
        speaks_tls: false,
        speaks_uwsgi: false,
        health_command,
        checks,
        after,
        template: None,
    };
    match adapter.making {
        Making::Exec(exec) => {
            generation.plan = config::plan(exec, &generation.settings.command, &generation.command)?;
            generation.plan.warnings.splice(0..0, warnings);
            generation.silent_when_busy = generation.plan.silent_when_busy;
        }
        Making::Template(python) => {
            generation.plan.warnings = warnings;
            *template = Some((template_command(&generation, python)?, python));
        }
    }
    Ok(generation)
}

/// The adapter that can run the command: no template where the program is named like its server and is no Python. A
/// version manager's shim is looked through.
fn runnable(
    adapter: &'static Adapter,
    settings: &Settings,
    command: &mut Command,
    warnings: &mut Vec<String>,
) -> Result<&'static Adapter, String> {
    let Making::Template(python) = adapter.making else { return Ok(adapter) };
    let launcher = python.invocation(&settings.command).map(|invocation| invocation.launcher);
    if !matches!(launcher, Some(Launcher::Script(_))) || !command.program.is_absolute() {
        return Ok(adapter);
    }
    match config::script(&command.program)? {
        Script::Python(..) => {}
        Script::Shim(manager) => {
            command.launcher.extend(manager);
            command.program = command.program.file_name().unwrap_or_default().into();
        }
        Script::Other(why) => {
            warnings.push(format!("{why}: it is run as it is, once for each worker; {}", adapter::WRITE_THE_SERVER));
            return Ok(&adapter::generic::ADAPTER);
        }
    }
    Ok(adapter)
}

/// The command that boots the template of this generation: its interpreter, our program, the server's arguments.
fn template_command(generation: &Generation, python: &Python) -> Result<Command, String> {
    let command = &generation.command;
    let Some(invocation) = python.invocation(&generation.settings.command) else {
        return Err(format!("this is not {}", python.script));
    };
    let (program, options, how) = match invocation.launcher {
        // Its launcher finds the server's Python, and the server in it.
        Launcher::Script(_) if !command.program.is_absolute() => ("python".into(), Vec::new(), "module"),
        Launcher::Script(_) => match config::script(&command.program)? {
            Script::Python(interpreter, options) => (interpreter, options, "script"),
            Script::Shim(_) => return Err(format!("{} is no console script", command.program.display())),
            Script::Other(why) => return Err(why),
        },
        Launcher::Python(_, options) => (command.program.clone(), options, "module"),
    };
    let program = if command.program.is_absolute() {
        config::find_program(program.as_os_str(), &command.directory, &command.environment)
            .map_err(|problem| format!("{} needs a Python: {}", command.program.display(), problem.message))?
    } else {
        program
    };
    let mut line: Vec<OsString> = vec![program.clone().into()];
    line.extend(options);
    let loading = match generation.settings.workers.preload {
        Some(true) => "preload",
        Some(false) => "late",
        None => "own",
    };
    line.extend([python::BOOTSTRAP_PATH.into(), how.into(), loading.into(), command.program.clone().into()]);
    line.extend(invocation.arguments.iter().cloned());
    Ok(Command { program, arguments: line, ..command.clone() })
}
