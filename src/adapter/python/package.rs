//! The Python package of the templates, sockd_worker: its sources, and which of them each server's template needs.
//!
//! Owns the form in which `bootstrap.py` gets them.

use serde::Deserialize;
use std::collections::BTreeMap;

/// What a template executes first, as [`BOOTSTRAP_PATH`]; it finds the package in the descriptor before.
pub const BOOTSTRAP: &str = include_str!("sockd_worker/bootstrap.py");
/// Behind the control socket (3) and the package (4).
pub const BOOTSTRAP_PATH: &str = "/proc/self/fd/5";

/// What each server needs: a [`Modules`].
const MODULES: &str = include_str!("modules.json");

/// The modules of the templates, in the order of their execution.
#[derive(Deserialize)]
struct Modules<'a> {
    /// Of every server, before its own.
    #[serde(borrow)]
    common: Vec<&'a str>,
    /// Of each server, by its console script.
    #[serde(borrow)]
    servers: BTreeMap<&'a str, Server<'a>>,
}

#[derive(Deserialize)]
struct Server<'a> {
    /// Modules of Python's standard library that every version of the server imports at its start, or that all of
    /// those would have imported. A template imports them while the package is compiled.
    #[serde(borrow)]
    standard_library: Vec<&'a str>,
    /// The server's own, which ends with the one that has `main()`.
    #[serde(borrow)]
    modules: Vec<&'a str>,
}

macro_rules! sources {
    ($($path:literal),+ $(,)?) => { &[$(($path, include_str!($path))),+] };
}

/// All sources; [`MODULES`] says which a server needs.
static SOURCES: &[(&str, &str)] = sources![
    "sockd_worker/__init__.py",
    "sockd_worker/app_server.py",
    "sockd_worker/copies.py",
    "sockd_worker/drain.py",
    "sockd_worker/forking.py",
    "sockd_worker/log.py",
    "sockd_worker/notify.py",
    "sockd_worker/pid_file.py",
    "sockd_worker/preload.py",
    "sockd_worker/process.py",
    "sockd_worker/protocol.py",
    "sockd_worker/reasons.py",
    "sockd_worker/scoreboard.py",
    "sockd_worker/servers/__init__.py",
    "sockd_worker/servers/daphne_server.py",
    "sockd_worker/servers/granian_requests.py",
    "sockd_worker/servers/granian_server.py",
    "sockd_worker/servers/gunicorn_arbiter.py",
    "sockd_worker/servers/gunicorn_drain.py",
    "sockd_worker/servers/gunicorn_requests.py",
    "sockd_worker/servers/gunicorn_server.py",
    "sockd_worker/servers/gunicorn_settings.py",
    "sockd_worker/servers/hypercorn_server.py",
    "sockd_worker/servers/uvicorn_drain.py",
    "sockd_worker/servers/uvicorn_requests.py",
    "sockd_worker/servers/uvicorn_server.py",
    "sockd_worker/servers/waitress_server.py",
    "sockd_worker/signals.py",
    "sockd_worker/sockets.py",
    "sockd_worker/template.py",
    "sockd_worker/warm.py",
    "sockd_worker/websockets.py",
    "sockd_worker/worker.py",
];

/// The package for the server with this console script, as `bootstrap.py` reads it: a line with the modules of the
/// standard library to import meanwhile, then of each module a line with its path and its length in bytes, and its source.
///
/// # Errors
/// `modules.json` has no such server, or names a source that is not in the list here.
pub(super) fn text(script: &str) -> Result<String, String> {
    let all = modules()?;
    let server = all.servers.get(script).ok_or_else(|| format!("modules.json has no {script}"))?;
    let mut text = format!("{}\n", server.standard_library.join(" "));
    for path in all.common.iter().chain(&server.modules) {
        let (_, source) =
            SOURCES.iter().find(|(known, _)| known == path).ok_or_else(|| format!("there is no source of {path}"))?;
        text.push_str(&format!("{path} {}\n{source}", source.len()));
    }
    Ok(text)
}

fn modules() -> Result<Modules<'static>, String> {
    serde_json::from_str(MODULES).map_err(|error| format!("modules.json: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_source_is_needed_and_there() {
        let all = modules().expect("modules.json");
        let own = all.servers.values().flat_map(|server| &server.modules);
        let needed: BTreeSet<&str> = all.common.iter().chain(own).copied().collect();
        let there: BTreeSet<&str> = SOURCES.iter().map(|(path, _)| *path).collect();
        assert_eq!(needed, there);
        assert_eq!(there.len(), SOURCES.len());
        let scripts = super::super::super::ADAPTERS.iter().filter_map(|adapter| match adapter.making {
            super::super::super::Making::Template(python) => Some(python.script),
            super::super::super::Making::Exec(_) => None,
        });
        assert_eq!(scripts.collect::<BTreeSet<_>>(), all.servers.keys().copied().collect());
        for script in all.servers.keys() {
            let text = text(script).expect(script);
            assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("sockd_worker/__init__.py ")), "{script}");
        }
    }
}
