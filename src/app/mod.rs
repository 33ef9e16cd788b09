//! Plain data about an application: where it listens, what is run, and what its server's manners are.
//!
//! No IO here. The configuration and the adapters make these values, the drivers read them.

mod address;
mod command;
mod conventions;
pub mod text;

pub use address::{Address, ParseAddressError};
pub use command::Command;
pub use conventions::{Conventions, ExitMeaning, Reopen};
