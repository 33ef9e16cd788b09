//! Where messages go.
//!
//! Owns: the reading of JOURNAL_STREAM and SOCKD_LOG, and the set-up of tracing.
//! Never: is called twice to effect; the first set-up stays.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::human::Human;

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Fields and all, to journald's own socket.
    Journal,
    /// Lines on stderr.
    Stderr,
}

/// Sets the log of the whole program up and says where it goes. `fields` are added to every message in the journal:
/// `[("SOCKD_UNIT", unit)]`. Only the first call has an effect.
pub fn init(fields: &[(&str, String)]) -> Sink {
    let level = level(std::env::var("SOCKD_LOG").ok().as_deref());
    let wanted = std::env::var("JOURNAL_STREAM").ok();
    if wanted.is_some_and(|stream| is_journal(&stream, io::stderr()) || is_journal(&stream, io::stdout()))
        && let Ok(journal) = tracing_journald::layer()
    {
        let priorities =
            PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
        let journal = journal
            .with_field_prefix(None)
            .with_syslog_identifier("sockd".to_owned())
            .with_priority_mappings(priorities)
            .with_custom_fields(fields.iter().map(|(name, value)| (name, value)));
        // An error says that someone has set the log up already.
        let _ = tracing_subscriber::registry().with(level).with(journal).try_init();
        return Sink::Journal;
    }
    let _ = tracing_subscriber::registry().with(level).with(Human::on_stderr(io::stderr().is_terminal())).try_init();
    Sink::Stderr
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
