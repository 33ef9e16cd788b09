//! What a file really is that is named like a Python server: its console script, a version manager's shim, or a program
//! of another kind, which must never be fed with Python.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::adapter::python;
use crate::app::text;
use crate::regular_file;

/// The head of a script is read up to here, in bytes: Linux itself reads 256 of the first line (BINPRM_BUF_SIZE).
const HEAD_LIMIT: u64 = 4096;

/// What a server's program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// A console script of this Python, with the options that it is given.
    Python(PathBuf, Vec<OsString>),
    /// A shim that has this command find the program and execute it.
    Shim(Vec<OsString>),
    /// Something else; what, for people.
    Other(String),
}

/// Looks at a server's program.
///
/// # Errors
/// "cannot read PATH: why".
pub fn script(path: &Path) -> Result<Script, String> {
    let head = regular_file::head(path, HEAD_LIMIT);
    let head = head.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if head.starts_with(b"\x7fELF") {
        return Ok(Script::Other(format!("{} is a compiled program, not Python", path.display())));
    }
    let head = text::from_os(OsStr::from_bytes(&head));
    if let Some(shim) = shim(&head) {
        return Ok(Script::Shim(shim));
    }
    Ok(match python::interpreter(&head, path) {
        Ok((interpreter, options)) => Script::Python(interpreter, options),
        Err(why) => Script::Other(why),
    })
}

/// `exec "/home/sammy/.pyenv/libexec/pyenv" exec "$program" "$@"`, as pyenv's shims end.
fn shim(text: &str) -> Option<Vec<OsString>> {
    let line = text.lines().rev().find(|line| line.starts_with("exec "))?;
    let manager = line.strip_prefix("exec ")?.strip_suffix(" exec \"$program\" \"$@\"")?;
    let manager = Path::new(manager.trim_matches('"'));
    let known = manager.is_absolute() && manager.file_name().is_some_and(|name| name == "pyenv");
    known.then(|| vec![manager.into(), "exec".into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_python_is_distinguished() {
        let path = std::env::temp_dir().join(format!("sockd-script-{}", std::process::id()));
        let look = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            script(&path).expect("read")
        };
        // As pyenv 2.6 writes it.
        let pyenv = "#!/usr/bin/env bash\nset -e\n[ -n \"$PYENV_DEBUG\" ] && set -x\n\nprogram=\"${0##*/}\"\n\n\
                     export PYENV_ROOT=\"/root/.pyenv\"\nexec \"/root/.pyenv/libexec/pyenv\" exec \"$program\" \"$@\"\n";
        assert_eq!(look(pyenv.as_bytes()), Script::Shim(vec!["/root/.pyenv/libexec/pyenv".into(), "exec".into()]));
        assert_eq!(look(b"#!/v/bin/python3 -E\n"), Script::Python("/v/bin/python3".into(), vec!["-E".into()]));
        for other in [
            &b"#!/usr/bin/env bash\nexec \"$PYENV_ROOT/shims/python\" -m gunicorn \"$@\"\n"[..],
            b"#!/bin/sh\nexec /srv/start\n",
            b"#!/usr/bin/env -S bash -e\n",
            b"#!/bin/sh\n'''exec' \"/bin/bash\" \"$0\" \"$@\"\n",
            b"\x7fELF\x02\x01\x01\x00\xff\xfe",
        ] {
            assert!(matches!(look(other), Script::Other(_)), "{}", String::from_utf8_lossy(other));
        }
        let _ = std::fs::remove_file(&path);
        assert!(script(Path::new("/dev/zero")).is_err() && script(&path).is_err());
    }
}
