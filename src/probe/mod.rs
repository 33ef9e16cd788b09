//! Asking one worker, over HTTP or in the uwsgi protocol, or greeting it in TLS, on a socket that only it serves.
//!
//! All workers of a pool share the public socket, so a request sent there reaches any of them. A private listening
//! socket, handed over beside the public one or in its place, reaches exactly one process.
//!
//! Owns: the ways to the private sockets, and one request at a time. Never: judges an answer; that is for the caller.
#![forbid(unsafe_code)]

mod http;
mod question;
mod socket;
mod tls;
mod uwsgi;

pub use http::ask;
pub use question::{AskError, Question};
pub use socket::{Answers, Socket};
pub use tls::greet;
