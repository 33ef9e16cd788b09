//! The 503 fallback: what visitors get while no worker can start.
//!
//! Purpose: tell a visitor at once, and in the language of the request, that the site is away for a moment, instead of
//! leaving the connection in the queue until it times out.
//!
//! This runs in a helper process of its own, `sockd fallback`, because accepting from the shared listeners may block:
//! a worker may take the connection between poll(2) and accept(2), and O_NONBLOCK belongs to the open file
//! description, which every worker shares. A blocked thread of the helper hurts nobody; a blocked supervisor would.
//!
//! The talk with the supervisor: the listeners arrive as LISTEN_FDS; on stdin comes one JSON object to a line,
//! `{"retry_after": SECONDS}`; from its end on nobody is accepted; the helper finishes its
//! answers, for at most [`STOP_LIMIT`], and exits; on stdout goes one byte for each visitor who was answered.
//!
//! Owns: the connections it accepted, and nothing of the application.
//!
//! Never: changes a flag of a listener, tells a visitor anything of the inside, or loses a connection it accepted.
#![forbid(unsafe_code)]

mod answer;
mod page;
mod server;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use serde::Deserialize;

use crate::exit;
use crate::printable::for_terminal;
use server::Server;

pub use page::{LARGEST as LARGEST_PAGE, Texts, read as read_page};
pub use server::STOP_LIMIT;

/// How the helper exits, without a word, where it can have no thread: it is started every second, and the supervisor says
/// it once.
pub const NO_THREAD: u8 = 75;

/// The most bytes of one line on stdin.
const MAX_LINE: u64 = 4096;

/// Visitors wait meanwhile.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// One line of stdin.
#[derive(Debug, Deserialize)]
struct Order {
    /// Seconds for the Retry-After header; taken as 1 to 3600.
    retry_after: u32,
}

/// The helper process: takes `count` listeners from LISTEN_FDS, stdin and stdout, and serves, with the operator's own
/// `page` if it can be used, or `message`. Returns an exit code of [`crate::exit`]. Call it before any thread exists: listenfd changes
/// the environment. LISTEN_PID must be unset or be our own.
#[must_use]
pub fn run(count: usize, page: Option<&Path>, message: Option<String>) -> u8 {
    match inherited(count) {
        Ok(listeners) => {
            let page = page.and_then(|path| match in_time(path, read_page) {
                Ok(page) => Some(page),
                Err(why) => {
                    complain(&format!("{why}; showing the built-in page"));
                    None
                }
            });
            let orders = std::io::stdin().as_fd().try_clone_to_owned();
            match orders.and_then(|orders| Ok((orders, std::io::stdout().as_fd().try_clone_to_owned()?))) {
                Ok((orders, visitors)) => serve(listeners, Texts { page, message }, orders, visitors),
                Err(error) => failure(&format!("cannot use stdin and stdout: {error}")),
            }
        }
        Err(error) => failure(&error),
    }
}

/// What `read` makes of a file, unless its disk does not answer within [`PAGE_TIMEOUT`].
fn in_time(path: &Path, read: impl FnOnce(&Path) -> Result<String, String> + Send + 'static) -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    let owned = path.to_owned();
    let thread = thread::Builder::new().spawn(move || sender.send(read(&owned)));
    thread.map_err(|error| format!("cannot use {}: {error}", path.display()))?;
    let late = |_| format!("cannot use {}: the disk has not answered for {} s", path.display(), PAGE_TIMEOUT.as_secs());
    receiver.recv_timeout(PAGE_TIMEOUT).map_err(late)?
}

fn failure(message: &str) -> u8 {
    complain(message);
    exit::FAILURE
}

fn complain(message: &str) {
    eprintln!("sockd fallback: {}", for_terminal(message, false));
}

fn inherited(count: usize) -> Result<Vec<OwnedFd>, String> {
    let promised = std::env::var("LISTEN_FDS").ok().and_then(|value| value.parse::<usize>().ok());
    if promised != Some(count) || count == 0 {
        return Err(format!("--listeners {count}, but LISTEN_FDS is {promised:?}: sockd itself starts this command"));
    }
    let mut fds = ListenFd::from_env();
    let take = |index| -> Result<OwnedFd, String> {
        if let Ok(Some(listener)) = fds.take_unix_listener(index) {
            return Ok(listener.into());
        }
        match fds.take_tcp_listener(index) {
            Ok(Some(listener)) => Ok(listener.into()),
            Ok(None) => Err("LISTEN_PID names another process".to_owned()),
            Err(error) => Err(format!("descriptor {index} of LISTEN_FDS is no listener: {error}")),
        }
    };
    (0..count).map(take).collect()
}

/// Answers on `listeners` until the pipe `orders` ends, then finishes what is in flight and returns an exit code. One byte for each answered visitor goes to `visitors`, unless that is full.
///
/// Threads that are still at work after [`STOP_LIMIT`] are left behind; the caller is expected to exit.
#[must_use]
pub fn serve(listeners: Vec<OwnedFd>, texts: Texts, orders: OwnedFd, visitors: OwnedFd) -> u8 {
    let start = |orders: OwnedFd| Ok((orders.try_clone()?, Server::start(listeners, texts, orders, visitors)?));
    let (mut orders, server) = match start(orders) {
        Ok((orders, server)) => (BufReader::new(File::from(orders)), server),
        Err::<_, std::io::Error>(error) if error.kind() == std::io::ErrorKind::WouldBlock => return NO_THREAD,
        Err(error) => return failure(&format!("cannot start: {error}")),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        match orders.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            // A supervisor that is gone cannot tell us to stop: a broken pipe is the end as well.
            Ok(0) | Err(_) => break,
            Ok(_) => match serde_json::from_slice::<Order>(&line) {
                Ok(order) => server.set_retry_after(order.retry_after),
                Err(error) => complain(&format!("an order makes no sense ({error}), ignoring")),
            },
        }
    }
    server.stop();
    exit::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_on_a_disk_that_does_not_answer_is_not_waited_for() {
        let (release, stuck) = mpsc::channel::<()>();
        let late = in_time(Path::new("/slow/page.html"), move |_| {
            let _ = stuck.recv();
            Ok("too late".to_owned())
        });
        assert_eq!(late, Err("cannot use /slow/page.html: the disk has not answered for 1 s".to_owned()));
        drop(release);
        assert_eq!(in_time(Path::new("/page"), |_| Ok("in time".to_owned())), Ok("in time".to_owned()));
    }
}
