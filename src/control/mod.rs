//! The control socket: how `sockd status`, `sockd reload` and `sockd top` speak to a running supervisor.
//!
//! Owns: the socket, its name, the limits on clients, and the messages of [`message`].
//! Never: decides anything. A request becomes a [`Call`] for the shell, and the shell's answer goes back.
//!
//! The socket is an abstract unix socket named `sockd/PID/SIXTEEN-HEX-DIGITS`: it needs no directory, no permission and
//! no clean-up, and everyone finds it in /proc/self/net/unix. The digits are random so that nobody can take the name
//! first; they are no secret. Anybody can listen under such a name, so a name proves nothing: SO_PEERCRED decides, on both
//! ends. The server answers root and its own user. A client that acts asks the process that the service manager calls the
//! unit's main one, and no other ([`of_process`]). Abstract names belong to a network namespace: a supervisor with
//! PrivateNetwork=yes is not seen from outside.
#![forbid(unsafe_code)]

mod client;
pub mod history;
pub mod message;
mod name;
pub mod recording;
pub mod requests;
mod server;

pub use client::{
    ANSWER_TIMEOUT, AskError, Asking, Instance, OLDER, absence, ask, decide, discover, follow, history as ask_history,
    last_lines, of_process, recording as ask_recording, replace, stacks, status,
};
pub use history::{Action, Asker, HistoryEntry, HistoryResult, Means, Origin, Proof, Release};
pub use message::{Outcome, Progress, Refusal, RefusalKind, Reply, Request, Stacks, Status, Trial};
pub use recording::Recording;
pub use server::{CLIENT_TIMEOUT, Call, MAX_CLIENTS, Replier, Server};

/// The longest request, in bytes with its newline.
pub const REQUEST_LIMIT: usize = 4096;
/// The longest answer a client reads, in bytes.
pub const RESPONSE_LIMIT: usize = 4 << 20;
