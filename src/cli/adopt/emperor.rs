//! A site of uWSGI's Emperor is adopted: its .ini in, the files of an instance `sockd@NAME` out.
//!
//! Owns: what of the .ini belongs to systemd (user, directory, socket with its permissions), and the three files.
//! Never: changes the .ini, which sockd's uWSGI goes on reading, or guesses what a condition in it comes to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::file_owner::Writers;
use super::proposal::{Draft, Proposal};
use super::socket::Read;
use crate::adapter::declared_sockets::values;
use crate::adapter::uwsgi::ini::{self, Line, Section};
use crate::adapter::{self, uwsgi};
use crate::app::Address;
use crate::cli::file_text::{toml, unit};
use crate::doctor::fix::quote;
use crate::printable::is_command;
use crate::systemd::Manager;
use unit::Percent;

/// What is not in the .ini itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The program, as `/usr/local/bin/uwsgi`.
    pub uwsgi: String,
    /// The unit that runs the Emperor, if one was found.
    pub emperor: Option<String>,
    /// Who may write the .ini.
    pub holder: Writers,
}

/// The files of a site's instance: its configuration, and the drop-ins of its service and its socket.
pub fn paths(name: &str) -> [PathBuf; 3] {
    let unit = |kind: &str| PathBuf::from(format!("/etc/systemd/system/sockd@{name}.{kind}.d/sockd.conf"));
    [PathBuf::from(format!("/etc/sockd/{name}.toml")), unit("service"), unit("socket")]
}

/// Where an Emperor looks for its sites, by its command line and the .ini files that it names; nothing for any other
/// command.
pub fn directories(command: &[OsString], read: Read<'_>) -> Vec<String> {
    if adapter::recognise(command).conventions.name != uwsgi::ADAPTER.conventions.name {
        return Vec::new();
    }
    let words = || command.iter().map(|word| word.to_string_lossy());
    let mut found = values(words(), &["--emperor"]);
    for file in values(words(), &["--ini", "-i"]) {
        let path = Path::new(&file);
        let text = read(path).unwrap_or_default();
        found.extend(Section::read(path, &text).values(&["emperor"]).filter_map(Result::ok));
    }
    found
}

/// The name of a site's instance: its file's, without the end.
///
/// # Errors
/// A name that no unit can have.
pub fn name(ini: &Path) -> Result<String, String> {
    let name = ini.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    match name.chars().all(plain) && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 64 {
        true => Ok(name),
        false => Err(format!("{name:?} is no name for a unit: letters, digits, `-`, `_`, `.` and `:`, 64 at most")),
    }
}

/// What adopting the site comes to. `ini` is an absolute path.
///
/// # Errors
/// Why it cannot be adopted, and what to do about it.
pub fn propose(ini: &Path, text: &str, around: &Surroundings) -> Result<Proposal, String> {
    let name = name(ini)?;
    let target = ini.to_str().filter(|path| !path.chars().any(is_command));
    let target = target.ok_or_else(|| format!("{ini:?} cannot stand in a file: rename it, or its directory"))?;
    let site = Site::read(ini, text)?;
    let sockets = site.sockets(&around.holder)?;
    let (mode, owner) = (site.mode()?, site.value("chown-socket")?);
    let account = site.account(&around.holder)?;
    let [toml, service, socket] = paths(&name);
    let target = quote(target);

    let mut configuration = Draft::new(toml, &target);
    let command = toml::list("command", [around.uwsgi.as_str(), "--ini", &ini.to_string_lossy()]);
    configuration.part().set("uWSGI goes on reading its own file.", command, None);

    let mut in_service = Draft::new(service, &target);
    in_service.section("Service");
    let mut why = account.why;
    for (key, option, value) in [("User", "uid", &account.user), ("Group", "gid", &account.group)] {
        if let Some(value) = value {
            let line = unit::account(key, value).map_err(|why| site.cannot(option, &why))?;
            in_service.set(std::mem::take(&mut why), line, None);
        }
    }
    if let Some(directory) = site.value("chdir")? {
        let directory = Path::new(&directory);
        let cannot = |why: String| site.cannot("chdir", &why);
        let line = unit::path("WorkingDirectory", directory).map_err(cannot)?;
        in_service.set("As chdir= says.", line, None);
        let why = "The sandbox lets it write nowhere else: SQLite and uploads are here.";
        in_service.set(why, unit::path_in_list("ReadWritePaths", directory, false).map_err(cannot)?, None);
    }

    let mut in_socket = Draft::new(socket, &target);
    in_socket.section("Socket");
    in_socket.set(
        "Where Nginx looks for the site; the first line takes sockd@.socket's own path away.",
        unit::reset("ListenStream"),
        None,
    );
    for address in &sockets {
        let line = unit::listen_stream(address, Percent::Letter);
        in_socket.set("", line.map_err(|why| format!("{}: socket = {address}: {why}", ini.display()))?, None);
    }
    if let Some(owner) = &owner {
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let mut why = "As chown-socket= says.";
        for (key, value) in [("SocketUser", user), ("SocketGroup", group)] {
            if !value.is_empty() {
                let line = unit::account(key, value).map_err(|why| site.cannot("chown-socket", &why))?;
                in_socket.set(std::mem::take(&mut why), line, None);
            }
        }
    }
    if let Some(mode) = mode {
        in_socket.set("As chmod-socket= says.", unit::mode("SocketMode", mode), None);
    }

    Ok(Proposal {
        manager: Manager::System,
        write: format!("sockd adopt --write {target}"),
        files: vec![configuration, in_service, in_socket],
        notes: account.notes.into_iter().chain(site.notes(owner.is_some(), mode.is_some())).collect(),
        next: next(&name, around),
        name: target,
    })
}

fn next(name: &str, around: &Surroundings) -> Vec<(String, String)> {
    let step = |command: String, what: &str| (command, what.to_owned());
    let emperor = around.emperor.as_deref().unwrap_or("uwsgi.service");
    vec![
        step(
            format!("systemctl disable --now {emperor}"),
            "ends the Emperor and all its sites: adopt the others before",
        ),
        step(format!("systemctl enable --now sockd@{name}.socket"), "listens; the first visitor starts the site"),
        step(format!("sockd status sockd@{name}"), "shows the workers"),
    ]
}

/// The first account that the .ini names and that is not here: systemd would start neither the service nor the socket.
/// `exists` is asked for a database of getent(1) and a name.
///
/// # Errors
/// The line that names it.
pub fn accounts_exist(ini: &Path, text: &str, exists: impl Fn(&str, &str) -> bool) -> Result<(), String> {
    let site = Site::read(ini, text)?;
    for (option, databases) in [("uid", ["passwd", ""]), ("gid", ["group", ""]), ("chown-socket", ["passwd", "group"])]
    {
        let value = site.value(option)?.unwrap_or_default();
        for (name, database) in value.split(':').zip(databases) {
            let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number && !exists(database, name) {
                let what = if database == "group" { "group" } else { "user" };
                let why = format!("there is no {what} {name} here: make it first, or correct this line");
                return Err(site.cannot(option, &why));
            }
        }
    }
    Ok(())
}

/// Who a site runs as. Of what is `None`, sockd@.service decides.
struct Account {
    user: Option<String>,
    group: Option<String>,
    why: &'static str,
    notes: Vec<String>,
}

/// What an .ini says.
struct Site<'a> {
    ini: &'a Path,
    section: Section<'a>,
}

impl<'a> Site<'a> {
    /// Reads the section [uwsgi].
    fn read(ini: &'a Path, text: &'a str) -> Result<Self, String> {
        let section = Section::read(ini, text);
        if section.lines().is_empty() {
            return Err(format!("{} has no section [uwsgi]", ini.display()));
        }
        let condition = section.lines().iter().find(|line| {
            let key = line.key.replace('_', "-");
            key.starts_with("if-") || matches!(key.as_str(), "for" | "for-glob" | "for-times")
        });
        match condition {
            Some(line) => {
                let (ini, number, key) = (ini.display(), line.number, line.key);
                Err(format!("{ini}:{number}: what {key} comes to is uWSGI's to say: write it out first"))
            }
            None => Ok(Self { ini, section }),
        }
    }

    /// The last value of an option.
    fn value(&self, option: &str) -> Result<Option<String>, String> {
        self.section.values(&[option]).last().transpose()
    }

    /// Why the value of an option is refused, with its place.
    fn cannot(&self, option: &str, why: &str) -> String {
        let line = self.section.lines().iter().rfind(|line| line.key.replace('_', "-") == option);
        match line {
            Some(Line { number, key, value }) => format!("{}:{number}: {key} = {value}: {why}", self.ini.display()),
            None => format!("{}: {option}: {why}", self.ini.display()),
        }
    }

    /// Who the site runs as.
    ///
    /// Root starts what root has written. The account that may write the file chooses the program, so that a file of a
    /// user's runs as that user, whatever it says: otherwise root would have lent out somebody else's name.
    fn account(&self, holder: &Writers) -> Result<Account, String> {
        let (user, group) = (self.value("uid")?, self.value("gid")?);
        let mut notes = Vec::new();
        let owner = match holder {
            Writers::Root => {
                if user.is_none() {
                    notes.push("there is no uid =: the site runs as www-data, which sockd@.service names".to_owned());
                }
                let why = "As uid= and gid= say; where one is missing, sockd@.service's www-data holds.";
                return Ok(Account { user, group, why, notes });
            }
            Writers::Others(what) => {
                return Err(format!(
                    "{}: {what}: its writer would choose what runs, and as whom. Let root or one user alone write it",
                    self.ini.display()
                ));
            }
            Writers::User(owner) => owner,
        };
        let remedy = format!(
            "the file is {0}'s, and its writer chooses the program: adopt lets it run as {0} alone; if this is \
             meant, make the file and its directories root's first",
            owner.name
        );
        if user.as_ref().is_some_and(|user| !owner.is(user)) {
            return Err(self.cannot("uid", &remedy));
        }
        if group.as_ref().is_some_and(|group| !owner.is_in(group)) {
            return Err(self.cannot("gid", &format!("{} is not in that group; {remedy}", owner.name)));
        }
        if user.is_none() {
            notes.push(format!("there is no uid =, and the file is {0}'s: the site runs as {0}", owner.name));
        }
        let why = "The .ini is this user's, who may write into it what runs.";
        let (user, group) = (Some(owner.name.clone()), group.or_else(|| Some(owner.group.clone())));
        Ok(Account { user, group, why, notes })
    }

    /// Where the site listens.
    fn sockets(&self, holder: &Writers) -> Result<Vec<Address>, String> {
        let ini = self.ini.display();
        let options = [ini::UWSGI_SOCKETS, ini::HTTP_SOCKETS].concat();
        let values = self.section.values(&options).collect::<Result<Vec<_>, _>>()?;
        if values.is_empty() {
            return Err(match self.value("http")? {
                Some(http) => format!("{ini}: http = {http} is a proxy of uWSGI's own: write http-socket in its place"),
                None => format!("{ini} has no socket ="),
            });
        }
        let mut addresses = Vec::new();
        for written in values {
            let text = if written.contains('/') && !written.starts_with('/') {
                return Err(format!("{ini}: socket = {written} is no absolute path: write one"));
            } else if written.contains(['/', ':']) {
                written.clone()
            } else {
                return Err(format!("{ini}: socket = {written} is neither a path nor an address with a port"));
            };
            let address: Address = text.parse().map_err(|why| format!("{ini}: socket = {why}"))?;
            holder.may_listen(&address).map_err(|why| format!("{ini}: socket = {written}: {why}"))?;
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// The permissions of the socket, octal as uWSGI takes them.
    fn mode(&self) -> Result<Option<u32>, String> {
        match self.value("chmod-socket")?.as_deref() {
            None => Ok(None),
            // Without a number it is for everybody.
            Some("") => Ok(Some(0o666)),
            Some(text) => match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o777 => Ok(Some(mode)),
                Ok(_) | Err(_) => {
                    Err(format!("{}: chmod-socket = {text} is no octal number to 777", self.ini.display()))
                }
            },
        }
    }

    fn notes(&self, owner: bool, mode: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if !owner && !mode {
            notes.push(
                "neither chown-socket nor chmod-socket: the socket is for the group www-data, as sockd@.socket says"
                    .to_owned(),
            );
        }
        for (key, why) in [
            ("daemonize", "sockd's workers stay in the foreground, and what they print is in the journal: take it out"),
            ("logto", "the sandbox may forbid that file; without it, the lines are in the journal"),
            ("pidfile", "the sandbox may forbid that file, and systemd needs none: take it out"),
        ] {
            if let Some(line) = self.section.lines().iter().find(|line| line.key == key) {
                let said = if line.value.is_empty() { key.to_owned() } else { format!("{key} = {}", line.value) };
                notes.push(format!("{}:{}: {said}: {why}", self.ini.display(), line.number));
            }
        }
        notes
    }
}
