//! The drivers against real sockets and processes of this machine.
//!
//! Some tests run a child: this very program again, with one test marked `#[ignore]`, or a shell that puts sockets at
//! the descriptors 3, 4 and 5. No test needs root, and none waits for a time to pass.
#![forbid(unsafe_code)]

mod bind;
mod descriptors;
mod directory;
mod fallback;
mod inherit;
mod queue;
mod wait;
