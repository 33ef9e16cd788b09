//! What /proc knows of a process and its descendants: their numbers, the sockets they hold, what they cost.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// No more descendants than this are looked at: a fork bomb must not hold us up.
const MAX_PROCESSES: usize = 4096;
/// No more threads of a process than this are looked at.
const MAX_THREADS: usize = 64;

/// All living descendants of a process, at one moment (proc(5), /proc/PID/task/TID/children).
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let (mut found, mut next) = (Vec::new(), 0);
    let mut parent = pid;
    loop {
        found.extend(children(parent));
        if found.len() >= MAX_PROCESSES || next >= found.len() {
            return found;
        }
        parent = found[next];
        next += 1;
    }
}

/// Its living children, and those that were not reaped.
pub fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(parse_pid).collect::<Vec<_>>())
        .collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok().filter(|number| *number > 0)?)
}

/// Kills a process that was a descendant of ours a moment ago and still is.
pub fn kill_descendant(pid: Pid) {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    // With the pidfd in hand the number cannot change its owner any more, so the check holds for it.
    if is_descendant_of(pid, rustix::process::getpid()) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
}

/// Whether `pid` descends from `ancestor`.
pub fn is_descendant_of(pid: Pid, ancestor: Pid) -> bool {
    let mut current = pid;
    for _ in 0..64 {
        match parent(current) {
            Some(parent) if parent == ancestor => return true,
            Some(parent) => current = parent,
            None => return false,
        }
    }
    false
}

fn parent(pid: Pid) -> Option<Pid> {
    // The name in the second field may contain anything, also spaces and parentheses.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_pid(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?)
}

/// The process that leads the session of `pid`. None: nobody who can be seen, as in a container whose first process was
/// started by somebody outside of it (getsid(2) then gives 0, see pid_namespaces(7)); or the process is gone.
pub fn session(pid: Pid) -> Option<Pid> {
    let pid = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    Pid::from_raw(nix::unistd::getsid(Some(pid)).ok()?.as_raw())
}

/// The process that leads the process group of `pid`. None: as in [`session`].
pub fn process_group(pid: Pid) -> Option<Pid> {
    let pid = nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get());
    Pid::from_raw(nix::unistd::getpgid(Some(pid)).ok()?.as_raw())
}

/// Whether the process, or one of its descendants, holds a socket with one of these inodes. None: it cannot be known,
/// because its descriptors may not be read.
pub fn holds_socket(pid: Pid, inodes: &BTreeSet<u64>) -> Option<bool> {
    let mut readable = false;
    for held in std::iter::once(pid).chain(descendants(pid)).filter_map(sockets) {
        readable = true;
        if !held.is_disjoint(inodes) {
            return Some(true);
        }
    }
    readable.then_some(false)
}

/// The inodes of all sockets that the process and its descendants hold. None: it cannot be known, because their descriptors
/// may not be read.
pub fn held_sockets(pid: Pid) -> Option<BTreeSet<u64>> {
    let held = std::iter::once(pid).chain(descendants(pid)).filter_map(sockets);
    held.reduce(|mut all, more| {
        all.extend(more);
        all
    })
}

/// The inodes of the sockets among a process's descriptors. None: they may not be read.
pub(super) fn sockets(pid: Pid) -> Option<BTreeSet<u64>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let socket = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    };
    Some(descriptors.flatten().filter_map(socket).collect())
}

/// Whether the process handles this signal (proc(5), SigCgt of /proc/PID/status): the default action of most is its end.
pub fn handles_signal(pid: Pid, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let handled = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let handled = handled.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).contains(&signal) && handled & 1 << (signal - 1) != 0
}

/// One thread of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its number (gettid(2)).
    pub id: u64,
    /// Its name, as the process has set it: anything but a zero byte may stand in it.
    pub name: String,
    /// R, S, D or another letter of proc(5), /proc/PID/stat.
    pub state: char,
    /// The function of the kernel that it waits in. `None`: in none, or it may not be known.
    pub waits_in: Option<String>,
}

/// The threads of a process, at one moment: 64 at most.
pub fn threads(pid: Pid) -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks.flatten().take(MAX_THREADS).filter_map(|task| thread(&task)).collect()
}

fn thread(task: &fs::DirEntry) -> Option<Thread> {
    let stat = String::from_utf8_lossy(&fs::read(task.path().join("stat")).ok()?).into_owned();
    let (begin, rest) = stat.rsplit_once(") ")?;
    let waits_in = fs::read_to_string(task.path().join("wchan")).ok();
    Some(Thread {
        id: task.file_name().to_str()?.parse().ok()?,
        name: begin.split_once('(')?.1.to_owned(),
        state: rest.chars().next()?,
        waits_in: waits_in.filter(|function| !function.is_empty() && function != "0"),
    })
}

/// What a process costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Proportional set size, in bytes: shared pages count in parts.
    pub memory: Option<u64>,
    /// Processor time, user and system.
    pub cpu: Option<Duration>,
}

/// What the process costs at this moment, without its descendants.
pub fn usage(pid: Pid) -> Usage {
    let memory = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    Usage { memory, cpu: cpu_time(pid) }
}

/// Processor time of a process, user and system, without its descendants.
pub fn cpu_time(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime and stime are fields 14 and 15 of proc(5), in ticks of 10 ms on every Linux we run on.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

/// Resident memory of a process, in bytes: shared pages count in full. It takes a fraction of the time of [`usage`], and
/// waits for nobody.
pub fn resident_memory(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_hold_our_sockets_and_cost_something() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let inode = rustix::fs::fstat(&socket).expect("its inode").st_ino;
        let me = rustix::process::getpid();
        assert_eq!(holds_socket(me, &BTreeSet::from([inode])), Some(true));
        assert!(held_sockets(me).is_some_and(|held| held.contains(&inode)));
        drop(socket);
        assert_eq!(holds_socket(me, &BTreeSet::from([u64::MAX])), Some(false));
        assert!(usage(me).memory.is_some_and(|bytes| bytes > 100_000));
        assert!(resident_memory(me).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let (me, pid) = (rustix::process::getpid(), Pid::from_child(&child));
        assert!(descendants(me).contains(&pid));
        assert!(is_descendant_of(pid, me));
        assert!(!is_descendant_of(me, pid));
        kill_descendant(pid);
        let _ = child.wait();
    }
}
