//! sd_notify(3) to the service manager: READY=1, STATUS=, RELOADING=1, the watchdog.
//!
//! Owns: the NOTIFY_SOCKET of our own unit, the last STATUS= sent, and the debt of a READY=1 after RELOADING=1.
//! Never: fails. A message that cannot be sent is logged once; without NOTIFY_SOCKET nothing is sent at all.
//!
//! Invariant: READY=1 follows RELOADING=1 on every path, panics included, because systemd waits for it without any
//! limit and every later reload hangs too ([`ReloadGuard`]; test `a_panic_ends_the_reload`). When that READY=1 itself
//! cannot be sent, it goes out with the next message that can.
//!
//! The crate sd-notify writes the messages. The sending is here, because its own takes no abstract socket (a container
//! manager may pass one) and looks the variable up each time.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

/// The longest STATUS= in bytes; a longer one is cut.
pub const STATUS_LIMIT: usize = 512;
/// So many messages wait for room in the manager's queue, to which every process of the machine may send; more are lost.
/// The event loop does not wait.
const MAX_UNSENT: usize = 64;

/// The way to the service manager. Clones speak through the same socket and share what was said.
#[derive(Clone, Debug)]
pub struct Notifier {
    line: Option<Arc<Line>>,
}

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    manager: SocketAddr,
    said: Mutex<Said>,
}

/// What was said, so that nothing is said twice or left unsaid.
#[derive(Debug, Default)]
struct Said {
    status: String,
    /// RELOADING=1 went out and no READY=1 since.
    owes_ready: bool,
    /// The reload that owes it has ended: the next message carries it.
    ready_is_due: bool,
    failed: bool,
    /// What the manager's queue had no room for, in order.
    unsent: VecDeque<String>,
}

impl Notifier {
    /// Takes the address from NOTIFY_SOCKET: a path, or `@NAME` for an abstract socket. Unset, it says nothing;
    /// an address it cannot use (`vsock:`) is logged and ignored.
    pub fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
            return Self::silent();
        };
        let notifier = address.to_str().ok_or(io::ErrorKind::InvalidInput.into()).and_then(Self::to);
        notifier.unwrap_or_else(|error| {
            tracing::warn!("cannot use NOTIFY_SOCKET={}: {error}, ignoring", address.display());
            Self::silent()
        })
    }

    /// Says nothing to anyone.
    pub fn silent() -> Self {
        Self { line: None }
    }

    /// Speaks to `address`, written as in NOTIFY_SOCKET.
    ///
    /// # Errors
    /// The address is neither absolute nor abstract, or too long; no socket can be made.
    pub fn to(address: &str) -> io::Result<Self> {
        let manager = match address.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if address.starts_with('/') => SocketAddr::from_pathname(address)?,
            None => return Err(io::Error::new(io::ErrorKind::Unsupported, "only paths and @NAME are supported")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { line: Some(Arc::new(Line { socket, manager, said: Mutex::default() })) })
    }

    /// Whether there is a manager to speak to.
    pub fn is_connected(&self) -> bool {
        self.line.is_some()
    }

    /// READY=1 with a status: the service can do its job. Also ends a reload.
    pub fn ready(&self, status: &str) {
        let Some(line) = &self.line else { return };
        let mut said = line.said();
        said.ready_is_due = true;
        let status = said.news(status);
        line.send(&mut said, &[], status.as_deref());
    }

    /// STATUS=, when it is another than the last one: one line, cut to [`STATUS_LIMIT`] bytes, without control
    /// characters (each assignment is a line of the message, so a line break would let a worker's words become
    /// assignments of ours).
    pub fn status(&self, status: &str) {
        let Some(line) = &self.line else { return };
        let mut said = line.said();
        if let Some(status) = said.news(status) {
            line.send(&mut said, &[], Some(&status));
        }
    }

    /// RELOADING=1 and MONOTONIC_USEC in one datagram (systemd 253 and later compare the two). READY=1 follows when the
    /// guard is finished or dropped.
    #[must_use = "dropping the guard ends the reload"]
    pub fn reloading(&self, status: &str) -> ReloadGuard {
        if let Some(line) = &self.line {
            let mut said = line.said();
            said.owes_ready = true;
            let status = said.news(status);
            let mut states = vec![NotifyState::Reloading];
            // The monotonic clock can always be read; without its time systemd 252 does not mind either.
            states.extend(NotifyState::monotonic_usec_now());
            line.send(&mut said, &states, status.as_deref());
        }
        ReloadGuard { notifier: self.clone() }
    }

    /// STOPPING=1 with a status. It ends a reload, too: no READY=1 is owed afterwards.
    pub fn stopping(&self, status: &str) {
        let Some(line) = &self.line else { return };
        let mut said = line.said();
        (said.owes_ready, said.ready_is_due) = (false, false);
        let status = said.news(status);
        line.send(&mut said, &[NotifyState::Stopping], status.as_deref());
    }

    /// WATCHDOG=1: the event loop turns.
    pub fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// EXTEND_TIMEOUT_USEC: the start, reload or stop under way may take `time` more, counted from now. At most 71
    /// minutes at once; a longer time is cut to that.
    pub fn extend_timeout(&self, time: Duration) {
        self.send(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// Whether messages wait for room in the manager's queue: then [`Self::flush`] is to be called again soon.
    pub fn is_waiting(&self) -> bool {
        self.line.as_ref().is_some_and(|line| !line.said().unsent.is_empty())
    }

    /// Sends what waits, as far as there is room.
    pub fn flush(&self) {
        if let Some(line) = &self.line {
            // A manager that is gone is reported with the next message.
            let _ = line.pass_on(&mut line.said().unsent, None);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(line) = &self.line else { return };
        line.send(&mut line.said(), states, None);
    }
}

impl Line {
    fn said(&self) -> MutexGuard<'_, Said> {
        // A panic while it was held must not keep the guard of a reload from speaking.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one datagram, with READY=1 first when it is due.
    fn send(&self, said: &mut Said, states: &[NotifyState<'_>], status: Option<&str>) {
        let mut text = String::new();
        let ready = said.ready_is_due.then_some(&NotifyState::Ready);
        let status_state = status.map(NotifyState::Status);
        for state in ready.into_iter().chain(states).chain(&status_state) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{state}");
        }
        match self.pass_on(&mut said.unsent, Some(text.clone())) {
            Ok(()) => {
                if said.ready_is_due {
                    (said.owes_ready, said.ready_is_due) = (false, false);
                }
                if let Some(status) = status {
                    status.clone_into(&mut said.status);
                }
                said.failed = false;
            }
            Err(error) if !said.failed => {
                said.failed = true;
                tracing::warn!("cannot tell the service manager {:?}: {error}, ignoring", text.trim_end());
            }
            Err(_) => {}
        }
    }
}

impl Line {
    /// Sends what waits, then `text`. What there is no room for waits.
    fn pass_on(&self, unsent: &mut VecDeque<String>, text: Option<String>) -> io::Result<()> {
        unsent.extend(text);
        while let Some(first) = unsent.front() {
            match self.socket.send_to_addr(first.as_bytes(), &self.manager) {
                Ok(_) => drop(unsent.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    unsent.truncate(MAX_UNSENT);
                    return Ok(());
                }
                Err(error) => {
                    unsent.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Said {
    /// The status as it is sent, when it differs from the last one.
    fn news(&self, status: &str) -> Option<String> {
        let status = clean(status);
        (status != self.status).then_some(status)
    }
}

/// The status in one line without control characters, at most [`STATUS_LIMIT`] bytes, cut between characters.
fn clean(status: &str) -> String {
    let mut text: String = status.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let end = (0..=STATUS_LIMIT.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text
}

/// Owes the READY=1 that must follow RELOADING=1 whatever happens.
#[derive(Debug)]
#[must_use = "dropping the guard ends the reload"]
pub struct ReloadGuard {
    notifier: Notifier,
}

impl ReloadGuard {
    /// READY=1 with the outcome as status. systemd knows no failed reload here: a refused one says so in the status,
    /// and the exit status of `sockd reload` fails the job.
    pub fn finish(self, status: &str) {
        self.end(status);
    }

    fn end(&self, status: &str) {
        let Some(line) = &self.notifier.line else { return };
        let mut said = line.said();
        // A READY=1 or STOPPING=1 that went out meanwhile has ended the reload already.
        said.ready_is_due = said.owes_ready;
        let status = said.news(status);
        if said.ready_is_due || status.is_some() {
            line.send(&mut said, &[], status.as_deref());
        }
    }
}

impl Drop for ReloadGuard {
    fn drop(&mut self) {
        // After `finish` nothing is owed; or it could not be sent and is due with the next message.
        let forgotten = |said: &Said| said.owes_ready && !said.ready_is_due;
        if self.notifier.line.as_ref().is_some_and(|line| forgotten(&line.said())) {
            self.end("the reload ended early; the old generation serves");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn address() -> (String, SocketAddr) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sockd-test-notify-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        (format!("@{name}"), SocketAddr::from_abstract_name(&name).expect("a name"))
    }

    /// A notifier and the manager it speaks to.
    fn pair() -> (Notifier, UnixDatagram) {
        let (written, address) = address();
        (Notifier::to(&written).expect("a notifier"), bind(&address))
    }

    fn bind(address: &SocketAddr) -> UnixDatagram {
        let manager = UnixDatagram::bind_addr(address).expect("bind");
        manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        manager
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()
    }

    fn nothing_more(manager: &UnixDatagram) {
        manager.set_nonblocking(true).expect("non-blocking");
        let error = manager.recv(&mut [0; 4096]).expect_err("a message came that should not have");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        manager.set_nonblocking(false).expect("blocking");
    }

    #[test]
    fn a_status_is_said_once_and_cannot_smuggle() {
        let (notifier, manager) = pair();
        notifier.ready("serving\nSTOPPING=1\u{1b}[31m");
        assert_eq!(heard(&manager), ["READY=1", "STATUS=serving STOPPING=1 [31m"]);
        notifier.status("serving\nSTOPPING=1\u{1b}[31m");
        nothing_more(&manager);
        notifier.status(&"ä".repeat(400));
        assert_eq!(heard(&manager), [format!("STATUS={}", "ä".repeat(256))]);
    }

    #[test]
    fn a_reload_is_one_datagram_and_ends_ready() {
        let (notifier, manager) = pair();
        let guard = notifier.reloading("reloading");
        let begin = heard(&manager);
        assert_eq!(begin[0], "RELOADING=1");
        assert!(begin[1].starts_with("MONOTONIC_USEC="), "{begin:?}");
        assert_eq!(begin[2], "STATUS=reloading");
        guard.finish("generation 2 serves");
        assert_eq!(heard(&manager), ["READY=1", "STATUS=generation 2 serves"]);
        nothing_more(&manager);
    }

    #[test]
    fn a_panic_ends_the_reload() {
        let (notifier, manager) = pair();
        let clone = notifier.clone();
        let panicked = std::thread::spawn(move || {
            let _guard = clone.reloading("reloading");
            let _held = clone.line.as_ref().expect("a line").said();
            // Not panic!(): its message would look like a failure in the test's output.
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(heard(&manager)[0], "RELOADING=1");
        assert_eq!(heard(&manager)[0], "READY=1");
    }

    #[test]
    fn stopping_in_a_reload_leaves_no_debt() {
        let (notifier, manager) = pair();
        let guard = notifier.reloading("reloading");
        notifier.stopping("stopping");
        drop(guard);
        assert_eq!(heard(&manager)[0], "RELOADING=1");
        assert_eq!(heard(&manager), ["STOPPING=1", "STATUS=stopping"]);
        nothing_more(&manager);
    }

    #[test]
    fn a_lost_ready_goes_out_with_the_next_message() {
        let (written, address) = address();
        let notifier = Notifier::to(&written).expect("a notifier");
        let manager = bind(&address);
        let guard = notifier.reloading("reloading");
        assert_eq!(heard(&manager)[0], "RELOADING=1");
        drop(manager);
        guard.finish("done");
        let manager = bind(&address);
        notifier.watchdog();
        assert_eq!(heard(&manager), ["READY=1", "WATCHDOG=1"]);
        notifier.status("done");
        assert_eq!(heard(&manager), ["STATUS=done"]);
    }

    #[test]
    fn times_are_extended_in_microseconds() {
        let (notifier, manager) = pair();
        notifier.extend_timeout(Duration::from_secs(2));
        assert_eq!(heard(&manager), ["EXTEND_TIMEOUT_USEC=2000000"]);
        notifier.extend_timeout(Duration::from_secs(1 << 40));
        assert_eq!(heard(&manager), ["EXTEND_TIMEOUT_USEC=4294967295"]);
    }

    #[test]
    fn strange_addresses_are_refused() {
        for address in ["vsock:2:1234", "run/notify", "", &format!("/{}", "x".repeat(200))] {
            assert!(Notifier::to(address).is_err(), "{address}");
        }
        Notifier::silent().ready("to no one");
    }

    #[test]
    fn a_manager_that_reads_nothing_holds_nobody_up_and_hears_all_in_order() {
        let (text, name) = address();
        let manager = UnixDatagram::bind_addr(&name).expect("bound");
        manager.set_nonblocking(true).expect("set");
        let notifier = Notifier::to(&text).expect("an address");
        // More than its queue holds (net.unix.max_dgram_qlen).
        let others = UnixDatagram::unbound().expect("a socket");
        others.set_nonblocking(true).expect("set");
        let mut before = 0;
        while others.send_to_addr(b"X=1", &name).is_ok() {
            before += 1;
        }
        notifier.status("one");
        notifier.ready("two");
        (0..200).for_each(|_| notifier.watchdog());
        assert!(notifier.is_waiting());
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        while notifier.is_waiting() {
            while let Ok(length) = manager.recv(&mut buffer) {
                heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
            notifier.flush();
        }
        assert_eq!(heard[before..before + 3], ["STATUS=one\n", "READY=1\nSTATUS=two\n", "WATCHDOG=1\n"]);
    }
}
