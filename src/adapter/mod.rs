//! What is known of each application server, as data.
//!
//! Owns the answer to "what kind of server is this command, and what are its manners?". It must never do IO: callers
//! read files and run programs, and pass in what they found.
#![forbid(unsafe_code)]

pub mod generic;
pub mod gunicorn;
pub mod report;
pub mod words;

use std::ffi::OsString;

use crate::app::Conventions;

/// The kinds of server that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Adapter {
    /// gunicorn, by its console script or by `python -m gunicorn`.
    Gunicorn,
    /// Any other program: one worker is one process that takes its sockets as under systemd.
    Generic,
}

impl Adapter {
    /// How this kind of server wants to be treated.
    pub fn conventions(self) -> &'static Conventions {
        match self {
            Self::Gunicorn => &gunicorn::CONVENTIONS,
            Self::Generic => &generic::CONVENTIONS,
        }
    }
}

/// Tells the kind of server by its command line: the program's name, then its arguments.
pub fn recognise(command: &[OsString]) -> Adapter {
    if gunicorn::invocation(command).is_some() { Adapter::Gunicorn } else { Adapter::Generic }
}
