//! A diagnosis for people: the walk, then every finding with its reason and its command.
//!
//! Owns: every word and its place. A pure function: diagnoses, width, colour in, text out (`tests/doctor/cases`).
//! Never: breaks a command into lines: it is there to be copied; or lets through what others wrote without making it
//! harmless.

use crate::cli::status::terminal::{Paint, harmless, wrap};
use crate::doctor::finding::Severity;
use crate::doctor::{Diagnosis, Finding, Seen, State};

/// Where the state of a link begins.
const LINK: usize = 15;
/// Where its text begins.
const TEXT: usize = 28;
/// Where the text of a finding begins.
const MARGIN: usize = 9;

/// Renders them all. `width` is the terminal's, `None` when the reader is a program or a file.
pub fn render(found: &[Diagnosis], width: Option<usize>, colour: bool) -> String {
    let mut page = Page { text: String::new(), width, colour };
    for (number, diagnosis) in found.iter().enumerate() {
        if number > 0 {
            page.text.push('\n');
        }
        page.diagnosis(diagnosis);
    }
    if found.is_empty() {
        page.lines(0, "", "No unit of this machine runs sockd or an application server.", Paint::Plain);
    }
    page.text
}

struct Page {
    text: String,
    width: Option<usize>,
    colour: bool,
}

impl Page {
    /// Text broken to the width, behind a head that is `indent` columns wide; further lines below the text.
    fn lines(&mut self, indent: usize, head: &str, text: &str, paint: Paint) {
        let width = self.width.map_or(usize::MAX, |width| width.saturating_sub(indent));
        for (number, line) in wrap(&harmless(text), width).iter().enumerate() {
            let before = if number == 0 { head } else { "" };
            // A head in colour is longer than it looks.
            let space = indent.saturating_sub(crate::cli::status::terminal::columns(&plain(before)));
            self.text.push_str(&format!("{before}{}{}\n", " ".repeat(space), paint.on(line, self.colour)));
        }
    }

    fn diagnosis(&mut self, diagnosis: &Diagnosis) {
        if diagnosis.idle {
            let unit = &diagnosis.unit;
            let text = format!("{unit}: disabled, and does not run; `sockd doctor {unit}` looks at it");
            return self.lines(0, "", &text, Paint::Faint);
        }
        let title = match diagnosis.description.as_str() {
            "" => diagnosis.unit.clone(),
            description if description == diagnosis.unit => diagnosis.unit.clone(),
            description => format!("{} - {description}", diagnosis.unit),
        };
        self.lines(0, "", &title, Paint::Plain);
        for seen in &diagnosis.walk {
            self.link(seen, diagnosis);
        }
        for (number, finding) in diagnosis.findings.iter().enumerate() {
            self.text.push('\n');
            self.finding(number + 1, finding);
        }
        self.text.push('\n');
        self.verdict(diagnosis);
        for unseen in &diagnosis.unseen {
            self.lines(13, "not checked: ", unseen, Paint::Faint);
        }
    }

    fn link(&mut self, seen: &Seen, diagnosis: &Diagnosis) {
        let (state, paint) = match seen.state {
            State::Ok => ("ok", Paint::Good),
            State::Warning => ("warning", Paint::Passing),
            State::Broken => ("broken", Paint::Bad),
            State::NotSeen => ("not checked", Paint::Faint),
        };
        let numbers: Vec<String> = diagnosis
            .findings
            .iter()
            .enumerate()
            .filter(|(_, finding)| finding.link == seen.link)
            .map(|(number, _)| (number + 1).to_string())
            .collect();
        let text = match (seen.state, numbers.as_slice()) {
            (State::Broken, [_, ..]) => format!("see {}", numbers.join(", ")),
            (_, [_, ..]) => format!("{}; see {}", seen.text, numbers.join(", ")),
            (_, []) => seen.text.clone(),
        };
        let head = format!("  {:<width$}{}", seen.link.name(), paint.on(state, self.colour), width = LINK - 2);
        self.lines(TEXT, &head, &text, Paint::Plain);
    }

    fn finding(&mut self, number: usize, finding: &Finding) {
        let (word, paint) = match finding.severity {
            Severity::Error => ("error", Paint::Bad),
            Severity::Warning => ("warning", Paint::Passing),
        };
        let head = format!("{number}. {}: ", paint.on(word, self.colour));
        let indent = crate::cli::status::terminal::columns(&plain(&head));
        self.lines(indent, &head, &format!("{} [{}]", finding.what, finding.id), Paint::Plain);
        self.lines(MARGIN, "   why:  ", &finding.why, Paint::Plain);
        if let Some(by_hand) = &finding.by_hand {
            self.lines(MARGIN, "   do:   ", by_hand, Paint::Plain);
        }
        if finding.fix.is_empty() {
            return;
        }
        let head = if finding.by_hand.is_some() { "   then: " } else { "   fix:  " };
        self.text.push_str(&format!("{head}{}\n", Paint::Good.on(&harmless(finding.fix.as_str()), self.colour)));
    }

    fn verdict(&mut self, diagnosis: &Diagnosis) {
        let count = |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
        let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        let (text, paint) = match (errors, warnings) {
            (0, 0) => ("all is well, as far as was checked".to_owned(), Paint::Good),
            (0, warnings) => (format!("it works, {}", plural(warnings, "warning")), Paint::Passing),
            (errors, 0) => (plural(errors, "error"), Paint::Bad),
            (errors, warnings) => (format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")), Paint::Bad),
        };
        let more = if errors > 1 { ": fix the first, then ask again" } else { "" };
        self.lines(0, "", &format!("{text}{more}"), paint);
    }
}

/// A text without the escape sequences of its colours.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or("", |(_, rest)| rest))
}
