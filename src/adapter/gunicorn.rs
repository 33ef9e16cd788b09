//! What is known of gunicorn.

use std::ffi::OsString;
use std::path::Path;

use crate::app::{Conventions, ExitMeaning, Manners};

/// SIGTERM (signal(7)).
const SIGTERM: i32 = 15;

/// A gunicorn worker's manners.
pub static CONVENTIONS: Conventions = Conventions {
    name: "gunicorn",
    manners: Manners::Template,
    drain_signal: SIGTERM,
    exits: &[
        (3, ExitMeaning::FailedToStart("worker failed to boot")),
        (4, ExitMeaning::FailedToStart("application failed to load")),
    ],
};

/// gunicorn's own arguments, if the command runs gunicorn.
pub fn arguments(command: &[OsString]) -> Option<&[OsString]> {
    let name = Path::new(command.first()?).file_name()?.to_str()?;
    (name == "gunicorn").then_some(&command[1..])
}
