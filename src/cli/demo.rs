//! `sockd demo`: the main job without systemd, Python or set-up.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output;
use crate::app::Address;
use crate::config::Options;
use crate::{daemon, exit};

/// The port that is tried first.
const FIRST_PORT: u16 = 8000;
/// So many ports are tried.
const PORTS: u16 = 100;
/// Three can be distinguished, and losing one leaves two.
const WORKERS: u32 = 3;

/// Short, so that a person sees a hang found.
const WATCHDOG: Duration = Duration::from_secs(5);

/// The options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sockd demo\n  curl http://127.0.0.1:8000/")]
pub struct Arguments {}

/// Runs the subcommand: the daemon, with this program's own `demo-worker` as the application.
pub fn run(_: &Arguments) -> ExitCode {
    let Some(address) = free_address() else {
        output::complain(&format!("no port from {FIRST_PORT} to {} is free on 127.0.0.1", FIRST_PORT + PORTS - 1));
        return ExitCode::from(exit::FAILURE);
    };
    let options = Options {
        listen: vec![Address::Tcp(address)],
        workers: Some(WORKERS),
        watchdog: Some(WATCHDOG),
        command: vec!["/proc/self/exe".into(), "demo-worker".into()],
        directory: Some("/".into()),
        ..Options::default()
    };
    daemon::run(options, Some(greeting(address)))
}

fn free_address() -> Option<SocketAddr> {
    let port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (FIRST_PORT..FIRST_PORT + PORTS).map(port).find(|address| TcpListener::bind(address).is_ok())
}

fn greeting(address: SocketAddr) -> String {
    let pid = std::process::id();
    // Built by cargo it is not in PATH.
    let sockd = std::env::current_exe().map_or_else(|_| "sockd".to_owned(), |path| path.display().to_string());
    format!(
        "sockd demo: {WORKERS} workers behind http://{address}/. In another terminal:\n\n  \
         curl http://{address}/              # which worker answers?\n  \
         kill -9 \"$(curl -s http://{address}/pid)\"   # kill it: the others serve, a new one comes at once\n  \
         curl http://{address}/hang &         # let one hang: it is found, aborted and replaced\n  \
         kill -HUP {pid}                       # reload: the new ones are proven before the old ones go\n  \
         {sockd} status   # the whole story\n\n\
         Ctrl-C stops it.\n"
    )
}
