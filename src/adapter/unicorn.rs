//! What is known of unicorn: a master with one worker process as one worker, on the sockets it is handed and no others.
//!
//! unicorn takes LISTEN_FDS itself and serves HTTP on every inherited socket, so a private one is handed over among them.
//! SIGQUIT finishes the request in flight, SIGTERM and SIGINT cut it; the exit code is 0 (all measured with 6.0.0). How many
//! processes, where its pid file is and where else it listens can be set in its configuration file, which is a program: a
//! worker gets one of ours (`unicorn/worker.rb`), which runs the owner's first, and says READY=1, as unicorn itself does
//! not, once its process has loaded the application. What the owner's file says of workers and addresses is read as far as
//! that goes without running it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exec::{Exec, LaunchPlan, ServerInputs, Worker, WorkerCommand, WorkerFds};
use super::{Adapter, Making, ruby};
use crate::app::{Address, Command, Conventions, Reopen};
use crate::supervisor::Protocol;

/// SIGQUIT (signal(7)): the worker process finishes its request; SIGTERM ends it at once.
const SIGQUIT: i32 = 3;

/// unicorn, by the name of its program or through `bundle exec`.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "unicorn",
        drain_signals: &[SIGQUIT],
        stop_signal: SIGQUIT,
        // SIGUSR1, to its master; before that is set up, it would end it.
        reopen: Some(Reopen { signal: 10, while_starting: false }),
        exits: &[],
    },
    making: Making::Exec(&EXEC),
    // By its private socket.
    protocol: Protocol::Http,
};

/// What its program is called: with Rails' own environment and directories, and without.
const PROGRAMS: [&str; 2] = ["unicorn", "unicorn_rails"];
/// So long may a request take, unless the file says otherwise; then unicorn kills the process that serves it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The calls in the file that say something about the pool.
const CALLS: [&str; 5] = ["worker_processes", "listen", "pid", "timeout", "working_directory"];
/// What comes behind the owner's file.
const OURS: &str = include_str!("unicorn/worker.rb");

static EXEC: Exec = Exec { runs: |command| ruby::position(command, &PROGRAMS).is_some(), plan };

fn plan(inputs: &ServerInputs<'_>) -> Result<LaunchPlan, String> {
    let mut plan = LaunchPlan {
        graceful_timeout: Some(TIMEOUT),
        says_ready: true,
        private_socket: true,
        silent_when_busy: true,
        // It ends one that serves for too long by itself.
        timeout: Some(Duration::ZERO),
        worker: Some(Box::new(Process)),
        ..LaunchPlan::default()
    };
    let begin = ruby::position(inputs.command, &PROGRAMS).unwrap_or(1);
    let mut words = inputs.command.iter().skip(begin).map(|word| word.to_string_lossy());
    let (mut file, mut host, mut port) = (None, None, None);
    while let Some(word) = words.next() {
        // Letters without a value may stand before another.
        let word = match word.strip_prefix('-').filter(|letters| !letters.starts_with('-')) {
            Some(letters) => format!("-{}", letters.trim_start_matches(['N', 'd', 'w'])),
            None => word.into_owned(),
        };
        let (name, joined) = ruby::option(&word);
        let mut value = || joined.map(str::to_owned).or_else(|| words.next().map(|word| word.into_owned()));
        match name {
            "-D" | "--daemonize" => {
                return Err(format!(
                    "unicorn's {name} is refused: sockd watches its workers as long as they stay in the foreground; \
                     leave it out"
                ));
            }
            "-l" | "--listen" => {
                let text = value().unwrap_or_default();
                let address = address(&text, Some(inputs.directory));
                plan.listen.push(address.map_err(|why| format!("unicorn's --listen {text}: {why}"))?);
            }
            "-o" | "--host" => host = value(),
            "-p" | "--port" => port = value(),
            "-c" | "--config-file" => file = value(),
            // They have a value, which is no option.
            "-e" | "--eval" | "-E" | "--env" | "-I" | "--include" | "-r" | "--require" | "-P" | "--pid" | "--path"
            | "-s" | "--server" => drop(value()),
            "--" => break,
            _ => {}
        }
    }
    if host.is_some() || port.is_some() {
        let (host, port) = (host.as_deref().unwrap_or("0.0.0.0"), port.as_deref().unwrap_or("8080"));
        let address = address(&format!("{host}:{port}"), None);
        plan.listen.push(address.map_err(|why| format!("unicorn's --host and --port: {why}"))?);
    }
    // As unicorn has it: everybody may connect.
    plan.mode = Some(0o666);
    if let Some(name) = &file {
        let path = inputs.directory.join(name);
        read_file(&mut plan, inputs, &path)?;
        plan.files.push(format!("instance_eval(File.read({0}), {0})\n", literal(name)));
    } else {
        plan.files.push(String::new());
    }
    plan.files[0].push_str(OURS);
    Ok(plan)
}

/// What the configuration file says of the pool.
fn read_file(plan: &mut LaunchPlan, inputs: &ServerInputs<'_>, path: &Path) -> Result<(), String> {
    let text = (inputs.read)(path)?;
    let mut directory = Some(inputs.directory.to_owned());
    for call in ruby::calls(&text, &CALLS, inputs.environment) {
        let at = format!("{}:{}: unicorn's {}", path.display(), call.line, call.name);
        match (call.name, call.value) {
            ("worker_processes", Some(text)) => {
                let count: Option<u32> = text.parse().ok().filter(|count| *count > 0);
                plan.workers = Some(count.ok_or_else(|| format!("{at} {text:?} is no number from 1 on"))?);
            }
            ("worker_processes", None) => plan.warnings.push(format!(
                "{at}: only unicorn can tell how many that is, and sockd does not ask it: write workers.count"
            )),
            ("timeout", text) => {
                plan.graceful_timeout = text.and_then(|text| text.parse().ok()).map(Duration::from_secs);
            }
            ("working_directory", text) => directory = directory.zip(text).map(|(from, text)| from.join(text)),
            // Each worker would write it, and only the first could.
            ("pid", _) => plan.warnings.push(format!(
                "{at} is left out: to reopen log files, `systemctl kill --kill-who=main -s USR1 UNIT` signals sockd, \
                 which passes it on"
            )),
            // sockd has its sockets from elsewhere, or says that it has none.
            (_, None) => {}
            // An address that is not understood does no harm where sockd has its sockets from elsewhere.
            (_, Some(text)) => match address(&text, directory.as_deref()) {
                Ok(address) => {
                    plan.listen.push(address);
                    // For all of them, what each allows.
                    plan.mode = plan.mode.zip(umask(&call.named)).map(|(mode, umask)| mode & !umask);
                }
                Err(why) => plan.warnings.push(format!("{at} {text} is ignored: {why}")),
            },
        }
    }
    Ok(())
}

/// `8080`, `127.0.0.1:8080`, `*:8080`, `/run/x.sock`, `unix:x.sock`.
fn address(text: &str, directory: Option<&Path>) -> Result<Address, String> {
    let port_alone = text.bytes().all(|byte| byte.is_ascii_digit());
    let text = if port_alone { format!("0.0.0.0:{text}") } else { text.to_owned() };
    match text.parse::<Address>().map_err(|error| error.to_string())? {
        Address::Unix(path) if path.is_relative() => {
            let directory = directory.ok_or("only unicorn can tell in which directory that is")?;
            Ok(Address::Unix(directory.join(path)))
        }
        other @ (Address::Unix(_) | Address::Abstract(_) | Address::Tcp(_)) => Ok(other),
    }
}

/// The umask of a socket among the named arguments of `listen`, 0 by default. `None`: only unicorn can tell.
fn umask(named: &str) -> Option<u32> {
    let Some((_, behind)) = named.split_once("umask") else { return Some(0) };
    let text = behind.trim_start_matches([' ', ':', '=', '>']).split([',', ' ', ')']).next()?;
    // A number that begins with 0 is octal.
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0'))?;
    if digits.is_empty() { Some(0) } else { u32::from_str_radix(digits, 8).ok() }
}

/// A text as Ruby reads it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// One worker: a master and its process.
#[derive(Debug)]
struct Process;

impl Worker for Process {
    fn execution(&self, command: &Command, fds: &WorkerFds<'_>) -> WorkerCommand {
        let mut command = command.clone();
        // The last one counts; behind `--` there are no options.
        let end = command.arguments.iter().position(|word| word == OsStr::new("--"));
        let end = end.unwrap_or(command.arguments.len());
        let file = PathBuf::from(format!("/proc/self/fd/{}", fds.files));
        command.arguments.splice(end..end, [OsString::from("--config-file"), file.into_os_string()]);
        WorkerCommand { command, listen_fds: true, notify_socket: true, alias: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const FILE: &str = "/srv/config/unicorn.rb";

    fn read(line: &str, text: &str) -> Result<LaunchPlan, String> {
        let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        plan(&ServerInputs {
            command: &command,
            environment: &BTreeMap::from([("SET".into(), "7".into())]),
            directory: Path::new("/srv"),
            processors: 2,
            read: &|path| match path == Path::new(FILE) {
                true => Ok(text.to_owned()),
                false => Err(format!("cannot read {}", path.display())),
            },
            names: &|directory| Err(format!("cannot read {}", directory.display())),
        })
    }

    /// Of a file: how many, where, with which permissions, how long for a request, how many warnings.
    fn of_file(text: &str) -> (Option<u32>, String, Option<u32>, Option<u64>, usize) {
        let plan = read("unicorn -c config/unicorn.rb", text).expect("read");
        let timeout = plan.graceful_timeout.map(|limit| limit.as_secs());
        (plan.workers, listen(&plan), plan.mode, timeout, plan.warnings.len())
    }

    fn listen(plan: &LaunchPlan) -> String {
        plan.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn its_options_say_where() {
        for (line, expected) in [
            ("unicorn", ""),
            (
                "bundle exec unicorn -l 8080 --listen=/run/x.sock -lunix:tmp/x.sock",
                "0.0.0.0:8080 unix:/run/x.sock unix:/srv/tmp/x.sock",
            ),
            ("unicorn -Np80 -E production app.ru", "0.0.0.0:80"),
            ("unicorn_rails -o 127.0.0.1", "127.0.0.1:8080"),
            ("unicorn -l [::1]:80 -E -D -- -l 81", "[::1]:80"),
        ] {
            assert_eq!(listen(&read(line, "").expect(line)), expected, "{line}");
        }
        for line in ["unicorn -l nowhere", "unicorn -p x", "unicorn -c missing.rb"] {
            assert!(read(line, "").is_err(), "{line}");
        }
    }

    #[test]
    fn it_stays_in_the_foreground() {
        for line in
            ["unicorn -D", "unicorn_rails --daemonize", "bundle exec unicorn -c a.rb -ND", "unicorn -DE production"]
        {
            let why = read(line, "").expect_err("refused");
            assert!(why.contains("foreground; leave it out"), "{line}: {why}");
        }
    }

    #[test]
    fn its_file_says_how_many_and_where_and_how_long() {
        for (text, expected) in [
            ("", (None, "", Some(0o666), Some(60), 0)),
            ("worker_processes 3\ntimeout 30\n", (Some(3), "", Some(0o666), Some(30), 0)),
            ("worker_processes Integer(ENV['SET'] || 2)\n", (Some(7), "", Some(0o666), Some(60), 0)),
            ("worker_processes Etc.nprocessors\ntimeout X\n", (None, "", Some(0o666), None, 1)),
            ("pid '/run/unicorn.pid'\npreload_app true\n", (None, "", Some(0o666), Some(60), 1)),
            (
                "listen '/run/x.sock', :backlog => 64, :umask => 0007\n",
                (None, "unix:/run/x.sock", Some(0o660), Some(60), 0),
            ),
            (
                "listen 80, tcp_nopush: true\nlisten '/a', umask: MASK\n",
                (None, "0.0.0.0:80 unix:/a", None, Some(60), 0),
            ),
            ("working_directory 'a'\nlisten 'unix:b'\n", (None, "unix:/srv/a/b", Some(0o666), Some(60), 0)),
            ("working_directory A\nlisten 'unix:b'\nlisten \"#{A}/c\"\n", (None, "", Some(0o666), Some(60), 1)),
        ] {
            let (workers, listen, mode, timeout, warnings) = expected;
            assert_eq!(of_file(text), (workers, listen.to_owned(), mode, timeout, warnings), "{text}");
        }
        let why = read("unicorn -c config/unicorn.rb", "\nworker_processes 0\n").expect_err("refused");
        assert_eq!(why, format!("{FILE}:2: unicorn's worker_processes \"0\" is no number from 1 on"));
        let plan = read("unicorn -l 81 -c config/unicorn.rb", "listen 80\n").expect("read");
        assert_eq!(listen(&plan), "0.0.0.0:81 0.0.0.0:80", "it binds both");
    }

    #[test]
    fn a_worker_runs_the_owners_file_and_then_ours() {
        let of = |line: &str| {
            let plan = read(line, "").expect(line);
            let command = Command {
                launcher: Vec::new(),
                program: "/usr/bin/unicorn".into(),
                arguments: line.split_whitespace().skip(1).map(OsString::from).collect(),
                directory: "/srv".into(),
                environment: BTreeMap::new(),
            };
            let fds = WorkerFds { listeners: &[], private_socket: Some(3), files: 4, stats_socket: None, notify: "@n" };
            let command = plan.execution(&command, &fds).command;
            let words: Vec<_> = command.arguments.iter().map(|word| word.to_str().expect("UTF-8")).collect();
            (words.join(" "), plan.files)
        };
        let (line, files) = of("unicorn -c config/unicorn.rb -- app.ru");
        assert_eq!(line, "-c config/unicorn.rb --config-file /proc/self/fd/4 -- app.ru");
        let own = "instance_eval(File.read('config/unicorn.rb'), 'config/unicorn.rb')\n";
        assert_eq!(files, [format!("{own}{OURS}")]);
        assert_eq!(of("unicorn"), ("--config-file /proc/self/fd/4".to_owned(), vec![OURS.to_owned()]));
        assert_eq!(literal(r"it's #{a} \ "), r"'it\'s #{a} \\ '");
    }
}
