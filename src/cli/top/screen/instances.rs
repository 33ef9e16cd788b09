//! The table of instances, a line each.

use ratatui::style::{Modifier, Style};
use ratatui::symbols::bar::NINE_LEVELS;
use ratatui::text::Line;

use super::line::{Column, Ink, fit, heads, left, right, row, window};
use super::workers::is_unhealthy;
use crate::cli::status::format::{per_second, span_ms};
use crate::cli::status::list;
use crate::cli::status::render::bullet;
use crate::cli::status::terminal::{self, Paint};
use crate::cli::top::model::{Focus, Instance, Model, Trace};
use crate::control::Status;
use crate::control::message::{ReloadState, WorkerState};

/// What stands beside names, bars and states, with a space behind each column but the last.
const OTHERS: usize = 1 + 1 + 5 + 5 + 5 + 6 + 10;
/// The longest state.
const STATE: usize = 15;
const MIN_NAME: usize = 10;
const MIN_BARS: usize = 4;
const MAX_BARS: usize = 20;

/// The table, in so many lines.
pub fn lines(model: &Model, ink: Ink, width: usize, height: usize) -> Vec<Line<'static>> {
    let names = model.instances.iter().map(|instance| terminal::columns(&instance.entry.name()));
    let columns = columns(width, names.max().unwrap_or(0));
    let mut lines = vec![heads(&columns, ink.of(Paint::Faint))];
    if model.instances.is_empty() && model.now_unix_ms > 0 {
        let nothing = "No sockd is running, and no unit is known that would run one.";
        lines.push(row(vec![(nothing.to_owned(), Style::new())], &[left("", width)]));
    }
    let chosen = model.instance_place();
    for place in window(model.instances.len(), chosen, height.saturating_sub(1)) {
        lines.push(instance(&model.instances[place], place == chosen, model.focus, ink, &columns, width));
    }
    lines
}

/// The columns; `longest`: the longest name.
fn columns(width: usize, longest: usize) -> Vec<Column> {
    let room = width.saturating_sub(OTHERS + STATE);
    let name = longest.clamp(MIN_NAME, room.saturating_sub(3 * MIN_BARS).max(MIN_NAME));
    // Where there is no room for bars, the numbers alone are shown.
    let bars = (room.saturating_sub(name) / 3).min(MAX_BARS);
    let [name, bars] = [left("UNIT", name), left("", bars)];
    let (ready, rate, queue, errors) = (right("READY", 5), right("RATE", 5), right("QUEUE", 5), right("ERRORS", 6));
    fit(&[left("", 1), left("", 1), name, ready, rate, bars, queue, bars, errors, bars, left("STATE", STATE)], width)
}

fn instance(
    instance: &Instance,
    chosen: bool,
    focus: Focus,
    ink: Ink,
    columns: &[Column],
    width: usize,
) -> Line<'static> {
    let entry = &instance.entry;
    let (dot, paint) = bullet(entry);
    let style = if chosen { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let marker = match (chosen, focus) {
        (true, Focus::Instances) => ">",
        (true, Focus::Workers) => "-",
        (false, _) => " ",
    };
    let mut cells = vec![(marker.to_owned(), style), (dot.to_owned(), ink.of(paint)), (entry.name(), style)];
    let Some(status) = &entry.sockd else {
        // What there is to say of it takes the place of the numbers.
        let taken: usize = columns.iter().take(3).map(|column| column.width + 1).sum();
        let columns: Vec<Column> =
            columns.iter().take(3).copied().chain([left("", width.saturating_sub(taken))]).collect();
        cells.push((list::state(entry), ink.of(if paint == Paint::Good { Paint::Passing } else { paint })));
        return row(cells, &columns);
    };
    let ready = status.workers.iter().filter(|worker| worker.state == WorkerState::Ready && worker.slot.is_some());
    let ready = ready.count().min(status.wanted_workers as usize);
    let short = if ready < status.wanted_workers as usize { Paint::Passing } else { Paint::Plain };
    cells.push((format!("{ready}/{}", status.wanted_workers), ink.of(short)));
    let number = |trace: &Trace, shown: fn(f64) -> String| trace.last().map_or_else(|| "-".to_owned(), shown);
    let errors = if instance.errors.last().is_some_and(|errors| errors > 0.0) { Paint::Bad } else { Paint::Plain };
    let queue = list::worst_queue(status);
    for (text, trace, paint) in [
        (number(&instance.rate, per_second), &instance.rate, Paint::Plain),
        (number(&instance.queue, |waiting| format!("{waiting:.0}")), &instance.queue, queue),
        (number(&instance.errors, per_second), &instance.errors, errors),
    ] {
        let wide = columns.get(cells.len() + 1).map_or(0, |column| column.width);
        cells.push((text, ink.of(paint)));
        cells.push((bars(trace, wide), ink.of(paint)));
    }
    let (state, paint) = state(instance, status);
    cells.push((state, ink.of(paint)));
    row(cells, columns)
}

/// The last looks as bars, the highest of them as high as a line; nothing where a number is not known.
fn bars(trace: &Trace, count: usize) -> String {
    let numbers: Vec<Option<f64>> = trace.recent(count).collect();
    let highest = numbers.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |number: Option<f64>| match number {
        None => NINE_LEVELS.empty,
        Some(number) if number <= 0.0 => NINE_LEVELS.one_eighth,
        Some(number) => {
            let levels = [
                NINE_LEVELS.one_quarter,
                NINE_LEVELS.three_eighths,
                NINE_LEVELS.half,
                NINE_LEVELS.five_eighths,
                NINE_LEVELS.three_quarters,
                NINE_LEVELS.seven_eighths,
                NINE_LEVELS.full,
            ];
            levels[((number / highest * 7.0).ceil() as usize).clamp(1, 7) - 1]
        }
    };
    let missing = count.saturating_sub(numbers.len());
    " ".repeat(missing) + &numbers.into_iter().map(bar).collect::<String>()
}

/// What is going on, in two or three words: the worst first.
fn state(instance: &Instance, status: &Status) -> (String, Paint) {
    let reload = &status.reload;
    let of_next = || {
        let next = status.workers.iter().filter(|worker| Some(worker.generation) == reload.generation);
        next.filter(|worker| worker.state == WorkerState::Ready && worker.slot.is_some()).count()
    };
    let unhealthy = status.workers.iter().filter(|worker| is_unhealthy(worker)).count();
    let next_attempt = instance.backing_off().map(|(_, retry_in)| retry_in).min();
    match (reload.state, next_attempt) {
        _ if status.fallback => ("answers 503".to_owned(), Paint::Bad),
        _ if status.listeners.iter().any(|listener| listener.alarm.is_some()) => ("unreachable".to_owned(), Paint::Bad),
        (ReloadState::Reading, _) => ("reload: reading".to_owned(), Paint::Passing),
        (ReloadState::Checking, _) => ("reload: checks".to_owned(), Paint::Passing),
        (ReloadState::Canary, _) => ("reload: canary".to_owned(), Paint::Passing),
        (ReloadState::Trying, _) => ("reload: trial".to_owned(), Paint::Passing),
        (ReloadState::RollingOut, _) => (format!("reload: {} of {}", of_next(), status.wanted_workers), Paint::Passing),
        (ReloadState::Abandoning, _) => ("reload: failed".to_owned(), Paint::Bad),
        (ReloadState::Unknown, _) => ("reload".to_owned(), Paint::Passing),
        (ReloadState::Idle, Some(retry_in)) => (format!("back-off {}", span_ms(retry_in)), Paint::Bad),
        (ReloadState::Idle, None) if reload.last_refused.is_some() => ("reload refused".to_owned(), Paint::Bad),
        (ReloadState::Idle, None) if unhealthy > 0 => (format!("{unhealthy} unhealthy"), Paint::Bad),
        (ReloadState::Idle, None) if status.wanted_workers == 0 => ("waits".to_owned(), Paint::Plain),
        (ReloadState::Idle, None) => ("serves".to_owned(), Paint::Plain),
    }
}
