//! The signals that sockd itself is sent: held back from the first moment on, and read by the event loop.
//!
//! A signal that is blocked waits in the kernel and comes out of a signalfd(2). So none is lost and none ends sockd while
//! there is no event loop yet, and there is no handler that could run at a bad moment. A fault of our own (SIGSEGV) still
//! ends the process: the kernel does not hold back what it raises for the instruction that runs (signal(7)); one that
//! somebody sends waits like the others.
//!
//! Owns: the signal mask of this process, and the signalfd. Never: says what a signal means. The mask reaches no
//! program: [`super::SpawnRequest`] empties it between fork and exec.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::BTreeMap;
use std::io;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// So many are read at once: plain signals do not queue, real-time ones may (signal(7)).
const BATCH: usize = 256;

/// Holds back every signal that can be caught. Call it before any thread exists: threads inherit the mask.
///
/// With a `watchdog` SIGABRT keeps its meaning: that is how systemd ends a service that no longer says WATCHDOG=1
/// (systemd.service(5), WatchdogSec=), and a loop that stands still reads no signal. SIGPIPE stays ignored, as Rust has it:
/// held back, each write to a closed pipe would leave one.
///
/// # Errors
/// None is known.
pub fn hold_signals(watchdog: bool) -> io::Result<()> {
    Ok(held(watchdog).thread_set_mask()?)
}

fn held(watchdog: bool) -> SigSet {
    let mut set = SigSet::all();
    set.remove(Signal::SIGPIPE);
    if watchdog {
        set.remove(Signal::SIGABRT);
    }
    set
}

/// Who sent a signal, as the kernel says it; of one that the kernel raised by itself (SIGCHLD) it means something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The process; 0 where it is in no process namespace of ours.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

/// What was held back, and what comes.
#[derive(Debug)]
pub struct Signals {
    descriptor: AsyncFd<SignalFd>,
}

impl Signals {
    /// Reads what [`hold_signals`] holds back. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// EMFILE or ENFILE when there are no descriptors left.
    #[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, SignalFd ensures")]
    pub fn new(watchdog: bool) -> io::Result<Self> {
        let descriptor = SignalFd::with_flags(&held(watchdog), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { descriptor: AsyncFd::with_interest(descriptor, Interest::READABLE)? })
    }

    /// Waits until signals have come; their numbers, each once, with the first who sent it. Cancel-safe.
    pub async fn next(&self) -> BTreeMap<i32, Sender> {
        loop {
            let Ok(mut ready) = self.descriptor.readable().await else { return std::future::pending().await };
            let mut numbers = BTreeMap::new();
            for _ in 0..BATCH {
                match ready.get_inner().read_signal() {
                    Ok(Some(signal)) => {
                        let sender = Sender { pid: signal.ssi_pid, uid: signal.ssi_uid };
                        numbers.entry(signal.ssi_signo.cast_signed()).or_insert(sender);
                    }
                    Ok(None) | Err(_) => {
                        ready.clear_ready();
                        break;
                    }
                }
            }
            if !numbers.is_empty() {
                return numbers;
            }
        }
    }
}
