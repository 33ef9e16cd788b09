//! Users and their groups, looked up as the system does.
//!
//! Owns: the asking of `id` and `getent`, which know users of directory services, too.
//! Never: waits longer than [`show::TIME_LIMIT`] for either.

use std::collections::BTreeSet;

use super::facts::Account;
use crate::systemd::show;

impl Account {
    /// Looks a user up, with a unit's `Group=` and `SupplementaryGroups=`.
    ///
    /// # Errors
    /// Which of them does not exist.
    pub fn find(user: &str, group: &str, supplementary: &[String]) -> Result<Self, String> {
        let id = |option| ask("id", &[option, "--", user]);
        let uid = id("-u").and_then(|text| text.trim().parse().ok());
        let uid = uid.ok_or_else(|| format!("there is no user {user}"))?;
        let mut groups: BTreeSet<u32> = BTreeSet::new();
        groups.extend(id("-G").unwrap_or_default().split_whitespace().filter_map(|gid| gid.parse::<u32>().ok()));
        for group in supplementary.iter().map(String::as_str).chain([group]).filter(|group| !group.is_empty()) {
            let entry = ask("getent", &["group", "--", group]);
            let gid = entry.and_then(|line| line.split(':').nth(2)?.parse().ok()).or_else(|| group.parse().ok());
            groups.insert(gid.ok_or_else(|| format!("there is no group {group}"))?);
        }
        Ok(Self { name: user.to_owned(), uid, groups })
    }
}

/// What a program prints, if it succeeds.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    show::output(program, arguments).ok().filter(|(succeeded, _)| *succeeded).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_looked_up() {
        let root = Account::find("root", "", &[]).expect("root is everywhere");
        assert_eq!((root.uid, root.groups.contains(&0)), (0, true));
        let groups = Account::find("root", "daemon", &["4242".to_owned()]).expect("numbers need no entry").groups;
        assert!(groups.contains(&1) && groups.contains(&4242));
        assert_eq!(Account::find("no-such-user", "", &[]), Err("there is no user no-such-user".to_owned()));
        assert_eq!(Account::find("root", "no-such-group", &[]), Err("there is no group no-such-group".to_owned()));
        assert_eq!(Account::find("-G", "", &[]), Err("there is no user -G".to_owned()));
    }
}
