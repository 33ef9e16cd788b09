//! Several instances, one line each: what `sockd status` shows of all, and what `sockd` begins with.
//!
//! Owns: which few facts stand in the line. A pure function, as `render`.

use super::format::size;
use super::render::{bullet, inactive_but_listening, queue_paint};
use super::report::{Entry, StatusReport};
use super::terminal::{Cell, Paint, harmless, table};
use crate::control::Status;

const HEADS: [&str; 5] = ["", "UNIT", "QUEUE", "MEMORY", "STATUS"];
/// Names and statuses.
const LEFT: [usize; 3] = [0, 1, 4];

/// Renders a line for each entry below a line of heads, none wider than `width`; `None`: as long as it gets.
pub fn list(report: &StatusReport, width: Option<usize>, colour: bool) -> String {
    let rows: Vec<Vec<Cell>> = report.entries.iter().map(row).collect();
    table(&HEADS, &LEFT, &rows, 0, width, colour)
}

fn row(entry: &Entry) -> Vec<Cell> {
    let (dot, paint) = bullet(entry);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let sockd = entry.sockd.as_ref();
    let waiting = sockd.and_then(waiting);
    let memory = sockd.and_then(|status| {
        let workers = status.workers.iter().map(|worker| worker.memory_bytes);
        let templates = status.templates.iter().map(|template| template.memory_bytes);
        sum(workers.chain(templates).chain([status.supervisor.memory_bytes]))
    });
    vec![
        Cell::painted(dot, paint),
        Cell::plain(entry.name()),
        Cell::painted(or_dash(waiting.map(|waiting| waiting.to_string())), sockd.map_or(Paint::Plain, worst_queue)),
        Cell::plain(or_dash(memory.map(size))),
        Cell::painted(state(entry), if paint == Paint::Good { Paint::Plain } else { paint }),
    ]
}

/// How many connections wait for all sockets together; `None` where the kernel does not tell.
pub fn waiting(status: &Status) -> Option<u64> {
    sum(status.listeners.iter().map(|listener| listener.waiting.map(u64::from)))
}

/// How the fullest queue is shown.
pub fn worst_queue(status: &Status) -> Paint {
    let worse = |paint: &Paint| [Paint::Passing, Paint::Bad].iter().position(|worse| worse == paint);
    status.listeners.iter().map(queue_paint).max_by_key(worse).unwrap_or(Paint::Plain)
}

/// The sum of those that are known; `None` where none is.
fn sum(numbers: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    numbers.flatten().reduce(|sum, more| sum + more)
}

/// What is most worth knowing of it.
pub fn state(entry: &Entry) -> String {
    let alarm = entry.sockd.iter().flat_map(|status| &status.listeners).find_map(|listener| listener.alarm.as_ref());
    let said = entry.sockd.as_ref().map(|status| &status.status_line);
    let said = alarm.or(said).or(entry.systemd.as_ref().map(|unit| &unit.status_text));
    let runs = entry.systemd.as_ref().is_none_or(|unit| unit.main_pid != 0);
    match (&entry.systemd, said.filter(|said| runs && !said.is_empty())) {
        (_, Some(said)) => harmless(said),
        (Some(unit), None) if unit.load_state != "loaded" => harmless(&unit.load_state),
        (Some(unit), None) if inactive_but_listening(unit, &entry.triggers) => {
            "inactive; the first connection starts the service".to_owned()
        }
        (Some(unit), None) if !matches!(unit.result.as_str(), "" | "success") => {
            harmless(&format!("{} (Result: {})", unit.active_state, unit.result))
        }
        (Some(unit), None) => harmless(&unit.active_state),
        (None, None) => harmless(entry.sockd_error.as_deref().unwrap_or("runs")),
    }
}
