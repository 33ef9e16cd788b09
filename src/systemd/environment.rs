//! What the service manager left for us to read: environment variables and our control group.
//!
//! Owns: the reading of WATCHDOG_USEC, SYSTEMD_EXEC_PID, INVOCATION_ID, RUNTIME_DIRECTORY, STATE_DIRECTORY and /proc/PID/cgroup.
//! Never: changes the environment.

use std::path::PathBuf;
use std::time::Duration;

/// The process id of the system's service manager.
const SYSTEM_MANAGER: u32 = 1;

/// How often WATCHDOG=1 is due: half of WatchdogSec=, as sd_watchdog_enabled(3) advises. `None` without a watchdog, or
/// when WATCHDOG_PID names another process.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|period| !period.is_zero())
}

/// The id of this run of the unit: 32 hexadecimal digits (systemd.exec(5), INVOCATION_ID).
pub fn invocation_id() -> Option<String> {
    std::env::var("INVOCATION_ID").ok().filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The first directory of RuntimeDirectory=; absolute. It is removed when the unit stops.
pub fn runtime_directory() -> Option<PathBuf> {
    first_directory("RUNTIME_DIRECTORY")
}

/// Where the history is kept: the first directory of StateDirectory=, which stays when the unit stops; else that of
/// RuntimeDirectory=.
pub fn history_directory() -> Option<PathBuf> {
    state_directory().or_else(runtime_directory)
}

/// The first directory of StateDirectory=; absolute. It stays when the unit stops.
pub fn state_directory() -> Option<PathBuf> {
    first_directory("STATE_DIRECTORY")
}

fn first_directory(variable: &str) -> Option<PathBuf> {
    // Several directories are separated by colons (systemd.exec(5)).
    let all = std::env::var(variable).ok()?;
    all.split(':').next().map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Whether systemd itself started this process, as a unit's main one or one of its commands, and not some program in
/// between. Since 248 SYSTEMD_EXEC_PID says so (systemd.exec(5)); before, its child that has an INVOCATION_ID is one.
pub fn started_by_systemd() -> bool {
    let exec_pid = std::env::var("SYSTEMD_EXEC_PID").ok();
    let parent = invocation_id().map(|_| std::os::unix::process::parent_id());
    is_started(std::process::id(), exec_pid.as_deref(), parent)
}

/// The same of a process with this number, SYSTEMD_EXEC_PID, and parent if it has an INVOCATION_ID.
fn is_started(pid: u32, exec_pid: Option<&str>, parent: Option<u32>) -> bool {
    exec_pid.map_or(parent == Some(SYSTEM_MANAGER), |exec_pid| exec_pid == pid.to_string())
}

/// The service unit we run in; `None` outside one.
pub fn unit() -> Option<String> {
    unit_of(&std::fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// The service unit of another process; `None` outside one, and when the process is gone or hidden from us.
pub fn unit_of_pid(pid: u32) -> Option<String> {
    unit_of(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The service unit in the text of /proc/PID/cgroup (cgroups(7)); `None` in a scope, a session or no unit at all.
///
/// As systemd reads it (`cg_path_get_unit`): slices are skipped, the next name is the unit. Within `user@UID.service`
/// the same once more, for a service of that user's manager. What comes below the unit is its own affair: a delegated
/// `supervisor` or `worker-3`.
pub fn unit_of(cgroup_text: &str) -> Option<String> {
    // cgroup v2 is the line "0::PATH". Where it names no unit, systemd's own v1 hierarchy does.
    let path = |mark: &str| {
        cgroup_text.lines().find_map(|line| line.split_once(':').and_then(|(_, rest)| rest.strip_prefix(mark)))
    };
    [":", "name=systemd:"].into_iter().filter_map(path).find_map(unit_of_path)
}

fn unit_of_path(path: &str) -> Option<String> {
    let mut names = path.split('/').filter(|name| !name.is_empty()).map(unescape);
    let mut unit = names.find(|name| !name.ends_with(".slice"))?;
    if unit.starts_with("user@") && unit.ends_with(".service") {
        unit = names.find(|name| !name.ends_with(".slice"))?;
    }
    let named = unit.len() > ".service".len() && unit.ends_with(".service");
    named.then(|| unit.to_owned())
}

/// systemd puts an underscore before a name that would clash with a file of the kernel (`cg_escape`).
fn unescape(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_started_by_systemd() {
        assert!(is_started(7, Some("7"), Some(1)));
        assert!(!is_started(7, Some("6"), Some(1)), "by a shell that has ended");
        assert!(is_started(7, None, Some(1)), "by systemd before 248");
        assert!(!is_started(7, None, Some(6)) && !is_started(7, None, None));
    }

    #[test]
    fn reads_every_shape_of_control_group() {
        for (text, unit) in [
            ("0::/system.slice/gunicorn.service\n", Some("gunicorn.service")),
            ("0::/system.slice/gunicorn.service/supervisor\n", Some("gunicorn.service")),
            ("0::/system.slice/gunicorn.service/worker-3\n", Some("gunicorn.service")),
            ("0::/system.slice/system-sockd.slice/sockd@a.service\n", Some("sockd@a.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", Some("x.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-a.slice/x@b.service/y\n", {
                Some("x@b.service")
            }),
            ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", None),
            ("0::/user.slice/user-1000.slice/user@1000.service\n", None),
            ("0::/user.slice/user-1000.slice/session-4.scope\n", None),
            ("0::/system.slice/my\\x2dapp.service\n", Some("my\\x2dapp.service")),
            ("0::/system.slice/_cgroup.service\n", Some("cgroup.service")),
            ("0::/system.slice/my-app.service/init.service\n", Some("my-app.service")),
            ("0::/system.slice/.service\n", None),
            ("0::/system.slice\n", None),
            ("0::/\n", None),
            ("", None),
            ("12:pids:/system.slice/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", Some("b.service")),
            ("1:name=systemd:/system.slice/b.service\n0::/system.slice/b.service/supervisor\n", Some("b.service")),
            ("0::/system.slice/odd:name.service\n", Some("odd:name.service")),
        ] {
            assert_eq!(unit_of(text).as_deref(), unit, "{text}");
        }
    }
}
