//! `sockd demo-worker`: the application of `sockd demo`, a small HTTP server with the manners of a good service.
//!
//! Its code is a file with a text, read at its start, as a server imports an application.
//! It takes its socket from LISTEN_FDS, says READY=1 and WATCHDOG=1, and drains on SIGTERM. One connection at a time,
//! like a synchronous worker: that is what makes several of them worth having.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::output;
use crate::{exit, regular_file};

/// A visitor who says nothing for so long is left alone.
const VISITOR_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest text it says (bytes).
const MAX_TEXT: u64 = 64 << 10;
/// More of a request than this is not read (bytes).
const MAX_HEAD: u64 = 8192;

/// The options of `demo-worker`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The file with what it says; `{pid}` stands for its process id
    application: PathBuf,
}

/// Runs the subcommand.
pub fn run(arguments: &Arguments) -> ExitCode {
    let greeting = match load(&arguments.application) {
        Ok(greeting) => greeting,
        Err(why) => {
            output::say(&format!("{why}\n"));
            return ExitCode::from(exit::FAILURE);
        }
    };
    match serve(&greeting) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("the demo worker cannot serve: {error}; `sockd demo` starts it"));
            ExitCode::from(exit::FAILURE)
        }
    }
}

/// What it says to visitors.
///
/// # Errors
/// The file cannot be read, or has a mistake: `FILE:LINE: what`.
fn load(file: &Path) -> Result<String, String> {
    let text =
        regular_file::read_text(file, MAX_TEXT).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    for (number, line) in text.lines().enumerate() {
        if line.replace("{pid}", "").contains(['{', '}']) {
            return Err(format!("{}:{}: a brace is not that of {{pid}}", file.display(), number + 1));
        }
    }
    Ok(text.replace("{pid}", &std::process::id().to_string()))
}

fn serve(greeting: &str) -> io::Result<()> {
    let listener = ListenFd::from_env()
        .take_tcp_listener(0)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no socket was handed over"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer_visitors(listener, greeting))
}

async fn answer_visitors(listener: TcpListener, greeting: &str) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut heartbeat = tokio::time::interval(sd_notify::watchdog_enabled().unwrap_or(Duration::from_secs(60)) / 4);
    notify(NotifyState::Ready);
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = heartbeat.tick() => notify(NotifyState::Watchdog),
            accepted = listener.accept() => {
                let stream = accepted?.0.into_std()?;
                stream.set_nonblocking(false)?;
                // A visitor who goes away is no reason to stop.
                let _ = answer(&stream, greeting);
            }
        }
    }
}

fn notify(state: NotifyState<'_>) {
    // Outside of sockd there is nobody to tell.
    let _ = sd_notify::notify(&[state]);
}

fn answer(stream: &TcpStream, greeting: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(VISITOR_TIMEOUT))?;
    stream.set_write_timeout(Some(VISITOR_TIMEOUT))?;
    let mut reader = BufReader::new(stream.take(MAX_HEAD));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    let body = match request.split_whitespace().nth(1) {
        Some("/pid") => format!("{}\n", std::process::id()),
        Some("/hang") => loop {
            std::thread::park();
        },
        _ => greeting.to_owned(),
    };
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
