//! Whether a user may pass a directory or write to a socket: the kernel's rule, on facts.
//!
//! Owns: the choice of the one entry that counts (path_resolution(7), acl(5)).
//! Never: looks at a file.

use super::facts::{Account, Permissions};

/// The bit that lets one pass a directory.
pub const PASS: u32 = 1;
/// The bit that lets one connect to a socket.
pub const WRITE: u32 = 2;

/// Whether the user has this bit. Capabilities are left out: they are root's alone.
pub fn may(account: &Account, permissions: &Permissions, bit: u32) -> bool {
    let mode = mode(permissions);
    if account.uid == 0 {
        return true;
    }
    if account.uid == permissions.uid {
        return mode >> 6 & bit != 0;
    }
    let entries: Vec<_> = permissions.acl.iter().filter_map(|entry| parse(entry)).collect();
    let mask = entries.iter().find(|entry| entry.kind == "mask").map_or(7, |entry| entry.bits);
    if let Some(own) = entries.iter().find(|entry| entry.kind == "user" && entry.id == Some(account.uid)) {
        return own.bits & mask & bit != 0;
    }
    // With a list, the group's bits of the mode are the mask; the owning group has an entry of its own.
    let owning = entries.iter().find(|entry| entry.kind == "group" && entry.id.is_none());
    let owning = owning.map_or(mode >> 3 & 7, |entry| entry.bits);
    let named = entries.iter().filter_map(|entry| Some((entry.id?, entry.bits)).filter(|_| entry.kind == "group"));
    let mut groups =
        named.chain([(permissions.gid, owning)]).filter(|(gid, _)| account.groups.contains(gid)).peekable();
    match groups.peek() {
        Some(_) => groups.any(|(_, bits)| bits & mask & bit != 0),
        None => mode & bit != 0,
    }
}

/// The mode as a number.
pub fn mode(permissions: &Permissions) -> u32 {
    u32::from_str_radix(&permissions.mode, 8).unwrap_or_default()
}

struct Entry<'a> {
    kind: &'a str,
    id: Option<u32>,
    bits: u32,
}

/// `user:33:--x`, `group::r-x`, `mask::r-x`.
fn parse(text: &str) -> Option<Entry<'_>> {
    let mut fields = text.split(':');
    let (kind, id, letters) = (fields.next()?, fields.next()?, fields.next()?);
    let bit = |letter, bit| if letters.contains(letter) { bit } else { 0 };
    Some(Entry { kind, id: id.parse().ok(), bits: bit('r', 4) | bit('w', 2) | bit('x', 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_counts() {
        let account =
            |uid, groups: &[u32]| Account { uid, groups: groups.iter().copied().collect(), ..Account::default() };
        let visitor = account(33, &[33]);
        for (mode, gid, acl, allowed) in [
            ("0755", 1000, &[][..], true),
            ("0750", 1000, &[], false),
            ("0750", 33, &[], true),
            // The group's bits count for its members, even where others may more.
            ("0705", 33, &[], false),
            ("0710", 1000, &["user:33:--x", "group::---", "mask::--x"], true),
            ("0700", 1000, &["user:33:--x", "mask::---"], false),
            ("0710", 1000, &["group:33:--x", "group::---", "mask::--x"], true),
            ("0711", 1000, &["user:34:--x", "group::---", "mask::--x"], true),
        ] {
            let acl = acl.iter().map(|&entry| entry.to_owned()).collect();
            let permissions = Permissions { mode: mode.to_owned(), uid: 1000, gid, acl };
            assert_eq!(may(&visitor, &permissions, PASS), allowed, "{mode} {gid} {:?}", permissions.acl);
        }
        let closed = Permissions { mode: "0000".to_owned(), uid: 1000, ..Permissions::default() };
        assert!(may(&account(0, &[]), &closed, WRITE));
        assert!(!may(&account(1000, &[]), &closed, WRITE));
    }
}
