//! How many descriptors we may have, and how many our children.
//!
//! Each worker costs us a few descriptors, and the usual soft limit of 1024 would be the limit of the pool. Programs that
//! use select(2) rely on that low limit, so every process that we execute gets it back (systemd.exec(5), LimitNOFILE=).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::sync::OnceLock;

static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises our own soft limit to the hard one. Call once, before the first process is made.
///
/// # Errors
/// None is known: a process may always raise its soft limit to its hard one.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if ORIGINAL.set(limit).is_ok() {
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}

/// What our children get; None while nothing was raised.
pub(super) fn original() -> Option<Rlimit> {
    ORIGINAL.get().cloned()
}
