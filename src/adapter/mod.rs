//! What is known of each application server, as data.
//!
//! Owns the answer to "what kind of server is this command, and what are its manners?". It must never do IO: callers
//! read files and run programs, and pass in what they found.
//!
//! # How an adapter is added
//!
//! One file for each server, with one [`Adapter`], and its line in [`ADAPTERS`]. `tests/README.md` has all the steps.
//! - A Python server gets a [`python::Python`] as well: the name of its script, what its options say of its sockets, and
//!   a module in `python/sockd_worker/servers` (what it must offer stands at the head of `app_server.py`; its settings
//!   are a [`server_settings::ServerSettings`]). List the modules that its template needs in `python/modules.json`, and
//!   test the template in `tests/python`.
//! - A server that is executed once for each worker is [`Making::Exec`] with an [`exec::Exec`]: how it is recognised,
//!   and what it needs beyond the manners of a good systemd service (a rewritten command line, files, a private socket):
//!   the fields of [`exec::LaunchPlan`]. What servers of one language share has a file of its own (`ruby.rs`).
//!
//! The daemon and [`recognise`] ask this table and never a name.
#![forbid(unsafe_code)]

pub mod daphne;
pub mod declared_sockets;
mod definition;
pub mod development;
pub mod exec;
pub mod generic;
pub mod granian;
pub mod gunicorn;
pub mod hypercorn;
pub mod launcher;
pub mod origins;
pub mod php_fpm;
pub mod puma;
pub mod python;
mod ruby;
pub mod server_settings;
pub mod shlex;
pub mod unicorn;
pub mod uvicorn;
pub mod uwsgi;
pub mod waitress;

pub use definition::{Adapter, Making};
use std::ffi::OsString;

/// The servers that are recognised.
pub static ADAPTERS: &[&Adapter] = &[
    &gunicorn::ADAPTER,
    &uvicorn::ADAPTER,
    &hypercorn::ADAPTER,
    &granian::ADAPTER,
    &daphne::ADAPTER,
    &waitress::ADAPTER,
    &uwsgi::ADAPTER,
    &puma::ADAPTER,
    &unicorn::ADAPTER,
    &php_fpm::ADAPTER,
];

/// Tells the kind of server by its command line: the program's name, then its arguments. Any other program is
/// [`generic`].
pub fn recognise(command: &[OsString]) -> &'static Adapter {
    ADAPTERS.iter().copied().find(|adapter| adapter.runs(command)).unwrap_or(&generic::ADAPTER)
}

/// Looks through what stands before a known server and executes it (see [`launcher`]): the launcher, and the server's own
/// command. Before a server that is not known nothing is taken off, since it is executed as it is.
pub fn look_through(command: &[OsString]) -> (launcher::Launcher, Vec<OsString>) {
    let (launcher, behind) = launcher::split(command);
    if is_unknown(recognise(&behind)) { (launcher::Launcher::default(), command.to_vec()) } else { (launcher, behind) }
}

/// What pip calls the server with this program. `None`: none of pip's that we know.
pub fn package_of(program: &str) -> Option<&'static str> {
    let servers = ADAPTERS.iter().filter_map(|adapter| match adapter.making {
        Making::Template(python) => Some((python.script, python.package)),
        Making::Exec(_) => None,
    });
    servers.chain([("uwsgi", "uwsgi")]).find(|(script, _)| *script == program).map(|(_, package)| package)
}

/// Whether nothing is known of the program.
pub fn is_unknown(adapter: &Adapter) -> bool {
    std::ptr::eq(adapter, &raw const generic::ADAPTER)
}

/// What helps where a server is hidden from sockd.
pub const WRITE_THE_SERVER: &str = "write the server's own line into ExecStart= (its variables into Environment=), and sockd runs its workers one by one";

/// The known server that an unknown program starts and stays the parent of, as far as its words show.
pub fn hidden_server(command: &[OsString]) -> Option<&'static str> {
    let named = |words: &[OsString]| {
        let known = (0..words.len()).map(|at| recognise(&words[at..])).find(|adapter| !is_unknown(adapter));
        known.map(|adapter| adapter.conventions.name)
    };
    let (_, arguments) = command.split_first()?;
    // A shell has it in one word.
    let inner = arguments.iter().filter_map(|word| shlex::split(word.to_str()?).ok()).filter(|words| words.len() > 1);
    named(arguments).or_else(|| {
        inner.map(|words| words.into_iter().map(OsString::from).collect::<Vec<_>>()).find_map(|words| named(&words))
    })
}

/// What one must not do with a [`hidden_server`].
pub fn hidden_server_note(server: &str) -> String {
    format!(
        "{server} is started by a program that sockd cannot look through, so each of sockd's workers is a whole {server} \
         with as many workers as it is configured for: set the number there alone and leave sockd's at 1, or \
         {WRITE_THE_SERVER}"
    )
}
