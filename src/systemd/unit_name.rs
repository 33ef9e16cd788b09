//! The name of a unit: completed in one way, whichever command it was typed at.
//!
//! Owns: what a name may look like, and which unit a short one means.
//! Never: asks systemd. Whether there is such a unit is for the caller.

use std::fmt;
use std::path::Path;

use super::{Manager, unit_files};

/// Where the configurations of instances are: `/etc/sockd/NAME.toml` is that of `sockd@NAME.service`.
pub const INSTANCES: &str = "/etc/sockd";
/// The types of units (systemd.unit(5)), with their dot.
const TYPES: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".timer",
    ".path",
    ".slice",
    ".scope",
];
/// systemd's own limit, UNIT_NAME_MAX, in bytes.
const MAX_LENGTH: usize = 255;

/// A unit's name, complete with its type: `gunicorn.service`, `sockd@shop.example.com.service`, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitName {
    name: String,
    manager: Manager,
}

/// What is no name of a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{written:?} is no name of a unit: {why}")]
pub struct BadName {
    /// As it was typed.
    pub written: String,
    why: &'static str,
}

impl UnitName {
    /// Completes a name as a person typed it.
    ///
    /// What ends in the type of a unit is complete; everything else is the name of a service, dots or not, as systemctl
    /// reads it. Where no such service has a file and `/etc/sockd/NAME.toml` is there, the instance `sockd@NAME.service`
    /// is meant. Where the system's manager has no file of it and our user's own has one, that unit is meant; root's is
    /// never meant unasked.
    ///
    /// # Errors
    /// It cannot be the name of a unit.
    pub fn complete(written: &str) -> Result<Self, BadName> {
        let unit = Self::complete_among(written, Path::new(INSTANCES))?;
        let is_users = || {
            !rustix::process::geteuid().is_root()
                && unit_files::find(Manager::System, &unit.name).is_none()
                && unit_files::find(Manager::User, &unit.name).is_some()
        };
        Ok(if unit.instance().is_none() && is_users() { unit.of(Manager::User) } else { unit })
    }

    /// The unit of this name that this manager has.
    #[must_use]
    pub fn of(self, manager: Manager) -> Self {
        Self { manager, ..self }
    }

    /// Whose it is.
    pub fn manager(&self) -> Manager {
        self.manager
    }

    /// The same with another directory of configurations.
    ///
    /// # Errors
    /// As [`Self::complete`].
    pub fn complete_among(written: &str, instances: &Path) -> Result<Self, BadName> {
        let has_instance = |name: &str| instances.join(format!("{name}.toml")).exists();
        Self::complete_where(written, |unit| unit_files::find(Manager::System, unit).is_some(), has_instance)
    }

    fn complete_where(
        written: &str,
        has_unit_file: impl Fn(&str) -> bool,
        has_instance: impl Fn(&str) -> bool,
    ) -> Result<Self, BadName> {
        let typed = TYPES.iter().any(|end| written.strip_suffix(end).is_some_and(|name| !name.is_empty()));
        let name = if typed { written.to_owned() } else { format!("{written}.service") };
        let bad = |why| Err(BadName { written: written.to_owned(), why });
        if written.is_empty() {
            return bad("it is empty");
        }
        if name.len() > MAX_LENGTH {
            return bad("it is longer than 255 bytes");
        }
        // systemd.unit(5). A name is never taken for an option of systemctl or journalctl.
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || ":-_.\\@".contains(letter);
        if name.starts_with('-') || !name.chars().all(allowed) {
            return bad("letters, digits and :-_.\\@ can stand in one");
        }
        if !typed && !written.contains('@') && !has_unit_file(&name) && has_instance(written) {
            return Ok(Self { name: format!("sockd@{written}.service"), manager: Manager::System });
        }
        Ok(Self { name, manager: Manager::System })
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The instance of `sockd@.service` that it is: `shop` of `sockd@shop.service`.
    pub fn instance(&self) -> Option<&str> {
        self.name.strip_prefix("sockd@")?.strip_suffix(".service").filter(|name| !name.is_empty())
    }

    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }

    /// Whether it is a socket unit.
    pub fn is_socket(&self) -> bool {
        self.name.ends_with(".socket")
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

/// For options of the command line.
impl std::str::FromStr for UnitName {
    type Err = BadName;

    fn from_str(written: &str) -> Result<Self, BadName> {
        Self::complete(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(written: &str) -> Result<String, BadName> {
        let has_unit_file = |name: &str| ["gunicorn.service", "both.service"].contains(&name);
        let has_instance = |name: &str| ["shop", "shop.example.com", "both", "gunicorn", "x.socket"].contains(&name);
        UnitName::complete_where(written, has_unit_file, has_instance).map(|unit| unit.name)
    }

    #[test]
    fn a_name_is_completed_as_systemctl_does() {
        for (written, name) in [
            ("gunicorn", "gunicorn.service"),
            ("gunicorn.service", "gunicorn.service"),
            ("gunicorn.socket", "gunicorn.socket"),
            ("sockd@shop", "sockd@shop.service"),
            ("sockd@shop.example.com", "sockd@shop.example.com.service"),
            ("sockd@shop.example.com.service", "sockd@shop.example.com.service"),
            ("www.example.org", "www.example.org.service"),
            (".service", ".service.service"),
            ("my\\x2dapp", "my\\x2dapp.service"),
            ("site@", "site@.service"),
        ] {
            assert_eq!(complete(written).as_deref(), Ok(name), "{written}");
        }
    }

    #[test]
    fn an_instance_may_be_named_by_its_configuration() {
        for (written, name) in [
            ("shop", "sockd@shop.service"),
            ("shop.example.com", "sockd@shop.example.com.service"),
            // A service that has the name itself is meant.
            ("both", "both.service"),
            ("gunicorn", "gunicorn.service"),
            ("shop.service", "shop.service"),
            ("x.socket", "x.socket"),
        ] {
            assert_eq!(complete(written).as_deref(), Ok(name), "{written}");
        }
    }

    #[test]
    fn instances_of_sockd_are_recognised() {
        for (name, instance) in [
            ("sockd@shop.example.com.service", Some("shop.example.com")),
            ("sockd@.service", None),
            ("sockd@shop.socket", None),
            ("site@shop.service", None),
        ] {
            assert_eq!(UnitName { name: name.to_owned(), manager: Manager::System }.instance(), instance, "{name}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for written in ["", "-u", "--help", "a b", "a/b", "../shop", "a\nb", "a;b", "caf\u{e9}", "a*", &"a".repeat(256)]
        {
            assert!(complete(written).is_err(), "{written}");
        }
    }
}
