//! From the file and the options to [`Settings`].

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::adapter::{self, launcher::Launcher};
use crate::app::Address;
use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::regular_file;

use super::reader::{Reader, Section, Value};
use super::value::{boolean, integer, list, memory, permissions, share, text, time, variables};
use super::{Fallback, Health, Listen, Options, Reload, Requests, Settings, Start, StatusSocket, Workers, duration};

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;
/// How many paths `workers.warm` may have, and how many bytes they may have in all: they are one message to the template.
const MAX_WARM_PATHS: usize = 50;
const MAX_WARM_BYTES: usize = 16 * 1024;

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What in it is probably not meant so.
    pub warnings: Diagnostics,
    /// Where `reload.canary-workers` is, for those who know more of the server.
    pub canary_workers: Option<Location>,
}

/// Reads the configuration file, if there is one (`options.config` when `file` is none), and the options over it.
///
/// # Errors
/// All problems of file and options at once; warnings are among them.
pub fn load(file: Option<&Path>, options: &Options) -> Result<Loaded, Diagnostics> {
    let file = file.or(options.config.as_deref());
    let text = file.map_or_else(|| Ok(String::new()), read)?;
    let mut reader = Reader::new(file, &text);
    let table = reader.parse(&text);
    if reader.has_problems() {
        // What follows a slip in the grammar is often taken for something else: only the slips are reported.
        return Err(reader.finish());
    }
    let mut settings = reader.top(table.get_ref(), lower);
    overrule(&mut settings, options);
    check(&settings, &mut reader);
    let canary_workers = reader.location("reload", "canary-workers");
    let problems = reader.finish();
    if problems.has_errors() { Err(problems) } else { Ok(Loaded { settings, warnings: problems, canary_workers }) }
}

/// Every key that the file may hold, as `section.key`, sections among them.
pub fn keys() -> Vec<String> {
    let mut reader = Reader::new(None, "");
    reader.top(&DeTable::new(), lower);
    reader.keys().collect()
}

/// Reads a file's text, of which no more than [`LARGEST`] is ever held.
pub(super) fn read(file: &Path) -> Result<String, Diagnostics> {
    let bytes = regular_file::read(file, LARGEST).map_err(|error| {
        let problem = Diagnostic::error(format!("cannot read {}: {error}", file.display()));
        let too_large = error.kind() == io::ErrorKind::FileTooLarge;
        if too_large { problem.help("is it the right file?") } else { problem }
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        let mut problems = Diagnostics::default();
        problems.add_secret_source(file, String::from_utf8_lossy(error.as_bytes()));
        let end = start + char::REPLACEMENT_CHARACTER.len_utf8();
        let help = "TOML files are written in UTF-8: save it with that encoding";
        problems.push(Diagnostic::error("this is not UTF-8").help(help).at(file, start..end));
        problems
    })
}

/// All keys, in the order of `default.toml`. What cannot be used has been reported and reads as its default.
fn lower(top: &mut Section<'_, '_, '_>) -> Settings {
    Settings {
        command: top.get("command", command(COMMAND_HELP)).unwrap_or_default(),
        launcher: Launcher::default(),
        directory: top.get("directory", text(absolute)),
        environment_files: top.get("environment-files", list(text(environment_file))).unwrap_or_default(),
        environment: top.get("environment", variables).unwrap_or_default(),
        listen: top.section("listen", listen),
        workers: top.section("workers", workers),
        health: top.section("health", health),
        requests: top.section("requests", requests),
        reload: top.section("reload", reload),
        fallback: top.section("fallback", fallback),
        status: top.section("status", status),
    }
}

fn listen(section: &mut Section<'_, '_, '_>) -> Listen {
    Listen {
        addresses: section.get("addresses", list(text(str::parse::<Address>))).unwrap_or_default(),
        mode: section.get("mode", permissions),
        backlog: section.get("backlog", integer(1..=65_535)),
    }
}

fn workers(section: &mut Section<'_, '_, '_>) -> Workers {
    let default = Workers::default();
    Workers {
        count: section.get("count", integer(1..=4096)),
        start: section.get("start", text(start)),
        start_timeout: section.get("start-timeout", time(duration::positive)).unwrap_or(default.start_timeout),
        ready_after: section.get("ready-after", time(Ok)).unwrap_or(default.ready_after),
        stop_timeout: section.get("stop-timeout", time(duration::positive)),
        drain_timeout: section.get("drain-timeout", time(duration::positive)),
        watchdog: section.get("watchdog", time(duration::positive)),
        preload: section.get("preload", boolean),
        warm: section.get("warm", warm_paths).unwrap_or_default(),
        warm_requests: section.get("warm-requests", integer(1..=1000)).unwrap_or(default.warm_requests),
        max_age: section.get("max-age", time(duration::positive)),
        max_memory: section.get("max-memory", memory),
        memory_high: section.get("memory-high", memory),
        memory_max: section.get("memory-max", memory),
    }
}

fn health(section: &mut Section<'_, '_, '_>) -> Health {
    let default = Health::default();
    Health {
        probe: section.get("probe", boolean).unwrap_or(default.probe),
        path: section.get("path", text(request_path)),
        host: section.get("host", text(host)),
        headers: section.get("headers", list(text(header))).unwrap_or_default(),
        status: section.get("status", list(integer(100..=599))).map(|codes| {
            // integer() keeps every code below 600.
            codes.into_iter().filter_map(|code| u16::try_from(code).ok()).collect()
        }),
        command: section.get("command", command(PROGRAM_HELP)).unwrap_or_default(),
        interval: section.get("interval", time(duration::seconds)),
        timeout: section.get("timeout", time(duration::positive)).unwrap_or(default.timeout),
        failures: section.get("failures", integer(1..=100)),
        grace: section.get("grace", time(Ok)).unwrap_or(default.grace),
    }
}

fn requests(section: &mut Section<'_, '_, '_>) -> Requests {
    Requests {
        show: section.get("show", boolean).unwrap_or(Requests::default().show),
        slow: section.get("slow", time(duration::tenths)),
    }
}

fn reload(section: &mut Section<'_, '_, '_>) -> Reload {
    let default = Reload::default();
    Reload {
        canary: section.get("canary", boolean).unwrap_or(default.canary),
        surge: section.get("surge", integer(1..=4096)),
        canary_workers: section.get("canary-workers", share),
        canary_requests: section.get("canary-requests", integer(1..=1_000_000)).unwrap_or(default.canary_requests),
        canary_time: section.get("canary-time", time(duration::positive)).unwrap_or(default.canary_time),
        soak: section.get("soak", time(Ok)).unwrap_or(default.soak),
        check: section.get("check", commands).unwrap_or_default(),
        check_timeout: section.get("check-timeout", time(duration::positive)).unwrap_or(default.check_timeout),
        after: section.get("after", command(PROGRAM_HELP)).unwrap_or_default(),
    }
}

fn fallback(section: &mut Section<'_, '_, '_>) -> Fallback {
    Fallback { page: section.get("page", text(absolute)) }
}

fn status(section: &mut Section<'_, '_, '_>) -> StatusSocket {
    StatusSocket { listen: section.get("listen", text(str::parse::<Address>)) }
}

/// What to do about a missing command.
const COMMAND_HELP: &str = "write command = [\"venv/bin/gunicorn\", \"myproject.wsgi:application\"] in the file, or \
                            -- venv/bin/gunicorn myproject.wsgi:application on the command line";

const PROGRAM_HELP: &str = "the program is the first string of the list: [\"program\", \"argument\"]";

/// A program and its arguments.
fn command(help: &'static str) -> impl Fn(&Value<'_>, &mut Reader<'_>) -> Option<Vec<OsString>> {
    move |value, reader| {
        let command = list(text(word))(value, reader)?;
        if command.first().is_none_or(|program| program.is_empty()) {
            reader.error(value.span(), "the command names no program", Some(help.to_owned()));
            return None;
        }
        Some(command)
    }
}

/// One program with its arguments, or a list of those.
fn commands(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Vec<Vec<OsString>>> {
    let several = value.get_ref().as_array().is_some_and(|array| array.iter().any(|one| one.get_ref().is_array()));
    if several {
        list(command(PROGRAM_HELP))(value, reader)
    } else {
        command(PROGRAM_HELP)(value, reader).map(|only| vec![only])
    }
}

fn word(text: &str) -> Result<OsString, &'static str> {
    if text.contains('\0') { Err("an argument cannot hold a zero byte") } else { Ok(text.into()) }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') {
        Err("a path cannot hold a zero byte".to_owned())
    } else if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err(format!("{text:?} is not an absolute path: begin with /"))
    }
}

fn environment_file(text: &str) -> Result<PathBuf, String> {
    absolute(text.strip_prefix('-').unwrap_or(text)).map(|_| text.into())
}

fn start(text: &str) -> Result<Start, String> {
    clap::ValueEnum::from_str(text, false)
        .map_err(|_| format!("expected \"at-once\" or \"on-connection\", found {text:?}"))
}

fn request_path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        Err("a path begins with /")
    } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path holds no spaces and only ASCII: write others as %20")
    }
}

/// The paths that a template is warmed with.
fn warm_paths(value: &Value<'_>, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let paths = list(text(request_path))(value, reader)?;
    if paths.len() > MAX_WARM_PATHS || paths.iter().map(String::len).sum::<usize>() > MAX_WARM_BYTES {
        let help = format!("{MAX_WARM_PATHS} paths, with {MAX_WARM_BYTES} characters in all, are enough");
        reader.error(value.span(), "these are too many paths", Some(help));
        return None;
    }
    Some(paths)
}

fn host(text: &str) -> Result<String, &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        Ok(text.to_owned())
    } else {
        Err("expected a host as in a Host header: \"example.com\" or \"example.com:8000\"")
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let shape = || format!("{text:?} is not a header: write \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(shape)?;
    let (name, value) = (name.trim(), value.trim());
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(letter) || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(shape());
    }
    match name.to_ascii_lowercase().as_str() {
        "host" => Err("the Host header is `host`".to_owned()),
        "connection" | "content-length" | "transfer-encoding" => Err(format!("{name} is for sockd to say")),
        _ => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Puts the options over what the file says.
fn overrule(settings: &mut Settings, options: &Options) {
    let Settings {
        command,
        launcher,
        directory,
        environment,
        environment_files: _,
        listen,
        workers,
        health: _,
        requests: _,
        reload,
        fallback: _,
        status,
    } = settings;
    if !options.command.is_empty() {
        command.clone_from(&options.command);
    }
    (*launcher, *command) = adapter::look_through(command);
    if options.directory.is_some() {
        directory.clone_from(&options.directory);
    }
    environment.extend(options.environment.iter().cloned());
    if !options.listen.is_empty() {
        listen.addresses.clone_from(&options.listen);
    }
    workers.count = options.workers.or(workers.count);
    workers.start = options.start.or(workers.start);
    workers.start_timeout = options.start_timeout.unwrap_or(workers.start_timeout);
    workers.stop_timeout = options.stop_timeout.or(workers.stop_timeout);
    workers.watchdog = options.watchdog.or(workers.watchdog);
    workers.drain_timeout = options.drain_timeout.or(workers.drain_timeout);
    workers.preload = options.preload.then_some(true).or(workers.preload);
    workers.ready_after = options.ready_after.unwrap_or(workers.ready_after);
    reload.canary &= !options.no_canary;
    if options.status_listen.is_some() {
        status.listen.clone_from(&options.status_listen);
    }
}

/// What no single value shows.
fn check(settings: &Settings, reader: &mut Reader<'_>) {
    let missing = match settings.command.first() {
        Some(program) if program.is_empty() => Some("the command names no program".to_owned()),
        Some(_) => None,
        // What is wrong with it has been reported.
        None if reader.has("", "command") || reader.has_misspelt("", "command") => None,
        None => Some(match reader.file() {
            Some(file) => format!("there is no command, neither in {} nor on the command line", file.display()),
            None => "there is no command".to_owned(),
        }),
    };
    if let Some(message) = missing {
        reader.about("", "", Diagnostic::error(message).help(COMMAND_HELP));
    }
    if settings.directory.as_ref().is_some_and(|directory| !directory.as_os_str().as_bytes().starts_with(b"/")) {
        reader.about("", "directory", Diagnostic::error("--directory wants an absolute path"));
    }
    let workers = &settings.workers;
    if workers.ready_after >= workers.start_timeout {
        let message = "no worker could ever be ready: ready-after is not shorter than start-timeout";
        reader.about("workers", "ready-after", Diagnostic::error(message));
    }
    if let (Some(high), Some(max)) = (workers.memory_high, workers.memory_max)
        && high >= max
    {
        let message = "memory-high has no effect: it is not less than memory-max";
        reader.about("workers", "memory-high", Diagnostic::warning(message));
    }
    let addresses = &settings.listen.addresses;
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            reader.about("listen", "addresses", Diagnostic::error(format!("{address} is there twice")));
        }
    }
    let unix = addresses.iter().any(|address| matches!(address, Address::Unix(_)));
    if settings.listen.mode.is_some() && !addresses.is_empty() && !unix {
        let message = "mode has no effect: no address is a unix socket with a path";
        reader.about("listen", "mode", Diagnostic::warning(message));
    }
    if let Some(address) = &settings.status.listen {
        if addresses.contains(address) {
            let message = format!("{address} is where visitors come: it cannot tell the state, too");
            reader.about("status", "listen", Diagnostic::error(message).help("take another port or path"));
        }
        if let Address::Tcp(address) = address
            && !address.ip().to_canonical().is_loopback()
        {
            let message =
                format!("everybody who reaches {address} can read the state of this instance, without a password");
            let help = "listen on 127.0.0.1 or a unix socket, or let a firewall decide who comes";
            reader.about("status", "listen", Diagnostic::warning(message).help(help));
        }
    }
    let health = &settings.health;
    if settings.requests.slow.is_some() && !settings.requests.show {
        let help = "leave show out, or slow";
        reader.about("requests", "slow", Diagnostic::warning("slow has no effect without show").help(help));
    }
    if health.status.as_ref().is_some_and(Vec::is_empty) {
        let help = "leave status out to accept any reply below 500";
        reader.about("health", "status", Diagnostic::error("no reply would count as well").help(help));
    }
    if health.path.is_none() && reader.has("health", "status") && !reader.has("health", "path") {
        let help = "add path = \"/\" to ask the application";
        reader.about("health", "status", Diagnostic::warning("status has no effect without path").help(help));
    }
    for key in ["path", "host", "headers", "status"] {
        if !health.command.is_empty() && reader.has("health", key) {
            let message = format!("{key} has no effect beside command, which is run in place of a request");
            reader.about("health", key, Diagnostic::warning(message));
        }
    }
    for key in ["interval", "failures", "grace"] {
        if !health.probe && reader.has("health", key) {
            let message = format!("{key} has no effect with probe = false");
            reader.about("health", key, Diagnostic::warning(message));
        }
    }
}
