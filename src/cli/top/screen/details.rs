//! What else is known of what is chosen: of a worker its requests and its slot's last death, of an instance what went wrong.

use ratatui::style::Style;
use ratatui::text::Line;
use unicode_width::UnicodeWidthChar;

use super::line::{Ink, span};
use crate::cli::status::format::{size, span_ms};
use crate::cli::status::terminal::{Paint, columns, wrap};
use crate::cli::top::model::{Focus, Model};
use crate::control::Status;
use crate::control::message::{Death, Slot, Worker};

/// So many of the lines that a worker wrote last are shown.
const MAX_LAST_LINES: usize = 8;

/// All of it, each line no wider than the terminal.
pub fn lines(model: &Model, ink: Ink, width: usize) -> Vec<Line<'static>> {
    let Some(status) = model.instance().and_then(|instance| instance.entry.sockd.as_ref()) else { return Vec::new() };
    let mut details = Details { lines: Vec::new(), ink, width, now: model.now_unix_ms };
    match (model.focus, model.worker()) {
        (Focus::Workers, Some(worker)) => match model.stacks() {
            Some(stacks) => details.stacks(worker.id, stacks),
            None => {
                details.worker(worker);
                details.last_lines(model.last_lines().unwrap_or_default());
                details.slot(worker, &status.slots);
            }
        },
        (Focus::Workers | Focus::Instances, _) => details.instance(status),
    }
    details.lines
}

struct Details {
    lines: Vec<Line<'static>>,
    ink: Ink,
    width: usize,
    now: u64,
}

impl Details {
    fn say(&mut self, text: &str, paint: Paint) {
        let style: Style = self.ink.of(paint);
        self.lines.extend(wrap(text, self.width).into_iter().map(|line| Line::from(span(&line, style))));
    }

    fn instance(&mut self, status: &Status) {
        for listener in &status.listeners {
            if let Some(alarm) = &listener.alarm {
                self.say(&format!("{}: {alarm}", listener.address), Paint::Bad);
            }
        }
        if let Some(refused) = &status.reload.last_refused {
            let ago = span_ms(self.now.saturating_sub(refused.at_unix_ms));
            self.say(&format!("reload to {} refused {ago} ago: {}", refused.generation, refused.reason), Paint::Bad);
        }
        let deaths = status.slots.iter().filter_map(|slot| Some((slot, slot.last_death.as_ref()?)));
        if let Some((slot, death)) = deaths.max_by_key(|(_, death)| death.at_unix_ms) {
            self.death(slot, death, 3);
        }
    }

    fn worker(&mut self, worker: &Worker) {
        let peak = worker.memory_peak_bytes.map(|peak| format!("memory {} at most", size(peak)));
        let cpu = worker.cpu_ms.map(|cpu| format!("CPU {}", span_ms(cpu)));
        let place = worker.slot.map_or_else(|| "in no slot".to_owned(), |slot| format!("slot {slot}"));
        let restarts = format!("restarts {}", worker.restarts);
        let facts = [Some(place), Some(restarts), peak, cpu].into_iter().flatten();
        self.say(&format!("worker {}: {}", worker.id, facts.collect::<Vec<_>>().join(", ")), Paint::Plain);
        if let Some(probe) = &worker.last_probe {
            let ago = span_ms(probe.ago_ms);
            match &probe.failure {
                None => self.say(&format!("asked {ago} ago: it is well"), Paint::Plain),
                Some(failure) => self.say(&format!("asked {ago} ago: {failure}"), Paint::Bad),
            }
        }
        match &worker.requests {
            None => self.say("it does not show its requests", Paint::Faint),
            Some(requests) => {
                let websockets = match requests.websockets {
                    0 => String::new(),
                    open => format!(", {open} WebSockets open"),
                };
                self.say(
                    &format!("requests finished {}, served now {}{websockets}", requests.finished, requests.busy),
                    Paint::Plain,
                );
                for request in &requests.in_flight {
                    self.say(&format!("{:>9}  {}", span_ms(request.for_ms), request.request), Paint::Plain);
                }
            }
        }
    }

    /// What it wrote last to its stderr.
    fn last_lines(&mut self, lines: &[String]) {
        if !lines.is_empty() {
            self.say("it wrote last:", Paint::Plain);
        }
        for line in &lines[lines.len().saturating_sub(MAX_LAST_LINES)..] {
            self.quote(line);
        }
    }

    /// Where its threads stood, and that they can be asked for again.
    fn stacks(&mut self, worker: u64, stacks: &Result<Vec<String>, String>) {
        match stacks {
            Ok(lines) => {
                self.say(
                    &format!("worker {worker}, where its threads stood: t asks again, Esc hides it"),
                    Paint::Plain,
                );
                // Of a long path the end says more.
                let style = self.ink.of(Paint::Plain);
                let lines = lines.iter().map(|line| Line::from(span(&end_of(line, self.width), style)));
                self.lines.extend(lines);
            }
            Err(why) => self.say(&format!("no stacks of worker {worker}: {why}"), Paint::Bad),
        }
    }

    /// A line that somebody else wrote.
    fn quote(&mut self, line: &str) {
        self.say(&format!("| {line}"), Paint::Faint);
    }

    fn slot(&mut self, worker: &Worker, slots: &[Slot]) {
        let slot = worker.slot.and_then(|number| slots.iter().find(|slot| slot.slot == number));
        if let Some((slot, death)) = slot.and_then(|slot| Some((slot, slot.last_death.as_ref()?))) {
            self.death(slot, death, usize::MAX);
        }
    }

    /// How a slot's last worker died, with so many of the last lines that it wrote.
    fn death(&mut self, slot: &Slot, death: &Death, quoted: usize) {
        let (ago, lived) = (span_ms(self.now.saturating_sub(death.at_unix_ms)), span_ms(death.lived_ms));
        self.say(
            &format!("slot {}: a worker died {ago} ago, after {lived}: {}", slot.slot, death.reason),
            Paint::Plain,
        );
        let lines: Vec<&String> = death.last_lines.iter().filter(|line| !line.trim().is_empty()).collect();
        for line in &lines[lines.len().saturating_sub(quoted)..] {
            self.quote(line);
        }
    }
}

/// A line of at most `width` columns: of a longer one the end, behind a mark of that.
fn end_of(line: &str, width: usize) -> String {
    if columns(line) <= width {
        return line.to_owned();
    }
    let mut taken = 0;
    let fits = |letter: &char| {
        taken += letter.width().unwrap_or(0);
        taken < width
    };
    let end: Vec<char> = line.chars().rev().take_while(fits).collect();
    std::iter::once('\u{2026}').chain(end.into_iter().rev()).collect()
}
