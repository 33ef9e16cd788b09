//! What is known of puma: one process per worker, on the sockets it is handed and no others.
//!
//! puma takes LISTEN_FDS itself, says READY=1 once the application is booted and WATCHDOG=1 where a watchdog is set
//! (by itself from puma 6 on, before with the gem sd_notify; measured with 5.6.5). Every inherited socket speaks HTTP,
//! so a private one is handed over among them. What its configuration file would bind is ignored, what it says of
//! workers as well: it is a program, and only puma can run it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::exec::{Exec, Execution, Given, Plan, Told, Worker};
use super::{Adapter, Making};
use crate::app::{Address, Command, Conventions};

/// SIGTERM (signal(7)): finishes the requests in flight and leaves.
const SIGTERM: i32 = 15;

/// puma, by the name of its program or through `bundle exec`.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions { name: "puma", drain_signal: SIGTERM, stop_signal: SIGTERM, exits: &[] },
    making: Making::Exec(&EXEC),
    // By its private socket.
    speaks_http: true,
};

static EXEC: Exec = Exec { runs: |command| position(command).is_some(), plan };

/// Where puma's own arguments begin: after `puma`, or after `bundle exec puma`.
fn position(command: &[OsString]) -> Option<usize> {
    let name = |index: usize| Path::new(command.get(index)?).file_name().and_then(OsStr::to_str);
    match name(0)? {
        "puma" => Some(1),
        "bundle" if name(1) == Some("exec") && name(2) == Some("puma") => Some(3),
        _ => None,
    }
}

fn plan(told: &Told<'_>) -> Result<Plan, String> {
    let mut plan = Plan {
        private_socket: true,
        worker: Some(Box::new(Process)),
        workers: told.environment.get(OsStr::new("WEB_CONCURRENCY")).and_then(|text| text.to_str()?.parse().ok()),
        ..Plan::default()
    };
    let mut words = told.command.iter().skip(position(told.command).unwrap_or(1)).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let (name, joined) = option(&word);
        let mut value = || joined.map(str::to_owned).or_else(|| words.next().map(|word| word.into_owned()));
        match name {
            "-w" | "--workers" => {
                let text = value().unwrap_or_default();
                let count: u32 = text.parse().map_err(|_| format!("puma's --workers {text:?} is no number"))?;
                plan.workers = Some(count);
            }
            "-b" | "--bind" => {
                let text = value().unwrap_or_default();
                plan.listen.push(address(&text, told.directory).map_err(|why| format!("puma's --bind {text}: {why}"))?);
            }
            "-p" | "--port" => {
                let text = value().unwrap_or_default();
                // puma's own default: all addresses.
                let address = format!("0.0.0.0:{text}").parse();
                plan.listen.push(address.map_err(|_| format!("puma's --port {text:?} is no port"))?);
            }
            "--control-url" => {
                return Err(
                    "puma's --control-url is refused: every worker would bind it; ask `sockd status`".to_owned()
                );
            }
            _ => {}
        }
    }
    // Zero is puma's word for one process.
    plan.workers = plan.workers.map(|count| count.max(1));
    Ok(plan)
}

/// An option and a value that is joined to it: `--bind=X`, `-p80`.
fn option(word: &str) -> (&str, Option<&str>) {
    if let Some((name, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
        return (name, Some(value));
    }
    match word.char_indices().nth(2) {
        Some((end, _)) if word.starts_with('-') && !word.starts_with("--") => (&word[..end], Some(&word[end..])),
        _ => (word, None),
    }
}

/// `tcp://0.0.0.0:9292`, `unix:///run/x.sock?umask=0007`, `unix://relative.sock`.
fn address(text: &str, directory: &Path) -> Result<Address, String> {
    if text.starts_with("ssl://") {
        return Err("let Nginx in front of it speak TLS".to_owned());
    }
    let bare = text.split('?').next().unwrap_or_default();
    match bare.parse::<Address>().map_err(|error| error.to_string())? {
        Address::Unix(path) => Ok(Address::Unix(directory.join(path))),
        other @ (Address::Abstract(_) | Address::Tcp(_)) => Ok(other),
    }
}

/// One worker's process.
#[derive(Debug)]
struct Process;

impl Worker for Process {
    fn execution(&self, command: &Command, _given: &Given<'_>) -> Execution {
        let mut command = command.clone();
        // The last one counts, on the command line and before the file.
        command.arguments.extend(["--bind-to-activated-sockets", "only", "--workers", "0"].map(OsString::from));
        // It would ask for workers once more.
        command.environment.remove(OsStr::new("WEB_CONCURRENCY"));
        Execution { command, listen_fds: true, notify_socket: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(line: &str) -> Result<Plan, String> {
        let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        plan(&Told {
            command: &command,
            environment: &BTreeMap::from([("WEB_CONCURRENCY".into(), "4".into())]),
            directory: Path::new("/srv"),
            processors: 2,
            read: &|_| Err("no file is read".to_owned()),
        })
    }

    #[test]
    fn its_options_say_how_many_and_where() {
        let plan = read("bundle exec puma -t 1:5 -w3 -b unix://tmp/x.sock?umask=0 --bind=tcp://127.0.0.1:92 -p 80");
        let plan = plan.expect("read");
        assert_eq!(plan.workers, Some(3));
        let listen: Vec<_> = plan.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["unix:/srv/tmp/x.sock", "127.0.0.1:92", "0.0.0.0:80"]);
        assert_eq!(read("puma").expect("read").workers, Some(4));
        assert_eq!(read("puma --workers 0").expect("read").workers, Some(1));
        for line in ["puma -w many", "puma -b ssl://0.0.0.0:443", "puma -p x", "puma --control-url tcp://:1"] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn only_puma_is_recognised() {
        let is = |line: &str| position(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>()).is_some();
        for line in ["puma", "/usr/bin/puma -C x.rb", "/usr/bin/bundle exec puma", "bundle exec bin/puma"] {
            assert!(is(line), "{line}");
        }
        for line in ["", "pumactl", "bundle exec rails server", "bundle install puma", "ruby puma"] {
            assert!(!is(line), "{line}");
        }
    }
}
