//! Setting the log up: where messages go, and the log thread that brings them there.
//!
//! Owns: the reading of JOURNAL_STREAM and SOCKD_LOG, the set-up of tracing, and the one queue of the program.
//! Never: is called twice to effect; the first set-up stays.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use super::json::json;
use super::queue::{Enqueue, Item, LogQueue};
use super::stderr::Stderr;

/// What goes to the log of this program.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();
/// What the log thread needs, with room (bytes): it formats one message at a time.
const STACK_SIZE: usize = 128 << 10;
/// At the end of the program messages that wait have this long to be taken.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What is asked for: `sockd run --log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The journal where our output goes there, lines for people elsewhere
    #[default]
    Text,
    /// A JSON object for each message, on stderr
    Json,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Fields and all, to journald's own socket.
    Journal,
    /// Lines on stderr.
    Stderr,
    /// Objects on stderr.
    Json,
}

/// Sets the log of the whole program up and says where it goes. `fields` are added to every message in the journal:
/// `[("SOCKD_UNIT", unit)]`. Only the first call has an effect.
pub fn init(fields: &[(&str, String)], format: Format) -> Sink {
    let level = level(std::env::var("SOCKD_LOG").ok().as_deref());
    let wanted = std::env::var("JOURNAL_STREAM").ok();
    let wanted = wanted.is_some_and(|stream| is_journal(&stream, io::stderr()) || is_journal(&stream, io::stdout()));
    let lines = || (Sink::Stderr, registry(level).with(Stderr::new(io::stderr().is_terminal())).into());
    let (sink, log): (_, Dispatch) = match format {
        Format::Json => (Sink::Json, registry(level).with(json()).into()),
        Format::Text if wanted => match journald(fields) {
            Ok(journal) => (Sink::Journal, registry(level).with(journal).into()),
            Err(_) => lines(),
        },
        Format::Text => lines(),
    };
    let queue = Arc::clone(QUEUE.get_or_init(Arc::default));
    let (drained, written) = (Arc::clone(&queue), log.clone());
    let thread = thread::Builder::new().name("log".to_owned()).stack_size(STACK_SIZE);
    // An error of the set-up says that someone has set the log up already.
    if thread.spawn(move || drained.drain(|item| write(&written, item))).is_ok() {
        let _ = registry(level).with(Enqueue(queue)).try_init();
    } else {
        // TasksMax= is reached: then messages are waited for.
        let _ = tracing::dispatcher::set_global_default(log);
    }
    sink
}

/// What a layer is put upon: everything of that level or above passes.
fn registry(level: LevelFilter) -> impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync {
    tracing_subscriber::registry().with(level)
}

/// journald, if it is there. Levels are the priorities of sd-daemon(3). What it refuses while it is gone is lost without
/// being counted: the layer passes no error on.
fn journald(fields: &[(&str, String)]) -> io::Result<tracing_journald::Layer> {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer()?.with_field_prefix(None).with_syslog_identifier("sockd".to_owned());
    Ok(layer.with_priority_mappings(priorities).with_custom_fields(fields.iter().map(|(name, value)| (*name, value))))
}

/// What the log thread does with an item.
fn write(log: &Dispatch, item: Item) {
    match item {
        Item::Message(record) => record.replay(log),
        Item::Lost(count) => tracing::dispatcher::with_default(log, || {
            let messages = if count == 1 { "1 message" } else { &format!("{count} messages") };
            tracing::warn!("{messages} of the log were lost: nobody read them in time");
        }),
    }
}

/// Whether so much waits for a reader at work that who writes much should write less.
pub fn is_congested() -> bool {
    QUEUE.get().is_some_and(|queue| queue.is_congested())
}

/// At the end of the program: waits for a second at most until everything is written.
pub fn finish() {
    if let Some(queue) = QUEUE.get() {
        queue.finish(FINISH_TIMEOUT);
    }
}

/// Whether a stream is the one in JOURNAL_STREAM, `DEVICE:INODE` in decimal (systemd.exec(5)): only then is it the
/// journal's, and not a pipe or a file that a shell in between put there.
fn is_journal(stream: &str, output: impl AsFd) -> bool {
    // Statting through a copy: std has no fstat of its own for a borrowed descriptor.
    let Ok(stat) = output.as_fd().try_clone_to_owned().and_then(|copy| File::from(copy).metadata()) else {
        return false;
    };
    use std::os::linux::fs::MetadataExt;
    stream
        .split_once(':')
        .is_some_and(|(device, inode)| device.parse() == Ok(stat.st_dev()) && inode.parse() == Ok(stat.st_ino()))
}

/// The level named by SOCKD_LOG; `info` for anything else.
fn level(name: Option<&str>) -> LevelFilter {
    name.and_then(|name| name.parse().ok()).unwrap_or(LevelFilter::INFO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::fs::MetadataExt;

    #[test]
    fn only_the_very_stream_is_the_journal() {
        let file = File::open("/dev/null").expect("/dev/null");
        let stat = file.metadata().expect("stat");
        assert!(is_journal(&format!("{}:{}", stat.st_dev(), stat.st_ino()), &file));
        for stream in [
            format!("{}:{}", stat.st_dev(), stat.st_ino() + 1),
            format!("{}:{}", stat.st_dev() + 1, stat.st_ino()),
            format!("{}", stat.st_ino()),
            ":".to_owned(),
            String::new(),
        ] {
            assert!(!is_journal(&stream, &file), "{stream}");
        }
    }

    #[test]
    fn the_level_is_info_unless_named() {
        assert_eq!(level(None), LevelFilter::INFO);
        assert_eq!(level(Some("loud")), LevelFilter::INFO);
        assert_eq!(level(Some("debug")), LevelFilter::DEBUG);
    }
}
