//! `sockd demo`: the main job without systemd, Python or set-up.
//!
//! Owns: the directory with the demo's application, a text that the visitor may change, until the demo ends.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::output;
use crate::app::Address;
use crate::config::Options;
use crate::doctor::fix::quote;
use crate::journal::Format;
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
    let application = match write_application() {
        Ok(file) => file,
        Err(error) => {
            output::complain(&format!("cannot write the demo's application below {}: {error}", temporary().display()));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let options = Options {
        listen: vec![Address::Tcp(address)],
        workers: Some(WORKERS),
        watchdog: Some(WATCHDOG),
        command: vec!["/proc/self/exe".into(), "demo-worker".into(), application.clone().into()],
        directory: Some("/".into()),
        ..Options::default()
    };
    let code = daemon::run(options, Some(greeting(address, &application)), Format::Text);
    // What cannot be removed now is a few bytes in /tmp.
    let _ = application.parent().map(std::fs::remove_dir_all);
    code
}

fn temporary() -> PathBuf {
    std::env::temp_dir()
}

/// Writes what the workers say into a directory of our own; the file.
fn write_application() -> io::Result<PathBuf> {
    let directory = temporary().join(format!("sockd-demo-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory)?;
    let file = directory.join("hello.txt");
    std::fs::write(&file, "Hello from worker process {pid}.\n")?;
    Ok(file)
}

fn free_address() -> Option<SocketAddr> {
    let port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    (FIRST_PORT..FIRST_PORT + PORTS).map(port).find(|address| TcpListener::bind(address).is_ok())
}

fn greeting(address: SocketAddr, application: &Path) -> String {
    let pid = std::process::id();
    let file = quote(&application.display().to_string());
    // Built by cargo it is not in PATH.
    let sockd = std::env::current_exe().map_or_else(|_| "sockd".to_owned(), |path| path.display().to_string());
    format!(
        "sockd demo: {WORKERS} workers behind http://{address}/. In another terminal:\n\n  \
         # Which worker answers?\n  \
         curl http://{address}/\n  \
         # Kill it: the others serve, and a new one comes at once.\n  \
         kill -9 \"$(curl -s http://{address}/pid)\"\n  \
         # Let one hang: it is found, aborted and replaced.\n  \
         curl http://{address}/hang &\n  \
         # A deploy: the new workers are proven before the old ones go.\n  \
         echo 'Welcome from {{pid}}.' >{file}; kill -HUP {pid}\n  \
         # A bad one: it is refused, the log says why, and the old code serves on.\n  \
         echo 'Welcome from {{pid.' >{file}; kill -HUP {pid}\n  \
         # The whole story.\n  \
         {sockd} status\n\n\
         Ctrl-C stops it.\n"
    )
}
