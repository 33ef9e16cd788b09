//! What the site needs beside its own chain: room on its disks, and free workers. And what it has failed at in the last
//! minutes, though the page that was asked for is well.

use crate::control::message::WorkerState;
use crate::doctor::facts::{Answer, Facts, FileSystem};
use crate::doctor::finding::{Finding, Link, Severity};
use crate::doctor::fix::quote;
use crate::doctor::remedy;
use crate::doctor::traceback;

/// With less room than this, in bytes, a file system is as good as full.
const FULL: u64 = 1 << 20;
/// With less than this, and less than a hundredth, it soon will be.
const NEARLY_FULL: u64 = 256 << 20;
/// A page that takes longer, in milliseconds, is slow.
const SLOW: u64 = 5000;
/// What every program says of a full disk.
const NO_SPACE: &str = "No space left on device";

/// File systems without room.
pub fn disks(facts: &Facts) -> Vec<Finding> {
    facts.file_systems.iter().filter_map(|disk| full(facts, disk)).collect()
}

fn full(facts: &Facts, disk: &FileSystem) -> Option<Finding> {
    let path = &disk.path;
    let no_inode = disk.free_inodes == Some(0);
    let finding = |id, what: String| Finding::warning(id, Link::Application, what);
    let show = if no_inode { "du -x --inodes" } else { "du -xh" };
    let by_hand = format!("remove what nobody needs: `{show} {} | sort -h | tail -n 20` shows it", quote(path));
    if !no_inode && disk.free_bytes >= FULL {
        (disk.free_bytes < NEARLY_FULL && disk.free_bytes < disk.size_bytes / 100).then_some(())?;
        let what = format!("the file system of {path} is nearly full: {} MiB are free", disk.free_bytes >> 20);
        return Some(finding("disk-nearly-full", what).why("whatever writes there will fail").by_hand(by_hand));
    }
    let what = match no_inode {
        true => format!("no file can be made on the file system of {path}: all its inodes are used"),
        false => format!("the file system of {path} is full"),
    };
    let mut lines = recent(facts).iter().chain(&facts.nginx.error_log);
    let said = lines.any(|line| line.contains(NO_SPACE));
    let why = if said { "; the log of the last minutes says so" } else { "" };
    let found =
        finding("disk-full", what).why(format!("whatever writes there fails: {NO_SPACE}{why}")).by_hand(by_hand);
    // The application writes in its own directory and in /tmp; a log that is not written costs no page.
    let written = *path == facts.service.working_directory || matches!(path.as_str(), "/" | "/tmp" | "/var/tmp");
    Some(Finding { severity: if written || said { Severity::Error } else { Severity::Warning }, ..found })
}

/// The lines of the last ten minutes.
fn recent(facts: &Facts) -> &[String] {
    &facts.journal[facts.journal.len().saturating_sub(facts.recent)..]
}

/// The last lines of Nginx's error logs, those of the last ten minutes.
pub fn recent_of_nginx(facts: &Facts) -> &[String] {
    let log = &facts.nginx.error_log;
    &log[log.len().saturating_sub(facts.nginx.recent)..]
}

/// Other pages than the one that was asked for have failed.
pub fn recent_errors(facts: &Facts) -> Option<Finding> {
    let lines = recent(facts);
    let refused = facts.status.as_ref().and_then(|status| status.reload.last_refused.as_ref());
    let of_reload = |error: &str| refused.is_some_and(|refused| refused.reason.contains(error));
    let mut raised = traceback::all(lines);
    raised.retain(|found| !of_reload(&found.error));
    let failed: Vec<(&str, &str)> = lines.iter().filter_map(|line| failed_request(line)).collect();
    let killed = lines.iter().filter(|line| line.contains("WORKER TIMEOUT (pid")).count();
    let times = |count: usize| if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let what = match (raised.last(), failed.last()) {
        (Some(last), _) => {
            format!("the application failed {} in the last ten minutes: {}", times(raised.len()), last.error)
        }
        (None, Some((request, status))) => {
            format!(
                "the application failed {} in the last ten minutes: it answered {status} to {request}",
                times(failed.len())
            )
        }
        (None, None) if killed > 0 => {
            format!("the server ended a worker that took too long {} in the last ten minutes", times(killed))
        }
        (None, None) => return None,
    };
    let unit = &facts.service.name;
    let by_hand = match (raised.last().and_then(|last| last.place.as_ref()), failed.last()) {
        (Some((file, line)), _) => format!("correct {file}:{line}"),
        (None, Some((request, _))) => {
            let path = request.split(' ').nth(1).unwrap_or("/");
            format!("`sockd doctor {unit} --path {}` asks for that page", quote(path))
        }
        (None, None) => format!("see what `journalctl -u {unit} -n 50` shows"),
    };
    let why = "the page that was asked for is well, and another one was not";
    Some(Finding::warning("recent-errors", Link::Application, what).why(why).by_hand(by_hand))
}

/// The request and the status of a line of an access log that tells of a server's error:
/// `… "GET /w/ HTTP/1.0" 500 145 …`.
fn failed_request(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once('"')?;
    let (request, rest) = rest.split_once('"')?;
    let status = rest.trim_start().split(' ').next()?;
    let number = status.len() == 3 && status.starts_with('5') && status.bytes().all(|byte| byte.is_ascii_digit());
    let (call, _) = request.split_once(" HTTP/")?;
    number.then_some((call, status))
}

/// The answer waited for a worker, or for the page.
pub fn slow(facts: &Facts, answer: &Answer) -> Option<Finding> {
    // Who starts the service waits for its start.
    let starts =
        facts.restarted || facts.status.iter().flat_map(|status| &status.workers).any(|w| w.age_ms < answer.took_ms);
    (!starts).then_some(())?;
    let silent = answer.error == "silent";
    let took = format!("{:.1} s", answer.took_ms as f64 / 1000.0);
    let took = if silent { format!("no answer came within {took}") } else { format!("the answer took {took}") };
    let Some(queued) = answer.queued else {
        (!silent && answer.took_ms >= SLOW).then_some(())?;
        let why = "a worker took the request at once: it is the page that is slow";
        let by_hand = "look for a slow query, or a call of another service without a time limit";
        return Some(Finding::warning("slow-answer", Link::Application, took).why(why).by_hand(by_hand));
    };
    let busy = match workers(facts) {
        Some(count) => format!("{count} of {count} workers are busy"),
        None => "all workers are busy".to_owned(),
    };
    let wait = if queued == 0 { String::new() } else { format!(", {queued} wait") };
    let found = Finding::warning("workers-busy", Link::Application, format!("{busy}{wait}; {took}"));
    let why = "a visitor waits in the queue until a worker has finished: with slow pages, or with too few workers";
    let (workers, fix) = remedy::more_workers(facts);
    let by_hand = format!("make the slow pages quicker, or write {workers}");
    let severity = if silent { Severity::Error } else { Severity::Warning };
    Some(Finding { severity, ..found.why(why).by_hand(by_hand).fix(fix) })
}

/// How many workers there are: sockd says it; else it is all processes but the first, which manages the others.
fn workers(facts: &Facts) -> Option<usize> {
    if let Some(status) = &facts.status {
        return Some(status.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count());
    }
    let processes = facts.processes.as_ref()?.len();
    (processes > 0).then_some(processes.saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_requests_are_read() {
        for (line, found) in [
            (
                r#"127.0.0.1 - - [28/Nov/2026:15:00:00 +0000] "GET /w/ HTTP/1.0" 500 145 "-" "curl""#,
                Some(("GET /w/", "500")),
            ),
            (r#"INFO:     127.0.0.1:1 - "POST /a?b HTTP/1.1" 503 Service Unavailable"#, Some(("POST /a?b", "503"))),
            (r#"127.0.0.1 "GET / HTTP/1.0" 200 5"#, None),
            (r#"print("x") 500"#, None),
            (r#""GET / HTTP/1.0" 5xx"#, None),
            ("", None),
        ] {
            assert_eq!(failed_request(line), found, "{line}");
        }
    }
}
