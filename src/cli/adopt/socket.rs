//! The socket unit that a service lacks (the Flask guide): systemd holds open what the server has bound itself so far.
//!
//! Owns: where the server listens by its own options, and the socket unit that is the same to visitors.
//! Never: guesses. What only a Python file or a variable says is reported as unknown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::proposal::Draft;
use super::unit::{Unit, environment};
use crate::adapter::declared_sockets::{Bind, Mode};
use crate::adapter::exec::{Exec, ServerInputs};
use crate::adapter::python::Python;
use crate::adapter::{self, Making, gunicorn, shlex};
use crate::app::Address;
use crate::cli::file_text::{Line, unit as line};
use crate::systemd::Manager;
use line::Percent;

/// Gives the text of a file that a server's options name; an error names it.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listens {
    /// ListenStream= for each address.
    pub streams: Vec<Line>,
    /// The same addresses.
    pub addresses: Vec<Address>,
    /// The permissions of its unix sockets; `None`: there is none.
    pub mode: Option<u32>,
    /// Where that is said.
    pub said: String,
}

/// What a server's options are read with.
pub struct Surroundings<'a> {
    /// Whose server it is, for messages.
    pub name: &'a str,
    /// The working directory.
    pub directory: &'a Path,
    /// The umask, octal; empty: systemd's default.
    pub umask: &'a str,
    /// Its variables.
    pub environment: BTreeMap<OsString, OsString>,
    /// What a `%` of its command line means.
    pub percent: Percent,
    /// What is to be done where the options do not tell.
    pub remedy: &'static str,
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
    let around = Surroundings {
        name: &unit.name,
        directory: Path::new(if directory.is_empty() { "/" } else { directory }),
        umask: unit.value("Service", "UMask"),
        environment: environment(unit),
        percent: Percent::Specifier,
        remedy: "write the socket unit by hand",
    };
    listens_with(&around, command, read)
}

/// Where a server listens, by its command line and the files that it names, which `read` gives.
///
/// # Errors
/// Why that is not to be seen.
pub fn listens_with(around: &Surroundings<'_>, command: &[OsString], read: Read<'_>) -> Result<Listens, String> {
    let cannot = |why: String| format!("cannot tell where the server of {} listens: {why}", around.name);
    let (_, command) = &adapter::look_through(command);
    let said = match &adapter::recognise(command).making {
        Making::Exec(exec) => by_plan(exec, command, around, read),
        Making::Template(python) => by_options(python, command, around),
    };
    let said = said.map_err(cannot)?;
    let mut listens = Listens { streams: Vec::new(), addresses: Vec::new(), mode: None, said: said.place };
    for address in said.addresses {
        let percent = if around.percent == Percent::Letter { Percent::Letter } else { percent(&address, command) };
        let address = match address {
            Address::Unix(path) => {
                let within = said.directory.display();
                // Nobody puts anything in for the file's own `%`, and systemd does for the directory's.
                let both = path.is_relative() && percent == Percent::Letter && within.to_string().contains('%');
                let path = said.directory.join(&path);
                if !path.is_absolute() || both {
                    return Err(cannot(format!("{} is relative to WorkingDirectory={within}", listens.said)));
                }
                listens.mode = Some(said.mode);
                Address::Unix(path)
            }
            Address::Abstract(_) | Address::Tcp(_) => address,
        };
        if address.to_string().contains('$') {
            return Err(cannot(format!("{} holds a variable", listens.said)));
        }
        let stream = line::listen_stream(&address, percent);
        listens.streams.push(stream.map_err(|why| cannot(format!("{}: {why}", listens.said)))?);
        listens.addresses.push(address);
    }
    Ok(listens)
}

/// What a `%` means in an address: systemd puts something in for it on a unit's command line, and nowhere else.
fn percent(address: &Address, command: &[OsString]) -> Percent {
    let written = match address {
        Address::Unix(path) => path.to_string_lossy().into_owned(),
        Address::Abstract(name) => name.clone(),
        Address::Tcp(_) => return Percent::Letter,
    };
    let stands_there = || command.iter().any(|word| word.to_string_lossy().contains(&written));
    if !written.contains('%') || stands_there() { Percent::Specifier } else { Percent::Letter }
}

/// The permissions of a socket that is made under the service's own umask.
fn by_umask(umask: &str) -> Result<u32, String> {
    // systemd.exec(5): octal, 0022 if it is not said.
    let read = if umask.is_empty() { Ok(0o022) } else { u32::from_str_radix(umask, 8) };
    read.map(|umask| 0o777 & !umask).map_err(|_| format!("UMask={umask} is no octal number"))
}

fn by_options(python: &Python, command: &[OsString], around: &Surroundings<'_>) -> Result<Said, String> {
    let stated = python.stated(command, &around.environment);
    let stated = stated.ok_or_else(|| format!("sockd cannot tell by its options; {}", around.remedy))??;
    if stated.binds.is_empty() || stated.perhaps {
        return Err(format!("its command line has no {}; {}", python.bind_options, around.remedy));
    }
    let address = |Bind { address, written }: &Bind| match gunicorn::GunicornArgs::address(address) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(format!("{written} names a socket that it is given")),
        Err(why) => Err(format!("{written}: {why}")),
    };
    Ok(Said {
        addresses: stated.binds.iter().map(address).collect::<Result<_, _>>()?,
        mode: match stated.mode {
            Mode::Is(mode) => mode,
            Mode::ByUmask => by_umask(around.umask)?,
        },
        directory: around.directory.join(crate::app::text::to_os(&stated.directory.unwrap_or_default())),
        place: stated.binds.iter().map(|bind| bind.written.as_str()).collect::<Vec<_>>().join(" "),
    })
}

fn by_plan(exec: &Exec, command: &[OsString], around: &Surroundings<'_>, read: Read<'_>) -> Result<Said, String> {
    let Surroundings { directory, environment, remedy, .. } = around;
    let names = |directory: &Path| Err(format!("cannot tell which files are in {}", directory.display()));
    let inputs = ServerInputs { command, environment, directory, processors: 1, read, names: &names };
    let plan = (exec.plan)(&inputs)?;
    if plan.listen.is_empty() {
        return Err(format!("its options name no address; {remedy}"));
    }
    Ok(Said {
        addresses: plan.listen,
        mode: plan.mode.map_or_else(|| by_umask(around.umask), Ok)?,
        directory: (*directory).to_owned(),
        place: "its own configuration".to_owned(),
    })
}

/// The socket unit.
///
/// # Errors
/// A value of the unit that the socket unit cannot take over.
pub fn draft(unit: &Unit, path: &Path, manager: Manager, listens: &Listens) -> Result<Draft, String> {
    let mut draft = Draft::new(path, &manager.name_typed(&unit.name));
    let cannot = |why: String| format!("cannot write {}: {why}", path.display());
    draft.section("Unit");
    draft.set("", line::text("Description", &format!("Socket of {}", unit.name)).map_err(cannot)?, None);
    draft.section("Socket");
    let mut why = format!("What {} names.", listens.said);
    for stream in &listens.streams {
        draft.set(&std::mem::take(&mut why), stream.clone(), None);
    }
    if let Some(mode) = listens.mode {
        let mut why = "Owner and permissions as the server gave them to its socket.";
        for (key, own) in [("SocketUser", "User"), ("SocketGroup", "Group")] {
            let value = unit.value("Service", own);
            if shlex::split(value).is_ok_and(|words| words.len() > 1) {
                return Err(format!("{} has {own}={value}, which is no name", unit.name));
            }
            if !value.is_empty() {
                draft.set(std::mem::take(&mut why), line::setting(key, value).map_err(cannot)?, None);
            }
        }
        draft.set(why, line::mode("SocketMode", mode), None);
    }
    draft.set(
        "How many connections may wait; the kernel's net.core.somaxconn is the limit.",
        line::fixed("Backlog", "4096"),
        None,
    );
    if listens.mode.is_some() {
        let line = line::fixed("RemoveOnStop", "yes");
        draft.set("Safe because the service stops with its socket.", line, None);
    }
    draft.section("Install");
    draft.set("", line::fixed("WantedBy", "sockets.target"), None);
    Ok(draft)
}
