//! What is executed for a worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// A program ready to be executed: nothing in it is looked up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The file that is executed: an absolute path.
    pub program: PathBuf,
    /// `argv`, the name of the program first.
    pub arguments: Vec<OsString>,
    /// What is executed in its place and executes it, an absolute path and arguments; empty where there is nothing.
    pub launcher: Vec<OsString>,
    /// The working directory: an absolute path with symbolic links resolved.
    pub directory: PathBuf,
    /// The whole environment. What speaks of one process alone (LISTEN_PID, NOTIFY_SOCKET) is added at the start.
    pub environment: BTreeMap<OsString, OsString>,
}

impl Command {
    /// The file that is really executed, and its `argv`: the launcher's, where there is one.
    pub fn executed(&self) -> (PathBuf, Vec<OsString>) {
        let Some(first) = self.launcher.first() else { return (self.program.clone(), self.arguments.clone()) };
        let program = OsString::from(self.program.clone());
        let arguments = self.launcher.iter().chain([&program]).chain(self.arguments.iter().skip(1)).cloned().collect();
        (first.into(), arguments)
    }
}
