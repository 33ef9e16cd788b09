//! `sockd doctor`: the guide's troubleshooting as a program.
//!
//! It walks browser -> Nginx -> path -> socket -> descriptor -> worker -> application, says which link of that chain is
//! broken, and with which one command it is fixed. It works for units that run sockd and for those that run an
//! application server by itself.
//!
//! Owns: the facts ([`facts`], all IO), the rules (`rules`, pure functions with golden cases in tests/doctor/cases)
//! and what they find ([`finding`]).
//! Never: changes anything, writes to a terminal, or waits for anything without a limit. The one thing that it does to
//! a site is what any visitor does: it asks for a page.
#![forbid(unsafe_code)]

mod account;
mod error_log;
pub mod facts;
pub mod finding;
pub mod fix;
mod nginx;
pub mod permission;
mod remedy;
mod rules;
pub(crate) mod target;
mod traceback;

pub use facts::{Facts, Problem};
pub use finding::{Diagnosis, Finding, Link, Seen, State};
pub use fix::Fix;
pub use rules::{diagnose, idle};
