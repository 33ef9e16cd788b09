//! What a server that is executed once for each worker makes of its command line and its files.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::Path;

use crate::adapter::exec::{Exec, LaunchPlan, ServerInputs};
use crate::app::Command;
use crate::regular_file;

/// A server's configuration file is read up to here, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// A directory of a server's configuration files is read up to here.
const NAMES_LIMIT: usize = 1000;

/// Reads the server's settings: the command as `written`, the environment and directory of the resolved one, and the
/// files that they name.
///
/// # Errors
/// A file that cannot be read, or what cannot be run under sockd; the place is named.
pub fn plan(exec: &Exec, written: &[OsString], command: &Command) -> Result<LaunchPlan, String> {
    (exec.plan)(&ServerInputs {
        command: written,
        environment: &command.environment,
        directory: &command.directory,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        read: &read,
        names: &names,
    })
}

fn names(directory: &Path) -> Result<Vec<OsString>, String> {
    let cannot = |why: &dyn Display| format!("cannot read {}: {why}", directory.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(|error| cannot(&error))? {
        names.push(entry.map_err(|error| cannot(&error))?.file_name());
        if names.len() > NAMES_LIMIT {
            return Err(cannot(&format!("it holds more than {NAMES_LIMIT} files")));
        }
    }
    Ok(names)
}

fn read(path: &Path) -> Result<String, String> {
    regular_file::read_text(path, FILE_LIMIT).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
