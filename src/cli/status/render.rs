//! The report for people.
//!
//! Owns: every word and its place. A pure function: report, width, colour in, text out (`tests/cli/status/`).
//! Never: asks the time or the terminal, or lets through what others wrote without making it harmless.

use super::format::{moment, per_second, size, span_ms};
use super::report::{Entry, StatusReport, Trigger};
use super::terminal::{Cell, Paint, harmless, table, wrap};
use crate::config;
use crate::control::Status;
use crate::control::message::{Listener, Probe, ReloadState, Slot, Template, Worker, WorkerState};
use crate::control::requests::{Lately, Requests, WorkerRequests};
use crate::systemd::bus::UnitState;

/// Where the text of a labelled line begins; systemctl's is 13.
const MARGIN: usize = 13;
/// Where the table of workers begins: left of the margin, because its eight columns need the room.
const TABLE: usize = 5;
const WORKER_HEADS: [&str; 9] = ["ID", "PID", "STATE", "GEN", "AGE", "RESTARTS", "MEMORY", "CPU", "PROBE"];

/// What a refused reload leaves behind.
const CODE_ON_DISK: &str = "the code on disk is the refused one: a restart would load it, and so would the successor of \
                            a worker that dies, unless the application is preloaded";

/// Renders the whole report. `width` is the terminal's, `None` when the reader is a program or a file.
pub fn render(report: &StatusReport, width: Option<usize>, colour: bool) -> String {
    let text = systemd_error(report, width, colour);
    let mut page = Page { text, width, colour, now: report.now_unix_ms, systemd: report.systemd_error.is_none() };
    for (number, entry) in report.entries.iter().enumerate() {
        if number > 0 {
            page.blank();
        }
        page.entry(entry);
    }
    if report.entries.is_empty() {
        page.lines(0, "No sockd is running, and no unit is known that would run one.", Paint::Plain);
    }
    page.text
}

/// Why systemd was not asked, and an empty line; nothing where it was.
pub fn systemd_error(report: &StatusReport, width: Option<usize>, colour: bool) -> String {
    let Some(error) = &report.systemd_error else { return String::new() };
    let line = format!("systemd: not reachable: {}", harmless(error));
    let lines = wrap(&line, width.unwrap_or(usize::MAX));
    lines.iter().map(|line| Paint::Passing.on(line, colour) + "\n").collect::<String>() + "\n"
}

struct Page {
    text: String,
    width: Option<usize>,
    colour: bool,
    now: u64,
    /// Whether systemd answered: then it is said of each unit why it did not.
    systemd: bool,
}

impl Page {
    fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Text broken to the width, every line behind `indent` spaces.
    fn lines(&mut self, indent: usize, text: &str, paint: Paint) {
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(indent));
        for line in wrap(text, width) {
            self.text.push_str(&" ".repeat(indent));
            self.text.push_str(&paint.on(&line, self.colour));
            self.text.push('\n');
        }
    }

    /// `     Label: text`, further lines below the text.
    fn labelled(&mut self, label: &str, text: &str, paint: Paint) {
        let start = self.text.len();
        self.lines(MARGIN, text, paint);
        let head = format!("{label:>width$}: ", width = MARGIN - 2);
        self.text.replace_range(start..start + MARGIN, &head);
    }

    /// `28min ago`; a clock that was set back gives `0ms ago`.
    fn ago(&self, unix_ms: u64) -> String {
        format!("{} ago", span_ms(self.now.saturating_sub(unix_ms)))
    }

    fn entry(&mut self, entry: &Entry) {
        self.title(entry);
        if let Some(unit) = &entry.systemd {
            self.unit(unit, &entry.triggers);
        } else if let Some(error) = &entry.systemd_error
            && self.systemd
        {
            self.labelled("Unit", &harmless(error), Paint::Passing);
        }
        if let Some(status) = &entry.sockd {
            self.status(status);
        } else if let Some(unit) = &entry.systemd
            && !unit.status_text.is_empty()
        {
            self.labelled("Status", &harmless(&unit.status_text), Paint::Plain);
        }
        match (&entry.run_as, &entry.sockd_error) {
            (Some(user), _) if user == "root" => {
                self.labelled("sockd", "run as root to see the workers", Paint::Passing)
            }
            (Some(user), _) => {
                let text = format!("run as root or as {} to see the workers", harmless(user));
                self.labelled("sockd", &text, Paint::Passing);
            }
            (None, Some(error)) => self.labelled("sockd", &harmless(error), Paint::Passing),
            (None, None) => {}
        }
    }

    fn title(&mut self, entry: &Entry) {
        let (dot, paint) = bullet(entry);
        let name = entry.name();
        let description = match &entry.systemd {
            Some(unit) if !unit.description.is_empty() && unit.description != unit.name => {
                format!(" - {}", harmless(&unit.description))
            }
            None if entry.unit.is_none() => " - not in a unit of the system".to_owned(),
            Some(_) | None => String::new(),
        };
        self.text.push_str(&paint.on(dot, self.colour));
        let start = self.text.len();
        self.lines(2, &format!("{name}{description}"), Paint::Plain);
        self.text.replace_range(start..start + 2, " ");
    }

    fn unit(&mut self, unit: &UnitState, triggers: &[Trigger]) {
        if unit.load_state != "loaded" {
            self.labelled("Loaded", &harmless(&unit.load_state), Paint::Bad);
        }
        let mut active = format!("{} ({})", unit.active_state, unit.sub_state);
        if !unit.result.is_empty() && unit.result != "success" {
            active = format!("{} ({}, Result: {})", unit.active_state, unit.sub_state, unit.result);
        }
        let since = match unit.active_state.as_str() {
            "active" | "reloading" | "refreshing" | "deactivating" => unit.active_enter_us,
            _ => unit.inactive_enter_us,
        } / 1000;
        if since > 0 {
            active = format!("{active} since {}; {}", moment(since), self.ago(since));
        }
        self.labelled("Active", &harmless(&active), dot(unit).1);
        for trigger in triggers {
            let text = format!("{} ({})", harmless(&trigger.unit), harmless(&trigger.active_state));
            let listens = trigger.active_state == "active";
            self.labelled("TriggeredBy", &text, if listens { Paint::Plain } else { Paint::Bad });
            if listens && unit.active_state == "inactive" {
                self.lines(MARGIN, "the first connection starts the service", Paint::Plain);
            } else if !listens && unit.main_pid != 0 {
                let warning = "this socket unit no longer listens: when the service ends, connections are refused";
                self.lines(MARGIN, warning, Paint::Bad);
            }
        }
        if unit.n_restarts > 0 {
            self.labelled("Restarts", &format!("{} by systemd", unit.n_restarts), Paint::Passing);
        }
        if unit.need_daemon_reload {
            let text = "the unit file changed on disk: run systemctl daemon-reload";
            self.labelled("Warning", text, Paint::Passing);
        }
    }

    fn status(&mut self, status: &Status) {
        if status.unit.is_none() && status.started_unix_ms > 0 {
            let started = format!("{}; {}", moment(status.started_unix_ms), self.ago(status.started_unix_ms));
            self.labelled("Started", &started, Paint::Plain);
        }
        if !status.status_line.is_empty() {
            let paint = if status.serves_nobody() { Paint::Bad } else { Paint::Plain };
            self.labelled("Status", &harmless(&status.status_line), paint);
        }
        if let Some(maintenance) = &status.maintenance {
            let off = named("sockd maintenance", status, " off");
            let text = format!("since {}; {off} ends it", moment(maintenance.since_unix_ms));
            self.labelled("Maintenance", &text, Paint::Passing);
            maintenance.message.iter().for_each(|message| self.quoted(message));
        }
        if status.balancers.is_drained {
            let ready = named("sockd ready", status, "");
            self.labelled("Drained", &format!("balancers send nobody; {ready} ends it"), Paint::Passing);
        }
        if let Some(pause) = &status.pause {
            let resume = named("sockd resume", status, "");
            let text = format!("it ends by itself in {}; {resume} ends it", span_ms(pause.left_ms));
            self.labelled("Pause", &text, Paint::Passing);
        }
        for listener in &status.listeners {
            self.listener(listener, status.listeners.len() > 1);
        }
        let cost = &status.supervisor;
        let cost = [cost.memory_bytes.map(size), cost.cpu_ms.map(|cpu| format!("CPU {}", span_ms(cpu)))];
        let parts = [Some(format!("process {}", status.pid))].into_iter().chain(cost).flatten();
        self.labelled("sockd", &parts.collect::<Vec<_>>().join(", "), Paint::Plain);
        self.generation(status);
        self.workers(status);
        for slot in &status.slots {
            self.death(slot);
        }
    }

    fn listener(&mut self, listener: &Listener, named: bool) {
        let mut text = harmless(&listener.address);
        if named && !listener.name.is_empty() {
            text = format!("{text} ({})", harmless(&listener.name));
        }
        match (listener.waiting, listener.backlog) {
            (Some(waiting), Some(backlog)) => text = format!("{text}, queue {waiting} of {backlog}"),
            (Some(waiting), None) => text = format!("{text}, queue {waiting}"),
            (None, _) => {}
        }
        if let Some(in_flight) = listener.in_flight {
            text = format!("{text}, {in_flight} in flight");
        }
        self.labelled("Socket", &text, queue_paint(listener));
        if let Some(alarm) = &listener.alarm {
            self.lines(MARGIN, &harmless(alarm), Paint::Bad);
        }
        if let Some(error) = &listener.error {
            self.lines(MARGIN, &format!("no numbers: {}", harmless(error)), Paint::Passing);
        }
    }

    fn generation(&mut self, status: &Status) {
        let reload = &status.reload;
        let next = reload.generation.map_or_else(|| "the next one".to_owned(), |next| next.to_string());
        let (text, paint) = match reload.state {
            ReloadState::Idle => (String::new(), Paint::Plain),
            ReloadState::Reading => (", reloading: reading the configuration".to_owned(), Paint::Passing),
            ReloadState::Checking => (format!(", reloading: {next} is being checked"), Paint::Passing),
            ReloadState::Canary => (format!(", reloading: the canary of {next} is being proven"), Paint::Passing),
            ReloadState::Trying => {
                let counted = reload.tried.map(|tried| format!(", {} of {} requests", tried.answers, tried.wanted));
                (format!(", reloading: visitors try {next}{}", counted.unwrap_or_default()), Paint::Passing)
            }
            ReloadState::RollingOut => (format!(", reloading: {next} replaces it slot by slot"), Paint::Passing),
            ReloadState::Abandoning => (format!(", reloading: {next} failed and is taken away"), Paint::Bad),
            ReloadState::Unknown => (", reloading".to_owned(), Paint::Passing),
        };
        let serves = match status.generation {
            0 => "none yet".to_owned(),
            generation => generation.to_string(),
        };
        self.labelled("Generation", &format!("{serves}{text}"), paint);
        if let Some(refused) = &reload.last_refused {
            let head = format!("the reload to {}, {}: ", refused.generation, self.ago(refused.at_unix_ms));
            self.labelled("Refused", &format!("{head}{}", harmless(&refused.reason)), Paint::Bad);
            self.lines(MARGIN, CODE_ON_DISK, Paint::Passing);
        }
    }

    fn workers(&mut self, status: &Status) {
        let ready = status.workers.iter().filter(|worker| worker.state == WorkerState::Ready).count();
        let wanted = status.wanted_workers;
        let held_back = status.pause.is_some() || status.maintenance.is_some();
        let mut text = match (wanted, status.workers.is_empty()) {
            (0, true) if held_back => "none, on purpose".to_owned(),
            (0, true) if status.fallback => "none".to_owned(),
            (0, true) => "none; the first connection starts them".to_owned(),
            _ => format!("{ready} of {wanted} ready"),
        };
        let mut paint = if ready < wanted as usize { Paint::Passing } else { Paint::Plain };
        if status.fallback && !held_back {
            text = format!("{text}; sockd keeps trying");
            paint = Paint::Bad;
        }
        if let Some(requests) = &status.requests {
            self.requests(requests, &status.workers);
        }
        self.labelled("Workers", &text, paint);
        let rows: Vec<Vec<Cell>> = status.workers.iter().map(row).collect();
        if !rows.is_empty() {
            self.text.push_str(&table(&WORKER_HEADS, &[2], &rows, TABLE, None, self.colour));
        }
        for worker in &status.workers {
            if let Some(line) = worker.requests.as_ref().and_then(|requests| serves(worker.id, requests)) {
                self.lines(MARGIN, &line, Paint::Plain);
            }
            if let Some(Probe { failure: Some(failure), .. }) = &worker.last_probe {
                self.lines(MARGIN, &format!("worker {} is not well: {}", worker.id, harmless(failure)), Paint::Bad);
            }
        }
        for slot in status.slots.iter().filter(|slot| slot.worker.is_none()) {
            if let Some(retry) = slot.retry_in_ms {
                let text = format!("slot {}: in back-off, next attempt in {}", slot.slot, span_ms(retry));
                self.lines(MARGIN, &text, Paint::Passing);
            }
        }
        if let Some(why) = &status.groups_missing {
            self.labelled("Groups", &format!("workers have none of their own: {}", harmless(why)), Paint::Passing);
        }
        for template in &status.templates {
            self.template(template, status.templates.len() > 1);
        }
    }

    fn requests(&mut self, requests: &Requests, workers: &[Worker]) {
        let shown = || workers.iter().filter_map(|worker| worker.requests.as_ref());
        let busy = shown().filter(|requests| requests.busy > 0).count();
        let mut now = format!("{busy} of {} workers busy", workers.len());
        let silent = |worker: &&Worker| worker.state == WorkerState::Ready && worker.requests.is_none();
        let unknown = workers.iter().filter(silent).count();
        if unknown > 0 {
            now = format!("{now}, {unknown} not known");
        }
        let websockets: u64 = shown().map(|requests| requests.websockets).sum();
        if websockets > 0 {
            now = format!("{now}, {websockets} WebSockets open");
        }
        let ever = counts(requests.server_errors, requests.aborted);
        let unclassified = match requests.unclassified {
            Some(count) if count > 0 => format!(", {count} of unknown status"),
            Some(_) | None => String::new(),
        };
        let ever = format!("{} since the start{ever}{unclassified}", requests.finished);
        let lately = requests.lately.as_ref().map(|lately| {
            let paint = if lately.server_errors > 0 { Paint::Bad } else { Paint::Plain };
            (recently(lately), paint)
        });
        let lines = lately.into_iter().chain([(now, Paint::Plain), (ever, Paint::Plain)]);
        for (number, (line, paint)) in lines.enumerate() {
            if number == 0 { self.labelled("Requests", &line, paint) } else { self.lines(MARGIN, &line, paint) }
        }
    }

    fn template(&mut self, template: &Template, one_of_several: bool) {
        let mut text = format!("process {}{}", template.pid, if template.warm { ", warm" } else { "" });
        if let Some(spare) = template.spare_pid {
            text = format!("{text}, and {spare} waits to be the next worker");
        }
        let generation = one_of_several.then(|| format!("generation {}", template.generation));
        let parts =
            [generation, template.memory_bytes.map(size), template.cpu_ms.map(|cpu| format!("CPU {}", span_ms(cpu)))];
        let parts: String = parts.into_iter().flatten().map(|part| format!(", {part}")).collect();
        self.labelled("Template", &format!("{text}{parts}"), Paint::Plain);
        if let Some(why) = &template.not_warm {
            self.labelled("", &format!("not warm: {why}"), Paint::Plain);
        }
    }

    fn death(&mut self, slot: &Slot) {
        let Some(death) = &slot.last_death else { return };
        let text = format!(
            "slot {}, {}, after {}: {}",
            slot.slot,
            self.ago(death.at_unix_ms),
            span_ms(death.lived_ms),
            harmless(&death.reason)
        );
        self.labelled("Died", &text, Paint::Plain);
        // The last line that says something: a traceback ends in the name of the error.
        if let Some(line) = death.last_lines.iter().rev().find(|line| !line.trim().is_empty()) {
            self.quoted(line);
        }
    }

    /// A line that someone else wrote, behind a bar.
    fn quoted(&mut self, line: &str) {
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(MARGIN + 2));
        for line in wrap(&harmless(line), width) {
            self.text.push_str(&" ".repeat(MARGIN));
            self.text.push_str(&Paint::Faint.on(&format!("| {line}"), self.colour));
            self.text.push('\n');
        }
    }
}

/// The sign before the name, in its colour: systemctl's, and red for what runs and serves nobody.
pub fn bullet(entry: &Entry) -> (&'static str, Paint) {
    match (&entry.systemd, &entry.sockd) {
        (_, Some(status)) if status.serves_nobody() => ("×", Paint::Bad),
        (Some(unit), _) => dot(unit),
        (None, Some(_)) => ("●", Paint::Good),
        (None, None) => ("○", Paint::Plain),
    }
}

/// A command for this instance.
fn named(command: &str, status: &Status, rest: &str) -> String {
    let unit = status.unit.as_ref().map(|unit| format!(" {}", harmless(unit)));
    format!("{command}{}{rest}", unit.unwrap_or_default())
}

/// A full queue refuses clients; half a queue is on its way there.
pub fn queue_paint(listener: &Listener) -> Paint {
    match (listener.waiting, listener.backlog) {
        (Some(waiting), Some(backlog)) if waiting >= backlog => Paint::Bad,
        (Some(waiting), Some(backlog)) if waiting > 0 && waiting >= backlog.div_ceil(2) => Paint::Passing,
        (Some(_) | None, _) => Paint::Plain,
    }
}

/// Whether the next connection starts the unit.
pub fn inactive_but_listening(unit: &UnitState, triggers: &[Trigger]) -> bool {
    unit.active_state == "inactive" && triggers.iter().any(|trigger| trigger.active_state == "active")
}

/// systemctl's dots: ● active, ↻ reloading, ○ inactive, × failed.
fn dot(unit: &UnitState) -> (&'static str, Paint) {
    match unit.active_state.as_str() {
        "active" => ("●", Paint::Good),
        "reloading" | "refreshing" => ("↻", Paint::Good),
        "activating" | "deactivating" => ("●", Paint::Passing),
        "failed" => ("×", Paint::Bad),
        _ => ("○", Paint::Plain),
    }
}

/// Where a worker is in its life, for people.
pub fn worker_state(worker: &Worker) -> (&'static str, Paint) {
    match worker.state {
        WorkerState::Starting if worker.slot.is_none() => ("canary", Paint::Passing),
        WorkerState::Starting => ("starting", Paint::Passing),
        WorkerState::Ready if worker.slot.is_none() => ("canary, ready", Paint::Good),
        WorkerState::Ready => ("ready", Paint::Good),
        WorkerState::Draining => ("draining", Paint::Passing),
        WorkerState::Terminating => ("terminating", Paint::Passing),
        WorkerState::Killing => ("being killed", Paint::Bad),
        WorkerState::Unknown => ("?", Paint::Plain),
    }
}

fn row(worker: &Worker) -> Vec<Cell> {
    let (state, paint) = worker_state(worker);
    let or_dash = |text: Option<String>| Cell::plain(text.unwrap_or_else(|| "-".to_owned()));
    vec![
        Cell::plain(worker.id.to_string()),
        or_dash(worker.pid.map(|pid| pid.to_string())),
        Cell::painted(state, paint),
        Cell::plain(worker.generation.to_string()),
        Cell::plain(span_ms(worker.age_ms)),
        Cell::plain(worker.restarts.to_string()),
        or_dash(memory(worker)),
        or_dash(worker.cpu_ms.map(span_ms)),
        match &worker.last_probe {
            Some(Probe { ago_ms, failure: None }) => Cell::plain(format!("ok {} ago", span_ms(*ago_ms))),
            Some(Probe { ago_ms, failure: Some(_) }) => {
                Cell::painted(format!("failed {} ago", span_ms(*ago_ms)), Paint::Bad)
            }
            None => Cell::plain("-".to_owned()),
        },
    ]
}

/// What a worker serves at this moment.
fn serves(id: u64, requests: &WorkerRequests) -> Option<String> {
    let oldest = requests.in_flight.first()?;
    let others = match requests.busy.saturating_sub(1) {
        0 => String::new(),
        others => format!(", and {others} more"),
    };
    Some(format!("worker {id} serves {} since {}{others}", harmless(&oldest.request), span_ms(oldest.for_ms)))
}

/// `12/s, median 8.7ms, 95 % within 412ms, 3 server errors (last 1min)`.
fn recently(lately: &Lately) -> String {
    let rate = lately.finished as f64 * 1000.0 / lately.period_ms.max(1) as f64;
    let mut text = format!("{}/s", per_second(rate));
    if let (Some(median), Some(percentile)) = (lately.median_us, lately.percentile_95_us) {
        text = format!("{text}, median {}, 95 % within {}", duration_us(median), duration_us(percentile));
    }
    let failed = counts(lately.server_errors, lately.aborted);
    format!("{text}{failed} (last {})", span_ms(lately.period_ms))
}

/// `, 3 server errors, 1 aborted`, or nothing.
fn counts(server_errors: u64, aborted: u64) -> String {
    let some = |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
    let errors = if server_errors == 1 { "server error" } else { "server errors" };
    format!("{}{}", some(server_errors, errors), some(aborted, "aborted"))
}

/// Two digits that mean something: the figure is right to a fifth.
fn duration_us(microseconds: u64) -> String {
    match microseconds {
        ..10_000 => format!("{:.1}ms", microseconds as f64 / 1000.0),
        _ => span_ms(microseconds / 1000),
    }
}

/// `42.1M`, or with the limit that kills `42.1M/256M`.
fn memory(worker: &Worker) -> Option<String> {
    let taken = worker.memory_bytes.map(size)?;
    Some(match worker.memory_max_bytes {
        Some(limit) => format!("{taken}/{}", config::size::show(limit)),
        None => taken,
    })
}

#[cfg(test)]
mod tests {
    use super::super::terminal::columns;
    use super::*;

    #[test]
    fn what_a_server_does_not_tell_is_said_to_be_unknown() {
        let ready = |requests| Worker { state: WorkerState::Ready, requests, ..Worker::default() };
        let busy = WorkerRequests { finished: 40, busy: 2, ..WorkerRequests::default() };
        let status = Status {
            workers: vec![ready(Some(busy)), ready(Some(WorkerRequests::default())), ready(None)],
            requests: Some(Requests { finished: 40, unclassified: Some(40), ..Requests::default() }),
            ..Status::default()
        };
        let entry = Entry { sockd: Some(status), ..Entry::default() };
        let report = StatusReport { entries: vec![entry], ..StatusReport::default() };
        let text = render(&report, None, false);
        assert!(text.contains("1 of 3 workers busy, 1 not known\n"), "{text}");
        assert!(text.contains("40 since the start, 40 of unknown status\n"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_nothing_acts_on_it() {
        let mean = "\u{1b}[2J\u{7}日本語 ".repeat(30);
        let entry = Entry { unit: Some(mean.clone()), sockd_error: Some(mean.clone()), ..Entry::default() };
        let report = StatusReport { systemd_error: Some(mean), entries: vec![entry], now_unix_ms: 0 };
        let text = render(&report, Some(60), false);
        assert!(text.lines().all(|line| columns(line) <= 60), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    }
}
