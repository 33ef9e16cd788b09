//! Where messages go.
//!
//! Owns: the reading of JOURNAL_STREAM and SOCKD_LOG, the set-up of tracing, and the one outlet of the program.
//! Never: is called twice to effect; the first set-up stays.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::human::{Form, Human};
use super::native::{self, Native};
use super::outlet::{Outlet, Target};

/// Where the log of this program goes.
static OUTLET: OnceLock<Arc<Outlet>> = OnceLock::new();
/// At the end of the program messages that wait have this long to be taken.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

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
        && let Ok(journal) = Target::journal()
    {
        let fixed = native::fixed(fields);
        let ours = fixed.clone();
        let outlet = open(Outlet::new(journal, move |count| native::message(&ours, Level::WARN, &lost(count))));
        // An error says that someone has set the log up already.
        let _ = tracing_subscriber::registry().with(level).with(Native::new(outlet, fixed)).try_init();
        return Sink::Journal;
    }
    let form = Form::new(io::stderr().is_terminal());
    let outlet = open(Outlet::new(Target::stderr(), move |count| form.message(Level::WARN, &lost(count)).into_bytes()));
    let _ = tracing_subscriber::registry().with(level).with(Human::new(outlet, form)).try_init();
    Sink::Stderr
}

fn open(outlet: Outlet) -> Arc<Outlet> {
    Arc::clone(OUTLET.get_or_init(|| Arc::new(outlet)))
}

fn lost(count: u64) -> String {
    let messages = if count == 1 { "1 message" } else { &format!("{count} messages") };
    format!("{messages} of the log were lost: nobody read them in time")
}

/// Whether messages wait because their reader does not take them: then [`flush`] is to be called again soon.
pub fn is_waiting() -> bool {
    OUTLET.get().is_some_and(|outlet| outlet.is_waiting())
}

/// Passes on what can be passed on without waiting.
pub fn flush() {
    if let Some(outlet) = OUTLET.get() {
        outlet.flush();
    }
}

/// Passes on what can be passed on without waiting; true if so much is left that who writes much should write less. It is
/// false again when the reader stands still: then nobody is to wait for it.
pub fn is_congested() -> bool {
    OUTLET.get().is_some_and(|outlet| {
        outlet.flush();
        outlet.is_congested()
    })
}

/// At the end of the program: waits for a second at most until everything is taken.
pub fn finish() {
    if let Some(outlet) = OUTLET.get() {
        outlet.finish(FINISH_TIMEOUT);
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
