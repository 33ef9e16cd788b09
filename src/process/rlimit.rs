//! Resource limits: of descriptors, ours and our children's (LimitNOFILE=), and of processes (TasksMax=, LimitNPROC=).
//!
//! Each worker costs us a few descriptors, and the usual soft limit of 1024 would be the limit of the pool. Programs that
//! use select(2) rely on that low limit, so every process that we execute gets it back (systemd.exec(5), LimitNOFILE=).

use rustix::io::Errno;
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

/// What the kernel said, in words for people, with the limits of a unit that are the reason: where it can make no process or
/// thread (EAGAIN of fork(2) and clone(2)), where a file in memory would be too long (EFBIG of write(2)), and where no
/// descriptor is left (EMFILE, getrlimit(2)).
pub fn explain(error: &io::Error) -> String {
    let limits = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AGAIN) => "TasksMax= or LimitNPROC=",
        Some(Errno::FBIG) => "LimitFSIZE=",
        Some(Errno::MFILE) => "LimitNOFILE=",
        Some(_) | None => return error.to_string(),
    };
    format!("{error}; the unit's {limits} may be too small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_named_where_they_are_the_reason() {
        let named =
            "Resource temporarily unavailable (os error 11); the unit's TasksMax= or LimitNPROC= may be too small";
        assert_eq!(explain(&Errno::AGAIN.into()), named);
        assert!(explain(&Errno::FBIG.into()).ends_with("; the unit's LimitFSIZE= may be too small"));
        assert!(explain(&Errno::MFILE.into()).ends_with("; the unit's LimitNOFILE= may be too small"));
        assert_eq!(explain(&Errno::NOENT.into()), "No such file or directory (os error 2)");
    }
}
