//! An explanation for people: what was so, why, and the next step.
//!
//! Owns: every word that is no rule's, and its place. A pure function: explanations, width, colour in, text out
//! (`tests/cli/explain/`).
//! Never: breaks a command into lines: it is there to be copied; or lets through what others wrote without making it
//! harmless.

use super::report::InstanceExplanation;
use crate::cli::status::format::{moment, per_second, span_ms};
use crate::cli::status::terminal::{Cell, Paint, columns, harmless, table, wrap};
use crate::explain::{Cause, Explanation, Figures};

/// Where text below a heading begins.
const INDENT: usize = 2;
/// Where the evidence of a cause begins.
const MARGIN: usize = 3;
const HEADS: [&str; 8] = ["", "REQUESTS", "ERRORS", "MEDIAN", "95 %", "BUSY", "QUEUE", "CPU"];

/// Renders all of them. `width` is the terminal's, `None` when the reader is a program or a file; `now` in milliseconds.
pub fn render(all: &[InstanceExplanation], now: u64, width: Option<usize>, colour: bool) -> String {
    let mut page = Page { text: String::new(), width, colour };
    for (number, one) in all.iter().enumerate() {
        if number > 0 {
            page.text.push('\n');
        }
        page.instance(one, now);
    }
    if all.is_empty() {
        page.lines("", "No sockd is running, and no unit is known that would run one.", Paint::Plain);
    }
    page.text
}

struct Page {
    text: String,
    width: Option<usize>,
    colour: bool,
}

impl Page {
    /// Text broken to the width, behind a head; further lines below the text.
    fn lines(&mut self, head: &str, text: &str, paint: Paint) {
        let indent = columns(head);
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(indent));
        for (number, line) in wrap(&harmless(text), width).iter().enumerate() {
            let before = if number == 0 { head.to_owned() } else { " ".repeat(indent) };
            self.text.push_str(&format!("{before}{}\n", paint.on(line, self.colour)));
        }
    }

    fn instance(&mut self, one: &InstanceExplanation, now: u64) {
        let indent = " ".repeat(INDENT);
        match &one.explanation {
            None => self.lines("", &format!("{}: its recording is not known", one.name), Paint::Plain),
            Some(found) if !found.is_recorded => {
                self.lines("", &format!("{}: nothing is recorded of that time", one.name), Paint::Plain);
            }
            Some(found) => self.explanation(&one.name, found, now),
        }
        if one.in_memory {
            let text = "the recording ends with this sockd: the unit has no StateDirectory= to keep it in";
            self.lines(&indent, text, Paint::Faint);
        }
        one.problem.iter().for_each(|problem| self.lines(&indent, problem, Paint::Faint));
    }

    fn explanation(&mut self, name: &str, found: &Explanation, now: u64) {
        let (from, to) = (moment(found.from_unix_ms), moment(found.to_unix_ms));
        let length = found.to_unix_ms.saturating_sub(found.from_unix_ms);
        let ago = now.saturating_sub(found.to_unix_ms);
        let until = if ago < 5_000 { "until now".to_owned() } else { format!("until {} ago", span_ms(ago)) };
        let when = match length {
            0..1000 => format!("{from}, {} ago", span_ms(ago)),
            _ => format!("{} to {}, {until}", from.trim_end_matches(" UTC"), time(&to)),
        };
        self.lines("", &format!("{name}: {when}"), Paint::Plain);
        self.figures(found);
        if !found.is_trouble {
            self.text.push('\n');
            self.lines("", "Nothing was wrong then.", Paint::Good);
        } else if found.causes.is_empty() {
            self.text.push('\n');
            self.lines(
                "",
                "Visitors had to wait or got errors, and nothing that was recorded says why.",
                Paint::Passing,
            );
            self.command(&format!("sockd logs {}", found.unit));
        }
        for (number, cause) in found.causes.iter().enumerate() {
            self.text.push('\n');
            self.cause(number, cause);
        }
        if !found.slowest.is_empty() || !found.events.is_empty() {
            self.text.push('\n');
        }
        for slow in &found.slowest {
            let workers: Vec<String> = slow.workers.iter().map(u64::to_string).collect();
            let plural = if workers.len() == 1 { "" } else { "s" };
            let text = format!("{} on worker{plural} {}", slow.request, workers.join(", "));
            self.lines(&format!("  slow      {:>8}  ", span_ms(slow.for_ms)), &text, Paint::Plain);
        }
        for event in &found.events {
            let at = moment(event.at_unix_ms);
            self.lines(&format!("  happened  {}  ", time(at.trim_end_matches(" UTC"))), &event.text, Paint::Plain);
        }
    }

    fn figures(&mut self, found: &Explanation) {
        let rows: Vec<Vec<Cell>> = found
            .before
            .iter()
            .map(|before| row("before", before))
            .chain(std::iter::once(row("then", &found.then)))
            .collect();
        let table = table(&HEADS, &[0], &rows, INDENT, self.width, self.colour);
        self.text.push_str(&table);
    }

    fn cause(&mut self, number: usize, cause: &Cause) {
        let certainty = match cause.likelihood {
            90.. => "",
            75..90 => "most likely: ",
            _ => "perhaps: ",
        };
        let what = if number == 0 { certainty.to_owned() } else { "perhaps also: ".to_owned() };
        let text = format!("{what}{}", cause.what);
        let paint = if number == 0 { Paint::Bad } else { Paint::Passing };
        self.lines(&format!("{}. ", number + 1), &text, paint);
        let margin = " ".repeat(MARGIN);
        cause.evidence.iter().for_each(|evidence| self.lines(&format!("{margin}- "), evidence, Paint::Plain));
        if !cause.advice.is_empty() {
            self.lines(&margin, &cause.advice, Paint::Plain);
        }
        self.command(&cause.next);
    }

    fn command(&mut self, command: &str) {
        self.text.push_str(&format!("{}next: {}\n", " ".repeat(MARGIN), harmless(command)));
    }
}

fn row(name: &str, figures: &Figures) -> Vec<Cell> {
    let unknown = || "-".to_owned();
    let milliseconds = |value: Option<f64>| match value {
        Some(short) if short < 1.0 => format!("{short:.1}ms"),
        Some(value) => span_ms(value as u64),
        None => unknown(),
    };
    let errors = if figures.finished == 0 { unknown() } else { format!("{:.1}%", figures.error_share() * 100.0) };
    let queue = match figures.queue_limit {
        Some(limit) => format!("{} of {limit}", figures.waiting_max),
        None => unknown(),
    };
    let cells = [
        name.to_owned(),
        figures.rate.map_or_else(unknown, |rate| format!("{}/s", per_second(rate))),
        errors,
        milliseconds(figures.median_ms),
        milliseconds(figures.percentile_95_ms),
        format!("{:.1} of {:.0}", figures.busy, figures.ready),
        queue,
        figures.cpu.map_or_else(unknown, |cpu| format!("{cpu:.2}")),
    ];
    cells.into_iter().map(Cell::plain).collect()
}

/// The time of day of a moment.
fn time(moment: &str) -> &str {
    moment.split_once(' ').map_or(moment, |(_, time)| time)
}
