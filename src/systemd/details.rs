//! A service or socket unit in detail, for `sockd doctor`.
//!
//! Owns: which properties are looked at, and reading them from D-Bus or, where there is none, from `systemctl show`.
//! Never: judges. What a value means is for the caller.

use serde::{Deserialize, Serialize};

use super::Manager;
use super::bus::{Bag, Bus, BusError};
use super::show::{self, Properties};
use crate::config::duration;

/// The properties of [`Details`], as org.freedesktop.systemd1(5) spells them.
const NAMES: &str = "Id,LoadState,LoadError,ActiveState,SubState,Description,FragmentPath,DropInPaths,NeedDaemonReload,\
                     UnitFileState,TriggeredBy,Triggers,Result,MainPID,NRestarts,ExecMainStatus,ControlGroup,Type,\
                     InvocationID,InactiveExitTimestampMonotonic,ExecMainStartTimestampMonotonic,\
                     StartLimitIntervalUSec,\
                     Delegate,OOMPolicy,User,Group,SupplementaryGroups,WorkingDirectory,Environment,PrivateTmp,\
                     ProtectHome,ExecStart,Listen,SocketMode,SocketUser,SocketGroup,Backlog,Accept";

/// A unit as systemd describes it. What belongs to the other type of unit is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Details {
    /// Its name, with the type: `gunicorn.service`.
    pub name: String,
    /// `loaded`, `not-found`, `masked`, `error`, `bad-setting`.
    pub load_state: String,
    /// systemd's own sentence why it is not loaded.
    pub load_error: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active_state: String,
    /// `running`, `listening`, `auto-restart` and more.
    pub sub_state: String,
    /// Description=.
    pub description: String,
    /// The unit file; empty when there is none.
    pub fragment_path: String,
    /// Its drop-ins, in the order in which they count.
    pub drop_in_paths: Vec<String>,
    /// Whether a file of the unit is newer than what systemd has read.
    pub need_daemon_reload: bool,
    /// `enabled`, `disabled`, `static`, `masked` and more.
    pub unit_file_state: String,
    /// The sockets that start this service.
    pub triggered_by: Vec<String>,
    /// The service that this socket starts.
    pub triggers: Vec<String>,
    /// `success`, `exit-code`, `start-limit-hit`, `trigger-limit-hit`, `oom-kill` and more.
    pub result: String,
    /// The main process; 0 for none.
    pub main_pid: u32,
    /// The id of its last run, as the journal has it; empty when it has not run.
    pub invocation_id: String,
    /// When systemd last began to start it, in microseconds of CLOCK_MONOTONIC; 0 for never.
    pub last_start_us: u64,
    /// StartLimitIntervalSec=, in microseconds; 0 when starts are not limited.
    pub start_limit_interval_us: u64,
    /// How often Restart= has restarted it.
    pub n_restarts: u32,
    /// The exit status or the signal of the last main process.
    pub exec_main_status: i32,
    /// The control group below /sys/fs/cgroup; empty when not running.
    pub control_group: String,
    /// Type=.
    pub service_type: String,
    /// Delegate=.
    pub delegate: bool,
    /// OOMPolicy=.
    pub oom_policy: String,
    /// User=.
    pub user: String,
    /// Group=.
    pub group: String,
    /// WorkingDirectory=, without the marks that allow it to be missing.
    pub working_directory: String,
    /// Environment=, one assignment each.
    pub environment: Vec<String>,
    /// PrivateTmp=.
    pub private_tmp: bool,
    /// ProtectHome=: `no`, `yes`, `read-only`, `tmpfs`.
    pub protect_home: String,
    /// The last command of ExecStart=; empty when there is none.
    pub exec_start: Vec<String>,
    /// The addresses of ListenStream=.
    pub listen: Vec<String>,
    /// SocketMode=, in octal digits.
    pub socket_mode: String,
    /// SocketUser=.
    pub socket_user: String,
    /// SocketGroup=.
    pub socket_group: String,
    /// Backlog=.
    pub backlog: u32,
    /// Accept=.
    pub accept: bool,
}

impl Details {
    /// Asks systemd over D-Bus.
    ///
    /// # Errors
    /// systemd does not answer, or takes the name for none. A unit without a file is none: see `load_state`.
    pub async fn over_bus(bus: &Bus, name: &str) -> Result<Self, BusError> {
        let of_type = if name.ends_with(".socket") { "Socket" } else { "Service" };
        Ok(Self::read(&mut bus.properties(name, of_type).await?))
    }

    /// Asks `systemctl show`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn by_systemctl(name: &str) -> Result<Self, String> {
        Ok(Self::read(&mut show::properties(Manager::System, name, NAMES)?))
    }

    fn read(source: &mut impl Source) -> Self {
        let directory = source.text("WorkingDirectory");
        Self {
            name: source.text("Id"),
            load_state: source.text("LoadState"),
            load_error: source.load_error(),
            active_state: source.text("ActiveState"),
            sub_state: source.text("SubState"),
            description: source.text("Description"),
            fragment_path: source.text("FragmentPath"),
            drop_in_paths: source.list("DropInPaths"),
            need_daemon_reload: source.flag("NeedDaemonReload"),
            unit_file_state: source.text("UnitFileState"),
            triggered_by: source.list("TriggeredBy"),
            triggers: source.list("Triggers"),
            result: source.text("Result"),
            main_pid: source.number("MainPID"),
            invocation_id: source.id("InvocationID"),
            // A restart by Restart= does not show in the first, and a socket has not the second.
            last_start_us: source
                .microseconds("InactiveExitTimestampMonotonic")
                .max(source.microseconds("ExecMainStartTimestampMonotonic")),
            start_limit_interval_us: source.microseconds("StartLimitIntervalUSec"),
            n_restarts: source.number("NRestarts"),
            exec_main_status: source.signed("ExecMainStatus"),
            control_group: source.text("ControlGroup"),
            service_type: source.text("Type"),
            delegate: source.flag("Delegate"),
            oom_policy: source.text("OOMPolicy"),
            user: source.text("User"),
            group: source.text("Group"),
            working_directory: directory.trim_start_matches(['!', '-']).to_owned(),
            environment: source.list("Environment"),
            private_tmp: source.flag("PrivateTmp"),
            protect_home: source.text("ProtectHome"),
            exec_start: source.commands().pop().unwrap_or_default(),
            listen: source.streams(),
            socket_mode: source.mode("SocketMode"),
            socket_user: source.text("SocketUser"),
            socket_group: source.text("SocketGroup"),
            backlog: source.number("Backlog"),
            accept: source.flag("Accept"),
        }
    }
}

/// Where properties come from. One that is missing is empty: an older or newer systemd must not make a look fail.
trait Source {
    fn text(&mut self, name: &str) -> String;
    fn list(&mut self, name: &str) -> Vec<String>;
    fn flag(&mut self, name: &str) -> bool;
    fn number(&mut self, name: &str) -> u32;
    fn signed(&mut self, name: &str) -> i32;
    fn microseconds(&mut self, name: &str) -> u64;
    fn id(&mut self, name: &str) -> String;
    fn mode(&mut self, name: &str) -> String;
    fn load_error(&mut self) -> String;
    fn commands(&mut self) -> Vec<Vec<String>>;
    fn streams(&mut self) -> Vec<String>;
}

impl Source for Bag {
    fn text(&mut self, name: &str) -> String {
        self.take(name)
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        self.take(name)
    }

    fn flag(&mut self, name: &str) -> bool {
        // PrivateTmp= became a word of its own beside the flag in later versions; the flag stays.
        self.take(name)
    }

    fn number(&mut self, name: &str) -> u32 {
        self.take(name)
    }

    fn signed(&mut self, name: &str) -> i32 {
        self.take(name)
    }

    fn microseconds(&mut self, name: &str) -> u64 {
        self.take(name)
    }

    fn id(&mut self, name: &str) -> String {
        self.take::<Vec<u8>>(name).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn mode(&mut self, name: &str) -> String {
        format!("{:04o}", self.take::<u32>(name))
    }

    fn load_error(&mut self) -> String {
        // The error's name and its sentence.
        self.pair("LoadError").1
    }

    fn commands(&mut self) -> Vec<Vec<String>> {
        self.take_commands("ExecStart")
    }

    fn streams(&mut self) -> Vec<String> {
        let all = self.pairs("Listen").into_iter();
        all.filter(|(kind, _)| kind == "Stream").map(|(_, address)| address).collect()
    }
}

impl Source for Properties {
    fn text(&mut self, name: &str) -> String {
        show::first(self, name).to_owned()
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        let text = show::first(self, name);
        // Assignments are quoted as a shell would; names never are.
        crate::adapter::shlex::split(text).unwrap_or_default()
    }

    fn flag(&mut self, name: &str) -> bool {
        show::first(self, name) == "yes"
    }

    fn number(&mut self, name: &str) -> u32 {
        show::first(self, name).parse().unwrap_or_default()
    }

    fn signed(&mut self, name: &str) -> i32 {
        show::first(self, name).parse().unwrap_or_default()
    }

    fn microseconds(&mut self, name: &str) -> u64 {
        // A timestamp is a number, and a time is written as in unit files.
        let text = show::first(self, name);
        if text == "infinity" {
            return u64::MAX;
        }
        let time = || duration::parse(text).ok().and_then(|time| u64::try_from(time.as_micros()).ok());
        text.parse().ok().or_else(time).unwrap_or_default()
    }

    fn id(&mut self, name: &str) -> String {
        show::first(self, name).to_owned()
    }

    fn mode(&mut self, name: &str) -> String {
        show::first(self, name).to_owned()
    }

    fn load_error(&mut self) -> String {
        // org.freedesktop.systemd1.BadUnitSetting "Unit … has a bad unit file setting."
        let text = show::first(self, "LoadError");
        let sentence = text.split_once(' ').map_or(text, |(_, sentence)| sentence);
        sentence.trim_matches('"').to_owned()
    }

    fn commands(&mut self) -> Vec<Vec<String>> {
        self.get("ExecStart").into_iter().flatten().filter_map(|line| show::arguments(line)).collect()
    }

    fn streams(&mut self) -> Vec<String> {
        let lines = self.get("Listen").into_iter().flatten();
        lines.filter_map(|line| Some(line.strip_suffix(" (Stream)")?.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_prints_is_read() {
        let text = "\
Id=gunicorn.service
LoadState=bad-setting
LoadError=org.freedesktop.systemd1.BadUnitSetting \"Unit gunicorn.service has a bad unit file setting.\"
NeedDaemonReload=yes
TriggeredBy=a.socket b.socket
Environment=A=1 \"B=two words\"
ExecMainStatus=203
InvocationID=0123456789abcdef0123456789abcdef
InactiveExitTimestampMonotonic=12
ExecMainStartTimestampMonotonic=34
StartLimitIntervalUSec=1min 30s
WorkingDirectory=!/home/sammy
ExecStart={ path=/x ; argv[]=/x -w 3 ; ignore_errors=no ; start_time=[n/a] }
Listen=/run/gunicorn.sock (Stream)
Listen=/run/log (Datagram)
Listen=[::]:8000 (Stream)
SocketMode=0666
";
        let details = Details::read(&mut show::parse(text));
        assert_eq!(
            details,
            Details {
                name: "gunicorn.service".into(),
                load_state: "bad-setting".into(),
                load_error: "Unit gunicorn.service has a bad unit file setting.".into(),
                need_daemon_reload: true,
                triggered_by: vec!["a.socket".into(), "b.socket".into()],
                environment: vec!["A=1".into(), "B=two words".into()],
                exec_main_status: 203,
                invocation_id: "0123456789abcdef0123456789abcdef".into(),
                last_start_us: 34,
                start_limit_interval_us: 90_000_000,
                working_directory: "/home/sammy".into(),
                exec_start: vec!["/x".into(), "-w".into(), "3".into()],
                listen: vec!["/run/gunicorn.sock".into(), "[::]:8000".into()],
                socket_mode: "0666".into(),
                ..Details::default()
            }
        );
    }

    #[test]
    fn every_name_is_asked_for_once() {
        let mut names: Vec<&str> = NAMES.split(',').map(str::trim).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
