//! The table of the chosen instance's workers, a line each, and one for each slot in back-off.

use ratatui::style::{Modifier, Style};
use ratatui::text::Line;

use super::line::{Column, Ink, fit, heads, left, right, row, span, window};
use crate::cli::status::format::{per_second, size, span_ms};
use crate::cli::status::render::worker_state;
use crate::cli::status::terminal::Paint;
use crate::cli::top::model::{Focus, Instance, Model};
use crate::control::message::Worker;

/// The title and the heads.
const ABOVE: usize = 2;

/// How many lines it takes where there is room.
pub fn height(model: &Model) -> usize {
    model.instance().map_or(0, |instance| ABOVE + instance.workers().len() + instance.backing_off().count())
}

/// The table, in so many lines.
pub fn lines(model: &Model, ink: Ink, width: usize, height: usize) -> Vec<Line<'static>> {
    let Some(instance) = model.instance() else { return Vec::new() };
    let Some(status) = &instance.entry.sockd else { return Vec::new() };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let paint = if status.serves_nobody() { Paint::Bad } else { Paint::Plain };
    let title = vec![span(&instance.entry.name(), bold), span(&format!(": {}", status.status_line), ink.of(paint))];
    let columns = columns(width);
    let mut lines = vec![Line::from(title), heads(&columns, ink.of(Paint::Faint))];
    let (chosen, room) = (model.worker_place(), height.saturating_sub(ABOVE));
    let workers = instance.workers();
    for place in window(workers.len(), chosen, room) {
        let chosen = place == chosen && model.focus == Focus::Workers;
        lines.push(worker(instance, &workers[place], chosen, ink, &columns));
    }
    for (slot, retry_in) in instance.backing_off() {
        let why = slot.last_death.as_ref().map_or(String::new(), |death| format!(": {}", death.reason));
        let text = format!("slot {} in back-off, next attempt in {}{why}", slot.slot, span_ms(retry_in));
        lines.push(row(
            vec![(String::new(), bold), (text, ink.of(Paint::Bad))],
            &[left("", 1), left("", width.saturating_sub(2))],
        ));
    }
    lines.truncate(height);
    lines
}

fn columns(width: usize) -> Vec<Column> {
    let first = [left("", 1), right("ID", 5), left("STATE", 12)];
    let numbers = [right("PID", 7), right("GEN", 3), right("AGE", 9), right("MEMORY", 7), right("CPU", 5)];
    let rate = [right("RATE", 5)];
    let numbers = if width < 60 { &numbers[..0] } else { &numbers[..] };
    let rate = if width < 90 { &rate[..0] } else { &rate[..] };
    // At the end, and as wide as there is room.
    fit(&[&first, numbers, rate, &[left("SERVES", 10)]].concat(), width)
}

fn worker(instance: &Instance, worker: &Worker, chosen: bool, ink: Ink, columns: &[Column]) -> Line<'static> {
    let plain = if chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let (state, paint) = if is_unhealthy(worker) { ("unhealthy", Paint::Bad) } else { worker_state(worker) };
    let pace = instance.pace(worker.id);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = columns.iter().map(|column| match column.head {
        "ID" => (worker.id.to_string(), plain),
        "STATE" => (state.to_owned(), ink.of(paint)),
        "PID" => (or_dash(worker.pid.map(|pid| pid.to_string())), plain),
        "GEN" => (worker.generation.to_string(), plain),
        "AGE" => (span_ms(worker.age_ms), plain),
        "MEMORY" => (or_dash(worker.memory_bytes.map(size)), plain),
        "CPU" => (or_dash(pace.cpu.map(|cores| format!("{:.0}%", cores * 100.0))), plain),
        "RATE" => (or_dash(pace.rate.map(per_second)), plain),
        "SERVES" => (serves(worker), plain),
        _ => ((if chosen { ">" } else { " " }).to_owned(), plain),
    });
    row(cells.collect(), columns)
}

/// Whether it failed when it was last asked.
pub fn is_unhealthy(worker: &Worker) -> bool {
    worker.last_probe.as_ref().is_some_and(|probe| probe.failure.is_some())
}

/// The oldest request, since when, and how many there are beside it.
fn serves(worker: &Worker) -> String {
    let Some(requests) = &worker.requests else { return "-".to_owned() };
    let Some(oldest) = requests.in_flight.first() else { return String::new() };
    let others = match requests.busy.saturating_sub(1) {
        0 => String::new(),
        others => format!(" +{others}"),
    };
    format!("{} {}{others}", span_ms(oldest.for_ms), oldest.request)
}
