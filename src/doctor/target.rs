//! What follows from the facts for every rule: which server it is, where it should listen, how it is started again.
//!
//! Owns: the reading of ExecStart= and the parts of commands that several findings share.
//! Never: finds anything wrong by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::facts::{Answer, Facts, File, Listening};
use super::fix::{self, Change, Fix, quote};
use super::traceback::{self, Traceback};
use crate::adapter::declared_sockets::{DeclaredSockets, MoreSettings, values};
use crate::adapter::gunicorn::{self, GunicornArgs};
use crate::adapter::uwsgi::ini::{HTTP_SOCKETS, Section, UWSGI_SOCKETS};
use crate::adapter::{self, ADAPTERS, Making};
use crate::app::Address;
use crate::control::Status;
use crate::control::message::WorkerState;
use crate::supervisor;
use crate::systemd::details::Details;

/// Exit statuses of systemd itself (systemd.exec(5), "Process Exit Codes").
pub const EXIT_GROUP: i32 = 216;
pub const EXIT_USER: i32 = 217;
/// So many sockets of one of uWSGI's files are looked at.
const MAX_SOCKETS: usize = 64;
/// The options that have uWSGI listen, and what it speaks there.
const UWSGI_OPTIONS: [([&str; 2], Protocol); 2] = [(UWSGI_SOCKETS, Protocol::Uwsgi), (HTTP_SOCKETS, Protocol::Http)];

/// Who makes the socket at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The socket unit with this place in [`Facts::sockets`].
    Unit(usize),
    /// The server, by its command line.
    Server,
    /// uWSGI, by the .ini file with this place in [`Facts::uwsgi`].
    Ini(usize),
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Uwsgi,
    /// Only the server knows.
    Unknown,
}

/// Where the application should be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// `/run/gunicorn.sock`, `@name`, `127.0.0.1:8000`.
    pub address: String,
    pub maker: Maker,
    pub protocol: Protocol,
    /// Who has written the address: 0 is root, in a unit or in a file that root alone may write.
    pub writer: u32,
}

impl Expected {
    /// Whether root may change what belongs to this user because the address leads there: a user who writes it down could
    /// have root change anything.
    pub fn may_change(&self, owner: u32) -> bool {
        self.writer == 0 || self.writer == owner
    }

    /// Whether Nginx's configuration takes it as it is.
    fn is_plain(&self) -> bool {
        self.address.chars().all(|letter| letter.is_alphanumeric() || "/._@:+-[]~%".contains(letter))
    }

    /// The path of a unix socket that has a file.
    pub fn path(&self) -> Option<&str> {
        Some(self.address.as_str()).filter(|address| address.starts_with('/'))
    }

    /// `unix:/run/gunicorn.sock`, `127.0.0.1:8000`.
    pub fn shown(&self) -> String {
        shown(&self.address)
    }
}

/// An address as Nginx and gunicorn write it.
pub fn shown(address: &str) -> String {
    if address.starts_with(['/', '@']) { format!("unix:{address}") } else { address.to_owned() }
}

/// So many addresses are named where a service listens elsewhere.
const MAX_PLACES: usize = 3;

/// Where sockets listen: ports first, since a server may have unix sockets that are not for visitors.
pub fn places(sockets: &[&Listening]) -> String {
    let mut places: Vec<String> = sockets.iter().map(|socket| shown(&socket.address)).collect();
    places.sort_by_key(|place| place.starts_with("unix:"));
    places.truncate(MAX_PLACES);
    places.join(" and ")
}

/// The words of an ExecStart= without `/usr/bin/env` before them.
fn words(service: &Details) -> &[String] {
    let words = service.exec_start.as_slice();
    let env = words.first().is_some_and(|word| base(word) == "env");
    if env { words.get(1..).unwrap_or_default() } else { words }
}

/// Whether a service runs sockd.
pub fn runs_sockd(service: &Details) -> bool {
    let words = words(service);
    words.first().is_some_and(|word| base(word) == "sockd") && words.get(1).is_some_and(|word| word == "run")
}

/// The server's own command line; empty when only a configuration of sockd names it.
pub fn command(service: &Details) -> &[String] {
    let words = words(service);
    if !runs_sockd(service) {
        return words;
    }
    let at = words.iter().position(|word| word == "--");
    at.map_or(&[], |at| &words[at + 1..])
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The server's name: `gunicorn`, `uwsgi`, `uvicorn`; behind `python -m` that of the module.
pub fn server(service: &Details) -> &str {
    let command = command(service);
    let program = command.first().map_or("", |program| base(program));
    match command.iter().position(|word| word == "-m") {
        Some(at) if program.starts_with("python") => command.get(at + 1).map_or(program, String::as_str),
        _ => program,
    }
}

/// Whether a command line is one of the servers that the guides use; sockd's own is, too.
pub fn is_application(service: &Details) -> bool {
    let mut names = ADAPTERS
        .iter()
        .filter(|adapter| adapter.protocol == supervisor::Protocol::Http)
        .map(|adapter| adapter.conventions.name);
    runs_sockd(service) || names.any(|known| server(service).starts_with(known))
}

/// Every address at which the application should be reached.
pub fn expected(facts: &Facts) -> Vec<Expected> {
    let mut found = Vec::new();
    let by_ini: Vec<_> = facts.uwsgi.iter().enumerate().flat_map(|(at, file)| by_ini(facts, at, file)).collect();
    let uwsgi = server(&facts.service).starts_with("uwsgi");
    let spoken = match stated(facts).map(|stated| stated.uwsgi) {
        Some(None) => Protocol::Unknown,
        Some(Some(true)) => Protocol::Uwsgi,
        Some(Some(false)) | None => Protocol::Http,
    };
    for (at, socket) in facts.sockets.iter().enumerate() {
        found.extend(socket.listen.iter().map(|address| {
            let http = !uwsgi
                || command(&facts.service).iter().any(|word| word.starts_with("--http"))
                || by_ini.iter().any(|named| named.protocol == Protocol::Http && named.address == *address);
            let protocol = if http { spoken } else { Protocol::Uwsgi };
            Expected { address: address.clone(), maker: Maker::Unit(at), protocol, writer: 0 }
        }));
    }
    if !found.is_empty() {
        return found;
    }
    found.extend(by_ini);
    let writer = facts.server_file.as_ref().filter(|_| says_more(&facts.service)).map_or(0, |file| file.writer);
    let by_server = |address, protocol| Expected { address, maker: Maker::Server, protocol, writer };
    let directory = &facts.service.working_directory;
    if uwsgi {
        found.extend(by_uwsgi_options(&facts.service));
    }
    if found.is_empty() {
        // sockd knows it exactly, once it runs.
        let listeners = facts.status.iter().flat_map(|status| &status.listeners);
        let addresses = listeners.filter_map(|listener| listener.address.parse().ok());
        found.extend(addresses.map(|address| by_server(absolute(address, directory), spoken)));
    }
    if found.is_empty() {
        found.extend(binds(facts).into_iter().map(|address| by_server(address, spoken)));
    }
    found.retain(|expected| expected.writer == 0 || expected.is_plain());
    found
}

/// Whether the options leave it to the configuration file where the server listens.
fn says_more(service: &Details) -> bool {
    by_options(service).is_some_and(|stated| stated.perhaps || stated.binds.is_empty())
}

/// Where uWSGI's command line has it listen.
fn by_uwsgi_options(service: &Details) -> Vec<Expected> {
    let mut found = Vec::new();
    for (options, protocol) in UWSGI_OPTIONS {
        let mut spellings = options.map(|option| format!("--{option}")).to_vec();
        spellings.extend((protocol == Protocol::Uwsgi).then(|| "-s".to_owned()));
        let written = values(command(service).iter(), &spellings).into_iter();
        let addresses = written.filter_map(|socket| uwsgi_address(&socket, &service.working_directory));
        found.extend(addresses.map(|address| Expected { address, maker: Maker::Server, protocol, writer: 0 }));
    }
    found
}

/// Where one of uWSGI's files has it listen. What only uWSGI can put together is no address here.
fn by_ini(facts: &Facts, at: usize, file: &File) -> Vec<Expected> {
    let section = Section::read(Path::new(&file.path), &file.text);
    let mut found = Vec::new();
    for (options, protocol) in UWSGI_OPTIONS {
        let written = section.values(&options).take(MAX_SOCKETS).filter_map(Result::ok);
        let addresses = written.filter_map(|socket| uwsgi_address(&socket, &facts.service.working_directory));
        found.extend(addresses.map(|address| Expected {
            address,
            maker: Maker::Ini(at),
            protocol,
            writer: file.writer,
        }));
    }
    found
}

/// Where a server may say more of its sockets than its options do.
pub fn more_settings(service: &Details) -> MoreSettings {
    by_options(service).map_or(MoreSettings::Nowhere, |stated| stated.more)
}

/// What a server's own options, their variables and its configuration file state.
fn stated(facts: &Facts) -> Option<DeclaredSockets> {
    let mut stated = by_options(&facts.service)?;
    match (&facts.server_file, facts.server_file_unread) {
        // What it may say otherwise is known to the server alone.
        (None, true) => {
            if stated.perhaps {
                stated.binds.clear();
            }
        }
        (file, _) => gunicorn::add_file(&mut stated, file.as_ref().map(|file| file.text.as_str())),
    }
    Some(stated)
}

fn by_options(service: &Details) -> Option<DeclaredSockets> {
    let command: Vec<OsString> = command(service).iter().map(OsString::from).collect();
    let (_, command) = adapter::look_through(&command);
    match adapter::recognise(&command).making {
        Making::Template(python) => python.stated(&command, &environment(service)).and_then(Result::ok),
        Making::Exec(_) => None,
    }
}

/// Where a server's own settings have it listen, as far as they say it in numbers.
pub fn binds(facts: &Facts) -> Vec<String> {
    let service = &facts.service;
    let binds = stated(facts).into_iter().flat_map(|stated| stated.binds);
    let addresses = binds.filter_map(|bind| GunicornArgs::address(&bind.address).ok().flatten());
    addresses.map(|address| absolute(address, &service.working_directory)).collect()
}

/// The variables of Environment=.
pub fn environment(service: &Details) -> BTreeMap<OsString, OsString> {
    let pairs = service.environment.iter().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

/// An address as visitors name it: without `unix:`, and absolute.
fn absolute(address: Address, directory: &str) -> String {
    match address {
        Address::Unix(path) => Path::new(directory).join(path).display().to_string(),
        Address::Abstract(name) => format!("@{name}"),
        Address::Tcp(address) => address.to_string(),
    }
}

/// The same of a socket of uWSGI's, which takes any word without a colon for a path.
fn uwsgi_address(written: &str, directory: &str) -> Option<String> {
    let path = !written.contains(':') && !written.starts_with('@');
    let address = if path { format!("unix:{written}").parse() } else { written.parse() };
    address.ok().map(|address| absolute(address, directory))
}

/// Whether what is passed to `target` arrives at a socket that listens on `address`.
pub fn reaches(target: &str, address: &str) -> bool {
    if target == address {
        return true;
    }
    let split = |text: &str| text.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned()));
    match (split(target), split(address)) {
        (Some((target, port)), Some((host, listens))) => {
            let local = matches!(target.as_str(), "127.0.0.1" | "[::1]");
            port == listens && local && matches!(host.as_str(), "0.0.0.0" | "[::]")
        }
        _ => false,
    }
}

/// The listening sockets that a visitor of this address gets to. Of several with the same path it is the one whose file
/// is there.
pub fn listeners<'a>(facts: &'a Facts, address: &str) -> Vec<&'a Listening> {
    let all: Vec<&Listening> = facts.listening.iter().filter(|socket| reaches(address, &socket.address)).collect();
    let place = facts.places.iter().find(|place| place.path == address && place.kind == "socket");
    let there = |socket: &&Listening| place.is_some_and(|place| socket.file_inode == Some(place.inode));
    let real: Vec<&Listening> = all.iter().copied().filter(there).collect();
    if real.is_empty() { all } else { real }
}

/// Where a service listens instead of at this address, of which it has the socket: connections wait there, and nobody has
/// accepted any. Empty: it is not so.
pub fn instead<'a>(facts: &'a Facts, address: &str) -> Vec<&'a Listening> {
    let waits = |answer: &Answer| {
        let unaccepted = answer.error == "busy" || (answer.error == "silent" && answer.queued.is_some());
        !answer.nginx && unaccepted && reaches(&answer.address, address)
    };
    let untouched = listeners(facts, address).iter().all(|socket| socket.in_flight == Some(0));
    let answers_itself = facts.status.as_ref().is_some_and(|status| status.fallback);
    if answers_itself || !untouched || !facts.answers.iter().any(waits) {
        return Vec::new();
    }
    let held: Vec<u64> = facts.processes.iter().flatten().flat_map(|p| p.listeners.iter().flatten().copied()).collect();
    let expected = expected(facts);
    let elsewhere = |socket: &&Listening| {
        held.contains(&socket.inode) && !expected.iter().any(|expected| reaches(&expected.address, &socket.address))
    };
    facts.listening.iter().filter(elsewhere).collect()
}

/// Whether the main process lives.
pub fn runs(service: &Details) -> bool {
    matches!(service.active_state.as_str(), "active" | "reloading" | "refreshing") && service.main_pid != 0
}

/// Whether starting it fails: it has failed, is between two attempts, or its socket gave up because of it.
pub fn fails(facts: &Facts) -> bool {
    let service = &facts.service;
    let gave_up = |socket: &Details| socket.active_state == "failed" && socket.result.ends_with("-limit-hit");
    service.active_state == "failed"
        || service.sub_state.starts_with("auto-restart")
        || facts.sockets.iter().any(gave_up)
}

/// Whether what systemd has counted of a unit's starts can refuse the next one: it has failed, or its last start counts
/// still. Who follows several fixes in ten seconds would meet the limit, whatever they have fixed.
fn start_is_counted(facts: &Facts, unit: &Details) -> bool {
    let since = facts.now_us.saturating_sub(unit.last_start_us);
    unit.active_state == "failed" || (unit.last_start_us != 0 && since < unit.start_limit_interval_us)
}

/// Has systemd forget the starts of some units, if there are any to forget: of a unit that it has not loaded there are
/// none, and the command would fail.
fn forgive<'a>(facts: &Facts, units: impl IntoIterator<Item = &'a Details>) -> Fix {
    fix::systemctl("reset-failed", units.into_iter().filter(|unit| start_is_counted(facts, unit)))
}

/// Has systemd forget earlier starts of the service and its sockets before it starts any of them.
pub fn start(facts: &Facts, fix: Fix) -> Fix {
    forgive(facts, facts.sockets.iter().chain([&facts.service])).then(fix)
}

/// Why the application could not be imported, as its last traceback tells: of a worker that has just died, else in the
/// journal.
pub fn import_traceback(facts: &Facts) -> Option<Traceback> {
    let deaths = facts.status.iter().flat_map(|status| &status.slots).filter_map(|slot| slot.last_death.as_ref());
    let found = deaths.filter_map(|death| traceback::last(&death.last_lines)).next();
    found.or_else(|| traceback::last(&facts.journal))
}

/// Whether sockd runs as this service, and its sockets listen: then code and configuration are loaded without a restart.
pub fn is_under_sockd(facts: &Facts) -> bool {
    let listen = facts.sockets.iter().all(|socket| socket.active_state == "active");
    runs_sockd(&facts.service) && runs(&facts.service) && listen
}

/// Has the service load what was changed: its code, its environment, the configuration of sockd. Under sockd that cuts
/// nobody, and is refused where the new code does not start; any other server is restarted.
pub fn load(facts: &Facts) -> Fix {
    match is_under_sockd(facts) {
        true => Fix::run(format!("sockd reload {}", quote(&facts.service.name))),
        false => again(facts),
    }
}

/// The same for a change that is taken back where the service does not start with it.
pub(super) fn load_changed(facts: &Facts, change: Change) -> Fix {
    let afterwards = if is_under_sockd(facts) { Fix::default() } else { again(facts) };
    change.afterwards(afterwards).checked(load(facts))
}

/// Proves the code that is there, while workers serve that are well: a restart that would load worse must not follow.
pub fn prove(facts: &Facts) -> Fix {
    let well =
        |status: &Status| !status.fallback && status.workers.iter().any(|worker| worker.state == WorkerState::Ready);
    match is_under_sockd(facts) && facts.status.as_ref().is_some_and(well) {
        true => load(facts),
        false => Fix::default(),
    }
}

/// Says of a restart of a sockd that runs that it is needed, and what it costs.
fn restarts(facts: &Facts, fix: Fix) -> Fix {
    if !runs_sockd(&facts.service) || !runs(&facts.service) {
        return fix;
    }
    fix.noting(match facts.sockets.is_empty() {
        true => "a reload does not do: it takes a new main process, and visitors are refused until that serves",
        false => "a reload does not do: it takes a new main process, and visitors wait until that serves",
    })
}

/// Starts the service again, with a new main process; a socket that does not listen is started.
pub fn again(facts: &Facts) -> Fix {
    let service = &facts.service;
    let stopped = || facts.sockets.iter().filter(|socket| socket.active_state != "active");
    if stopped().next().is_none() {
        return restarts(facts, start(facts, fix::systemctl("restart", [service])));
    }
    let sockets = fix::systemctl("start", stopped());
    // systemd refuses to start a socket while its service is active.
    match service.active_state.as_str() {
        "failed" | "inactive" => start(facts, sockets),
        _ => restarts(facts, start(facts, fix::systemctl("stop", [service]).then(sockets))),
    }
}

/// Makes every socket again: the service must let go of the old one first.
pub fn bind_again(facts: &Facts) -> Fix {
    if facts.sockets.is_empty() {
        return again(facts);
    }
    let stop = fix::systemctl("stop", facts.sockets.iter().chain([&facts.service]));
    restarts(facts, start(facts, stop.then(fix::systemctl("start", &facts.sockets))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(line: &str) -> Details {
        Details {
            exec_start: line.split_whitespace().map(str::to_owned).collect(),
            working_directory: "/home/sammy/p".into(),
            ..Details::default()
        }
    }

    #[test]
    fn servers_and_their_addresses_are_read() {
        for (line, name, addresses) in [
            ("/v/bin/gunicorn --bind unix:/run/g.sock a:b", "gunicorn", &["/run/g.sock"][..]),
            ("/usr/bin/sockd run -- /v/bin/gunicorn -w 3 -b unix:p.sock a:b", "gunicorn", &["/home/sammy/p/p.sock"]),
            ("/usr/bin/env sockd run --workers 3 -- /v/bin/gunicorn a:b", "gunicorn", &["127.0.0.1:8000"]),
            ("/v/bin/python -m gunicorn -b :80 -b [::1]:81 a:b", "gunicorn", &["0.0.0.0:80", "[::1]:81"]),
            ("/v/bin/gunicorn -c conf.py a:b", "gunicorn", &[]),
            ("/v/bin/uvicorn --uds /run/u.sock a:b", "uvicorn", &["/run/u.sock"]),
            ("/v/bin/uvicorn --port 9000 a:b", "uvicorn", &["127.0.0.1:9000"]),
            ("/v/bin/uvicorn --fd 3 a:b", "uvicorn", &[]),
            ("/v/bin/granian --interface asgi --port 9000 a:b", "granian", &["127.0.0.1:9000"]),
            ("/v/bin/granian --uds /run/r.sock a:b", "granian", &["/run/r.sock"]),
            ("/v/bin/hypercorn --bind=unix:/run/h.sock a:b", "hypercorn", &["/run/h.sock"]),
            ("/v/bin/daphne -u /run/d.sock a:b", "daphne", &["/run/d.sock"]),
            ("/usr/local/bin/uwsgi --socket /run/w.sock", "uwsgi", &["/run/w.sock"]),
            ("/usr/bin/sockd run --config /etc/sockd/web.toml", "", &[]),
        ] {
            let service = service(line);
            assert_eq!(server(&service), name, "{line}");
            let found: Vec<String> =
                expected(&Facts { service, ..Facts::default() }).into_iter().map(|found| found.address).collect();
            assert_eq!(found, addresses, "{line}");
        }
    }

    #[test]
    fn words_are_safe_for_a_shell() {
        assert_eq!(quote("/run/a.sock"), "/run/a.sock");
        assert_eq!(quote("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_loopback_reaches_a_socket_on_every_address() {
        assert!(reaches("127.0.0.1:8000", "0.0.0.0:8000") && reaches("/a", "/a"));
        assert!(!reaches("127.0.0.1:8000", "0.0.0.0:8001") && !reaches("10.0.0.1:8000", "127.0.0.1:8000"));
    }
}
