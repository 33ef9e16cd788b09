//! The two formats that Prometheus reads: its own text format (0.0.4) and OpenMetrics (1.0).
//!
//! Owns: how a family and its samples are written, and how a label's value is escaped. The formats differ in one thing:
//! OpenMetrics calls a counter `name` where its samples are `name_total`, the text format calls it `name_total`. What only
//! OpenMetrics knows (`# UNIT`, `# EOF`) is a comment in the other.
//! Never: knows a metric by its name.

use std::fmt::{Display, Write};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, which node_exporter's textfile collector and `promtool check metrics` read alone.
    Prometheus,
    /// OpenMetrics, which Prometheus prefers.
    OpenMetrics,
}

impl Format {
    /// What a client wants to have, by its Accept header: OpenMetrics only where that is named.
    pub fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A metric family.
#[derive(Debug)]
pub(super) struct Family {
    /// Its name, without `_total`; it ends with its unit.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// One line, without a backslash.
    pub(super) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    Counter,
    Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Seconds,
    Bytes,
}

/// The samples of one family.
pub(super) struct Samples {
    name: &'static str,
    /// Behind the name of each sample that is no part of a histogram.
    suffix: &'static str,
    unit: String,
    lines: String,
}

impl Samples {
    pub(super) fn of(family: &Family) -> Self {
        let suffix = if family.kind == Kind::Counter { "_total" } else { "" };
        Self { name: family.name, suffix, unit: String::new(), lines: String::new() }
    }

    /// The samples that follow have this label `unit`.
    pub(super) fn of_unit(&mut self, unit: &str) {
        unit.clone_into(&mut self.unit);
    }

    /// Adds a sample; a label whose value is empty is left out, which is the same to Prometheus.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.add_part(self.suffix, labels, value);
    }

    /// Adds a part of a histogram: `_bucket`, `_count`, `_sum`.
    pub(super) fn add_part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let unit = ("unit", self.unit.as_str());
        let labels: Vec<String> = std::iter::once(&unit)
            .chain(labels)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.lines, "{}{suffix}{labels} {value}", self.name);
    }
}

/// A label's value between its quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Writes families.
pub(super) struct Writer {
    format: Format,
    text: String,
}

impl Writer {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Writes a family, unless it has no samples.
    pub(super) fn write(&mut self, family: &Family, samples: Samples) {
        if samples.lines.is_empty() {
            return;
        }
        let name = match self.format {
            Format::Prometheus => format!("{}{}", family.name, samples.suffix),
            Format::OpenMetrics => family.name.to_owned(),
        };
        let kind = match family.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
        };
        let unit = match family.unit {
            Unit::None => String::new(),
            Unit::Seconds => format!("# UNIT {name} seconds\n"),
            Unit::Bytes => format!("# UNIT {name} bytes\n"),
        };
        let _ = write!(self.text, "# TYPE {name} {kind}\n{unit}# HELP {name} {}\n{}", family.help, samples.lines);
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.text + "# EOF\n"
    }
}
