//! The log for journald: a datagram of fields for each message.
//!
//! Owns: the form of the datagram (systemd's docs/JOURNAL_NATIVE_PROTOCOL), and which fields every message has.
//! Never: writes a field longer than [`MAX_FIELD`], so that a message always fits a datagram.
//!
//! tracing-journald does the same, but sends in a way that waits while journald's queue is full, on a socket that it
//! shows to nobody: a journald that stands still would stop the supervisor.

use std::fmt;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::outlet::Outlet;

/// What a field may hold (bytes); journald splits longer lines of streams, too. A datagram may have about 200 KB.
const MAX_FIELD: usize = 48 << 10;

/// A layer of tracing that writes to journald.
pub struct Native {
    outlet: Arc<Outlet>,
    /// The fields of every message, as they are sent.
    fixed: Vec<u8>,
}

impl Native {
    /// Writes to `outlet`; `fixed` comes from [`fixed`].
    pub(super) fn new(outlet: Arc<Outlet>, fixed: Vec<u8>) -> Self {
        Self { outlet, fixed }
    }
}

impl<S: Subscriber> Layer<S> for Native {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut datagram = begin(&self.fixed, *metadata.level());
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            put(&mut datagram, "CODE_FILE", file);
            put(&mut datagram, "CODE_LINE", &line.to_string());
        }
        event.record(&mut Fields(&mut datagram));
        self.outlet.write(datagram);
    }
}

/// The fields that every message of this program has.
pub(super) fn fixed(fields: &[(&str, String)]) -> Vec<u8> {
    let mut fixed = Vec::new();
    put(&mut fixed, "SYSLOG_IDENTIFIER", "sockd");
    for (name, value) in fields {
        put(&mut fixed, name, value);
    }
    fixed
}

/// A message of our own that the log of the program did not write.
pub(super) fn message(fixed: &[u8], level: Level, text: &str) -> Vec<u8> {
    let mut datagram = begin(fixed, level);
    put(&mut datagram, "MESSAGE", text);
    datagram
}

fn begin(fixed: &[u8], level: Level) -> Vec<u8> {
    let mut datagram = fixed.to_vec();
    put(&mut datagram, "PRIORITY", priority(level));
    datagram
}

/// sd-daemon(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// Adds a field. A value of several lines goes with its length (64 bits, little-endian) in front of it.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    let mut length = value.len().min(MAX_FIELD);
    while !value.is_char_boundary(length) {
        length -= 1;
    }
    let value = &value[..length];
    datagram.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend_from_slice(value.as_bytes());
    datagram.push(b'\n');
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // tracing's own name for the text; all others are written as journald wants them.
        let name = if field.name() == "message" { "MESSAGE" } else { field.name() };
        put(self.0, name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a datagram as the protocol's description says.
    fn parse(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        while !datagram.is_empty() {
            let end = datagram.iter().position(|byte| matches!(byte, b'=' | b'\n')).expect("a name has an end");
            let name = text(&datagram[..end]);
            let (value, rest) = if datagram[end] == b'=' {
                let length = datagram[end..].iter().position(|byte| *byte == b'\n').expect("a line") - 1;
                (&datagram[end + 1..][..length], &datagram[end + 1 + length..])
            } else {
                let (length, rest) = datagram[end + 1..].split_at(8);
                let length = u64::from_le_bytes(length.try_into().expect("eight")) as usize;
                (&rest[..length], &rest[length..])
            };
            assert_eq!(rest[0], b'\n');
            fields.push((name, text(value)));
            datagram = &rest[1..];
        }
        fields
    }

    fn field(fields: &[(String, String)], name: &str) -> String {
        let found: Vec<_> = fields.iter().filter(|(n, _)| n == name).collect();
        assert_eq!(found.len(), 1, "{name} in {fields:?}");
        found[0].1.clone()
    }

    #[test]
    fn a_message_has_its_fields_whatever_is_in_them() {
        let fixed = fixed(&[("SOCKD_UNIT", "web.service".to_owned())]);
        for text in ["ready", "", "two\nlines=here\n", "=\n\n", "über"] {
            let fields = parse(&message(&fixed, Level::WARN, text));
            assert_eq!(field(&fields, "MESSAGE"), text);
            assert_eq!(field(&fields, "SOCKD_UNIT"), "web.service");
            assert_eq!(field(&fields, "SYSLOG_IDENTIFIER"), "sockd");
            assert_eq!(field(&fields, "PRIORITY"), "4");
        }
    }

    #[test]
    fn a_field_is_bounded_and_stays_text() {
        let long = "ü".repeat(100_000);
        let fields = parse(&message(&[], Level::ERROR, &format!("x{long}")));
        let kept = field(&fields, "MESSAGE");
        assert!(kept.len() <= MAX_FIELD && kept.len() > MAX_FIELD - 2 && format!("x{long}").starts_with(&kept));
    }
}
