//! Who is still there: processes found by a variable that every process of an instance inherits.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable that marks the processes of one instance.
pub const MARKER: &str = "SOCKD_TEST_INSTANCE";

/// Living processes whose environment has the marker with this value.
pub fn marked(value: &str) -> Vec<Pid> {
    let wanted = format!("{MARKER}={value}");
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        .filter(|pid| {
            // A zombie has no environment any more.
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        })
        .collect()
}

pub fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

pub fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Pid::from_raw(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?)
}

/// What a process is, for messages.
pub fn describe(pid: Pid) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!("{pid} ({})", String::from_utf8_lossy(&line).replace('\0', " ").trim_end())
}

/// Waits until a process has ended; true if it did in time. It need not be a child of ours.
pub fn ended(pid: Pid, patience: Duration) -> bool {
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
    // Readable once the process has ended, whether it was reaped or not (pidfd_open(2)).
    matches!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)), Ok(1..))
}

/// Sends a signal to a process that the caller has just seen.
pub fn signal(pid: Pid, signal: Signal) {
    if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}

/// Kills processes and waits for their ends.
pub fn kill_all(pids: &[Pid]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    for pid in pids {
        ended(*pid, Duration::from_secs(5));
    }
}
