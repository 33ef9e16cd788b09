//! Children with given descriptors at 3, 4 and 5.
//!
//! Safe Rust can place a descriptor only at 0, 1 and 2 of a child; a shell moves them on.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command that runs `program` with up to three descriptors from 3 on, stdin empty, stdout and stderr to `log`.
/// `before` is shell code that runs first, such as `LISTEN_PID=$$; export LISTEN_PID`.
pub fn with_descriptors(descriptors: Vec<OwnedFd>, before: &str, program: &[&str], log: &Path) -> Command {
    assert!(descriptors.len() <= 3);
    let moves = ["3<&0", "4<&1", "5<&2"];
    let script = format!("{before}\nexec \"$@\" {} </dev/null >>\"$LOG\" 2>&1", moves[..descriptors.len()].join(" "));
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).args(program).env("LOG", log);
    let mut descriptors = descriptors.into_iter().map(Stdio::from);
    command.stdin(descriptors.next().unwrap_or_else(Stdio::null));
    command.stdout(descriptors.next().unwrap_or_else(Stdio::null));
    command.stderr(descriptors.next().unwrap_or_else(Stdio::null));
    command
}

/// The arguments that make this program run one ignored test in its main thread.
pub fn child_test(name: &str) -> [&str; 5] {
    [name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]
}
