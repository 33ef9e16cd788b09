//! What is known of puma: one process per worker, on the sockets it is handed and no others.
//!
//! puma takes LISTEN_FDS itself, says READY=1 once the application is booted and WATCHDOG=1 where a watchdog is set
//! (by itself from puma 6 on, before with the gem sd_notify; measured with 5.6.5). Every inherited socket speaks HTTP,
//! so a private one is handed over among them. What its configuration file says of workers and addresses is read as far
//! as that goes without running it: it is a program. The command line wins, as with puma.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::exec::{Exec, LaunchPlan, ServerInputs, StatsInterface, Worker, WorkerCommand, WorkerFds};
use super::{Adapter, Making, ruby};
use crate::app::{Address, Command, Conventions};
use crate::supervisor::Protocol;

/// SIGTERM (signal(7)): finishes the requests in flight and leaves.
const SIGTERM: i32 = 15;

/// puma, by the name of its program or through `bundle exec`.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "puma",
        drain_signals: &[SIGTERM],
        stop_signal: SIGTERM,
        reopen: None,
        exits: &[],
    },
    making: Making::Exec(&EXEC),
    // By its private socket.
    protocol: Protocol::Http,
};

/// What its program is called.
const PROGRAMS: [&str; 1] = ["puma"];

static EXEC: Exec = Exec { runs: |command| ruby::position(command, &PROGRAMS).is_some(), plan };

fn plan(inputs: &ServerInputs<'_>) -> Result<LaunchPlan, String> {
    let mut plan = LaunchPlan { private_socket: true, ..LaunchPlan::default() };
    let mut files = Vec::new();
    let variable = |name: &str| inputs.environment.get(OsStr::new(name)).and_then(|text| text.to_str());
    let mut stage =
        ["APP_ENV", "RACK_ENV", "RAILS_ENV"].into_iter().find_map(variable).unwrap_or("development").to_owned();
    let mut words = inputs
        .command
        .iter()
        .skip(ruby::position(inputs.command, &PROGRAMS).unwrap_or(1))
        .map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        let (name, joined) = ruby::option(&word);
        let mut value = || joined.map(str::to_owned).or_else(|| words.next().map(|word| word.into_owned()));
        match name {
            "-w" | "--workers" => {
                let text = value().unwrap_or_default();
                let count: u32 = text.parse().map_err(|_| format!("puma's --workers {text:?} is no number"))?;
                plan.workers = Some(count);
            }
            "-b" | "--bind" => {
                let text = value().unwrap_or_default();
                plan.listen
                    .push(address(&text, inputs.directory).map_err(|why| format!("puma's --bind {text}: {why}"))?);
            }
            "-p" | "--port" => {
                let text = value().unwrap_or_default();
                plan.listen.push(port(&text).ok_or_else(|| format!("puma's --port {text:?} is no port"))?);
            }
            "-C" | "--config" => files.push(value().unwrap_or_default()),
            // From puma 6 on.
            "--no-config" => files.push("-".to_owned()),
            "-e" | "--environment" => stage = value().unwrap_or_default(),
            "--control-url" => {
                return Err(
                    "puma's --control-url is refused: every worker would bind it; ask `sockd status`".to_owned()
                );
            }
            _ => {}
        }
    }
    let texts = texts(inputs, &files, &stage)?;
    // Puma takes `-` for none only where there is no other file.
    if !files.iter().any(|name| name == "-") {
        plan.stats = Some(StatsInterface::Puma);
        plan.files.push(STATS.to_owned());
    }
    let usual = texts.first().filter(|_| files.is_empty()).map(|(path, _)| path.clone());
    plan.worker = Some(Box::new(Process { usual }));
    let (count_said, place_said) = (plan.workers.is_some(), !plan.listen.is_empty());
    for (path, text) in &texts {
        for call in ruby::calls(text, &["workers", "bind", "port"], inputs.environment) {
            let at = format!("{}:{}: puma's {}", path.display(), call.line, call.name);
            match (call.name, call.value) {
                ("workers", _) if count_said => {}
                ("workers", Some(text)) => {
                    plan.workers = Some(text.parse().map_err(|_| format!("{at} {text:?} is no number"))?);
                }
                ("workers", None) => plan.warnings.push(format!(
                    "{at}: only puma can tell how many that is, and sockd does not ask it: write workers.count, or \
                     --workers on the command line"
                )),
                // sockd has its sockets from elsewhere, or says that it has none.
                (_, None) => {}
                _ if place_said => {}
                // An address that is not understood does no harm where sockd has its sockets from elsewhere.
                (name, Some(text)) => {
                    let address = if name == "port" {
                        port(&text).ok_or_else(|| "this is no port".to_owned())
                    } else {
                        address(&text, inputs.directory)
                    };
                    match address {
                        Ok(address) => plan.listen.push(address),
                        Err(why) => plan.warnings.push(format!("{at} {text} is ignored: {why}")),
                    }
                }
            }
        }
    }
    plan.workers = plan.workers.or_else(|| variable("WEB_CONCURRENCY")?.parse().ok());
    // Zero is puma's word for one process.
    plan.workers = plan.workers.map(|count| count.max(1));
    Ok(plan)
}

/// The configuration files that puma would read: those that are named, else the first of the usual two.
fn texts(inputs: &ServerInputs<'_>, named: &[String], stage: &str) -> Result<Vec<(PathBuf, String)>, String> {
    let read = |name: &str| {
        let path = inputs.directory.join(name);
        (inputs.read)(&path).map(|text| (path, text))
    };
    if named == ["-"] {
        return Ok(Vec::new());
    }
    if named.is_empty() {
        let usual = [format!("config/puma/{stage}.rb"), "config/puma.rb".to_owned()];
        return Ok(usual.iter().find_map(|name| read(name).ok()).into_iter().collect());
    }
    named.iter().map(|name| read(name)).collect()
}

/// Where puma listens by a port alone: on all addresses.
fn port(text: &str) -> Option<Address> {
    format!("0.0.0.0:{text}").parse().ok()
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

/// The variable with the descriptor that [`STATS`] serves.
const STATS_FD: &str = "SOCKD_PUMA_STATS_FD";

/// A file of puma's configuration that sets nothing. A thread waits for connections on a socket of ours and writes
/// `Puma.stats` to each (puma 4.1 and later). Puma's own control server takes no socket that it is handed: it would bind a
/// path or a port of its own, and end or restart the worker for all who have its token. A site's own control server is
/// left as it is. Nothing in here keeps puma from serving.
const STATS: &str = r#"# sockd: what `sockd status` asks for.
begin
  require "socket"
  stats = UNIXServer.for_fd(Integer(ENV.fetch("SOCKD_PUMA_STATS_FD")))
  thread = Thread.new do
    loop do
      begin
        client = stats.accept
        client.write_nonblock(Puma.stats)
      rescue StandardError
        sleep 1 unless client
      ensure
        client&.close
        client = nil
      end
    end
  end
  thread.name = "sockd stats"
rescue StandardError => error
  warn "sockd: puma's statistics are not known: #{error.message}"
end
"#;

/// One worker's process.
#[derive(Debug)]
struct Process {
    /// The configuration file that puma finds by itself.
    usual: Option<PathBuf>,
}

impl Worker for Process {
    fn execution(&self, command: &Command, fds: &WorkerFds<'_>) -> WorkerCommand {
        let mut command = command.clone();
        if let Some(fd) = fds.stats_socket {
            // With a file that is named it looks for no other.
            for file in self.usual.iter().cloned().chain([format!("/proc/self/fd/{}", fds.files).into()]) {
                command.arguments.extend(["--config".into(), file.into_os_string()]);
            }
            command.environment.insert(STATS_FD.into(), fd.to_string().into());
        }
        // The last one counts, on the command line and before the file.
        command.arguments.extend(["--bind-to-activated-sockets", "only", "--workers", "0"].map(OsString::from));
        // When SIGUSR1, SIGUSR2 or its plugin tmp_restart restarts it, it finishes its requests and executes this. By
        // itself it would forget which sockets it was given and listen on a port of its own.
        command.arguments.extend(["--restart-cmd", "true"].map(OsString::from));
        // It would ask for workers once more.
        command.environment.remove(OsStr::new("WEB_CONCURRENCY"));
        WorkerCommand { command, listen_fds: true, notify_socket: true, alias: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(line: &str) -> Result<LaunchPlan, String> {
        read_with(line, &[])
    }

    fn read_with(line: &str, files: &[(&str, &str)]) -> Result<LaunchPlan, String> {
        let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        plan(&ServerInputs {
            command: &command,
            environment: &BTreeMap::from([("WEB_CONCURRENCY".into(), "4".into())]),
            directory: Path::new("/srv"),
            processors: 2,
            read: &|path| {
                let found = files.iter().find(|(name, _)| Path::new(name) == path);
                found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| format!("cannot read {}", path.display()))
            },
            names: &|directory| Err(format!("cannot read {}", directory.display())),
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
    fn it_is_asked_of_its_requests_and_reads_its_own_file_as_well() {
        let usual = [("/srv/config/puma.rb", "workers 3\n")];
        let run = |line: &str, stats_socket| {
            let plan = read_with(line, &usual).expect("read");
            let command = Command {
                launcher: Vec::new(),
                program: "/usr/bin/puma".into(),
                arguments: line.split_whitespace().map(OsString::from).collect(),
                directory: "/srv".into(),
                environment: BTreeMap::new(),
            };
            let fds = WorkerFds { listeners: &[], private_socket: Some(3), files: 4, stats_socket, notify: "@n" };
            let command = plan.execution(&command, &fds).command;
            let words: Vec<_> = command.arguments.iter().map(|word| word.to_str().expect("UTF-8")).collect();
            (words.join(" "), command.environment.contains_key(OsStr::new(STATS_FD)), plan.stats.is_some())
        };
        let ours = "--bind-to-activated-sockets only --workers 0 --restart-cmd true";
        let asked =
            |line: &str, files: &str| assert_eq!(run(line, Some(5)), (format!("{line}{files} {ours}"), true, true));
        asked("puma", " --config /srv/config/puma.rb --config /proc/self/fd/4");
        asked("puma -C config/puma.rb", " --config /proc/self/fd/4");
        assert_eq!(run("puma", None), (format!("puma {ours}"), false, true));
        for line in ["puma -C -", "puma --no-config"] {
            assert_eq!(run(line, None), (format!("{line} {ours}"), false, false));
        }
    }

    #[test]
    fn its_file_says_what_the_command_line_does_not() {
        let usual = [("/srv/config/puma.rb", "workers 3\nport 3000\nbind 'unix:///run/x.sock'\n")];
        let say = |line: &str| {
            let plan = read_with(line, &usual).expect("read");
            (plan.workers, plan.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(say("puma"), (Some(3), "0.0.0.0:3000 unix:/run/x.sock".to_owned()));
        assert_eq!(say("puma -w 2"), (Some(2), "0.0.0.0:3000 unix:/run/x.sock".to_owned()));
        assert_eq!(say("puma -p 80"), (Some(3), "0.0.0.0:80".to_owned()));
        assert_eq!(say("puma -C -"), (Some(4), String::new()));
        let staged = [("/srv/config/puma/test.rb", "workers 5\n"), usual[0]];
        assert_eq!(read_with("puma -e test", &staged).expect("read").workers, Some(5));
        assert_eq!(read_with("puma", &staged).expect("read").workers, Some(3));
        let why = read_with("puma -C no.rb", &usual).expect_err("refused");
        assert_eq!(why, "cannot read /srv/no.rb");
        let why = read_with("puma", &[("/srv/config/puma.rb", "\nworkers 'many'\n")]).expect_err("refused");
        assert_eq!(why, "/srv/config/puma.rb:2: puma's workers \"many\" is no number");
        let plan = read_with("puma", &[("/srv/config/puma.rb", "bind 'ssl://:443'\nport 'x'\n")]).expect("read");
        assert_eq!((plan.listen.len(), plan.warnings.len()), (0, 2), "{:?}", plan.warnings);
        assert!(plan.warnings[0].starts_with("/srv/config/puma.rb:1: puma's bind ssl://:443 is ignored: let Nginx"));
        let plan = read_with("puma", &[("/srv/config/puma.rb", "workers Etc.nprocessors\n")]).expect("read");
        assert_eq!(plan.workers, Some(4));
        assert!(plan.warnings[0].starts_with("/srv/config/puma.rb:1: ") && plan.warnings[0].contains("workers.count"));
    }
}
