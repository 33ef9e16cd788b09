//! The command line as its users meet it: what `status` shows, what the program does when run.

mod adopt;
mod cases;
mod demo;
mod explain;
mod foreign;
mod golden;
mod history;
mod new;
mod program;
mod top;
