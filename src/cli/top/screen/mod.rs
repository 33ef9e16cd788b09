//! What `top` shows: the model in, a picture out.
//!
//! Owns: where each part stands in a terminal of any size. Pure. Never: asks the time or the terminal. What others wrote is
//! made harmless where it becomes a `Span`, in `line.rs`.

mod details;
mod instances;
mod line;
mod workers;

use ratatui::buffer::Buffer;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::Widget;

use super::model::{Focus, Instance, Model, Sort};
use super::steering::KEYS;
use crate::cli::status::format::per_second;
use crate::cli::status::terminal::{Paint, cut, wrap};
use crate::control::message::WorkerState;
use line::{Ink, fit, left, row, span};

/// What was said takes so many lines at most.
const MAX_SAID: usize = 6;
/// From so many lines on there is an empty one between the parts.
const AIRY: usize = 18;

/// Draws everything.
pub fn draw(picture: &mut Buffer, model: &Model, colour: bool) {
    let (ink, width) = (Ink { colour }, usize::from(picture.area.width));
    let mut lines = header(model, ink, width);
    let footer = footer(model, ink, width);
    let height = usize::from(picture.area.height).saturating_sub(lines.len() + footer.len());
    let mut body = match model.help {
        true => help(ink, width),
        false => body(model, ink, width, height),
    };
    body.resize(height, Line::default());
    lines.extend(body);
    lines.extend(footer);
    Text::from(lines).render(picture.area, picture);
}

/// What there is in all, and whether systemd is missing.
fn header(model: &Model, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let title = span("sockd top", Style::new().add_modifier(Modifier::BOLD));
    if model.now_unix_ms == 0 {
        return vec![Line::from(vec![title, span(": looking for instances", Style::new())])];
    }
    let workers = model.instances.iter().flat_map(Instance::workers);
    let ready = workers.filter(|worker| worker.state == WorkerState::Ready).count();
    let rate = model.instances.iter().filter_map(|instance| instance.rate.last()).reduce(|sum, more| sum + more);
    let rate = rate.map_or_else(String::new, |rate| format!(", {}/s", per_second(rate)));
    let order = match model.sort {
        Sort::Name => "name",
        Sort::Rate => "requests",
        Sort::Queue => "queue",
        Sort::Errors => "errors",
    };
    let instances = model.instances.len();
    let plural = if instances == 1 { "instance" } else { "instances" };
    let text = format!(": {instances} {plural}, {ready} workers ready{rate}; sorted by {order}");
    let mut lines = vec![Line::from(vec![title, span(&text, Style::new())])];
    if let Some(error) = &model.systemd_error {
        let text = cut(&format!("systemd: not reachable: {error}"), width);
        lines.push(Line::from(span(&text, ink.of(Paint::Passing))));
    }
    lines
}

/// The question, what was said, or the keys.
fn footer(model: &Model, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let lines =
        |text: &str, style: Style| wrap(text, width).into_iter().map(move |line| Line::from(span(&line, style)));
    if let Some(question) = &model.question {
        return lines(&question.text, Style::new().add_modifier(Modifier::BOLD)).take(MAX_SAID).collect();
    }
    if let Some(said) = &model.said {
        let paint = if said.failed { Paint::Bad } else { Paint::Good };
        let all: Vec<Line<'_>> = said.lines.iter().flat_map(|line| lines(line, ink.of(paint))).collect();
        // The outcome is the last line.
        return all[all.len().saturating_sub(MAX_SAID)..].to_vec();
    }
    let keys = match model.focus {
        Focus::Instances => "q quit  ? keys  Tab workers  s sort  r reload  l journal",
        Focus::Workers => "q quit  ? keys  Tab instances  t stacks  e end worker  r reload  l journal",
    };
    vec![Line::from(span(keys, ink.of(Paint::Faint)))]
}

fn help(ink: Ink, width: usize) -> Vec<Line<'static>> {
    let (bold, plain) = (Style::new().add_modifier(Modifier::BOLD), ink.of(Paint::Plain));
    let columns = fit(&[left("", 1), left("", 12), left("", 1)], width);
    let line = |(keys, what): &(&str, &str)| {
        row(vec![(String::new(), plain), ((*keys).to_owned(), bold), ((*what).to_owned(), plain)], &columns)
    };
    std::iter::once(Line::default()).chain(KEYS.iter().map(line)).collect()
}

/// The instances, the workers of the chosen one, and what else is known of what is chosen.
fn body(model: &Model, ink: Ink, width: usize, height: usize) -> Vec<Line<'static>> {
    let gap = usize::from(height >= AIRY);
    let details = details::lines(model, ink, width);
    // The part that the arrows move in gets what it needs before the others.
    let rows = model.instances.len().max(1) + 1;
    let least = match model.focus {
        Focus::Instances => height.div_ceil(2),
        Focus::Workers => height / 4,
    };
    let instances = rows.min(least.max(3)).min(height);
    let rest = height.saturating_sub(instances + gap);
    // Stacks were asked for, and are long.
    let kept = if model.stacks().is_some() { rest * 2 / 3 } else { rest / 3 };
    let workers = workers::height(model).min(rest.saturating_sub(details.len().min(kept)));
    let mut lines = instances::lines(model, ink, width, instances);
    let add = |lines: &mut Vec<Line<'static>>, part: Vec<Line<'static>>| {
        if !part.is_empty() {
            lines.extend(vec![Line::default(); gap]);
            lines.extend(part);
        }
    };
    add(&mut lines, workers::lines(model, ink, width, workers));
    add(&mut lines, details);
    lines
}
