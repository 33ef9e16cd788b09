//! The workers' side of sd_notify(3): each worker has a NOTIFY_SOCKET of its own, on which sockd is its systemd.
//!
//! Owns: the sockets and the reading of what comes in. A datagram counts only if its sender is the worker or descends
//! from it: SCM_CREDENTIALS tells who it was.
//! Never: believes a length, an encoding or a line it did not ask for, or keeps a descriptor (FDSTORE=1).
#![forbid(unsafe_code)]

mod message;
mod socket;

pub use message::{Message, parse};
pub use socket::{Datagram, Socket};
