//! `--user`: whose unit is meant, the system's or one's own.

use clap::Args;

use crate::systemd::{Manager, UnitName};

/// Whose unit is meant.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Whose {
    /// A unit of your own service manager [default: where it alone has the unit]
    #[arg(long)]
    pub user: bool,
}

impl Whose {
    /// Whether `--user` may be typed: by root it may not, who would be shown a user's own word, and write into the
    /// directories that a user's environment names.
    ///
    /// # Errors
    /// What to type instead.
    pub fn check(self) -> Result<(), String> {
        match self.user && rustix::process::geteuid().is_root() {
            true => Err("--user is for the user whose unit it is: type it as that user, without sudo".to_owned()),
            false => Ok(()),
        }
    }

    /// A unit that was named, as it is meant.
    pub fn unit(self, named: &UnitName) -> UnitName {
        if self.user { named.clone().of(Manager::User) } else { named.clone() }
    }

    /// Those whose units are shown where none is named.
    pub fn managers(self) -> &'static [Manager] {
        if self.user { &[Manager::User] } else { Manager::all() }
    }
}
