//! The name of a control socket.
//!
//! Owns: its form, and finding it in the text of /proc/self/net/unix.
//! Never: opens anything.

use std::hash::{BuildHasher, RandomState};

/// A fresh name for the process `pid`, without the zero byte that makes it abstract.
pub fn new(pid: u32) -> String {
    // Two hash keys of the standard library come from the kernel's random numbers; unguessable is all that is needed.
    format!("sockd/{pid}/{:016x}", RandomState::new().hash_one(pid))
}

/// The process id in a name; `None` when it is no name of ours.
pub fn pid_of(name: &str) -> Option<u32> {
    let (pid, digits) = name.strip_prefix("sockd/")?.split_once('/')?;
    let hex = digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let decimal = pid.bytes().all(|byte| byte.is_ascii_digit()) && !pid.starts_with('0');
    if hex && decimal { pid.parse().ok() } else { None }
}

/// The listening control sockets in the text of /proc/self/net/unix: process id and name, each once, by process id.
///
/// A line is `Num: RefCount Protocol Flags Type St Inode Path` (proc_net(5)). Flags 00010000 is SO_ACCEPTCON: accepted
/// ends inherit the name and are left out by it. The kernel shows the zero byte of an abstract name as `@`.
pub fn listening(proc_net_unix: &str) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = proc_net_unix
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let flags = words.nth(3)?;
            let name = words.nth(3)?.strip_prefix('@')?;
            (flags == "00010000").then_some(())?;
            Some((pid_of(name)?, name.to_owned()))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_ours_and_never_the_same() {
        let (one, two) = (new(4711), new(4711));
        assert_eq!(pid_of(&one), Some(4711), "{one}");
        assert_ne!(one, two);
    }

    #[test]
    fn other_names_are_not_ours() {
        for name in [
            "sockd/1",
            "sockd/1/",
            "sockd/x/0123456789abcdef",
            "sockd/+1/0123456789abcdef",
            "sockd/01/0123456789abcdef",
            "sockd//0123456789abcdef",
            "sockd/1/0123456789ABCDEF",
            "sockd/1/0123456789abcde",
            "sockd/1/0123456789abcdef0",
            "sockd/99999999999/0123456789abcdef",
            "xsockd/1/0123456789abcdef",
        ] {
            assert_eq!(pid_of(name), None, "{name}");
        }
    }

    #[test]
    fn finds_listeners_alone() {
        let text = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 22 @sockd/12/0123456789abcdef
0000000000000000: 00000003 00000000 00000000 0001 03 23 @sockd/12/0123456789abcdef
0000000000000000: 00000002 00000000 00010000 0001 01 24 /run/sockd/12/0123456789abcdef
0000000000000000: 00000002 00000000 00010000 0001 01 25
0000000000000000: 00000002 00000000 00010000 0001 01 26 @sockd/7/fedcba9876543210
short line
";
        let names: Vec<u32> = listening(text).into_iter().map(|(pid, _)| pid).collect();
        assert_eq!(names, [7, 12]);
    }
}
