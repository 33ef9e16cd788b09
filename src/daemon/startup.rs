//! Startup: from what systemd and the command line give to a running event loop.

use super::bind::{bind_addresses, bind_all};
use super::event_loop::EventLoop;
use super::setup::Setup;
use crate::adapter::gunicorn::{self, GunicornArgs};
use crate::adapter::{self, Making};
use crate::app::{Address, text};
use crate::config::{self, Options, Settings};
use crate::diagnostic::Diagnostics;
use crate::journal::{self, Sink, message_id};
use crate::listener::{self, Listener};
use crate::supervisor::Start;
use crate::{exit, process, systemd};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use tokio::runtime::{self, Runtime};

/// Runs an instance until it is asked to stop. Call it before any thread exists.
pub fn run(options: Options, greeting: Option<String>, log_format: journal::Format) -> ExitCode {
    let held = process::hold_signals(systemd::environment::watchdog_period().is_some());
    let code = set_up_and_serve(options, greeting, log_format, held);
    journal::finish();
    code
}

fn set_up_and_serve(
    options: Options,
    greeting: Option<String>,
    log_format: journal::Format,
    held: io::Result<()>,
) -> ExitCode {
    let inherited = listener::inherit();
    let unit = systemd::environment::unit();
    let sink = journal::init(&[("SOCKD_UNIT", unit.clone().unwrap_or_default())], log_format);
    if let Err(error) = held {
        tracing::error!("cannot hold back signals: {error}");
        return ExitCode::from(exit::FAILURE);
    }
    if !Path::new("/proc/self/fd").exists() {
        tracing::error!(
            "/proc is not mounted here: neither Python servers nor the helper that answers 503 can be started without it; \
             `mount -t proc proc /proc` brings it"
        );
    }
    let listeners = match inherited {
        Ok(listeners) => listeners,
        Err(error) => {
            tracing::error!(MESSAGE_ID = message_id::CONFIGURATION_REFUSED, "{error}");
            return ExitCode::from(exit::FAILURE);
        }
    };
    let directory = match std::env::current_dir() {
        Ok(directory) => directory,
        Err(error) => {
            tracing::error!("cannot find out the working directory: {error}; WorkingDirectory= must exist");
            return ExitCode::from(exit::FAILURE);
        }
    };
    let setup = Setup {
        options,
        environment: std::env::vars_os().collect(),
        directory,
        unit,
        activated: !listeners.is_empty(),
        greeting,
    };
    match prepare_listeners(&setup, listeners, sink) {
        Ok(first) => serve(setup, first),
        Err(code) => code,
    }
}

/// What the configuration says that counts before a generation is made of it.
struct First {
    listeners: Vec<Listener>,
    start: Start,
    /// Where the status socket is to be.
    status: Option<Address>,
}

/// Reads the configuration for the first time: binds what is to be bound, and says when to start.
///
/// A broken configuration ends the program only when there is no inherited socket to answer on: otherwise visitors get
/// 503, and the configuration is read again.
fn prepare_listeners(setup: &Setup, mut listeners: Vec<Listener>, sink: Sink) -> Result<First, ExitCode> {
    let settings = match config::load(None, &setup.options) {
        Ok(loaded) => {
            loaded.warnings.lines().for_each(|line| tracing::warn!("{line}"));
            loaded.settings
        }
        Err(_) if setup.activated => return Ok(First { listeners, start: Start::OnConnection, status: None }),
        Err(problems) => {
            report(&problems, sink);
            return Err(ExitCode::from(exit::CONFIG));
        }
    };
    if listeners.is_empty() {
        listeners = bind(setup, &settings).map_err(|message| {
            tracing::error!("{message}");
            ExitCode::from(exit::FAILURE)
        })?;
    }
    let start = match settings.workers.start {
        Some(config::Start::AtOnce) => Start::AtOnce,
        Some(config::Start::OnConnection) => Start::OnConnection,
        None if setup.activated => Start::OnConnection,
        None => Start::AtOnce,
    };
    Ok(First { listeners, start, status: settings.status.listen })
}

fn report(problems: &Diagnostics, sink: Sink) {
    if matches!(sink, Sink::Stderr) {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", problems.render(colour));
    } else {
        for line in problems.lines() {
            tracing::error!(MESSAGE_ID = message_id::CONFIGURATION_REFUSED, "{line}");
        }
    }
}

/// Binds what configuration and command line name. Nothing may be named yet: gunicorn's configuration file may do it,
/// and only the template reads that.
fn bind(setup: &Setup, settings: &Settings) -> Result<Vec<Listener>, String> {
    let listen = &settings.listen;
    if !listen.addresses.is_empty() {
        let backlog = listen.backlog.unwrap_or(DEFAULT_BACKLOG);
        return bind_all(listen.addresses.iter(), None, listen.mode, backlog);
    }
    let text = |problems: Diagnostics| problems.lines().collect::<Vec<_>>().join("\n");
    let Some(invocation) = gunicorn::PYTHON.invocation(&settings.command) else {
        let Making::Exec(exec) = adapter::recognise(&settings.command).making else {
            // Every other template reports where its server would listen.
            return Ok(Vec::new());
        };
        let command = config::resolve(settings, &setup.environment, &setup.directory).map_err(text)?;
        let plan = config::plan(exec, &settings.command, &command)?;
        if plan.listen.is_empty() {
            return Err(
                "there is nothing to listen on: start sockd from a .socket unit, or name an address with --listen \
                 unix:/run/NAME.sock or --listen 127.0.0.1:8000"
                    .to_owned(),
            );
        }
        return bind_all(plan.listen.iter(), None, plan.mode, listen.backlog.unwrap_or(DEFAULT_BACKLOG));
    };
    let environment = config::resolve_environment(settings, &setup.environment).map_err(text)?;
    let known = GunicornArgs::read(invocation.arguments, &environment);
    let directory = settings.directory.as_ref().unwrap_or(&setup.directory);
    let directory = directory.join(text::to_os(known.chdir.as_deref().unwrap_or_default()));
    let look_up = |host: &str, port| listener::look_up(host, port).map_err(|error| error.to_string());
    let addresses = bind_addresses(&known.bind, &directory, look_up)?;
    bind_all(addresses.iter(), Some(known.umask.unwrap_or(0)), None, known.backlog.unwrap_or(DEFAULT_BACKLOG))
}

/// gunicorn's own default.
const DEFAULT_BACKLOG: u32 = 2048;

fn serve(setup: Setup, First { listeners, start, status }: First) -> ExitCode {
    if let Err(error) = process::become_subreaper() {
        tracing::error!("cannot become the parent of orphaned workers (PR_SET_CHILD_SUBREAPER): {error}");
        return ExitCode::from(exit::FAILURE);
    }
    if let Err(error) = process::raise_descriptor_limit() {
        tracing::warn!("cannot raise the limit of descriptors: {error}; large pools may not come up");
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot make an event loop: {}", process::explain(&error));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let code = runtime.block_on(async {
        match EventLoop::new(setup, listeners, start, status.as_ref()) {
            Ok(shell) => ExitCode::from(shell.run().await),
            Err(error) => {
                tracing::error!("cannot watch for signals: {error}");
                ExitCode::from(exit::FAILURE)
            }
        }
    });
    // What other threads still wait for is what nobody waits for: a disk, or the close of somebody else's descriptor.
    runtime.shutdown_background();
    code
}

/// A runtime whose `spawn_blocking` never panics. tokio's does where a thread cannot be made (EAGAIN at the unit's TasksMax=)
/// and there is none; where there is one, what is to be done waits until the next thread can be made. So one is kept, which
/// does nothing else: those that work leave after ten idle seconds.
///
/// # Errors
/// EAGAIN: the first thread cannot be made. EMFILE.
fn runtime() -> io::Result<Runtime> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    // The one that is kept would panic: another one asks whether there is room.
    let _ = thread::Builder::new().spawn(|| {})?.join();
    drop(runtime.spawn_blocking(|| {
        loop {
            thread::park()
        }
    }));
    Ok(runtime)
}
