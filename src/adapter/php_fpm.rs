//! What is known of PHP-FPM: its master and children as one worker, on the sockets that we hand over.
//!
//! It takes inherited sockets by FPM_SOCKETS, `address=descriptor`, which it sets when it executes itself again, and says
//! READY=1 (both measured with 8.2). When it ends, it removes the file of every unix socket by that name, and the name
//! must be a pool's `listen`. So a worker reads its configuration from a descriptor, with the included files in their
//! places, and with names for `listen` that are nobody's. SIGQUIT is graceful only with a `process_control_timeout`,
//! which is 0 by default (measured: requests in flight end in 502). Its status page is served on an inherited socket as
//! well (`pm.status_listen`, 8.0), by a process that exists only while somebody asks (measured with 8.2). How many
//! children there are stays the pools' affair.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::exec::{Exec, LaunchPlan, ServerInputs, StatsInterface, TextAlias, Worker, WorkerCommand, WorkerFds};
use super::origins::Origins;
use super::{Adapter, Making};
use crate::app::{Address, Command, Conventions, Reopen};
use crate::supervisor::Protocol;

/// SIGQUIT (signal(7)): the children finish their requests; SIGTERM ends them at once.
const SIGQUIT: i32 = 3;
/// Children may take a day for their requests, unless a file says less: sockd has a limit of its own.
const BEGIN: &str = "[global]\nprocess_control_timeout = 1d\n";
/// What `pm.status_listen` is for PHP-FPM.
const STATUS_KEY: &str = "/sockd/has/no/socket/for/status";
/// Files that include files are followed so deep, and no further.
const DEPTH: usize = 8;
/// So many files are read, counted each time.
const MAX_FILES: usize = 1000;

/// PHP-FPM, by the name of its program.
pub static ADAPTER: Adapter = Adapter {
    conventions: Conventions {
        name: "php-fpm",
        drain_signals: &[SIGQUIT],
        stop_signal: SIGQUIT,
        // SIGUSR1, to its master; before that is set up, it would end it.
        reopen: Some(Reopen { signal: 10, while_starting: false }),
        exits: &[],
    },
    making: Making::Exec(&EXEC),
    // FastCGI.
    protocol: Protocol::Other,
};

static EXEC: Exec = Exec { runs: |command| version(command).is_some(), plan };

/// What follows `php-fpm` in the program's name: `8.2`, or nothing.
fn version(command: &[OsString]) -> Option<&str> {
    let name = Path::new(command.first()?).file_name()?.to_str()?;
    name.strip_prefix("php-fpm").filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// A pool: its name, and where it would listen.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pool {
    name: String,
    listen: Address,
}

impl Pool {
    /// What the pool's `listen` is for PHP-FPM. Without a socket it cannot bind there, and says so.
    fn key(&self) -> String {
        format!("/sockd/has/no/socket/for/pool/{}", self.name)
    }
}

fn plan(inputs: &ServerInputs<'_>) -> Result<LaunchPlan, String> {
    let (path, text) = configuration(inputs)?;
    let mut reading = Reading {
        inputs,
        files: 0,
        section: String::new(),
        pools: Vec::new(),
        mode: None,
        timeout: None,
        status_path: None,
        status_listen: false,
        warnings: Vec::new(),
        text: BEGIN.to_owned(),
        origins: Origins::new(&path, BEGIN.lines().count()),
    };
    reading.read(&path, &text, 0)?;
    if reading.pools.is_empty() {
        return Err(format!("{}: no pool of PHP-FPM says where it listens", path.display()));
    }
    let (stats, with_status) = reading.status_page().unzip();
    Ok(LaunchPlan {
        workers: Some(1),
        graceful_timeout: reading.timeout,
        listen: reading.pools.iter().map(|pool| pool.listen.clone()).collect(),
        // PHP-FPM's default.
        mode: Some(reading.mode.unwrap_or(0o660)),
        // It has no watchdog.
        timeout: Some(Duration::ZERO),
        files: [reading.text].into_iter().chain(with_status).collect(),
        warnings: reading.warnings,
        worker: Some(Box::new(Process {
            pools: reading.pools,
            origins: Arc::new(reading.origins),
            with_status: stats.is_some(),
        })),
        stats,
        ..LaunchPlan::default()
    })
}

/// The configuration file that the command line names, or else the usual one.
fn configuration(inputs: &ServerInputs<'_>) -> Result<(PathBuf, String), String> {
    let mut named = None;
    let mut words = inputs.command.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if let Some(joined) = word.strip_prefix("--fpm-config=") {
            named = Some(joined.to_owned());
        } else if word == "-y" || word == "--fpm-config" {
            named = words.next().map(|word| word.into_owned());
        } else if let Some(joined) = word.strip_prefix("-y") {
            named = Some(joined.to_owned());
        }
    }
    if let Some(name) = named {
        let path = inputs.directory.join(name);
        let text = (inputs.read)(&path)?;
        return Ok((path, text));
    }
    // Debian's several versions are named by theirs.
    if let Some(version) = version(inputs.command).filter(|version| !version.is_empty()) {
        let path = PathBuf::from(format!("/etc/php/{version}/fpm/php-fpm.conf"));
        let text = (inputs.read)(&path)?;
        return Ok((path, text));
    }
    let usual = ["/etc/php-fpm.conf", "/usr/local/etc/php-fpm.conf"].map(Path::new);
    let found = usual.iter().find_map(|path| Some((path.to_path_buf(), (inputs.read)(path).ok()?)));
    found.ok_or_else(|| "cannot tell which configuration PHP-FPM reads: name it with --fpm-config".to_owned())
}

/// What is read so far.
struct Reading<'a> {
    inputs: &'a ServerInputs<'a>,
    files: usize,
    section: String,
    pools: Vec<Pool>,
    mode: Option<u32>,
    timeout: Option<Duration>,
    /// `pm.status_path`, and whether there is a `pm.status_listen`.
    status_path: Option<String>,
    status_listen: bool,
    warnings: Vec<String>,
    /// The configuration as a worker gets it.
    text: String,
    origins: Origins,
}

impl Reading<'_> {
    fn read(&mut self, path: &Path, text: &str, depth: usize) -> Result<(), String> {
        let file: Arc<str> = path.display().to_string().into();
        for (number, line) in (1..).zip(text.lines()) {
            let at = |why: &str| format!("{file}:{number}: {why}");
            let bare = line.trim();
            if let Some(section) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                section.0.trim().clone_into(&mut self.section);
            }
            let setting = bare.split_once('=').filter(|_| !bare.starts_with([';', '#', '[']));
            let Some((name, value)) = setting.map(|(name, value)| (name.trim(), plain(value))) else {
                self.keep(line, &file, number);
                continue;
            };
            match name {
                "include" => {
                    if depth == DEPTH {
                        return Err(at("files include each other"));
                    }
                    for (path, text) in self.included(value).map_err(|why| at(&why))? {
                        self.files += 1;
                        if self.files > MAX_FILES {
                            return Err(at("more than 1000 files are included"));
                        }
                        self.read(&path, &text, depth + 1)?;
                    }
                }
                "listen" => {
                    let listen = address(&value.replace("$pool", &self.section))
                        .map_err(|why| at(&format!("listen = {value}: {why}")))?;
                    let pool = Pool { name: self.section.clone(), listen };
                    self.keep(&format!("listen = {}", pool.key()), &file, number);
                    // What is said last counts.
                    self.pools.retain(|other| other.name != pool.name);
                    self.pools.push(pool);
                }
                // By the names that we give, every socket is a unix socket, and nobody would be kept out.
                "listen.allowed_clients" => {
                    let instead = "write IPAddressAllow= and IPAddressDeny=any in the socket unit";
                    return Err(at(&format!("{name} does not hold under sockd: {instead}")));
                }
                "listen.owner" | "listen.group" | "listen.acl_users" | "listen.acl_groups" => {
                    let instead = "the socket unit's SocketUser= and SocketGroup= say whose the socket is";
                    self.warn_once(at(&format!("{name} is ignored: {instead}")), instead);
                    self.keep(line, &file, number);
                }
                // Each worker would write it, and remove it.
                "pid" => {
                    // PHP-FPM's children, which get a signal for the whole unit as well, end at SIGUSR1.
                    let instead = "to reopen log files, `systemctl kill --kill-who=main -s USR1 UNIT` signals sockd, \
                                   which passes it on";
                    self.warn_once(at(&format!("pid is left out: {instead}")), instead);
                    self.keep("", &file, number);
                }
                "pm.status_path" => {
                    self.status_path = Some(value.to_owned());
                    self.keep(line, &file, number);
                }
                "pm.status_listen" => {
                    self.status_listen = true;
                    self.keep(line, &file, number);
                }
                // sockd is not left alone.
                "daemonize" => self.keep("", &file, number),
                "process_control_timeout" => {
                    self.timeout = Some(seconds(value).ok_or_else(|| at(&format!("{name} = {value} is no time")))?);
                    // Zero would end requests.
                    self.timeout = self.timeout.filter(|timeout| !timeout.is_zero());
                    self.keep(if self.timeout.is_some() { line } else { "" }, &file, number);
                }
                _ => {
                    if name == "listen.mode" {
                        let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                        let mode = mode.ok_or_else(|| at(&format!("listen.mode = {value} is no permissions")))?;
                        // For all of them, what each allows.
                        self.mode = Some(self.mode.unwrap_or(mode) & mode);
                    }
                    self.keep(line, &file, number);
                }
            }
        }
        Ok(())
    }

    /// How it is asked of its requests, and the configuration for that. None: it is a PHP-FPM
    /// without such a socket (before 8.0, or one whose name does not say its version), has several pools, of which each
    /// would need one, or has its owner's socket for that.
    fn status_page(&self) -> Option<(StatsInterface, String)> {
        let major: u32 = version(self.inputs.command)?.split('.').next()?.parse().ok()?;
        let [pool] = &self.pools[..] else { return None };
        if major < 8 || self.status_listen {
            return None;
        }
        let own = self.status_path.as_ref().map(|path| path.replace("$pool", &pool.name));
        let own = own.filter(|path| path.starts_with('/') && path.len() < 128);
        // Visitors reach the path by the pool's own socket, too, and do not know it.
        let path: Arc<str> = own.unwrap_or_else(|| format!("/sockd-{:016x}{:016x}", random(), random())).into();
        let text = format!("{}[{}]\npm.status_path = {path}\npm.status_listen = {STATUS_KEY}\n", self.text, pool.name);
        Some((StatsInterface::PhpFpm { path }, text))
    }

    /// Adds a warning, unless there is one with the same remedy.
    fn warn_once(&mut self, warning: String, remedy: &str) {
        if !self.warnings.iter().any(|other| other.ends_with(remedy)) {
            self.warnings.push(warning);
        }
    }

    /// The worker gets this for a line of the file.
    fn keep(&mut self, line: &str, file: &Arc<str>, number: usize) {
        self.text.push_str(line);
        self.text.push('\n');
        self.origins.push(file, number);
    }

    /// The files of `include`: one, or those of a directory by a pattern such as `/etc/php/8.2/fpm/pool.d/*.conf`.
    fn included(&self, pattern: &str) -> Result<Vec<(PathBuf, String)>, String> {
        let path = Path::new(pattern);
        if !path.is_absolute() {
            return Err(format!("include = {pattern}: write the whole path"));
        }
        let (directory, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let files = match name.split_once('*') {
            _ if directory.contains(['*', '?', '[']) || name.contains(['?', '[']) || name.matches('*').count() > 1 => {
                return Err(format!("include = {pattern} is not understood: one * in the file's name is"));
            }
            None => vec![path.to_owned()],
            Some((begin, end)) => {
                let directory = Path::new(if directory.is_empty() { "/" } else { directory });
                let mut names = (self.inputs.names)(directory)?;
                names.sort();
                // As a shell has it, a * at the beginning names no hidden file.
                let fits = |name: &&OsString| {
                    let name = name.to_string_lossy();
                    let rest = name.strip_prefix(begin).filter(|rest| !begin.is_empty() || !rest.starts_with('.'));
                    rest.is_some_and(|rest| rest.ends_with(end))
                };
                names.iter().filter(fits).map(|name| directory.join(name)).collect()
            }
        };
        files.into_iter().map(|path| (self.inputs.read)(&path).map(|text| (path, text))).collect()
    }
}

/// A number that nobody can guess.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// A value without its comment and its quotes.
fn plain(value: &str) -> &str {
    let value = value.trim();
    match value.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
        Some((quoted, _)) => quoted,
        None => value.split(';').next().unwrap_or_default().trim(),
    }
}

/// `10`, `10s`, `5m`, `1h`, `1d`.
fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => 1,
    };
    Some(Duration::from_secs(number.trim().parse::<u64>().ok()?.checked_mul(unit)?))
}

/// `/run/php.sock`, `127.0.0.1:9000`, `[::]:9000`, and `9000`, which is that port on all addresses.
fn address(text: &str) -> Result<Address, String> {
    let text = if text.bytes().all(|byte| byte.is_ascii_digit()) { format!("[::]:{text}") } else { text.to_owned() };
    text.parse().map_err(|error: crate::app::ParseAddressError| error.to_string())
}

/// Whether a pool that would listen here is meant by a socket there: all addresses have two ways to be written.
fn is_at(pool: &Address, socket: &Address) -> bool {
    match (pool, socket) {
        (Address::Tcp(pool), Address::Tcp(socket)) if pool.ip().is_unspecified() => {
            pool.port() == socket.port() && socket.ip().is_unspecified()
        }
        _ => pool == socket,
    }
}

/// One worker: a master and its children.
#[derive(Debug)]
struct Process {
    pools: Vec<Pool>,
    origins: Arc<Origins>,
    /// Whether there is a second file, the same with a socket for its status page.
    with_status: bool,
}

impl Process {
    /// FPM_SOCKETS: every pool has the socket where it would listen. A single pool and a single socket belong together;
    /// any other pool without a socket is PHP-FPM's to refuse, by its key.
    fn sockets(&self, listeners: &[&Address]) -> String {
        let single = self.pools.len() == 1 && listeners.len() == 1;
        let own = |pool: &Pool| listeners.iter().position(|address| single || is_at(&pool.listen, address));
        let pairs = self.pools.iter().filter_map(|pool| Some((pool.key(), own(pool)?)));
        pairs.map(|(key, index)| format!("{key}={}", 3 + index)).collect::<Vec<_>>().join(",")
    }
}

impl Worker for Process {
    fn execution(&self, command: &Command, fds: &WorkerFds<'_>) -> WorkerCommand {
        let mut command = command.clone();
        // The last one counts.
        let status = fds.stats_socket.filter(|_| self.with_status);
        let configuration = format!("/proc/self/fd/{}", fds.files + usize::from(status.is_some()));
        command.arguments.extend(["--nodaemonize", "--fpm-config", &configuration].map(OsString::from));
        let mut sockets = self.sockets(fds.listeners);
        if let Some(fd) = status {
            let comma = if sockets.is_empty() { "" } else { "," };
            sockets.push_str(&format!("{comma}{STATUS_KEY}={fd}"));
        }
        command.environment.insert(OsStr::new("FPM_SOCKETS").to_owned(), sockets.into());
        let alias = Some(TextAlias { path: configuration, origins: Arc::clone(&self.origins) });
        WorkerCommand { command, listen_fds: false, notify_socket: true, alias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MAIN: &str =
        "[global]\npid = /run/php.pid\nerror_log = /var/log/x ; there\ninclude=/etc/php/8.2/fpm/pool.d/*.conf\n";
    const WWW: &str = "[www]\nuser = www-data\n;listen = 9\nlisten = /run/php/php8.2-fpm.sock\nlisten.mode = 0600\n";
    const FILES: [(&str, &str); 4] = [
        ("/etc/php/8.2/fpm/php-fpm.conf", MAIN),
        ("/etc/php/8.2/fpm/pool.d/www.conf", WWW),
        ("/etc/php/8.2/fpm/pool.d/.hidden.conf", "[hidden]\nlisten = 9009\n"),
        ("/etc/php/8.2/fpm/pool.d/other.conf", "[other]\nlisten = \"9001\"\n"),
    ];

    fn read(line: &str, files: &[(&str, &str)]) -> Result<LaunchPlan, String> {
        let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        plan(&ServerInputs {
            command: &command,
            environment: &BTreeMap::new(),
            directory: Path::new("/srv"),
            processors: 2,
            read: &|path| {
                let found = files.iter().find(|(name, _)| Path::new(name) == path);
                found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| format!("cannot read {}", path.display()))
            },
            names: &|directory| {
                let within = files.iter().filter_map(|(name, _)| Path::new(name).strip_prefix(directory).ok());
                Ok(within.map(|name| name.as_os_str().to_owned()).collect())
            },
        })
    }

    fn command() -> Command {
        Command {
            launcher: Vec::new(),
            program: "/usr/sbin/php-fpm8.2".into(),
            arguments: vec!["php-fpm8.2".into()],
            directory: "/".into(),
            environment: BTreeMap::new(),
        }
    }

    #[test]
    fn pools_say_where_and_get_names_that_are_nobodys() {
        let plan = read("/usr/sbin/php-fpm8.2", &FILES).expect("read");
        let listen: Vec<_> = plan.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["[::]:9001", "unix:/run/php/php8.2-fpm.sock"]);
        assert_eq!((plan.workers, plan.mode), (Some(1), Some(0o600)));
        let text = "[global]\nprocess_control_timeout = 1d\n[global]\n\nerror_log = /var/log/x ; there\n[other]\nlisten = /sockd/has/no/socket/for/pool/other\n\
                    [www]\nuser = www-data\n;listen = 9\nlisten = /sockd/has/no/socket/for/pool/www\nlisten.mode = 0600\n";
        assert_eq!(plan.files, [text]);
        let warning =
            "/etc/php/8.2/fpm/php-fpm.conf:2: pid is left out: to reopen log files, `systemctl kill --kill-who=main";
        assert!(plan.warnings.len() == 1 && plan.warnings[0].starts_with(warning), "{:?}", plan.warnings);
    }

    #[test]
    fn a_pool_is_asked_of_its_requests_on_a_socket_of_its_own() {
        let pool = "[www]\nlisten = 9000\n";
        let plan_of =
            |program: &str, text: &str| read(&format!("{program} -y x.conf"), &[("/srv/x.conf", text)]).expect("read");
        let plan = plan_of("php-fpm8.2", pool);
        let Some(StatsInterface::PhpFpm { path }) = plan.stats.clone() else { panic!("{plan:?}") };
        assert!(path.starts_with("/sockd-") && path.len() == 39, "{path}");
        assert_ne!(plan_of("php-fpm8.2", pool).stats, plan.stats, "nobody can guess it");
        let more = format!("[www]\npm.status_path = {path}\npm.status_listen = {STATUS_KEY}\n");
        assert_eq!(plan.files[1], format!("{}{more}", plan.files[0]));
        let tcp = "[::]:9000".parse::<Address>().expect("an address");
        let run = |plan: &LaunchPlan, stats_socket| {
            let fds = WorkerFds { listeners: &[&tcp], private_socket: None, files: 4, stats_socket, notify: "@n" };
            let command = plan.execution(&command(), &fds).command;
            let file = command.arguments.last().expect("it names one").to_str().expect("UTF-8").to_owned();
            (file, command.environment[OsStr::new("FPM_SOCKETS")].to_str().expect("UTF-8").to_owned())
        };
        let key = "/sockd/has/no/socket/for/pool/www=3";
        assert_eq!(run(&plan, Some(6)), ("/proc/self/fd/5".to_owned(), format!("{key},{STATUS_KEY}=6")));
        assert_eq!(run(&plan, None), ("/proc/self/fd/4".to_owned(), key.to_owned()), "requests.show = false");

        // Its owner's path stays, and its owner's socket is enough.
        let own = plan_of("php-fpm8.2", &format!("{pool}pm.status_path = /status-$pool\n")).stats;
        assert_eq!(own, Some(StatsInterface::PhpFpm { path: "/status-www".into() }));
        for (program, text) in [
            ("php-fpm8.2", format!("{pool}pm.status_listen = 127.0.0.1:9001\n")),
            ("php-fpm8.2", format!("{pool}[two]\nlisten = 9001\n")),
            ("php-fpm7.4", pool.to_owned()),
            ("php-fpm", pool.to_owned()),
        ] {
            let plan = plan_of(program, &text);
            assert_eq!((plan.stats, plan.files.len()), (None, 1), "{program} {text}");
        }
    }

    #[test]
    fn what_is_said_last_counts_and_a_single_pool_takes_a_single_socket() {
        let text = "[web]\nlisten = 127.0.0.1:9000\nlisten.mode = 0666\nlisten.owner = x\nlisten.group = x\n\
                    [web]\nlisten = /run/$pool.sock\nlisten.mode = 0660\n";
        let plan = read("php-fpm -y x.conf", &[("/srv/x.conf", text)]).expect("read");
        assert_eq!(plan.listen, ["/run/web.sock".parse().expect("a path")]);
        assert_eq!(plan.mode, Some(0o660));
        assert_eq!(plan.warnings.len(), 1);
        assert!(plan.warnings[0].starts_with("/srv/x.conf:4: listen.owner is ignored: "), "{:?}", plan.warnings);
        let pools = vec![Pool { name: "web".to_owned(), listen: plan.listen[0].clone() }];
        let fds = "127.0.0.1:80".parse().expect("a port");
        let origins = Arc::new(Origins::new(Path::new("/srv/x.conf"), 0));
        assert_eq!(
            Process { pools, origins, with_status: false }.sockets(&[&fds]),
            "/sockd/has/no/socket/for/pool/web=3"
        );
    }

    #[test]
    fn mistakes_are_quoted_with_the_place_in_the_owners_files() {
        let plan = read("php-fpm8.2", &FILES).expect("read");
        let command = command();
        let fds = WorkerFds { listeners: &[], private_socket: None, files: 7, stats_socket: None, notify: "@n" };
        let alias = plan.execution(&command, &fds).alias.expect("it reads a text of ours");
        for (said, named) in [
            ("ERROR: [/proc/self/fd/7:10] unknown entry 'x'", "[/etc/php/8.2/fpm/pool.d/www.conf:3] unknown entry 'x'"),
            ("ERROR: [/proc/self/fd/7:5] unknown entry 'x'", "[/etc/php/8.2/fpm/php-fpm.conf:3] unknown entry 'x'"),
            ("failed to load configuration file '/proc/self/fd/7'", "'/etc/php/8.2/fpm/php-fpm.conf'"),
        ] {
            assert!(alias.name_files(said).ends_with(named), "{}", alias.name_files(said));
        }
    }

    #[test]
    fn children_finish_their_requests_in_the_time_that_is_said() {
        for (said, timeout) in [("0", None), ("90", Some(90)), ("2m", Some(120)), ("1d", Some(86400))] {
            let text = format!("[global]\nprocess_control_timeout = {said}\n[www]\nlisten = 9000\n");
            let plan = read("php-fpm -y x.conf", &[("/srv/x.conf", &text)]).expect("read");
            assert_eq!(plan.graceful_timeout, timeout.map(Duration::from_secs));
            let own = format!("process_control_timeout = {said}\n");
            assert_eq!(plan.files[0][BEGIN.len()..].contains(&own), timeout.is_some());
        }
    }

    #[test]
    fn a_worker_gets_the_sockets_by_their_addresses() {
        let plan = read("php-fpm8.2", &FILES).expect("read");
        let command = command();
        let address = |text: &str| text.parse::<Address>().expect("an address");
        let (unix, tcp) = (address("/run/php/php8.2-fpm.sock"), address("0.0.0.0:9001"));
        let (local, another) = (address("127.0.0.1:9001"), address("/run/another.sock"));
        for (listeners, sockets) in [
            (&[&unix, &tcp][..], "other=4,www=3"),
            (&[&tcp], "other=3"),
            (&[&unix], "www=3"),
            // Nobody gets another's.
            (&[&another, &local], ""),
        ] {
            let fds = WorkerFds { listeners, private_socket: None, files: 7, stats_socket: None, notify: "@n" };
            let execution = plan.execution(&command, &fds);
            let words: Vec<_> = execution.command.arguments.iter().map(|word| word.to_str().expect("UTF-8")).collect();
            assert_eq!(words, ["php-fpm8.2", "--nodaemonize", "--fpm-config", "/proc/self/fd/7"]);
            let said = execution.command.environment[OsStr::new("FPM_SOCKETS")].to_str().expect("UTF-8");
            assert_eq!(said.replace("/sockd/has/no/socket/for/pool/", ""), sockets);
        }
    }

    #[test]
    fn what_is_not_understood_names_its_place() {
        for (text, why) in [
            ("[www]\nlisten = here\n", "/srv/x.conf:2: listen = here: "),
            ("[www]\nlisten = 9000\nlisten.mode = rw\n", "/srv/x.conf:3: listen.mode = rw is no permissions"),
            ("include = pools/*.conf\n", "/srv/x.conf:1: include = pools/*.conf: write the whole path"),
            ("include = /etc/*/x.conf\n", "/srv/x.conf:1: include = /etc/*/x.conf is not understood"),
            ("include = /none.conf\n", "/srv/x.conf:1: cannot read /none.conf"),
            ("include = /srv/x.conf\n", "/srv/x.conf:1: files include each other"),
            ("[global]\nprocess_control_timeout = soon\n", "/srv/x.conf:2: process_control_timeout = soon is no time"),
            ("[www]\nlisten.allowed_clients = 10.0.0.5\n", "/srv/x.conf:2: listen.allowed_clients does not hold"),
            ("[global]\n", "/srv/x.conf: no pool of PHP-FPM says where it listens"),
        ] {
            let files = [("/srv/x.conf", text)];
            for line in ["php-fpm -y x.conf", "php-fpm -yx.conf -F", "php-fpm --fpm-config=x.conf"] {
                let said = read(line, &files).expect_err("refused");
                assert!(said.starts_with(why), "{said}");
            }
        }
        let often = "include = /empty.conf\n".repeat(MAX_FILES + 1);
        let said = read("php-fpm -y x.conf", &[("/srv/x.conf", &often), ("/empty.conf", "")]).expect_err("refused");
        assert_eq!(said, "/srv/x.conf:1001: more than 1000 files are included");
        assert!(read("php-fpm", &[]).expect_err("refused").contains("--fpm-config"));
    }

    #[test]
    fn only_php_fpm_is_recognised() {
        let is = |line: &str| version(&[line.into()]).is_some();
        assert!(is("php-fpm") && is("/usr/sbin/php-fpm8.2") && is("php-fpm7"));
        assert!(!is("php") && !is("php-fpm.sh") && !is("php8.2-fpm"));
    }
}
