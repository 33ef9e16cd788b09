//! The definition of an adapter: all that is known of one kind of server before it runs.

use super::exec::Exec;
use super::python::Python;
use crate::app::Conventions;
use crate::supervisor::Protocol;
use std::ffi::OsString;

/// One kind of server: all that is known of it before it runs.
#[derive(Debug)]
pub struct Adapter {
    /// How it wants to be treated.
    pub conventions: Conventions,
    /// How its workers come into being.
    pub making: Making,
    /// What the socket speaks on which a worker is asked.
    pub protocol: Protocol,
}

/// How a worker comes into being.
#[derive(Debug)]
pub enum Making {
    /// The command is executed once for each worker.
    Exec(&'static Exec),
    /// A template, a process with the server loaded, forks workers on command.
    Template(&'static Python),
}

impl Adapter {
    /// Whether a command, the program's name and its arguments, runs this server.
    pub(super) fn runs(&self, command: &[OsString]) -> bool {
        match self.making {
            Making::Template(python) => python.invocation(command).is_some(),
            Making::Exec(exec) => (exec.runs)(command),
        }
    }
}
