//! `sockd adopt`: a service that runs its server itself is run by sockd, by one drop-in that can be taken away again. What
//! uWSGI's Emperor or supervisord runs becomes an instance of sockd's own.
//!
//! Owns: the order of things: find, propose, show or write or undo, and let systemd read its units again.
//! Never: changes a file that it has not written itself, or restarts anything: when visitors may wait is the owner's to
//! say. (A site of an Emperor's or of supervisord's that is given back is stopped: see `undo`.)

pub mod emperor;
pub mod file_owner;
mod find;
pub mod overridden;
pub mod proposal;
pub mod service;
mod socket;
pub mod supervisord;
pub mod unit;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap_complete::ArgValueCompleter;

use super::whose::Whose;
use super::{atomic_files, check, complete, next_step, output};
use crate::doctor::fix::quote;
use crate::printable::is_command;
use crate::systemd::{Manager, show};
use crate::{cgroup, exit};
use atomic_files::Found;
use proposal::{Done, MARK, Proposal};
use service::Surroundings;
use supervisord::layout::Layout;
use supervisord::program::Program;

/// The options of `adopt`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sockd adopt gunicorn.service           show what would be written, and why\n  \
                  sudo sockd adopt --write gunicorn.service\n  sudo sockd adopt --undo gunicorn.service\n  \
                  sockd adopt --socket myproject.service with a socket unit, where there is none\n  \
                  sockd adopt /etc/uwsgi/sites/firstsite.ini   a site of uWSGI's Emperor: sockd@firstsite\n  \
                  sockd adopt shop                       a program of supervisord's, where there is no shop.service\n  \
                  sockd adopt /etc/supervisor/conf.d/shop.conf   the same: sockd@shop\n\n\
                  A service that has the prefix `sockd run --` already gets the other lines.\n\
                  Nothing is restarted: the last lines of the output say what to type next.")]
pub struct Arguments {
    /// A service, an .ini of uWSGI's Emperor, or a program or .conf of supervisord's
    #[arg(value_name = "UNIT or FILE", add = ArgValueCompleter::new(complete::adoptable_or_file))]
    target: Option<String>,
    #[command(flatten)]
    pub(super) whose: Whose,
    /// Write the files, and let systemd read its units again
    #[arg(long, conflicts_with = "undo")]
    write: bool,
    /// Remove what an earlier --write has written
    #[arg(long)]
    undo: bool,
    /// Make a socket unit, too, that takes the place of the server's own --bind
    #[arg(long, conflicts_with = "undo")]
    socket: bool,
}

/// Runs the subcommand: 0 when it is shown, written or undone, 1 when it cannot be.
pub fn run(arguments: &Arguments) -> ExitCode {
    let Some(target) = &arguments.target else {
        output::complain(&format!("name what is to be adopted; {}", next_step::adopt()));
        return ExitCode::from(exit::USAGE);
    };
    let done = if arguments.undo { undo(target, arguments.whose) } else { adopt(target, arguments) };
    match done.and_then(|text| output::print(&text).map_err(|error| format!("cannot write to stdout: {error}"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&why);
            ExitCode::from(exit::FAILURE)
        }
    }
}

fn adopt(target: &str, arguments: &Arguments) -> Result<String, String> {
    let (mut proposal, unit) = propose(target, arguments)?;
    let files: Vec<_> = proposal.files.iter().map(proposal::Draft::file).collect();
    let mut same = true;
    for draft in &proposal.files {
        match atomic_files::find(&draft.path, MARK)? {
            atomic_files::Found::Foreign => return Err(not_ours(&draft.path)),
            atomic_files::Found::Ours(text) => same &= text == draft.text().as_str(),
            atomic_files::Found::Nothing => same = false,
        }
    }
    if let Some(unit) = &unit {
        proposal.notes.extend(judged(unit)?);
    }
    if let Err(why) = cgroup::check_kernel() {
        let lost = "what a worker starts does not end with it, and memory-max has no effect";
        proposal.notes.push(format!("workers will have no control groups of their own, because {why}: {lost}"));
    }
    let done = match (same, arguments.write) {
        (false, false) => Done::Shown,
        (true, false) => Done::Before,
        (_, true) => {
            atomic_files::write_all(&files, Some(MARK)).map_err(as_root)?;
            reload_manager(proposal.manager)?;
            if same { Done::Before } else { Done::Written }
        }
    };
    Ok(proposal.render(done, is_root(), output::colour_wanted()))
}

/// What would be written, and the unit that it is for; None for a site of uWSGI's.
fn propose(target: &str, arguments: &Arguments) -> Result<(Proposal, Option<unit::Unit>), String> {
    if is_site(target) {
        let ini = std::path::absolute(target).map_err(|error| format!("cannot tell where {target} is: {error}"))?;
        let (text, holder) = find::site(&ini)?;
        let proposal = emperor::propose(&ini, &text, &find::around_uwsgi(holder))?;
        emperor::accounts_exist(&ini, &text, find::account_exists)?;
        return Ok((proposal, None));
    }
    if let Some((layout, program)) = program_of(target, arguments.whose)? {
        return Ok((of_supervisord(target, &layout, &program, arguments.whose)?, None));
    }
    let sockd = std::env::current_exe().map_err(|error| format!("cannot tell where sockd is: {error}"))?;
    let name = arguments.whose.unit(&find::name(target)?);
    let found = find::find(&name)?;
    // A socket that an earlier run has written is taken for missing: it belongs to what is proposed.
    let manager = name.manager();
    let ours = service::socket_path(&found.unit.name, manager);
    let adopted = matches!(atomic_files::find(&ours, MARK)?, Found::Ours(_));
    let sockets = if adopted { Vec::new() } else { found.sockets };
    let directory = Path::new(found.unit.value("Service", "WorkingDirectory"));
    let around = Surroundings {
        sockd,
        sockets,
        socket_wanted: arguments.socket || adopted,
        manager,
        systemd: show::version(),
        linked_directory: std::fs::canonicalize(directory).is_ok_and(|real| real != directory),
        state_is_read_only: manager == Manager::System && is_read_only(Path::new("/var/lib")),
    };
    let proposal = service::propose(&found.unit, &around, &find::read)?;
    Ok((proposal, Some(found.unit)))
}

/// supervisord's files and the program of its that a target means, by the file or, where systemd has no unit of that name,
/// by the name alone.
fn program_of(target: &str, whose: Whose) -> Result<Option<(Layout, String)>, String> {
    let host = host();
    if target.ends_with(".conf") {
        let file = std::path::absolute(target).map_err(|error| format!("cannot tell where {target} is: {error}"))?;
        let layout =
            Layout::read(&host)?.ok_or_else(|| format!("{target}: there is no supervisord here to read it"))?;
        return match layout.programs(&file)[..] {
            [program] => Ok(Some((layout.clone(), program.to_owned()))),
            [] => Err(format!("{target}: supervisord reads no [program:NAME] there")),
            ref many => {
                let commands: String = many.iter().map(|name| format!("\n  sockd adopt {}", quote(name))).collect();
                Err(format!("{target} has several programs: name one{commands}"))
            }
        };
    }
    if !supervisord::is_name(target) {
        return Ok(None);
    }
    // An instance that an earlier run has made is no unit of that name.
    let unit = find::name(target)?;
    if unit.instance() != Some(target) && find::exists(&whose.unit(&unit))? {
        return Ok(None);
    }
    Ok(Layout::read(&host)?.filter(|layout| layout.knows(target)).map(|layout| (layout, target.to_owned())))
}

/// Whether its file system can only be read.
fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The name of this machine.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn of_supervisord(target: &str, layout: &Layout, name: &str, whose: Whose) -> Result<Proposal, String> {
    let program = Program::read(&layout.configuration, name, &host())?;
    let source = layout.source(&program.file).ok_or_else(|| format!("supervisord has no file of {name}'s"))?;
    // By the name, however it was found, unless that is a unit's.
    let by_name = program_of(name, whose)?.is_some();
    let target = if by_name { name.into() } else { std::path::absolute(target).unwrap_or_default() };
    let target = target.to_str().filter(|path| !path.chars().any(is_command));
    let around = supervisord::Surroundings {
        target: quote(target.ok_or("the path of the file cannot stand in a file: rename it, or its directory")?),
        holder: source.writers,
        private: source.private,
        still_read: source.still_read,
    };
    let mut proposal = supervisord::propose(&program, &around, &find::read)?;
    let (user, place) = &program.user;
    let is_number = user.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number && !find::account_exists("passwd", user) {
        return Err(format!("{}: user={user}: there is no user {user} here: make it first", place.place()));
    }
    let directory = Path::new(program.directory.as_deref().unwrap_or("/"));
    let variables = program.variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let problems = check::of_instance(user, directory, variables, supervisord::command(&program.commands[0]));
    let lines: Vec<String> = problems.lines().collect();
    if problems.has_errors() {
        return Err(format!("{name} is not adopted, because sockd could not run it:\n  {}", lines.join("\n  ")));
    }
    proposal.notes.extend(lines);
    Ok(proposal)
}

/// What `check` says of the unit's command before anything is written: warnings.
///
/// # Errors
/// What sockd could not run.
fn judged(unit: &unit::Unit) -> Result<Vec<String>, String> {
    let name = &unit.name;
    let command = service::command(unit)?;
    let sites = find::sites(&emperor::directories(&command, &find::read));
    if !sites.is_empty() {
        let commands: String = sites.iter().map(|site| format!("\n  sudo sockd adopt {}", quote(site))).collect();
        return Err(format!(
            "{name} runs uWSGI's Emperor: each of its sites becomes an instance of sockd's own{commands}"
        ));
    }
    // What systemd puts in is not known here; nor does a template have a user or a directory.
    let open = |word: &OsString| word.to_string_lossy().replace("%%", "").contains(['%', '$']);
    if name.contains("@.") || command.iter().any(open) {
        return Ok(Vec::new());
    }
    let literal = |word: OsString| match word.to_str() {
        Some(text) => text.replace("%%", "%").into(),
        None => word,
    };
    let problems = check::of_command(name, command.into_iter().map(literal).collect());
    let lines: Vec<String> = problems.lines().collect();
    match problems.has_errors() {
        true => Err(format!("{name} is not adopted, because sockd could not run it:\n  {}", lines.join("\n  "))),
        false => Ok(lines),
    }
}

/// Whether a target is a uWSGI site's file and no unit.
fn is_site(target: &str) -> bool {
    target.ends_with(".ini")
}

/// Takes back what was written. Nothing there to take back is no error: that is what was wanted.
fn undo(target: &str, whose: Whose) -> Result<String, String> {
    let mut site = is_site(target);
    let mut manager = Manager::System;
    let mut ours: Vec<PathBuf> = Vec::new();
    let what = "brings the server back as it was".to_owned();
    let program = if site { None } else { program_of(target, whose)? };
    // Also one of a supervisord that is gone meanwhile.
    let program = match program {
        None if !site && was_program(target)? => Some((Layout::default(), target.to_owned())),
        program => program,
    };
    let (written, socket, (restart, what)) = if let Some((layout, name)) = program {
        site = true;
        let socket = format!("sockd@{name}.socket");
        let written = supervisord::paths(&name).to_vec();
        (written, Some(socket), supervisord::give_back(&name, layout.file(&name)))
    } else if site {
        let name = emperor::name(Path::new(target))?;
        let emperor = find::emperor().unwrap_or_else(|| "uwsgi.service".to_owned());
        let socket = format!("sockd@{name}.socket");
        (emperor::paths(&name).to_vec(), Some(socket), (format!("systemctl enable --now {emperor}"), what))
    } else {
        let unit = whose.unit(&find::name(target)?);
        manager = unit.manager();
        let name = unit.to_string();
        let socket = service::socket_path(&name, manager);
        let mut written = vec![service::drop_in_path(&name, manager)];
        // A socket unit of its own is what most services have.
        let with_socket = matches!(atomic_files::find(&socket, MARK)?, Found::Ours(_));
        written.extend(with_socket.then(|| socket.clone()));
        let all = if name.ends_with("@.service") { format!("'{}'", name.replace("@.", "@*.")) } else { name };
        let socket = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (written, with_socket.then_some(socket), (format!("{} restart {all}", manager.systemctl()), what))
    };
    for path in written {
        match atomic_files::find(&path, MARK).map_err(as_root)? {
            Found::Ours(_) => ours.push(path),
            Found::Foreign => return Err(not_ours(&path)),
            Found::Nothing => {}
        }
    }
    if ours.is_empty() {
        return Ok(format!("{target} is not adopted: there is nothing to undo\n"));
    }
    let mut text = String::new();
    let sudo = if is_root() || manager == Manager::User { "" } else { "sudo " };
    let mut stop = String::new();
    match &socket {
        Some(socket) if site => {
            // Without its drop-in the socket unit means another path: systemd would close the socket and leave its
            // path behind. And the Emperor wants the path for itself.
            systemctl(manager, &["disable", "--now", socket]).map_err(as_root)?;
            text.push_str(&format!("stopped {socket} and its service\n"));
        }
        Some(socket) => {
            // Its link in sockets.target.wants would dangle.
            systemctl(manager, &["disable", socket]).map_err(as_root)?;
            stop = format!("{sudo}{} stop {socket} && ", manager.systemctl());
        }
        None => {}
    }
    atomic_files::remove_all(ours.iter().map(PathBuf::as_path)).map_err(as_root)?;
    reload_manager(manager)?;
    text.extend(ours.iter().map(|path| format!("removed {}\n", path.display())));
    text.push_str("systemd has read its units again.\n\nNext:\n");
    let restart = restart.replace("&& ", &format!("&& {sudo}"));
    text.push_str(&format!("  {stop}{sudo}{restart}  {what}\n"));
    Ok(text)
}

/// Whether a name is that of an instance which an earlier run has made of a program of supervisord's.
fn was_program(target: &str) -> Result<bool, String> {
    if !supervisord::is_name(target) || find::name(target)?.instance() != Some(target) {
        return Ok(false);
    }
    let [configuration, ..] = supervisord::paths(target);
    let head = format!("{MARK} {target}`;");
    Ok(matches!(atomic_files::find(&configuration, MARK)?, Found::Ours(text) if text.starts_with(&head)))
}

pub(super) fn not_ours(path: &Path) -> String {
    format!("{} is not of sockd's making: move it away first", path.display())
}

/// The advice for those who may not write.
pub(super) fn as_root(why: String) -> String {
    if is_root() { why } else { format!("{why}; try it with sudo") }
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Lets systemd read its units again.
pub(super) fn reload_manager(manager: Manager) -> Result<(), String> {
    systemctl(manager, &["daemon-reload"])
}

pub(super) fn systemctl(manager: Manager, arguments: &[&str]) -> Result<(), String> {
    match show::output("systemctl", &[&[manager.option()], arguments].concat())? {
        (true, _) => Ok(()),
        (false, said) => Err(format!("systemctl {}: {}", arguments.join(" "), said.trim_end())),
    }
}
