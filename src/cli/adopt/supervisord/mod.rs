//! A program of supervisord's is adopted: its section in, the files of an instance `sockd@NAME` out.
//!
//! On the command line it is `sockd adopt NAME` where systemd has no unit NAME, or `sockd adopt
//! /etc/supervisor/conf.d/NAME.conf`, a file with one program. supervisord's own files are read ([`ini`], [`layout`]),
//! its values expanded ([`expand`]) and its keys looked up in one table ([`program::KEYS`]): each is written, or named
//! with the reason. What the section says becomes
//! - `/etc/sockd/NAME.toml`: the command, the number of workers (numprocs), stop-timeout (stopwaitsecs);
//! - a drop-in for `sockd@NAME.service`: User=, WorkingDirectory=, UMask=, Environment=. A section that not everybody may
//!   read has its variables in a file for root alone, `/etc/sockd/NAME.env`: everybody may ask systemd for Environment=;
//! - a drop-in for `sockd@NAME.socket`: the addresses that the server's own options name.
//!
//! supervisord lets go of the program when its file is renamed to one that `[include]` does not match, and `supervisorctl
//! update NAME` is typed. Both stand in the one command that is printed for the switch, so that until then nothing has
//! changed for supervisord, whatever restarts; nothing is refused but what comes between its two halves. The file keeps
//! every byte; `adopt` and `--undo` find it under either name, and the undoing names it back. A file with more than this
//! program cannot be renamed: its owner moves the section into a file of its own first.
//!
//! Owns: the files, and the commands that are typed next.
//! Never: changes a file of supervisord's, or prints the value of a variable.

pub mod expand;
pub mod ini;
pub mod layout;
pub mod program;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file_owner::Writers;
use super::proposal::{Draft, Proposal};
use super::socket::{self, Listens, Read};
use crate::adapter::{self, declared_sockets};
use crate::cli::file_text::{toml, unit};
use crate::doctor::fix::quote;
use crate::systemd::Manager;
use layout::names;
use program::Program;
use unit::Percent;

/// What is shown in the place of a variable's value.
const NOT_SHOWN: &str = "(not shown)";

/// What is not in supervisord's files themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// What was named on the command line, one word for a shell.
    pub target: String,
    /// Who may write the files that say what runs.
    pub holder: Writers,
    /// Whether not everybody may read them.
    pub private: bool,
    /// Whether supervisord would read the program's file under its new name, too.
    pub still_read: bool,
}

/// The files of a program's instance: its configuration, its variables, and the drop-ins of its service and its socket.
pub fn paths(name: &str) -> [PathBuf; 4] {
    let unit = |kind: &str| PathBuf::from(format!("/etc/systemd/system/sockd@{name}.{kind}.d/sockd.conf"));
    let own = |end: &str| PathBuf::from(format!("/etc/sockd/{name}.{end}"));
    [own("toml"), own("env"), unit("service"), unit("socket")]
}

/// Whether a word can be the name of a program that becomes an instance: supervisord takes others, no unit does.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 64
}

/// What adopting the program comes to. `read` gives the text of a file that its server's options name.
///
/// # Errors
/// Why it cannot be adopted, and what to do about it.
pub fn propose(program: &Program, around: &Surroundings, read: Read<'_>) -> Result<Proposal, String> {
    let name = &program.name;
    if !is_name(name) {
        let file = program.file.display();
        return Err(format!("{file}: {name:?} is no name for a unit: letters, digits, `-`, `_` and `.`, 64 at most"));
    }
    let user = user(program, around)?;
    let listens = listens(program, around, read)?;
    let (kept, renamed) = names(&program.file);
    let moved = program.file == renamed;
    if !program.alone {
        return Err(format!(
            "{} has more than [program:{name}]: move that section into a file of its own among those that [include] \
             reads; `supervisorctl update` restarts nothing then",
            program.file.display()
        ));
    }
    if around.still_read {
        return Err(format!(
            "supervisord would go on reading {}: let files= of [include] end in .conf first",
            renamed.display()
        ));
    }
    let [toml, env, service, socket] = paths(name);
    let cannot = |key: &str, why: &str| format!("{}: [program:{name}]: {key}=: {why}", program.file.display());

    let mut configuration = Draft::new(toml, &around.target);
    let command = toml::list("command", &program.commands[0]);
    configuration.part().set("As command= says; the sockets come from systemd.", command, None);
    let workers = workers(program);
    if workers.is_some() || program.stop_seconds.is_some() {
        configuration.part().set("", toml::table("workers"), None);
    }
    if let Some(count) = workers {
        configuration.set("As numprocs= says: all of them serve every address.", toml::number("count", count), None);
    }
    if let Some(seconds) = program.stop_seconds {
        // sockd waits for ever at no time.
        let line = toml::text("stop-timeout", &format!("{}s", seconds.max(1)));
        configuration.set("As stopwaitsecs= says.", line, None);
    }

    let mut in_service = Draft::new(service, &around.target);
    in_service.section("Service");
    let line = unit::account("User", user).map_err(|why| cannot("user", &why))?;
    in_service.set("As user= says, with that user's own groups.", line, None);
    in_service.set("", unit::reset("Group"), None);
    if let Some(directory) = &program.directory {
        let cannot = |why: String| cannot("directory", &why);
        let directory = Path::new(directory);
        in_service.set("As directory= says.", unit::path("WorkingDirectory", directory).map_err(cannot)?, None);
        let why = "The sandbox lets it write nowhere else: SQLite and uploads are here.";
        in_service.set(why, unit::path_in_list("ReadWritePaths", directory, false).map_err(cannot)?, None);
    }
    in_service.set("The umask that it has under supervisord.", unit::mode("UMask", program.umask), None);
    let of_variable = |made: Result<_, String>| made.map_err(|why| cannot("environment", &why));
    let mut variables = None;
    if around.private && !program.variables.is_empty() {
        let mut draft = Draft::new(&env, &around.target);
        draft.for_root_alone().part();
        for (name, value) in &program.variables {
            let line = of_variable(unit::in_environment_file(name, value))?;
            draft.set_secret("", line, of_variable(unit::in_environment_file(name, NOT_SHOWN))?);
        }
        let line = unit::path("EnvironmentFile", &env).map_err(|why| cannot("environment", &why))?;
        in_service.set("As environment= says; not everybody may read that, and of this file root alone.", line, None);
        variables = Some(draft);
    } else {
        let mut why = "As environment= says.";
        for (name, value) in &program.variables {
            let line = of_variable(unit::environment(name, value))?;
            let shown = of_variable(unit::environment(name, NOT_SHOWN))?;
            in_service.set_secret(std::mem::take(&mut why), line, shown);
        }
    }

    Ok(Proposal {
        manager: Manager::System,
        write: format!("sockd adopt --write {}", around.target),
        files: [Some(configuration), variables, Some(in_service), Some(in_socket(socket, user, &listens, around)?)]
            .into_iter()
            .flatten()
            .collect(),
        notes: notes(program, workers),
        next: next(program, (&kept, &renamed), moved),
        name: around.target.clone(),
    })
}

fn in_socket(path: PathBuf, user: &str, listens: &[Listens], around: &Surroundings) -> Result<Draft, String> {
    let mut draft = Draft::new(path, &around.target);
    draft.section("Socket");
    draft.set(
        "Where Nginx looks for the site; the first line takes sockd@.socket's own path away.",
        unit::reset("ListenStream"),
        None,
    );
    let mut streams = Vec::new();
    for stream in listens.iter().flat_map(|listens| &listens.streams) {
        if !streams.contains(&stream) {
            streams.push(stream);
            draft.set("", stream.clone(), None);
        }
    }
    if let Some(mode) = listens.iter().find_map(|listens| listens.mode) {
        let why = "Owner and permissions as the server gave them to its socket.";
        draft.set(why, unit::account("SocketUser", user)?, None);
        draft.set("", unit::reset("SocketGroup"), None);
        draft.set("", unit::mode("SocketMode", mode), None);
    }
    Ok(draft)
}

/// Who the program runs as.
///
/// Root starts what root has written. The account that may write the file chooses the program, so that a file of a user's
/// runs as that user alone: otherwise root would have lent out somebody else's name.
fn user<'a>(program: &'a Program, around: &Surroundings) -> Result<&'a str, String> {
    let (user, value) = &program.user;
    let place = value.place();
    match &around.holder {
        Writers::Root => Ok(user),
        Writers::Others(what) => Err(format!(
            "{}: {what}: its writer would choose what runs, and as whom. Let root or one user alone write it",
            program.file.display()
        )),
        Writers::User(owner) if owner.is(user) => Ok(user),
        Writers::User(owner) => Err(format!(
            "{place}: user={user}: {0} may write the file, and its writer chooses the program: adopt lets it run as {0} \
             alone; if this is meant, make the file and its directories root's first",
            owner.name
        )),
    }
}

/// Where the processes listen, one after the other.
fn listens(program: &Program, around: &Surroundings, read: Read<'_>) -> Result<Vec<Listens>, String> {
    let environment = program.variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let umask = format!("{:04o}", program.umask);
    let name = format!("[program:{}]", program.name);
    let with = socket::Surroundings {
        name: &name,
        directory: Path::new(program.directory.as_deref().unwrap_or("/")),
        umask: &umask,
        environment,
        percent: Percent::Letter,
        remedy: "write it into command= first",
    };
    let mut found = Vec::new();
    for words in &program.commands {
        let command = command(words);
        let known = !adapter::is_unknown(adapter::recognise(&adapter::look_through(&command).1));
        if let Some(server) = adapter::hidden_server(&command).filter(|_| !known) {
            return Err(format!(
                "{}: [program:{}]: {} starts {server}, and sockd does not look through it: let command= be {server}'s own \
                 line, with its variables in environment=",
                program.file.display(),
                program.name,
                words[0]
            ));
        }
        let listens = socket::listens_with(&with, &command, read)?;
        for address in &listens.addresses {
            around.holder.may_listen(address).map_err(|why| format!("{}: {address}: {why}", program.file.display()))?;
        }
        found.push(listens);
    }
    if found.iter().any(|listens: &Listens| listens.mode != found[0].mode) {
        return Err(format!("{name}: its processes give their sockets different permissions: write out one for all"));
    }
    Ok(found)
}

/// The words of a command.
pub fn command(words: &[String]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// How many workers take the place of several processes.
fn workers(program: &Program) -> Option<u32> {
    let processes = u32::try_from(program.commands.len()).ok().filter(|count| *count > 1)?;
    let option = declared_sockets::values(program.commands[0].iter(), &["--workers", "-w"]).pop();
    let variable =
        || program.variables.iter().find(|(name, _)| name == "WEB_CONCURRENCY").map(|(_, value)| value.clone());
    let own = option.or_else(variable).and_then(|count| count.parse().ok()).unwrap_or(1);
    Some(processes.saturating_mul(own).clamp(1, 4096))
}

fn notes(program: &Program, workers: Option<u32>) -> Vec<String> {
    let mut notes = program.gone.clone();
    if let Some(workers) = workers {
        let processes = program.commands.len();
        notes.push(format!(
            "{processes} processes become {workers} workers of the first one's command, each of which serves every address"
        ));
    }
    let place = match &program.directory {
        Some(directory) => format!("in {directory} alone"),
        None => "nowhere, as there is no directory=".to_owned(),
    };
    notes.push(format!(
        "sockd@.service's sandbox lets it write {place}, and its /tmp is its own: a log file or an upload elsewhere needs \
         ReadWritePaths= by `systemctl edit sockd@{}`",
        program.name
    ));
    if program.user.0 == "root" || program.user.0 == "0" {
        notes.push(format!(
            "{}: user={}: the sandbox takes root's rights away",
            program.user.1.place(),
            program.user.0
        ));
    }
    notes
}

fn next(program: &Program, (kept, renamed): (&Path, &Path), moved: bool) -> Vec<(String, String)> {
    let name = &program.name;
    let step = |command: String, what: &str| (command, what.to_owned());
    let listen = match program.autostart {
        true => format!("systemctl enable --now sockd@{name}.socket"),
        // It did not start with the machine, and does not now.
        false => format!("systemctl start sockd@{name}.socket"),
    };
    let switch = match moved {
        true => step(listen, "listens; the first visitor starts the site"),
        false => {
            let (kept, renamed) = (word(kept), word(renamed));
            let command = format!("mv {kept} {renamed} && supervisorctl update {name} && {listen}");
            step(command, "takes it from supervisord; visitors are refused for a moment, the last time")
        }
    };
    vec![
        switch,
        step(format!("sockd status sockd@{name}"), "shows the workers"),
        step(format!("systemctl reload sockd@{name}"), "takes the place of supervisorctl restart"),
    ]
}

/// What is typed when the files of the instance are gone, and what it does.
pub fn give_back(name: &str, file: Option<&Path>) -> (String, String) {
    match file.map(|file| (file, names(file))) {
        Some((file, (kept, renamed))) if file == renamed => {
            let command = format!("mv {} {} && supervisorctl update {name}", word(&renamed), word(&kept));
            (command, "lets supervisord run it again".to_owned())
        }
        Some(_) | None => {
            let all = quote(&format!("{name}:*"));
            (format!("supervisorctl status {all}"), "shows whether supervisord runs it".to_owned())
        }
    }
}

fn word(path: &Path) -> String {
    quote(&path.display().to_string())
}
