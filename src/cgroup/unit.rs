//! The unit that a control group belongs to, and the processes in it. Only reads.

use rustix::process::Pid;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the hierarchy is mounted (systemd.resource-control(5)).
pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// No more processes than this are listed.
const MAX_PROCESSES: usize = 4096;
/// Directories below the unit's are looked into so deep.
const DEEPEST: usize = 4;

/// All processes of the unit we run in, ourselves included. Empty outside a unit and without control groups version 2.
pub fn processes_of_own_unit() -> Vec<Pid> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    if let Some(path) = unit_directory(&text) {
        collect(&Path::new(ROOT).join(path), 0, &mut found);
    }
    found
}

/// All processes of a unit's control group: a path as systemd tells it, from the root of the hierarchy. Empty when it is
/// gone, and without control groups version 2.
pub fn processes_of(control_group: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    if control_group.len() > 1 {
        collect(&Path::new(ROOT).join(control_group.trim_start_matches('/')), 0, &mut found);
    }
    found
}

/// The path below the root of the hierarchy in the text of /proc/PID/cgroup.
pub(super) fn own_directory(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// The unit's directory below the root of the hierarchy: systemd puts ExecStop= and the like into `.control` below it.
pub(super) fn unit_directory(text: &str) -> Option<PathBuf> {
    let path = own_directory(text)?;
    let mut directory = PathBuf::new();
    for part in path.split('/') {
        directory.push(part);
        if part.ends_with(".service") && !part.starts_with("user@") {
            return Some(directory);
        }
    }
    None
}

fn collect(directory: &Path, depth: usize, found: &mut Vec<Pid>) {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    // A process that our name space does not know is listed as 0 (cgroups(7)).
    let pids = text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).filter_map(Pid::from_raw);
    found.extend(pids.take(MAX_PROCESSES.saturating_sub(found.len())));
    if depth == DEEPEST {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth + 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_found_from_below() {
        for (text, directory) in [
            ("0::/system.slice/web.service\n", Some("system.slice/web.service")),
            ("0::/system.slice/web.service/.control\n", Some("system.slice/web.service")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/worker-1\n",
                Some("user.slice/user-1000.slice/user@1000.service/app.slice/web.service"),
            ),
            ("0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("12:pids:/system.slice/web.service\n", None),
        ] {
            assert_eq!(unit_directory(text), directory.map(PathBuf::from), "{text}");
        }
    }
}
