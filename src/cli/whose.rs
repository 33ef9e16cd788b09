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
    /// A unit that was named, as it is meant.
    pub fn unit(self, named: &UnitName) -> UnitName {
        if self.user { named.clone().of(Manager::User) } else { named.clone() }
    }

    /// Those whose units are shown where none is named.
    pub fn managers(self) -> &'static [Manager] {
        if self.user { &[Manager::User] } else { Manager::all() }
    }
}
