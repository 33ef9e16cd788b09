//! A service unit is adopted: its text in, the drop-in's text out.
//!
//! Owns: what a unit must be to be adopted, every line of the drop-in, and the word why.
//! Never: reads a file or asks systemd; what is not in the unit's text comes in [`Surroundings`].

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::proposal::{Draft, Proposal};
use super::socket::{self, Read};
use super::unit::{Setting, Unit};
use crate::adapter::{self, Adapter, launcher, shlex};
use crate::cli::file_text::{Line, unit as line};
use crate::config::duration;
use crate::systemd::Manager;

/// The drop-in's file name. Drop-ins take effect in the order of their names (systemd.unit(5)): `override.conf`, which
/// `systemctl edit` writes, comes before it.
pub const DROP_IN: &str = "sockd.conf";
/// Where the administrator's units are.
/// What systemd lets stand before a command (systemd.service(5), "Command lines"; `|` since 258).
const PREFIXES: [char; 6] = ['@', '-', ':', '+', '!', '|'];
/// The first systemd with DelegateSubgroup= (systemd.resource-control(5)).
const SUBGROUPS: u32 = 254;
/// The least that is left for starting and stopping; sockd asks for more where it needs it.
const LIMIT: &str = "90s";

/// What is not in the unit's own text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// This program, an absolute path.
    pub sockd: PathBuf,
    /// The socket units that start the service.
    pub sockets: Vec<String>,
    /// Whether the socket unit that is missing is wanted.
    pub socket_wanted: bool,
    /// Whose unit it is.
    pub manager: Manager,
    /// systemd's version; 0 when it is not known.
    pub systemd: u32,
    /// Whether a symbolic link leads to WorkingDirectory=.
    pub linked_directory: bool,
    /// Whether systemd can make no directory for StateDirectory=: a unit that has one would not start.
    pub state_is_read_only: bool,
}

/// The command of ExecStart=, taken apart.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) setting: &'a Setting,
    /// `-` and the like, without the `@`.
    prefixes: String,
    /// The command as it is written, with its continued lines.
    written: String,
    /// The server's words. Variables and specifiers stand as they are.
    pub(super) words: Vec<OsString>,
    /// Whether sockd runs them already, as the unit itself has it.
    prefixed: bool,
    adapter: &'static Adapter,
}

/// Where a unit's drop-in goes.
pub fn drop_in_path(unit: &str, manager: Manager) -> PathBuf {
    manager.own_units().join(format!("{unit}.d")).join(DROP_IN)
}

/// Where a unit's socket goes.
pub fn socket_path(unit: &str, manager: Manager) -> PathBuf {
    manager.own_units().join(socket_name(unit))
}

/// `gunicorn.socket` for `gunicorn.service`; the instance's own for a template.
fn socket_name(unit: &str) -> String {
    format!("{}.socket", unit.strip_suffix(".service").unwrap_or(unit))
}

/// What adopting the unit comes to. The unit is without the drop-in of an earlier adoption.
///
/// # Errors
/// Why it cannot be adopted, and what to do about it.
pub fn propose(unit: &Unit, around: &Surroundings, read: Read<'_>) -> Result<Proposal, String> {
    let start = start(unit)?;
    check_kind(unit, &start)?;
    let known = start.adapter.conventions.name != adapter::generic::ADAPTER.conventions.name;
    let listens = socket::listens(unit, &start.words, read);
    let can_be_made = listens.is_ok();
    let mut sockets = around.sockets.clone();
    let mut files = Vec::new();
    if sockets.is_empty() && around.socket_wanted {
        let name = socket_name(&unit.name);
        files.push(socket::draft(unit, &socket_path(&unit.name, around.manager), around.manager, &listens?)?);
        sockets.push(name);
    } else if sockets.is_empty() && !known {
        return Err(format!(
            "nothing tells where {} listens: make a socket unit for it first (man systemd.socket), as {} with \
             ListenStream=",
            program(&start),
            socket_name(&unit.name)
        ));
    }
    files.insert(0, drop_in(unit, &start, &sockets, around)?);
    if start.prefixed && !files.iter().any(Draft::changes_anything) {
        return Err(format!("{} runs sockd already, with every line that is worth having", unit.name));
    }
    let option = if files.len() > 1 { "--socket " } else { "" };
    let notes = notes(unit, &start, known, &sockets, can_be_made, around);
    let next = next(unit, &sockets, files.len() > 1, around.manager);
    let write = format!("sockd adopt --write {option}{}", around.manager.name_typed(&unit.name));
    Ok(Proposal { name: unit.name.clone(), manager: around.manager, write, files, notes, next })
}

fn program<'a>(start: &'a Start<'_>) -> std::borrow::Cow<'a, str> {
    start.words.first().map_or("".into(), |program| program.to_string_lossy())
}

/// The words of a unit's command, its program first.
///
/// # Errors
/// Why there is none that sockd could run.
pub fn command(unit: &Unit) -> Result<Vec<OsString>, String> {
    start(unit).map(|start| start.words)
}

pub(super) fn start(unit: &Unit) -> Result<Start<'_>, String> {
    let name = &unit.name;
    let setting = match unit.list("Service", "ExecStart")[..] {
        [setting] => setting,
        [] => return Err(format!("{name} has no ExecStart=: there is nothing that sockd could run")),
        [_, _, ..] => return Err(format!("{name} has several ExecStart=: sockd runs one server")),
    };
    let place = format!("{}:{}", setting.file.display(), setting.line);
    let bare = |text: &str| text.trim_start_matches(PREFIXES).trim_start().to_owned();
    let mut prefixes: String = setting.value.chars().take_while(|c| PREFIXES.contains(c)).collect();
    let mut written = bare(setting.raw());
    let mut words = shlex::split(&bare(&setting.value)).map_err(|why| format!("{place}: ExecStart=: {why}"))?;
    if prefixes.contains('@') {
        // The word after the program is what it is to be called; sockd calls it by its own name.
        let (program, rest) = written.split_once(char::is_whitespace).unwrap_or((&written, ""));
        let rest = rest.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
        written = format!("{program} {rest}").trim_end().to_owned();
        prefixes.retain(|c| c != '@');
        words.drain(1..2.min(words.len()));
    }
    let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    let Some(program) = words.first() else { return Err(format!("{place}: ExecStart= names no program")) };
    let shown = program.to_string_lossy();
    // Also behind what stands before a program and executes it, as /usr/bin/env.
    let behind = launcher::split(&words).1;
    let of_sockd = |words: &[OsString]| {
        words.first().is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == "sockd"))
    };
    let of_sockd = of_sockd(&words) || of_sockd(&behind);
    let server = words.iter().position(|word| word == "--").map(|end| words[end + 1..].to_vec());
    if let Some(words) = server.filter(|words| of_sockd && !words.is_empty()) {
        let adapter = adapter::recognise(&adapter::look_through(&words).1);
        return Ok(Start { setting, prefixes, written, words, prefixed: true, adapter });
    }
    if of_sockd {
        let first = setting.written.lines().next().unwrap_or_default().trim_end_matches(['\\', ' ']);
        return Err(format!(
            "{name} runs sockd already ({place}: {first}); /usr/share/doc/sockd/examples/better has the other lines that \
             are worth having"
        ));
    }
    if shown.contains('/') && !shown.starts_with(['/', '%', '$']) {
        let directory = unit.value("Service", "WorkingDirectory");
        let base = if directory.starts_with('/') { directory } else { "" };
        return Err(format!(
            "{place}: ExecStart={shown} is no absolute path: systemd refuses the unit, and no drop-in can fix that; \
             write {base}/{shown}"
        ));
    }
    let adapter = adapter::recognise(&adapter::look_through(&words).1);
    Ok(Start { setting, prefixes, written, words, prefixed: false, adapter })
}

/// Refuses what sockd could not serve.
fn check_kind(unit: &Unit, start: &Start<'_>) -> Result<(), String> {
    let name = &unit.name;
    match unit.value("Service", "Type") {
        kind @ ("oneshot" | "dbus") => {
            return Err(format!("{name} is Type={kind}: that is no server that waits for connections"));
        }
        // A template never leaves the foreground, whatever its server's options say.
        "forking" if matches!(start.adapter.making, adapter::Making::Exec(_)) => {
            return Err(format!(
                "{name} is Type=forking: sockd must see the process that serves. Let {} stay in the foreground and make \
                 the unit Type=simple first",
                program(start)
            ));
        }
        _ => {}
    }
    for key in ["RootDirectory", "RootImage"] {
        if let Some(setting) = unit.last("Service", key) {
            return Err(format!(
                "{name} has {}: sockd is not in there, and cannot be run there",
                setting.written.lines().next().unwrap_or_default()
            ));
        }
    }
    if comes_later(start.setting) && !start.prefixed {
        return Err(format!(
            "{} comes after {DROP_IN} and sets ExecStart= too: move that line into {name} itself, or give the file a name \
             that comes before",
            start.setting.file.display()
        ));
    }
    Ok(())
}

/// Whether a setting stands in a drop-in that takes effect after ours.
fn comes_later(setting: &Setting) -> bool {
    let drop_in = setting.file.parent().is_some_and(|parent| parent.extension().is_some_and(|end| end == "d"));
    drop_in && setting.file.file_name().is_some_and(|file| file > OsStr::new(DROP_IN))
}

/// Writes the drop-in, line for line.
///
/// # Errors
/// What of the unit cannot be written once more.
fn drop_in(unit: &Unit, start: &Start<'_>, sockets: &[String], around: &Surroundings) -> Result<Draft, String> {
    let mut lines = Lines {
        unit,
        draft: Draft::new(drop_in_path(&unit.name, around.manager), &around.manager.name_typed(&unit.name)),
        section: "",
    };
    lines.section("Unit");
    if !sockets.is_empty() {
        let why =
            "With both, stopping or restarting the socket does the same to the service and leaves no deaf one behind.";
        lines.add(why, "Requires", line::units("Requires", sockets)?);
        lines.add("", "After", line::units("After", sockets)?);
    }
    lines.put(
        "Restarts have no limit: it would end in a failed socket that refuses every visitor.",
        "StartLimitIntervalSec",
        "0",
    );

    lines.section("Service");
    lines.put("\"active\" means that sockd does its job; systemctl status tells about the workers.", "Type", "notify");
    lines.put("Workers report to sockd, and sockd alone to systemd.", "NotifyAccess", "main");
    lines.unset("sockd stays in the foreground: systemd knows its process by itself.", "PIDFile", "");
    if !start.prefixed {
        let place = format!("{}:{}", start.setting.file.display(), start.setting.line);
        let directory = unit.value("Service", "WorkingDirectory");
        let follows = around.linked_directory && line::needs_no_quotes(directory);
        let written = if follows {
            format!("--directory {directory} -- {}", start.written)
        } else {
            format!("-- {}", start.written)
        };
        let start = line::command("ExecStart", &start.prefixes, &around.sockd, "run", &written);
        lines.reset(
            if follows {
                "sockd runs the server with the options that it has, and follows the link to its directory at each reload, \
                 which systemd does at the start alone; the first line takes the old one away."
            } else {
                "sockd runs the server with the options that it has; the first line takes the old one away."
            },
            "ExecStart",
            start.map_err(|why| format!("{place}: ExecStart=: {why}"))?,
        );
    }
    let own = |key, word| line::command(key, "", &around.sockd, word, "");
    let why = "systemctl reload waits for the outcome and fails, with the reason, if the old workers go on serving.";
    lines.reset(why, "ExecReload", own("ExecReload", "reload")?);
    let why =
        "If sockd itself is killed or crashes, the workers finish their requests before systemd kills what is left.";
    lines.reset(why, "ExecStop", own("ExecStop", "drain")?);
    let why = "systemd runs ExecStop= only after an end that counts as a success.";
    lines.add(why, "SuccessExitStatus", line::fixed("SuccessExitStatus", "SIGKILL SIGABRT SIGSEGV 101"));
    let why = "SIGTERM to sockd alone, which lets workers finish; what is left at the end is killed.";
    lines.put(why, "KillMode", "mixed");
    lines.unset("The signal that lets sockd finish is systemd's own.", "KillSignal", "SIGTERM");
    lines.limit("sockd asks for more time while workers start or finish their requests.", "TimeoutStartSec");
    lines.limit("", "TimeoutStopSec");
    lines.put("sockd reports only while its event loop turns; it watches the workers itself.", "WatchdogSec", "30s");
    lines.put("Should sockd itself end, it is started again. While systemd waits for that it counts no connection as a further trigger.", "Restart", "always");
    lines.put("", "RestartSec", "500ms");
    lines.unset(
        "An exit that is not restarted would be triggered by the socket until that fails.",
        "RestartPreventExitStatus",
        "",
    );
    lines.put("A worker that runs out of memory is replaced; the others live on.", "OOMPolicy", "continue");
    lines.put("A control group for each worker.", "Delegate", "yes");
    if around.manager == Manager::User && around.systemd >= SUBGROUPS {
        lines.put("By this sockd sees that it may make them.", "DelegateSubgroup", "supervisor");
    }
    if !matches!(unit.value("Service", "ProtectControlGroups"), "" | "no" | "false" | "off" | "0") {
        lines.put("Must be no for Delegate=.", "ProtectControlGroups", "no");
    }
    lines.address_families();
    if unit.list("Service", "RuntimeDirectory").is_empty() {
        lines.put("Sockets between sockd and its workers; nobody else may enter.", "RuntimeDirectory", "sockd-%N");
        lines.put("", "RuntimeDirectoryMode", "0700");
    }
    if unit.list("Service", "StateDirectory").is_empty() && !around.state_is_read_only {
        lines.put(
            "The history of reloads (sockd history), also while the unit is stopped.",
            "StateDirectory",
            "sockd-%N",
        );
        lines.put("", "StateDirectoryMode", "0700");
    }
    Ok(lines.draft)
}

/// Puts lines into the drop-in, each compared with what the unit says.
struct Lines<'a> {
    unit: &'a Unit,
    draft: Draft,
    section: &'static str,
}

impl Lines<'_> {
    fn section(&mut self, name: &'static str) {
        self.section = name;
        self.draft.section(name);
    }

    /// A key with one value.
    fn put(&mut self, why: &str, key: &'static str, value: &'static str) {
        let old = self.unit.last(self.section, key).map(|setting| written(key, setting));
        self.draft.set(why, line::fixed(key, value), old);
    }

    /// One line more for a key with many values; nothing where another line has all of them.
    fn add(&mut self, why: &str, key: &str, line: Line) {
        let old = self.unit.list(self.section, key);
        let same = old.iter().map(|setting| written(key, setting)).find(|old| old == line.as_str());
        let (_, values) = line.as_str().split_once('=').unwrap_or_default();
        let has = |setting: &&Setting, value| setting.value.split_whitespace().any(|word| word == value);
        if same.is_none() && old.iter().any(|setting| values.split_whitespace().all(|value| has(setting, value))) {
            return;
        }
        self.draft.set(why, line, same);
    }

    /// A key with many values becomes one with this line alone; nothing where it is that.
    fn reset(&mut self, why: &str, key: &'static str, line: Line) {
        let old: Vec<String> = self.unit.list(self.section, key).iter().map(|setting| written(key, setting)).collect();
        if matches!(&old[..], [old] if old == line.as_str()) {
            return;
        }
        self.draft.set(why, line::reset(key), old).set("", line, None);
    }

    /// A key that must not say what it says; nothing where it says nothing else.
    fn unset(&mut self, why: &str, key: &'static str, value: &'static str) {
        if self.unit.last(self.section, key).is_some_and(|setting| setting.value != value) {
            self.put(why, key, value);
        }
    }

    /// A time limit; one of the unit's own that is longer stays.
    fn limit(&mut self, why: &str, key: &'static str) {
        let own = self.unit.last(self.section, key).or_else(|| self.unit.last(self.section, "TimeoutSec"));
        let enough = own.is_some_and(|own| {
            let least = duration::parse(LIMIT).unwrap_or_default();
            own.value == "infinity" || duration::parse(&own.value).is_ok_and(|own| own >= least)
        });
        if !enough {
            self.put(why, key, LIMIT);
        }
    }

    /// A sandbox that lets the service have certain sockets alone must let sockd have its own.
    fn address_families(&mut self) {
        const KEY: &str = "RestrictAddressFamilies";
        let listed = self.unit.list(self.section, KEY);
        let mut allowed = listed.iter().flat_map(|setting| setting.value.split_whitespace());
        if listed.is_empty() || listed.iter().any(|setting| setting.value.starts_with('~')) {
            return;
        }
        if !["AF_UNIX", "AF_NETLINK"].iter().all(|family| allowed.clone().any(|word| word == *family)) {
            let mut why = "AF_UNIX: sockd reports to systemd. AF_NETLINK: it asks the kernel how long the queue is.";
            if allowed.next() == Some("none") {
                self.draft.set(std::mem::take(&mut why), line::reset(KEY), None);
            }
            self.draft.set(why, line::fixed(KEY, "AF_UNIX AF_NETLINK"), None);
        }
    }
}

/// A setting as it is written, its key and its value's lines without spaces about the `=`.
fn written(key: &str, setting: &Setting) -> String {
    format!("{key}={}", setting.raw())
}

fn notes(
    unit: &Unit,
    start: &Start<'_>,
    known: bool,
    sockets: &[String],
    can_be_made: bool,
    around: &Surroundings,
) -> Vec<String> {
    let mut notes = Vec::new();
    let program = program(start);
    let shell = Path::new(program.as_ref())
        .file_name()
        .is_some_and(|name| ["sh", "bash", "dash", "zsh"].iter().any(|shell| name == *shell));
    let hidden = adapter::hidden_server(&start.words).filter(|_| !known);
    if let Some(server) = hidden {
        notes.push(adapter::hidden_server_note(server));
    } else if shell {
        notes.push(format!(
            "{program} starts the server, and sockd does not look through it: each worker is all that it starts. Write \
             the server's own line into ExecStart= first; variables go into Environment="
        ));
    } else if !known {
        notes.push(format!(
            "sockd does not know {program}: each worker is one process of it that must take the socket from systemd \
             (LISTEN_FDS). Their number goes before the `--`: run --workers 3 --"
        ));
    }
    if sockets.is_empty() {
        let offer = if can_be_made {
            let name = around.manager.name_typed(&unit.name);
            format!("`sockd adopt --socket {name}` makes {} too", socket_name(&unit.name))
        } else {
            format!("a {} of your own would end that", socket_name(&unit.name))
        };
        notes.push(format!(
            "there is no socket unit: sockd binds what the server's own options name, and a restart refuses visitors for a \
             moment; {offer}, and systemd holds the socket open"
        ));
    } else if around.socket_wanted && !around.sockets.is_empty() {
        notes.push(format!("{} is there already: --socket has no effect", around.sockets.join(", ")));
    }
    if unit.value("Service", "Type") == "forking" {
        notes.push(format!("Type=forking goes: what {program} says of becoming a daemon is ignored"));
    }
    if start.setting.value.starts_with('@') {
        notes.push("the name that ExecStart=@ gives the process goes: sockd names its workers".to_owned());
    }
    for key in ["Type", "Restart", "KillMode", "ExecReload", "ExecStop", "WatchdogSec", "OOMPolicy", "Delegate"] {
        if let Some(setting) = unit.last("Service", key).filter(|setting| comes_later(setting)) {
            notes.push(format!("{}:{}: {key}= comes after {DROP_IN} and wins", setting.file.display(), setting.line));
        }
    }
    notes
}

fn next(unit: &Unit, sockets: &[String], new_socket: bool, manager: Manager) -> Vec<(String, String)> {
    let name = &unit.name;
    let systemctl = manager.systemctl();
    let step = |command: String, what: &str| (command, what.to_owned());
    let status = step(format!("sockd status {}", manager.name_typed(name)), "shows the workers");
    if name.ends_with("@.service") {
        let all = name.replace("@.", "@*.");
        return vec![step(format!("{systemctl} restart '{all}'"), "puts it into effect for every instance that runs")];
    }
    if new_socket {
        let socket = socket_name(name);
        let command =
            format!("{systemctl} stop {name} && {systemctl} enable --now {socket} && {systemctl} start {name}");
        return vec![step(command, "puts it into effect; visitors are refused for a moment, the last time"), status];
    }
    let what = match sockets {
        [] => "puts it into effect; visitors are refused for a moment",
        _ => "puts it into effect; visitors wait in the socket's queue meanwhile",
    };
    vec![step(format!("{systemctl} restart {name}"), what), status]
}
