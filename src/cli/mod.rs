//! The commands: one file each.
#![forbid(unsafe_code)]

pub mod check;
