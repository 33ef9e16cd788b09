//! What the service manager says over D-Bus, for the command-line tools alone.
//!
//! Owns: one connection to a manager's bus and the few properties that are read.
//! Never: changes a unit, is used by `run`, or waits longer than [`TIME_LIMIT`] for any answer.

use std::collections::HashMap;
use std::time::Duration;

use super::manager::{self, Manager};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::{Connection, DynamicType, OwnedObjectPath, OwnedVariant};

/// The longest wait for the connection, and for any one answer.
pub const TIME_LIMIT: Duration = Duration::from_secs(2);
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// systemd's way to say that a number is not available.
const NOT_AVAILABLE: u64 = u64::MAX;

/// A unit as systemd describes it (org.freedesktop.systemd1(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitState {
    /// Its name, with the type: `gunicorn.service`.
    pub name: String,
    /// `loaded`, `not-found`, `masked`, `error`, `bad-setting`.
    pub load_state: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`.
    pub active_state: String,
    /// `running`, `dead`, `auto-restart` and more.
    pub sub_state: String,
    /// Description=.
    pub description: String,
    /// The unit file; empty when there is none.
    pub fragment_path: String,
    /// Whether the unit file is newer than what systemd has read.
    pub need_daemon_reload: bool,
    /// The units that start it: its sockets.
    pub triggered_by: Vec<String>,
    /// When it became active, in microseconds since 1970; 0 for never.
    pub active_enter_us: u64,
    /// When it became inactive, in microseconds since 1970; 0 for never.
    pub inactive_enter_us: u64,
    /// The main process; 0 for none.
    pub main_pid: u32,
    /// The last STATUS=.
    pub status_text: String,
    /// How often Restart= has restarted it.
    pub n_restarts: u32,
    /// `success`, `exit-code`, `signal`, `start-limit-hit` and more.
    pub result: String,
    /// Its control group below /sys/fs/cgroup; empty when not running.
    pub control_group: String,
    /// Memory of the control group in bytes; `None` without a memory controller.
    pub memory_current: Option<u64>,
    /// Processor time of the control group in nanoseconds.
    pub cpu_usage_nsec: Option<u64>,
    /// Processes and threads of the control group; `None` without a pids controller.
    pub tasks: Option<u64>,
}

/// Why the service manager could not be asked: "cannot …: why".
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// No answer within [`TIME_LIMIT`].
    #[error("no answer within {} s", TIME_LIMIT.as_secs())]
    TimedOut,
    /// Our user has no bus.
    #[error(
        "your user has no bus here: `loginctl enable-linger` starts what it needs, and the package dbus-user-session has it"
    )]
    NoUserBus,
    /// The bus or systemd said no.
    #[error("{}", reason(.0))]
    Bus(#[from] zbus::Error),
}

/// systemd's own sentence, without the name of the error before it.
fn reason(error: &zbus::Error) -> String {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((name, sentence)) if name.starts_with("org.freedesktop.") => sentence.to_owned(),
        _ => text,
    }
}

/// name, description, load state, active state, sub state, following, object, job id, job type, job object.
type ListedUnit = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
/// path, argv, ignore failure, start and stop times (realtime, monotonic), pid, code, status.
type ExecCommand = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// A connection to the service manager. Clones share it.
#[derive(Clone, Debug)]
pub struct Bus {
    connection: Connection,
}

/// A loaded service unit, before its properties are asked for.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name: `gunicorn.service`.
    pub name: String,
    object: OwnedObjectPath,
}

async fn limited<T>(call: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    Ok(timeout(TIME_LIMIT, call).await.map_err(|_| BusError::TimedOut)??)
}

impl Bus {
    /// Connects to the bus of a manager. Inside a tokio runtime.
    ///
    /// # Errors
    /// There is no bus (a container, a rescue system, a user without a session) or it does not answer.
    pub async fn connect(manager: Manager) -> Result<Self, BusError> {
        let connection = match manager {
            Manager::System => limited(Connection::system()).await?,
            Manager::User => {
                let address = manager::user_bus().ok_or(BusError::NoUserBus)?;
                limited(Builder::address(&*address).build()).await?
            }
        };
        Ok(Self { connection })
    }

    /// One call, one answer. The methods used are few and fixed: no proxies are generated for them.
    async fn call<B, T>(&self, object: &str, interface: &str, method: &str, body: &B) -> Result<T, BusError>
    where
        B: Serialize + DynamicType,
        T: for<'d> zbus::wire::DynamicDeserialize<'d>,
    {
        let call = self.connection.call_method(Some(SYSTEMD), object, Some(interface), method, body);
        let answer = limited(call).await?;
        Ok(answer.body().deserialize::<T>()?)
    }

    /// Every loaded service unit, running or not.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn services(&self) -> Result<Vec<Service>, BusError> {
        // No states means all of them.
        let (states, patterns): (&[&str], &[&str]) = (&[], &["*.service"]);
        let units: Vec<ListedUnit> =
            self.call(MANAGER_OBJECT, MANAGER, "ListUnitsByPatterns", &(states, patterns)).await?;
        // A unit without a file has no ExecStart= either.
        let loaded = units.into_iter().filter(|unit| unit.2 == "loaded");
        Ok(loaded.map(|unit| Service { name: unit.0, object: unit.6 }).collect())
    }

    /// The service unit of this name. It need not exist: [`UnitState::load_state`] says so.
    ///
    /// # Errors
    /// systemd does not answer, or takes the name for none.
    pub async fn service(&self, name: &str) -> Result<Service, BusError> {
        // LoadUnit succeeds for a unit without a file, too.
        let object = self.call(MANAGER_OBJECT, MANAGER, "LoadUnit", &name).await?;
        Ok(Service { name: name.to_owned(), object })
    }

    /// The commands of ExecStart=, each as its argv.
    ///
    /// # Errors
    /// systemd does not answer, or the unit went away.
    pub async fn exec_start(&self, service: &Service) -> Result<Vec<Vec<String>>, BusError> {
        let value: OwnedVariant = self.call(&service.object, PROPERTIES, "Get", &(SERVICE, "ExecStart")).await?;
        let commands = Vec::<ExecCommand>::try_from(value)?;
        Ok(commands.into_iter().map(|command| command.1).collect())
    }

    /// The ActiveState of a unit of any type.
    ///
    /// # Errors
    /// systemd does not answer, or takes the name for none.
    pub async fn active_state(&self, name: &str) -> Result<String, BusError> {
        let object: OwnedObjectPath = self.call(MANAGER_OBJECT, MANAGER, "LoadUnit", &name).await?;
        let value: OwnedVariant = self.call(&object, PROPERTIES, "Get", &(UNIT, "ActiveState")).await?;
        Ok(String::try_from(value)?)
    }

    /// All properties of a unit, those of its type among them: `Service` or `Socket`.
    ///
    /// # Errors
    /// systemd does not answer, or takes the name for none.
    pub(super) async fn properties(&self, name: &str, of_type: &str) -> Result<Bag, BusError> {
        let object: OwnedObjectPath = self.call(MANAGER_OBJECT, MANAGER, "LoadUnit", &name).await?;
        let interface = format!("org.freedesktop.systemd1.{of_type}");
        let (one, two) = (UNIT, interface.as_str());
        let all = |interface| self.call(&object, PROPERTIES, "GetAll", interface);
        let (unit, of_type) = tokio::join!(all(&one), all(&two));
        let (unit, of_type): (HashMap<_, _>, HashMap<_, _>) = (unit?, of_type?);
        Ok(Bag(unit.into_iter().chain(of_type).collect()))
    }

    /// The names of all units of a type that systemd has loaded or could load: `*.socket`.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn names(&self, pattern: &str) -> Result<Vec<String>, BusError> {
        let (states, patterns): (&[&str], &[&str]) = (&[], &[pattern]);
        let units: Vec<ListedUnit> =
            self.call(MANAGER_OBJECT, MANAGER, "ListUnitsByPatterns", &(states, patterns)).await?;
        Ok(units.into_iter().map(|unit| unit.0).collect())
    }

    /// The state of a unit: two calls, side by side.
    ///
    /// # Errors
    /// systemd does not answer, or the unit went away.
    pub async fn state(&self, service: &Service) -> Result<UnitState, BusError> {
        let all = |interface| self.call(&service.object, PROPERTIES, "GetAll", interface);
        let (unit, of_service) = tokio::join!(all(&UNIT), all(&SERVICE));
        let (mut unit, mut of_service) = (Bag(unit?), Bag(of_service?));
        Ok(UnitState {
            name: unit.take("Id"),
            load_state: unit.take("LoadState"),
            active_state: unit.take("ActiveState"),
            sub_state: unit.take("SubState"),
            description: unit.take("Description"),
            fragment_path: unit.take("FragmentPath"),
            need_daemon_reload: unit.take("NeedDaemonReload"),
            triggered_by: unit.take("TriggeredBy"),
            active_enter_us: unit.take("ActiveEnterTimestamp"),
            inactive_enter_us: unit.take("InactiveEnterTimestamp"),
            main_pid: of_service.take("MainPID"),
            status_text: of_service.take("StatusText"),
            n_restarts: of_service.take("NRestarts"),
            result: of_service.take("Result"),
            control_group: of_service.take("ControlGroup"),
            memory_current: of_service.number("MemoryCurrent"),
            cpu_usage_nsec: of_service.number("CPUUsageNSec"),
            tasks: of_service.number("TasksCurrent"),
        })
    }
}

/// The properties of one interface. One that is missing, or of another type than here, is taken as empty: an older or
/// newer systemd must not make `status` fail.
pub(super) struct Bag(HashMap<String, OwnedVariant>);

impl Bag {
    pub(super) fn take<T: TryFrom<OwnedVariant> + Default>(&mut self, name: &str) -> T {
        self.0.remove(name).and_then(|value| T::try_from(value).ok()).unwrap_or_default()
    }

    pub(super) fn take_commands(&mut self, name: &str) -> Vec<Vec<String>> {
        let value = self.0.remove(name).and_then(|value| Vec::<ExecCommand>::try_from(value).ok());
        value.unwrap_or_default().into_iter().map(|command| command.1).collect()
    }

    pub(super) fn pair(&mut self, name: &str) -> (String, String) {
        self.0.remove(name).and_then(|value| <(String, String)>::try_from(value).ok()).unwrap_or_default()
    }

    pub(super) fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        self.0.remove(name).and_then(|value| Vec::<(String, String)>::try_from(value).ok()).unwrap_or_default()
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        let value = self.0.remove(name).and_then(|value| u64::try_from(value).ok());
        value.filter(|&number| number != NOT_AVAILABLE)
    }
}
