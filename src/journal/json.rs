//! The log for programs: one JSON object on stderr for each message, with the fields that the journal would have.
//!
//! Owns: where the objects are written. Their form is tracing-subscriber's: `timestamp`, `level`, `message`, `target`, and
//! each field by its own name.
//! Never: waits anywhere but in the log thread.

use std::io::{self, Write};

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::registry::LookupSpan;

use super::stderr::write_fully;
use crate::printable::escaped_json;

/// A layer of tracing that writes objects.
pub(super) fn json<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_writer(|| Stderr)
}

struct Stderr;

impl Write for Stderr {
    /// Takes a whole object with its line break: so tracing-subscriber writes them.
    fn write(&mut self, object: &[u8]) -> io::Result<usize> {
        write_fully(escaped_json(&String::from_utf8_lossy(object)).as_bytes());
        Ok(object.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
