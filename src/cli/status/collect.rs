//! Where the report comes from: the supervisors' control sockets and systemd, asked side by side.
//!
//! Owns: who is asked what, and which answers belong together ([`join`]).
//! Never: lets one that does not answer keep the others from being shown.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::report::{Entry, StatusReport, Trigger};
use crate::control::{self, AskError, Instance, Status};
use crate::systemd::bus::{Bus, BusError, Service, UnitState};
use crate::systemd::unit_files::UnitFiles;
use crate::systemd::{Manager, UnitName, unit_of_pid};

/// The longest search for units that run sockd, all services of the machine together.
const SEARCH_LIMIT: Duration = Duration::from_secs(2);

/// A supervisor and its answer.
struct Asked {
    instance: Instance,
    answer: Result<Status, AskError>,
}

/// A unit and what systemd says of it.
#[derive(Clone, Default)]
struct Unit {
    name: String,
    manager: Manager,
    state: Option<UnitState>,
    error: Option<String>,
    triggers: Vec<Trigger>,
    runs_sockd: Option<bool>,
}

/// Gathers reports: one, or one after the other.
pub struct Collector {
    named: Vec<UnitName>,
    managers: BTreeSet<Manager>,
    /// A supervisor that does not answer for so long is shown without its answer.
    answer_limit: Duration,
    /// So long holds what systemd said, unless a supervisor came or went.
    systemd_period: Duration,
    known: Option<Known>,
}

/// What systemd said.
struct Known {
    at: Instant,
    /// The supervisors that there were.
    pids: Vec<u32>,
    units: Vec<Unit>,
    error: Option<String>,
}

impl Collector {
    /// For the named units, or for all of sockd's that these managers have. Systemd is asked for each report.
    pub fn new(named: &[UnitName], managers: &[Manager]) -> Self {
        let managers = match named {
            [] => managers.iter().copied().collect(),
            named => named.iter().map(UnitName::manager).collect(),
        };
        let (answer_limit, systemd_period) = (control::ANSWER_TIMEOUT, Duration::ZERO);
        Self { named: named.to_vec(), managers, answer_limit, systemd_period, known: None }
    }

    /// For many reports one after the other: what systemd says changes seldom and is much, and one supervisor that does not
    /// answer shall not hold up what is shown of the others.
    pub fn looking_often(self, answer_limit: Duration, systemd_period: Duration) -> Self {
        Self { answer_limit, systemd_period, ..self }
    }

    /// Gathers a report.
    pub async fn report(&mut self) -> StatusReport {
        let all = self.named.is_empty();
        let known = self.known.take().filter(|known| known.at.elapsed() < self.systemd_period);
        let connecting = async { if known.is_none() { Some(connect(&self.managers).await) } else { None } };
        let (asked, buses) = tokio::join!(ask_all(self.answer_limit), connecting);
        let (asked, control_error) = match asked {
            Ok(asked) => (asked, None),
            Err(error) => (Vec::new(), Some(format!("cannot look for control sockets: {error}"))),
        };
        let pids: Vec<u32> = asked.iter().map(|asked| asked.instance.pid).collect();
        let known = match (known.filter(|known| known.pids == pids), buses) {
            (Some(known), _) => known,
            (None, Some(buses)) => self.ask_systemd(buses, &asked, pids).await,
            (None, None) => self.ask_systemd(connect(&self.managers).await, &asked, pids).await,
        };
        let mut asked = asked;
        asked.extend(ask_main_processes(&known.units, &asked, self.answer_limit).await);
        let mut entries = join(known.units.clone(), asked, all);
        if let Some(error) = control_error {
            for entry in &mut entries {
                entry.sockd_error.get_or_insert_with(|| error.clone());
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let systemd_error = known.error.clone();
        self.known = Some(known);
        StatusReport { now_unix_ms: now.as_millis() as u64, systemd_error, entries }
    }

    /// Asks the managers for the units that are wanted, and for those of the supervisors that were found.
    async fn ask_systemd(
        &self,
        buses: Vec<(Manager, Result<Bus, BusError>)>,
        asked: &[Asked],
        pids: Vec<u32>,
    ) -> Known {
        let all = self.named.is_empty();
        let mut known = Known { at: Instant::now(), pids, units: Vec::new(), error: None };
        for (manager, bus) in buses {
            let names = self.named.iter().filter(|unit| unit.manager() == manager).map(UnitName::to_string);
            // A supervisor's unit need not be found by its file, and is known without systemd, too.
            let surroundings = asked.iter().filter_map(|asked| asked.instance.unit.clone());
            let names = names.chain(surroundings.filter(|_| all && manager == Manager::System));
            let (found, error) = units_of(manager, bus, names, all).await;
            known.units.extend(found);
            // A user need not have a manager, unless it alone was asked for.
            known.error = known.error.or(error.filter(|_| manager == Manager::System || self.managers.len() == 1));
        }
        known
    }
}

/// What a manager says of the units of these names and, where all are wanted, of those that run sockd; and why it does not.
async fn units_of(
    manager: Manager,
    bus: Result<Bus, BusError>,
    names: impl Iterator<Item = String>,
    all: bool,
) -> (Vec<Unit>, Option<String>) {
    let mut wanted = Vec::new();
    let mut add = |name: String| {
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    };
    names.for_each(&mut add);
    let bus = match bus {
        Ok(bus) => bus,
        Err(error) => {
            let unknown = |name| Unit { name, manager, error: Some(error.to_string()), ..Unit::default() };
            return (wanted.into_iter().map(unknown).collect(), Some(error.to_string()));
        }
    };
    let mut failure = None;
    if all {
        match timeout(SEARCH_LIMIT, search(&bus, manager)).await {
            Ok(Ok(found)) => found.into_iter().for_each(add),
            Ok(Err(error)) => failure = Some(error.to_string()),
            Err(_) => failure = Some(BusError::TimedOut.to_string()),
        }
        wanted.sort();
    }
    (describe_all(&bus, manager, wanted).await, failure)
}

/// Connects to all of them at once; the system's comes first.
async fn connect(managers: &BTreeSet<Manager>) -> Vec<(Manager, Result<Bus, BusError>)> {
    let mut tasks = JoinSet::new();
    for manager in managers.iter().copied() {
        tasks.spawn(async move { (manager, Bus::connect(manager).await) });
    }
    let mut buses = tasks.join_all().await;
    buses.sort_by_key(|(manager, _)| *manager);
    buses
}

/// Asks a supervisor, for so long at most.
async fn ask(instance: &Instance, limit: Duration) -> Result<Status, AskError> {
    timeout(limit, control::status(instance)).await.unwrap_or(Err(AskError::TimedOut(limit)))
}

/// Finds the supervisors and asks all of them at once.
async fn ask_all(limit: Duration) -> io::Result<Vec<Asked>> {
    let mut tasks = JoinSet::new();
    for mut instance in control::discover().await? {
        instance.unit = unit_of_pid(instance.pid);
        tasks.spawn(async move {
            let answer = ask(&instance, limit).await;
            Asked { instance, answer }
        });
    }
    let mut asked = tasks.join_all().await;
    asked.sort_by_key(|asked| asked.instance.pid);
    Ok(asked)
}

/// Asks the main processes of these units, so far as they were not found among all who claim to be supervisors: others can
/// make so many names that the search for them takes too long.
async fn ask_main_processes(units: &[Unit], found: &[Asked], limit: Duration) -> Vec<Asked> {
    let mut asked = Vec::new();
    for pid in units.iter().filter_map(|unit| Some(unit.state.as_ref()?.main_pid)).filter(|pid| *pid != 0) {
        if !found.iter().any(|found| found.instance.pid == pid)
            && let Ok(instance) = control::of_process(pid).await
        {
            asked.push(Asked { answer: ask(&instance, limit).await, instance });
        }
    }
    asked
}

/// The names of the services whose ExecStart= runs sockd: loaded ones, and those that a unit file gives away. systemd is
/// asked only about units whose files speak of sockd, or have no file that we can read; all questions are under way at
/// once, and it answers them in one go.
async fn search(bus: &Bus, manager: Manager) -> Result<Vec<String>, BusError> {
    let mut tasks = JoinSet::new();
    let files = UnitFiles::search(manager, "sockd");
    let mut unloaded: BTreeSet<&str> = files.services().collect();
    for service in bus.services().await? {
        unloaded.remove(&*service.name);
        if files.may_mention(&service.name) {
            let bus = bus.clone();
            // A unit that goes away meanwhile is none of ours any more.
            tasks.spawn(async move { runs_sockd(&bus, &service).await.unwrap_or(false).then_some(service.name) });
        }
    }
    for name in unloaded {
        let (bus, name) = (bus.clone(), name.to_owned());
        tasks.spawn(async move {
            let service = bus.service(&name).await.ok()?;
            runs_sockd(&bus, &service).await.unwrap_or(false).then_some(name)
        });
    }
    Ok(tasks.join_all().await.into_iter().flatten().collect())
}

async fn runs_sockd(bus: &Bus, service: &Service) -> Result<bool, BusError> {
    Ok(bus.exec_start(service).await?.iter().any(|argv| is_sockd_run(argv)))
}

/// Whether a command of ExecStart= is `sockd run`, behind `/usr/bin/env` or not.
fn is_sockd_run(argv: &[String]) -> bool {
    argv.windows(2).take(4).any(|two| two[0].rsplit('/').next() == Some("sockd") && two[1] == "run")
}

/// Describes all of them at once, and returns them in the order of their names; a unit with several names once.
async fn describe_all(bus: &Bus, manager: Manager, names: Vec<String>) -> Vec<Unit> {
    let mut tasks = JoinSet::new();
    for (place, name) in names.into_iter().enumerate() {
        let bus = bus.clone();
        tasks.spawn(async move { (place, describe(&bus, manager, name).await) });
    }
    let mut units = tasks.join_all().await;
    units.sort_by_key(|(place, _)| *place);
    let mut seen = BTreeSet::new();
    units.into_iter().map(|(_, unit)| unit).filter(|unit| seen.insert(unit.name.clone())).collect()
}

async fn describe(bus: &Bus, manager: Manager, name: String) -> Unit {
    let mut unit = Unit { name, manager, ..Unit::default() };
    if !unit.name.ends_with(".service") {
        unit.error = Some("it is not a service".to_owned());
        return unit;
    }
    let asked = async {
        let service = bus.service(&unit.name).await?;
        // A unit without a file has no ExecStart=.
        let (state, runs_sockd) = tokio::join!(bus.state(&service), runs_sockd(bus, &service));
        let state = state?;
        let mut triggers = Vec::new();
        for trigger in &state.triggered_by {
            let active_state = bus.active_state(trigger).await.unwrap_or_default();
            triggers.push(Trigger { unit: trigger.clone(), active_state });
        }
        Ok::<_, BusError>((state, runs_sockd.ok(), triggers))
    };
    match asked.await {
        Ok((state, runs_sockd, triggers)) => {
            // Asked for by an alias, a unit answers with its own name.
            if !state.name.is_empty() {
                unit.name.clone_from(&state.name);
            }
            (unit.state, unit.runs_sockd, unit.triggers) = (Some(state), runs_sockd, triggers);
        }
        Err(error) => unit.error = Some(error.to_string()),
    }
    unit
}

/// Puts units and supervisors together. A supervisor belongs to the unit whose main process it is; by its control group
/// alone a `sockd run` typed into a shell of `ssh.service` would be taken for that unit. Supervisors without a unit are
/// shown when none was named.
fn join(units: Vec<Unit>, mut asked: Vec<Asked>, all: bool) -> Vec<Entry> {
    let mut entries = Vec::new();
    for unit in units {
        let belongs = |asked: &Asked| match &unit.state {
            Some(state) => state.main_pid == asked.instance.pid,
            None => asked.instance.unit.as_deref() == Some(&*unit.name),
        };
        let supervisor = asked.iter().position(belongs).map(|at| asked.remove(at));
        // A unit that is only the surroundings of someone's shell, or of a user's own service manager.
        if all && supervisor.is_none() && unit.runs_sockd == Some(false) {
            continue;
        }
        let mut entry = Entry {
            unit: Some(unit.name),
            user: unit.manager == Manager::User,
            systemd: unit.state,
            systemd_error: unit.error,
            triggers: unit.triggers,
            runs_sockd: unit.runs_sockd,
            ..Entry::default()
        };
        match supervisor {
            Some(asked) => fill(&mut entry, asked),
            None => entry.sockd_error = silence(&entry),
        }
        entries.push(entry);
    }
    if all {
        entries.extend(asked.into_iter().map(|asked| {
            let mut entry = Entry::default();
            fill(&mut entry, asked);
            entry
        }));
    }
    entries
}

fn fill(entry: &mut Entry, asked: Asked) {
    entry.pid = Some(asked.instance.pid);
    match asked.answer {
        Ok(status) => entry.sockd = Some(status),
        Err(error) => {
            let denied = error.is_denial();
            entry.run_as = denied.then(|| user_name(asked.instance.uid));
            entry.sockd_error = Some(match denied {
                true => "only root and its own user may ask it".to_owned(),
                false => error.to_string(),
            });
        }
    }
}

/// Why a running unit has no supervisor that we can see.
fn silence(entry: &Entry) -> Option<String> {
    let state = entry.systemd.as_ref()?;
    if state.main_pid == 0 {
        return None;
    }
    Some(match entry.runs_sockd {
        Some(false) => "this unit does not run sockd".to_owned(),
        Some(true) | None => control::absence(state.main_pid),
    })
}

/// The name of a user, or the number when /etc/passwd has none: users of a directory service are not looked up.
pub(in crate::cli) fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(&passwd, uid).unwrap_or_else(|| format!("the user with id {uid}"))
}

fn name_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pid: u32, unit: &str) -> Asked {
        let instance = Instance { pid, uid: 33, unit: Some(unit.to_owned()), socket: String::new() };
        Asked { instance, answer: Ok(Status { pid, ..Status::default() }) }
    }

    fn unit(name: &str, main_pid: u32, runs_sockd: bool) -> Unit {
        let state = UnitState { name: name.to_owned(), main_pid, ..UnitState::default() };
        Unit { name: name.to_owned(), state: Some(state), runs_sockd: Some(runs_sockd), ..Unit::default() }
    }

    fn shown(entries: &[Entry]) -> Vec<(Option<&str>, Option<u32>)> {
        entries.iter().map(|entry| (entry.unit.as_deref(), entry.sockd.as_ref().map(|status| status.pid))).collect()
    }

    #[test]
    fn a_supervisor_belongs_to_the_unit_whose_main_process_it_is() {
        let units = || vec![unit("a.service", 10, true), unit("idle.service", 0, true), unit("ssh.service", 5, false)];
        let asked = || vec![asked(10, "a.service"), asked(20, "ssh.service")];
        let all = join(units(), asked(), true);
        assert_eq!(shown(&all), [(Some("a.service"), Some(10)), (Some("idle.service"), None), (None, Some(20))]);
        assert_eq!(all[1].sockd_error, None);
        let named = join(vec![unit("ssh.service", 5, false)], asked(), false);
        assert_eq!(shown(&named), [(Some("ssh.service"), None)]);
        assert_eq!(named[0].sockd_error.as_deref(), Some("this unit does not run sockd"));
    }

    #[test]
    fn without_systemd_the_control_group_tells() {
        let alone = Unit { name: "a.service".to_owned(), ..Unit::default() };
        let entries = join(vec![alone], vec![asked(10, "a.service")], true);
        assert_eq!(shown(&entries), [(Some("a.service"), Some(10))]);
    }

    #[test]
    fn the_user_that_may_ask_is_named() {
        let mut foreign = asked(10, "a.service");
        foreign.answer = Err(AskError::NotPermitted { uid: 33 });
        let entries = join(vec![], vec![foreign], true);
        assert!(entries[0].run_as.is_some(), "{entries:?}");
        assert_eq!(name_in("root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n", 33).as_deref(), Some("www-data"));
        assert_eq!(name_in("broken\nroot:x:0:0::/:/bin/sh\n", 33), None);
    }

    #[test]
    fn commands_that_run_sockd() {
        let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in ["/usr/bin/sockd run -- gunicorn", "sockd run", "/usr/bin/env X=1 /opt/sockd run --config x"] {
            assert!(is_sockd_run(&argv(line)), "{line}");
        }
        for line in ["/usr/bin/sockd status", "/usr/bin/notsockd run", "/usr/bin/sockd", "/bin/echo run sockd"] {
            assert!(!is_sockd_run(&argv(line)), "{line}");
        }
    }
}
