//! The `sockd` program: everything is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["fallback", "--listeners", count] => match count.parse() {
            Ok(count) => sockd::fallback::run(count).into(),
            Err(_) => sockd::exit::USAGE.into(),
        },
        _ => ExitCode::SUCCESS,
    }
fn main() -> std::process::ExitCode {
    sockd::cli::main()
}
