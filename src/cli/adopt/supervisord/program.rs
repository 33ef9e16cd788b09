//! A program of supervisord's: what its section says, with every value expanded.
//!
//! Owns: which of supervisord's keys there are and what becomes of each ([`KEYS`]).
//! Never: decides what is written, or shows the value of a variable.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::expand::{self, Known};
use super::ini::{Configuration, Section, Value};
use crate::adapter::shlex;

/// So many processes of one program are looked at.
const MAX_PROCESSES: u32 = 64;
/// supervisord's own umask where nobody says one.
const UMASK: u32 = 0o022;

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It stands in one of the files that are written.
    Written,
    /// What it is for is done in another way, or by nobody: why, for the one who reads it.
    Gone(&'static str),
}

const RESTARTS: Use = Use::Gone("sockd itself restarts workers, always, and says how often");
const STOPS: Use = Use::Gone(
    "sockd sends each server the signal at which it finishes its requests, and systemd ends what is left of the group",
);
const LOGS: Use = Use::Gone("what the program prints is in the journal: sockd logs, or journalctl");
const EVENTS: Use = Use::Gone("supervisord's event listeners hear nothing more of this program");

/// The keys of `[program:x]`, as supervisor 4.3 reads them (`_processes_from_section`).
pub const KEYS: [(&str, Use); 34] = [
    ("command", Use::Written),
    ("directory", Use::Written),
    ("user", Use::Written),
    ("umask", Use::Written),
    ("environment", Use::Written),
    ("numprocs", Use::Written),
    ("numprocs_start", Use::Written),
    ("process_name", Use::Written),
    ("stopwaitsecs", Use::Written),
    ("autostart", Use::Written),
    ("autorestart", RESTARTS),
    ("startsecs", RESTARTS),
    ("startretries", RESTARTS),
    ("exitcodes", RESTARTS),
    ("stopsignal", STOPS),
    ("stopasgroup", STOPS),
    ("killasgroup", STOPS),
    ("redirect_stderr", LOGS),
    ("stdout_logfile", LOGS),
    ("stdout_logfile_maxbytes", LOGS),
    ("stdout_logfile_backups", LOGS),
    ("stdout_syslog", LOGS),
    ("stderr_logfile", LOGS),
    ("stderr_logfile_maxbytes", LOGS),
    ("stderr_logfile_backups", LOGS),
    ("stderr_syslog", LOGS),
    ("stdout_capture_maxbytes", EVENTS),
    ("stdout_events_enabled", EVENTS),
    ("stderr_capture_maxbytes", EVENTS),
    ("stderr_events_enabled", EVENTS),
    ("priority", Use::Gone("systemd starts units side by side; an order is After= in the drop-in of its service")),
    ("serverurl", Use::Gone("supervisord does not run it, so that SUPERVISOR_SERVER_URL is not set")),
    // Of [fcgi-program:x]; here they have no effect.
    ("socket", Use::Gone("supervisord itself ignores it here")),
    ("socket_backlog", Use::Gone("supervisord itself ignores it here")),
];

/// What a program's section says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The file that has it.
    pub file: PathBuf,
    /// Whether that file has nothing else.
    pub alone: bool,
    /// The command of each of its processes.
    pub commands: Vec<Vec<String>>,
    /// The working directory.
    pub directory: Option<String>,
    /// Who it runs as, and the line that says so.
    pub user: (String, Value),
    /// The umask.
    pub umask: u32,
    /// The variables, in their order.
    pub variables: Vec<(String, String)>,
    /// How long it may take to stop.
    pub stop_seconds: Option<u32>,
    /// Whether it starts with supervisord.
    pub autostart: bool,
    /// What has no counterpart, by the reason: `FILE:LINE: KEY`, in their order.
    pub gone: Vec<String>,
}

/// A section with what its values may name.
struct Reader<'a> {
    section: &'a Section,
    known: BTreeMap<String, Known>,
}

impl Program {
    /// Reads the program with this name. `host`: the name of this machine.
    ///
    /// # Errors
    /// Why it cannot be adopted, with the line and what to do.
    pub fn read(configuration: &Configuration, name: &str, host: &str) -> Result<Self, String> {
        let section = Self::section(configuration, name)?;
        let (file, _) = &section.places[0];
        let in_file = |other: &&Section| other.places.iter().any(|(path, _)| path == file);
        let alone = configuration.sections().iter().filter(in_file).count() == 1;

        let text = |text: &str| Known::Text(text.to_owned());
        let names = [("program_name", text(name)), ("group_name", text(name)), ("host_node_name", text(host))];
        let known = names.map(|(name, value)| (name.to_owned(), value)).into();
        let mut reader = Reader { section, known };
        let mut variables = Vec::new();
        if let Some(value) = configuration.value("supervisord", "environment") {
            variables = reader.variables(value)?;
        }
        reader.add(&variables);
        let (count, first) = (reader.number("numprocs")?.unwrap_or(1), reader.number("numprocs_start")?.unwrap_or(0));
        if !(1..=MAX_PROCESSES).contains(&count) {
            return Err(reader.cannot("numprocs", &format!("adopt knows 1 to {MAX_PROCESSES} processes")));
        }
        let last = first.checked_add(count - 1).ok_or_else(|| reader.cannot("numprocs_start", "it is too large"))?;
        reader.known.insert("numprocs".to_owned(), Known::Number(count));

        let mut processes = Vec::new();
        for number in first..=last {
            reader.known.insert("process_num".to_owned(), Known::Number(number));
            let own = section.keys.get("environment").map(|value| reader.variables(value)).transpose()?;
            let mut all = variables.clone();
            for (name, value) in own.unwrap_or_default() {
                all.retain(|(known, _)| *known != name);
                all.push((name, value));
            }
            let mut inner = Reader { section, known: reader.known.clone() };
            inner.add(&all);
            let line = inner.text("command")?.ok_or_else(|| {
                let (file, line) = &section.places[0];
                format!("{}:{line}: [{}] has no command=", file.display(), section.name)
            })?;
            let words = shlex::split(&line).map_err(|why| inner.cannot("command", why))?;
            if words.is_empty() {
                return Err(inner.cannot("command", "it is empty"));
            }
            processes.push((words, inner.text("directory")?, all));
        }
        let (_, directory, all) = processes[0].clone();
        for (key, same) in [
            ("directory", processes.iter().all(|(_, other, _)| *other == directory)),
            ("environment", processes.iter().all(|(_, _, other)| *other == all)),
        ] {
            if !same {
                let why = "it is another for each process, and sockd's workers share one: write out one for all";
                return Err(reader.cannot(key, why));
            }
        }
        let default = configuration.value("supervisord", "directory");
        let directory =
            directory.map_or_else(|| default.map(|value| reader.expand(value)).transpose(), |own| Ok(Some(own)))?;
        Ok(Self {
            name: name.to_owned(),
            file: file.clone(),
            alone,
            commands: processes.into_iter().map(|(words, _, _)| words).collect(),
            directory,
            user: reader.user(configuration)?,
            umask: reader.umask(configuration)?,
            variables: all,
            stop_seconds: reader.number("stopwaitsecs")?,
            autostart: reader.boolean("autostart")?.unwrap_or(true),
            gone: reader.gone(),
        })
    }

    /// The section of a program, if there is one that can be adopted.
    ///
    /// # Errors
    /// What supervisord has under this name in place of it.
    fn section<'a>(configuration: &'a Configuration, name: &str) -> Result<&'a Section, String> {
        let place = |section: &Section| {
            let (file, line) = &section.places[0];
            format!("{}:{line}: [{}]", file.display(), section.name)
        };
        for (kind, why) in [
            (
                "fcgi-program",
                "its socket is supervisord's: adopt takes programs that bind theirs; of PHP-FPM's own service it \
                              is `sockd adopt php-fpm.service`",
            ),
            ("eventlistener", "it reads supervisord's events, and serves nobody"),
            ("group", "a group is no program: name one of its programs"),
        ] {
            if let Some(section) = configuration.section(&format!("{kind}:{name}")) {
                return Err(format!("{}: {why}", place(section)));
            }
        }
        let section = configuration.section(&format!("program:{name}"));
        let section = section.ok_or_else(|| format!("supervisord has no [program:{name}]"))?;
        if let [_, (file, line), ..] = &section.places[..] {
            let why =
                "the section stands there a second time, and of each key the last value counts: make one of both first";
            return Err(format!("{}:{line}: [{}]: {why}", file.display(), section.name));
        }
        for group in configuration.sections().iter().filter(|section| section.name.starts_with("group:")) {
            let Some(programs) = group.keys.get("programs") else { continue };
            if programs.text.split(',').any(|program| program.trim() == name) {
                let why = format!("take {name} out of programs= first: supervisord runs it as before");
                return Err(format!("{}: [{}] has {name}: {why}", programs.place(), group.name));
            }
        }
        Ok(section)
    }
}

impl Reader<'_> {
    fn add(&mut self, variables: &[(String, String)]) {
        let named = |(name, value): &(String, String)| (format!("ENV_{name}"), Known::Text(value.clone()));
        self.known.extend(variables.iter().map(named));
    }

    fn cannot(&self, key: &str, why: &str) -> String {
        match self.section.keys.get(key) {
            // What a variable holds may be secret.
            Some(value) if key == "environment" => format!("{}: {key}=: {why}", value.place()),
            Some(value) => format!("{}: {key}={}: {why}", value.place(), value.text.replace('\n', " ")),
            None => format!("[{}]: {key}=: {why}", self.section.name),
        }
    }

    fn expand(&self, value: &Value) -> Result<String, String> {
        let here = value.file.parent().map(|here| here.display().to_string()).unwrap_or_default();
        let known = |name: &str| match name {
            "here" => Some(Known::Text(here.clone())),
            name => self.known.get(name).cloned(),
        };
        expand::expand(&value.text, &known).map_err(|why| format!("{}: {why}", value.place()))
    }

    fn text(&self, key: &str) -> Result<Option<String>, String> {
        self.section.keys.get(key).map(|value| self.expand(value)).transpose()
    }

    fn number(&self, key: &str) -> Result<Option<u32>, String> {
        let number = |text: String| text.trim().parse().map_err(|_| self.cannot(key, "it is no number"));
        self.text(key)?.map(number).transpose()
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>, String> {
        let boolean = |text: String| match text.to_lowercase().as_str() {
            "yes" | "true" | "on" | "1" => Ok(true),
            "no" | "false" | "off" | "0" => Ok(false),
            _ => Err(self.cannot(key, "it is neither true nor false")),
        };
        self.text(key)?.map(boolean).transpose()
    }

    fn variables(&self, value: &Value) -> Result<Vec<(String, String)>, String> {
        expand::variables(&self.expand(value)?).map_err(|why| format!("{}: environment=: {why}", value.place()))
    }

    /// Who the program runs as: by its own line, or as supervisord itself does.
    fn user(&self, configuration: &Configuration) -> Result<(String, Value), String> {
        let own = self.section.keys.get("user").or_else(|| configuration.value("supervisord", "user"));
        let value = own.ok_or_else(|| {
            let (file, line) = &self.section.places[0];
            let why = "there is no user=, and supervisord runs it as root: write user=NAME there first, of a user who needs \
                       no more rights than the site does, and user=root if root is meant";
            format!("{}:{line}: [{}]: {why}", file.display(), self.section.name)
        })?;
        Ok((self.expand(value)?, value.clone()))
    }

    fn umask(&self, configuration: &Configuration) -> Result<u32, String> {
        let own = self.section.keys.get("umask").or_else(|| configuration.value("supervisord", "umask"));
        let Some(value) = own else { return Ok(UMASK) };
        let text = self.expand(value)?;
        match u32::from_str_radix(text.strip_prefix("0o").unwrap_or(&text), 8) {
            Ok(umask) if umask <= 0o777 => Ok(umask),
            Ok(_) | Err(_) => Err(format!("{}: umask={text} is no octal number to 777", value.place())),
        }
    }

    /// What has no counterpart: one line for each reason, with the keys that it holds for.
    fn gone(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<(usize, &str)>)> = Vec::new();
        let mut keys: Vec<_> = self.section.keys.iter().map(|(key, value)| (value.line, key.as_str())).collect();
        keys.sort_unstable();
        for (line, key) in keys {
            let why = match KEYS.iter().find(|(known, _)| *known == key) {
                Some((_, Use::Written)) => continue,
                Some((_, Use::Gone(why))) => why,
                None => "supervisord knows no such key, and ignores it",
            };
            match reasons.iter_mut().find(|(known, _)| *known == why) {
                Some((_, found)) => found.push((line, key)),
                None => reasons.push((why, vec![(line, key)])),
            }
        }
        let file = self.section.places[0].0.display();
        let line = |(why, keys): (&str, Vec<(usize, &str)>)| {
            // A line that was to go on with environment= and is not indented may begin with a secret.
            let is_key = |key: &str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            let name = |key: &str| if is_key(key) { format!("{key}=") } else { "what is no word".to_owned() };
            let names: Vec<String> = keys.iter().map(|(_, key)| name(key)).collect();
            format!("{file}:{}: {}: {why}", keys[0].0, names.join(", "))
        };
        reasons.into_iter().map(line).collect()
    }
}
