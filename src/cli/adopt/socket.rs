//! The socket unit that a service lacks (the Flask guide): systemd holds open what the server has bound itself so far.
//!
//! Owns: where the server listens by its own options, and the socket unit that is the same to visitors.
//! Never: guesses. What only a configuration file or a variable says is told to be unknown.

use std::ffi::OsString;
use std::path::Path;

use super::proposal::Draft;
use super::service::environment;
use super::unit::Unit;
use crate::adapter::{gunicorn, words};
use crate::app::Address;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listens {
    /// As ListenStream= takes them.
    streams: Vec<String>,
    /// The permissions of its unix sockets; `None`: there is none.
    mode: Option<u32>,
    /// Where that is said.
    said: String,
}

/// Where the server of a unit listens, by its command line.
///
/// # Errors
/// Why that is not to be seen.
pub fn listens(unit: &Unit, command: &[OsString]) -> Result<Listens, String> {
    let cannot = |why: &str| format!("cannot tell where the server of {} listens: {why}", unit.name);
    let Some(invocation) = gunicorn::PYTHON.invocation(command) else {
        return Err(cannot("of its options sockd knows gunicorn's alone here; write the socket unit by hand"));
    };
    let known = gunicorn::Known::read(invocation.arguments, &environment(unit));
    if known.bind.is_empty() {
        return Err(cannot("its command line has no --bind; write the socket unit by hand"));
    }
    let directory = unit.value("Service", "WorkingDirectory").trim_start_matches('-');
    let directory = Path::new(if directory.is_empty() { "/" } else { directory });
    let directory = directory.join(known.chdir.as_deref().unwrap_or_default());
    let mut listens =
        Listens { streams: Vec::new(), mode: None, said: format!("--bind {}", known.bind.join(" --bind ")) };
    for bind in &known.bind {
        match gunicorn::Known::address(bind).map_err(|why| cannot(&format!("--bind {bind}: {why}")))? {
            Some(Address::Unix(path)) => {
                let path = directory.join(path);
                if !path.is_absolute() {
                    return Err(cannot(&format!(
                        "--bind {bind} is relative to WorkingDirectory={}",
                        directory.display()
                    )));
                }
                listens.streams.push(path.display().to_string());
                // gunicorn's umask is 0 unless it is told another.
                listens.mode = Some(0o777 & !known.umask.unwrap_or(0));
            }
            Some(Address::Abstract(name)) => listens.streams.push(format!("@{name}")),
            Some(Address::Tcp(address)) => listens.streams.push(address.to_string()),
            None => return Err(cannot(&format!("--bind {bind} names a socket that it is given"))),
        }
    }
    if listens.streams.iter().any(|stream| stream.contains(['$', '\n'])) {
        return Err(cannot("its --bind holds a variable"));
    }
    Ok(listens)
}

/// The socket unit.
///
/// # Errors
/// A value of the unit that the socket unit cannot take over.
pub fn draft(unit: &Unit, path: &Path, listens: &Listens) -> Result<Draft, String> {
    let mut draft = Draft::new(path, &unit.name);
    let set = |draft: &mut Draft, why: &str, line: String| {
        draft.set(why, &line, None);
    };
    draft.section("Unit");
    set(&mut draft, "", format!("Description=Socket of {}", unit.name));
    draft.section("Socket");
    let mut why = format!("What {} names.", listens.said);
    for stream in &listens.streams {
        set(&mut draft, &why, format!("ListenStream={stream}"));
        why.clear();
    }
    if let Some(mode) = listens.mode {
        let mut why = "Owner and permissions as the server gave them to its socket.";
        for (key, own) in [("SocketUser", "User"), ("SocketGroup", "Group")] {
            let value = unit.value("Service", own);
            if words::split(value).is_ok_and(|words| words.len() > 1) {
                return Err(format!("{} has {own}={value}, which is no name", unit.name));
            }
            if !value.is_empty() {
                set(&mut draft, why, format!("{key}={value}"));
                why = "";
            }
        }
        set(&mut draft, why, format!("SocketMode={mode:04o}"));
    }
    set(
        &mut draft,
        "How many connections may wait; the kernel's net.core.somaxconn is the limit.",
        "Backlog=4096".into(),
    );
    if listens.mode.is_some() {
        set(&mut draft, "Safe because the service stops with its socket.", "RemoveOnStop=yes".into());
    }
    draft.section("Install");
    set(&mut draft, "", "WantedBy=sockets.target".into());
    Ok(draft)
}
