//! Who is asked what, and in which order.
//!
//! The page is asked for early: it starts the service, and what happens then is what the rest is to see.
//!
//! Owns: the order. Never: lets one that does not answer keep the others from being seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{
    Answer, Facts, Problem, alike, database, disk, file, http, journal, nginx_files, path_access, process, program,
};
use crate::adapter::declared_sockets::values;
use crate::config;
use crate::control;
use crate::doctor::nginx;
use crate::doctor::target::{self, EXIT_GROUP, EXIT_USER, Protocol, reaches};
use crate::systemd::Manager;
use crate::systemd::bus::Bus;
use crate::systemd::details::Details;
use crate::systemd::show;
use crate::systemd::unit_files::UnitFiles;

/// So many other socket units are looked at.
const MAX_SOCKETS: usize = 256;
/// So many addresses are asked for a page.
const MAX_ASKED: usize = 8;
/// How long a service that is being started or stopped is waited for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks at it.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A connection that waits longer in the queue waits for a worker.
const BUSY: Duration = Duration::from_secs(1);
/// Words that give an application server's unit away.
const WORDS: [&str; 8] = ["sockd", "gunicorn", "uwsgi", "uvicorn", "hypercorn", "daphne", "granian", "waitress"];

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The unit's whole name; that of its socket is as good.
    pub unit: String,
    /// The name that a browser asks for.
    pub host: Option<String>,
    /// The path of the page to ask for.
    pub path: String,
}

/// Whom systemd is asked through.
enum SystemdClient {
    Bus(Bus),
    Systemctl,
}

impl SystemdClient {
    async fn connect() -> Self {
        Bus::connect(Manager::System).await.map_or(Self::Systemctl, Self::Bus)
    }

    async fn details(&self, name: &str) -> Result<Details, String> {
        match self {
            Self::Bus(bus) => Details::over_bus(bus, name).await.map_err(|error| error.to_string()),
            Self::Systemctl => Details::by_systemctl(name),
        }
    }

    async fn all(&self, names: &[String]) -> Vec<Details> {
        let mut found = Vec::new();
        for name in names {
            // A unit that goes away meanwhile concerns nobody.
            found.extend(self.details(name).await.ok());
        }
        found
    }

    async fn sockets(&self) -> Vec<String> {
        if let Self::Bus(bus) = self {
            return bus.names("*.socket").await.unwrap_or_default();
        }
        let arguments = ["list-units", "--all", "--plain", "--no-legend", "--no-pager", "--type=socket"];
        let text = show::output("systemctl", &arguments).map(|(_, text)| text).unwrap_or_default();
        text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    }
}

/// The services of this machine that run sockd or an application server, by the words of their files.
///
/// # Errors
/// systemd cannot be asked.
pub async fn application_units() -> Result<Vec<String>, String> {
    let manager = SystemdClient::connect().await;
    let mut names = BTreeSet::new();
    for word in WORDS {
        names.extend(UnitFiles::search(Manager::System, word).services().map(str::to_owned));
    }
    let mut found = Vec::new();
    for name in names {
        let details = manager.details(&name).await?;
        if target::is_application(&details) {
            found.push(name);
        }
    }
    // An instance has no file of its own.
    for instance in control::discover().await.unwrap_or_default() {
        let unit = crate::systemd::unit_of_pid(instance.pid);
        found.extend(unit.filter(|unit| !found.contains(unit)));
    }
    Ok(found)
}

/// The server's command, where a configuration of sockd's names it, stands behind sockd's own as if it were written there.
/// A file that is wrong is reported by `sockd check`.
fn complete_command(service: &mut Details) {
    if !target::runs_sockd(service) || !target::command(service).is_empty() {
        return;
    }
    let Some(file) = values(service.exec_start.iter(), &["--config"]).pop() else { return };
    if let Ok(loaded) = config::load(Some(Path::new(&file)), &config::Options::default()) {
        service.exec_start.push("--".to_owned());
        let words = loaded.settings.command.iter().map(|word| word.to_string_lossy().into_owned());
        service.exec_start.extend(words);
    }
}

/// Gathers the facts of one unit. `problems` is what `sockd check` says of a service: it is asked once the name of that
/// service is known.
///
/// # Errors
/// systemd cannot be asked.
pub async fn gather(question: &Question, problems: impl FnOnce(&str) -> Vec<Problem>) -> Result<Facts, String> {
    let manager = SystemdClient::connect().await;
    let mut facts = Facts { host: question.host.clone(), path: question.path.clone(), ..Facts::default() };
    units(&mut facts, &manager, &question.unit).await?;
    let root = rustix::process::geteuid().is_root();
    if facts.service.load_state == "not-found" {
        return Ok(facts);
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname");
    text.unwrap_or_default().trim().clone_into(&mut facts.hostname);
    complete_command(&mut facts.service);
    let configuration = values(facts.service.exec_start.iter(), &["--config"]).pop();
    let configuration = configuration.filter(|_| target::runs_sockd(&facts.service));
    facts.definition.extend(configuration.and_then(|file| file::read(Path::new(&file)).ok()));
    facts.program = program::look(&facts.service);
    let directory = PathBuf::from(&facts.service.working_directory);
    facts.requirements = file::read(&directory.join("requirements.txt")).ok();
    facts.uwsgi = program::uwsgi_files(&facts.service);
    (facts.server_file, facts.server_file_unread) = program::server_file(&facts.service);
    facts.problems = problems(&facts.service.name);
    let unit = manager.details("nginx.service").await.unwrap_or_default();
    facts.nginx = nginx_files::look(&unit, root, &mut facts.unseen);
    facts.settings = database::settings(&facts);

    facts.answers = ask(&facts);
    let before = facts.service.main_pid;
    settle(&mut facts, &manager).await;
    facts.restarted = facts.service.main_pid != before;

    let after = nginx_files::look(&unit, false, &mut Vec::new());
    (facts.nginx.error_log, facts.nginx.recent) = (after.error_log, after.recent);
    status(&mut facts).await;
    sockets(&mut facts);
    let unread = match journal::read(&facts.service) {
        Ok(found) if found.lines.is_empty() && !root => Some("it is not readable for us".to_owned()),
        Ok(found) => {
            (facts.journal, facts.recent) = (found.lines, found.recent);
            None
        }
        Err(why) => Some(why),
    };
    facts.journal_unread = unread.is_some();
    facts.unseen.extend(unread.map(|why| format!("the journal: {why}")));
    facts.file_systems = disk::file_systems(&facts.service.working_directory);
    meant(&mut facts, &directory);
    facts.databases = database::databases(&facts);
    if facts.databases.iter().any(|database| database.reached == Some(false)) {
        facts.clusters = database::clusters();
    }
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    facts.somaxconn = text.trim().parse().ok();
    Ok(facts)
}

/// What may have been meant by names that do not exist.
fn meant(facts: &mut Facts, directory: &Path) {
    let failed = target::fails(facts).then_some(facts.service.exec_main_status);
    facts.alike_user = if failed == Some(EXIT_USER) { alike::user(&facts.service.user, directory) } else { None };
    facts.alike_group = if failed == Some(EXIT_GROUP) { alike::group(&facts.service.group) } else { None };
    facts.alike_module = alike::module(facts);
}

/// The service, its sockets, and the sockets of others.
async fn units(facts: &mut Facts, manager: &SystemdClient, name: &str) -> Result<(), String> {
    facts.service = manager.details(name).await?;
    if name.ends_with(".socket") {
        let service = facts.service.triggers.first().cloned();
        let service = service.unwrap_or_else(|| name.replace(".socket", ".service"));
        facts.service = manager.details(&service).await?;
    }
    let service = &facts.service;
    let written = [&service.fragment_path].into_iter().chain(&service.drop_in_paths).filter(|path| !path.is_empty());
    facts.definition = written.filter_map(|path| file::read(Path::new(path)).ok()).collect();
    let mut triggers = service.triggered_by.clone();
    triggers.retain(|unit| unit.ends_with(".socket"));
    facts.sockets = manager.all(&triggers).await;
    let mut others = manager.sockets().await;
    others.retain(|other| !triggers.contains(other));
    others.truncate(MAX_SOCKETS);
    facts.other_sockets = manager.all(&others).await;
    // A socket without a stream is nobody's way to a page.
    facts.other_sockets.retain(|socket| !socket.listen.is_empty());
    Ok(())
}

/// Asks for pages: from the application itself, and through Nginx.
fn ask(facts: &Facts) -> Vec<Answer> {
    let expected = target::expected(facts);
    let configuration = nginx::read(&facts.nginx.files);
    let ours = configuration.servers.iter().find(|server| {
        server.passes.iter().any(|pass| expected.iter().any(|expected| reaches(&pass.address, &expected.address)))
    });
    let named = |name: &&String| !name.contains(['*', '~']) && !matches!(name.as_str(), "" | "_");
    let name = ours.and_then(|server| server.names.iter().find(named)).cloned();
    let host = facts.host.clone().or(name).unwrap_or_else(|| "localhost".to_owned());
    let path = if facts.path.is_empty() { "/" } else { facts.path.as_str() };
    let listens = facts.sockets.iter().any(|socket| socket.active_state == "active");
    // One that cannot start is not tried again for this: each try brings systemd nearer to giving up.
    let startable = facts.program.exists != Some(false) && facts.service.load_state == "loaded";
    let startable = startable && matches!(facts.service.result.as_str(), "success" | "") && !target::fails(facts);
    let mut answers = Vec::new();
    if target::runs(&facts.service) || (listens && startable) {
        let http = expected.iter().filter(|expected| expected.protocol == Protocol::Http).take(MAX_ASKED);
        answers.extend(http.map(|expected| ask_and_watch(&local(&expected.address), &host, path)));
        let listen = ours.and_then(|server| server.listens.iter().find(|listen| !listen.address.ends_with("443")));
        let port = listen.map(|listen| listen.port()).filter(|port| *port != 0);
        // Nginx would wait for the same, and longer.
        let silent = answers.iter().any(|answer: &Answer| answer.error == "silent");
        if let Some(port) = port.filter(|_| facts.nginx.running == Some(true) && !silent) {
            answers.push(http::ask(&format!("127.0.0.1:{port}"), true, &host, path));
        }
    }
    answers
}

/// Asks for a page and looks meanwhile at the queue: what waits there for long waits for a worker that is free.
fn ask_and_watch(address: &str, host: &str, path: &str) -> Answer {
    let begun = Instant::now();
    let (mut answer, queued) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| http::ask(address, false, host, path));
        let mut most = None;
        while !asked.is_finished() {
            std::thread::sleep(POLL_INTERVAL);
            let waiting = process::waiting(address).filter(|_| begun.elapsed() > BUSY && !asked.is_finished());
            most = waiting.filter(|waiting| *waiting > 0).max(most);
        }
        (asked.join().unwrap_or_default(), most)
    });
    // One of them is ours.
    answer.queued = queued.map(|queued| queued - 1);
    answer
}

/// A socket on every address is asked on the loopback.
fn local(address: &str) -> String {
    address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
}

/// Asks systemd again, when what the question began has come to an end.
async fn settle(facts: &mut Facts, manager: &SystemdClient) {
    let end = Instant::now() + SETTLE_TIMEOUT;
    loop {
        if let Ok(service) = manager.details(&facts.service.name).await {
            facts.service = service;
        }
        let state = facts.service.active_state.as_str();
        let moving =
            matches!(state, "activating" | "deactivating") && !facts.service.sub_state.starts_with("auto-restart");
        if !moving || Instant::now() > end {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    complete_command(&mut facts.service);
    let names: Vec<String> = facts.sockets.iter().map(|socket| socket.name.clone()).collect();
    facts.sockets = manager.all(&names).await;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    facts.now_us = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
}

/// What sockd says of itself, if this service is one.
async fn status(facts: &mut Facts) {
    if !target::runs_sockd(&facts.service) || !target::runs(&facts.service) {
        return;
    }
    let instance = match control::of_process(facts.service.main_pid).await {
        Ok(instance) => instance,
        Err(error) => {
            facts.unseen.push(format!("sockd's own status: {error}"));
            return;
        }
    };
    match control::status(&instance).await {
        Ok(status) => facts.status = Some(status),
        Err(error) => facts.unseen.push(format!("sockd's own status: {error}")),
    }
}

/// Listening sockets, who has them, and where they are.
fn sockets(facts: &mut Facts) {
    let table = process::absolute(&process::table(), &facts.service.working_directory);
    if target::runs(&facts.service) {
        let processes = process::processes(&facts.service.control_group, &table);
        if processes.iter().any(|process| process.listeners.is_none()) {
            facts.unseen.push("the descriptors of some of its processes: only root and their user may look".to_owned());
        }
        facts.processes = Some(processes);
    }
    let mut addresses: Vec<String> = target::expected(facts).into_iter().map(|expected| expected.address).collect();
    let configuration = nginx::read(&facts.nginx.files);
    let passes = configuration.servers.iter().flat_map(|server| &server.passes);
    addresses.extend(passes.map(|pass| pass.address.clone()));
    let processes = facts.processes.as_deref().unwrap_or_default();
    facts.listening = process::listening(&table, &addresses, processes);
    let mut paths: Vec<String> = addresses.into_iter().filter(|address| address.starts_with('/')).collect();
    // Only the static files of our own directory: /var/www is not our matter.
    let home = &facts.service.working_directory;
    let expected = target::expected(facts);
    let ours = |server: &&nginx::Server| {
        let mut passes = server.passes.iter();
        passes.any(|pass| expected.iter().any(|expected| reaches(&pass.address, &expected.address)))
    };
    facts.served = disk::served(&configuration.servers.iter().filter(ours).collect::<Vec<_>>());
    if facts.nginx.running == Some(false) {
        let listens = configuration.servers.iter().flat_map(|server| &server.listens);
        let ports: Vec<u16> = listens.map(nginx::Listen::port).filter(|port| *port != 0).collect();
        facts.nginx.rivals = process::on_ports(&table, &ports);
    }
    let roots = configuration.servers.iter().flat_map(|server| &server.roots);
    let own = roots.filter(|root| home.len() > 1 && root.path.starts_with(home.as_str()));
    paths.extend(own.map(|root| root.path.clone()));
    let mut seen = BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    facts.places = paths.iter().map(|path| path_access::look(path)).collect();
}
