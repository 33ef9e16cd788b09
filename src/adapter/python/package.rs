//! The Python package of the templates, sockd_worker: its sources, and which of them each server's template needs.
//!
//! Owns the form in which `bootstrap.py` gets them.

use std::collections::BTreeMap;

/// What a template executes first, as [`BOOTSTRAP_PATH`]; it finds the package in the descriptor before.
pub const BOOTSTRAP: &str = include_str!("sockd_worker/bootstrap.py");
/// Behind the control socket (3) and the package (4).
pub const BOOTSTRAP_PATH: &str = "/proc/self/fd/5";

/// The modules of each server, by its console script, in the order of their execution.
const MODULES: &str = include_str!("modules.json");

macro_rules! sources {
    ($($path:literal),+ $(,)?) => { &[$(($path, include_str!($path))),+] };
}

/// All sources; [`MODULES`] says which a server needs.
static SOURCES: &[(&str, &str)] = sources![
    "sockd_worker/__init__.py",
    "sockd_worker/app_server.py",
    "sockd_worker/drain.py",
    "sockd_worker/forking.py",
    "sockd_worker/log.py",
    "sockd_worker/notify.py",
    "sockd_worker/pid_file.py",
    "sockd_worker/preload.py",
    "sockd_worker/protocol.py",
    "sockd_worker/reasons.py",
    "sockd_worker/servers/__init__.py",
    "sockd_worker/servers/daphne_server.py",
    "sockd_worker/servers/granian_server.py",
    "sockd_worker/servers/gunicorn_arbiter.py",
    "sockd_worker/servers/gunicorn_drain.py",
    "sockd_worker/servers/gunicorn_server.py",
    "sockd_worker/servers/gunicorn_settings.py",
    "sockd_worker/servers/hypercorn_server.py",
    "sockd_worker/servers/uvicorn_drain.py",
    "sockd_worker/servers/uvicorn_server.py",
    "sockd_worker/servers/waitress_server.py",
    "sockd_worker/signals.py",
    "sockd_worker/sockets.py",
    "sockd_worker/template.py",
    "sockd_worker/websockets.py",
    "sockd_worker/worker.py",
];

/// The modules of the server with this console script, as `bootstrap.py` reads them: of each a line with its path and
/// its length in bytes, then its source.
///
/// # Errors
/// `modules.json` has no such server, or names a source that is not in the list here.
pub(super) fn text(script: &str) -> Result<String, String> {
    let mut servers = servers()?;
    let modules = servers.remove(script).ok_or_else(|| format!("modules.json has no {script}"))?;
    let mut text = String::new();
    for path in modules {
        let (_, source) =
            SOURCES.iter().find(|(known, _)| *known == path).ok_or_else(|| format!("there is no source of {path}"))?;
        text.push_str(&format!("{path} {}\n{source}", source.len()));
    }
    Ok(text)
}

fn servers() -> Result<BTreeMap<String, Vec<String>>, String> {
    serde_json::from_str(MODULES).map_err(|error| format!("modules.json: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_source_is_needed_and_there() {
        let servers = servers().expect("modules.json");
        let needed: BTreeSet<&str> = servers.values().flatten().map(String::as_str).collect();
        let there: BTreeSet<&str> = SOURCES.iter().map(|(path, _)| *path).collect();
        assert_eq!(needed, there);
        assert_eq!(there.len(), SOURCES.len());
        let scripts = super::super::super::ADAPTERS.iter().filter_map(|adapter| match adapter.making {
            super::super::super::Making::Template(python) => Some(python.script),
            super::super::super::Making::Exec(_) => None,
        });
        assert_eq!(scripts.collect::<BTreeSet<_>>(), servers.keys().map(String::as_str).collect());
        for script in servers.keys() {
            assert!(text(script).expect(script).starts_with("sockd_worker/__init__.py "), "{script}");
        }
    }
}
