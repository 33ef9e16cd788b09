//! The socket unit that a service lacks (the Flask guide): systemd holds open what the server has bound itself so far.
//!
//! Owns: where the server listens by its own options, and the socket unit that is the same to visitors.
//! Never: guesses. What only a Python file or a variable says is told to be unknown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::proposal::Draft;
use super::service::environment;
use super::unit::Unit;
use crate::adapter::exec::{Exec, Told};
use crate::adapter::{self, Making, gunicorn, words};
use crate::app::Address;
use crate::doctor::chain;
use crate::systemd::details::Details;

/// Gives the text of a file that a server's options name; an error names it.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

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

/// What a server's own options say.
struct Said {
    addresses: Vec<Address>,
    /// The permissions that it gives to its unix sockets.
    mode: u32,
    /// Where relative paths begin.
    directory: PathBuf,
    place: String,
}

/// Where the server of a unit listens, by its command line and the files that it names, which `read` gives.
///
/// # Errors
/// Why that is not to be seen.
pub fn listens(unit: &Unit, command: &[OsString], read: Read<'_>) -> Result<Listens, String> {
    let directory = unit.value("Service", "WorkingDirectory").trim_start_matches('-');
    let directory = Path::new(if directory.is_empty() { "/" } else { directory });
    let cannot = |why: String| format!("cannot tell where the server of {} listens: {why}", unit.name);
    let said = match &adapter::recognise(command).making {
        Making::Exec(exec) => by_plan(exec, command, unit, directory, read),
        Making::Template(python) if python.script == gunicorn::PYTHON.script => {
            by_gunicorn(command, &environment(unit), directory)
        }
        Making::Template(python) => by_options(python.script, command, unit, directory),
    };
    let said = said.map_err(cannot)?;
    let mut listens = Listens { streams: Vec::new(), mode: None, said: said.place };
    for address in &said.addresses {
        match address {
            Address::Unix(path) => {
                let path = said.directory.join(path);
                if !path.is_absolute() {
                    let within = said.directory.display();
                    return Err(cannot(format!("{} is relative to WorkingDirectory={within}", listens.said)));
                }
                listens.streams.push(path.display().to_string());
                listens.mode = Some(said.mode);
            }
            Address::Abstract(name) => listens.streams.push(format!("@{name}")),
            Address::Tcp(address) => listens.streams.push(address.to_string()),
        }
    }
    if listens.streams.iter().any(|stream| stream.contains(['$', '\n'])) {
        return Err(cannot(format!("{} holds a variable", listens.said)));
    }
    Ok(listens)
}

fn by_gunicorn(
    command: &[OsString],
    environment: &BTreeMap<OsString, OsString>,
    directory: &Path,
) -> Result<Said, String> {
    let invocation = gunicorn::PYTHON
        .invocation(command)
        .ok_or("sockd cannot tell by its options; write the socket unit by hand")?;
    let known = gunicorn::Known::read(invocation.arguments, environment);
    if known.bind.is_empty() {
        return Err("its command line has no --bind; write the socket unit by hand".to_owned());
    }
    let address = |bind: &String| match gunicorn::Known::address(bind) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(format!("--bind {bind} names a socket that it is given")),
        Err(why) => Err(format!("--bind {bind}: {why}")),
    };
    Ok(Said {
        addresses: known.bind.iter().map(address).collect::<Result<_, _>>()?,
        // gunicorn's umask is 0 unless it is told another.
        mode: 0o777 & !known.umask.unwrap_or(0),
        directory: directory.join(known.chdir.as_deref().unwrap_or_default()),
        place: format!("--bind {}", known.bind.join(" --bind ")),
    })
}

/// The permissions of a socket that is made under the service's own umask.
fn by_umask(unit: &Unit) -> Result<u32, String> {
    let said = unit.value("Service", "UMask");
    // systemd.exec(5): octal, 0022 if it is not said.
    let umask = if said.is_empty() { Ok(0o022) } else { u32::from_str_radix(said, 8) };
    umask.map(|umask| 0o777 & !umask).map_err(|_| format!("UMask={said} is no octal number"))
}

/// granian's are decimal, unless they begin with a 0.
fn permissions(text: &str) -> Option<u32> {
    u32::from_str_radix(text, if text.starts_with('0') { 8 } else { 10 }).ok()
}

/// The other Python servers: what the doctor reads of their command lines and variables.
fn by_options(script: &str, command: &[OsString], unit: &Unit, directory: &Path) -> Result<Said, String> {
    let exec_start: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    // hypercorn's is decimal.
    let umask = ["-m", "--umask"].iter().flat_map(|option| chain::values(&exec_start, option)).next_back();
    let variables = environment(unit).into_iter();
    let variables = variables.map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()));
    let mode = match (script, umask) {
        ("hypercorn", Some((option, value))) => {
            let umask: u32 = value.parse().map_err(|_| format!("{option} {value} is no number"))?;
            0o777 & !umask
        }
        ("granian", _) => match chain::values(&exec_start, "--uds-permissions").pop() {
            Some((option, value)) => permissions(&value).ok_or_else(|| format!("{option} {value} is no number"))?,
            None => by_umask(unit)?,
        },
        ("hypercorn", None) => by_umask(unit)?,
        // uvicorn and daphne open theirs to everybody.
        _ => 0o666,
    };
    let binds = chain::binds(&Details { environment: variables.collect(), exec_start, ..Details::default() });
    let address = |(option, text): &(String, String)| match gunicorn::Known::address(text) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(format!("{option} {text} names a socket that it is given")),
        Err(why) => Err(format!("{option} {text}: {why}")),
    };
    if binds.is_empty() {
        return Err(
            "its command line names no address that sockd understands; write the socket unit by hand".to_owned()
        );
    }
    Ok(Said {
        addresses: binds.iter().map(address).collect::<Result<_, _>>()?,
        mode,
        directory: directory.to_owned(),
        place: "its command line".to_owned(),
    })
}

fn by_plan(exec: &Exec, command: &[OsString], unit: &Unit, directory: &Path, read: Read<'_>) -> Result<Said, String> {
    let environment = environment(unit);
    let names = |directory: &Path| Err(format!("cannot tell which files are in {}", directory.display()));
    let told = Told { command, environment: &environment, directory, processors: 1, read, names: &names };
    let plan = (exec.plan)(&told)?;
    if plan.listen.is_empty() {
        return Err("its options name no address; write the socket unit by hand".to_owned());
    }
    Ok(Said {
        addresses: plan.listen,
        mode: plan.mode.map_or_else(|| by_umask(unit), Ok)?,
        directory: directory.to_owned(),
        place: "its own configuration".to_owned(),
    })
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
