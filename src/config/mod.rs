//! The configuration: one TOML file and the options of `sockd run`.
//!
//! Parsed as written, checked (all problems at once, each at its place), then lowered to [`Settings`], plain data.
//! Owns the keys, their meaning, their ranges and their defaults (`default.toml`). [`load()`] reads the one file and
//! nothing else; [`resolve()`] looks at the system, every time it is called, and finds what is really executed.
#![forbid(unsafe_code)]

pub mod duration;
mod environment_file;
mod inherited;
mod load;
mod options;
mod plan;
mod reader;
mod release;
mod resolve;
mod script;
mod settings;
pub mod share;
pub mod size;
mod value;

pub use inherited::speaks_of_sockd_alone;
pub use load::{Loaded, keys, load};
pub use options::{Options, with_dashes};
pub use plan::plan;
pub use release::{lead_to, release};
pub use resolve::{find_program, resolve, resolve_after, resolve_checks, resolve_environment, resolve_health_command};
pub use script::{Script, script};
pub use settings::{Fallback, Health, Listen, Reload, Requests, Settings, Start, StatusSocket, Workers};

/// The shipped file of defaults: every key with its meaning, its unit and its default.
pub const DEFAULT_FILE: &str = include_str!("default.toml");
