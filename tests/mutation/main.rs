//! What strangers write, mutated some thousand times: nothing of it ends sockd, or comes to mean what was never written.

mod adopted;
mod mutator;
mod parsers;
