//! What is above us: the service manager.
//!
//! Owns: what we say to it ([`notify`]), what it left in our environment ([`environment`]) and, for the command-line
//! tools alone, what it says over D-Bus ([`bus`]) or through `systemctl show` ([`show`]; [`details`] from either) and
//! which unit files it has ([`unit_files`]) and what they are called ([`UnitName`]), of both [`Manager`]s.
//! Never: acts on a unit. Actions go through systemctl; systemd stays the truth.
#![forbid(unsafe_code)]

pub mod bus;
pub mod details;
pub mod environment;
pub mod manager;
pub mod notify;
pub mod show;
pub mod unit_files;
pub mod unit_name;

pub use environment::{unit_of, unit_of_pid};
pub use manager::Manager;
pub use notify::{Notifier, ReloadGuard};
pub use unit_name::UnitName;
