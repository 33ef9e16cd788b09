//! The parts of fixes that change what the user wrote or install what the user asked for.
//!
//! Owns: where a word of the service's definition is written, and what may be installed.
//! Never: installs a name that was guessed (anybody may have published it), or makes a user.

use std::path::Path;

use super::facts::{Facts, File};
use super::fix::quote;
use super::fix::{self, Change, Fix};
use super::target;
use crate::adapter;

/// Modules whose distribution has another name.
const DISTRIBUTIONS: [(&str, &[&str]); 9] = [
    ("psycopg2", &["psycopg2", "psycopg2-binary"]),
    ("MySQLdb", &["mysqlclient"]),
    ("PIL", &["pillow"]),
    ("yaml", &["pyyaml"]),
    ("dotenv", &["python-dotenv"]),
    ("environ", &["django-environ"]),
    ("rest_framework", &["djangorestframework"]),
    ("corsheaders", &["django-cors-headers"]),
    ("debug_toolbar", &["django-debug-toolbar"]),
];

/// Whether a program of this name is a server that we know.
pub fn is_server(program: &str) -> bool {
    adapter::package_of(program).is_some()
}

/// What stands before a command that the service's user runs: `runuser` is where systemd is; sudo need not be.
pub fn by_user(facts: &Facts) -> String {
    match facts.service.user.as_str() {
        "" | "root" => String::new(),
        user => format!("runuser -u {} -- ", quote(user)),
    }
}

/// A command that the service's user runs.
pub fn as_user(facts: &Facts, command: &str) -> Fix {
    Fix::run(format!("{}{command}", by_user(facts)))
}

/// The file and line, counted from 1, that give a setting its value: the last one counts, as for systemd.
pub fn setting_line<'a>(facts: &'a Facts, key: &str, value: &str) -> Option<(&'a str, usize)> {
    let is = |line: &str| line.trim().split_once('=').is_some_and(|(k, v)| k.trim() == key && v.trim() == value);
    last_line(&facts.definition, is)
}

/// Writes another word in the service's definition, where the word is written, and has systemd read it.
pub fn rewrite_word(facts: &Facts, old: &str, new: &str) -> Option<Fix> {
    let separates = |letter: char| letter.is_whitespace() || "\"'=[],".contains(letter);
    let has = |line: &str| !line.trim_start().starts_with(['#', ';']) && line.split(separates).any(|word| word == old);
    let (file, line) = last_line(&facts.definition, has)?;
    Some(Change::replace("", file, line, old, new).lasting().then(fix::daemon_reload()))
}

/// The same for the value of a setting.
pub fn rewrite_setting(facts: &Facts, key: &str, old: &str, new: &str) -> Option<Fix> {
    let (file, line) = setting_line(facts, key, old)?;
    let change = Change::replace("", file, line, &format!("{key}={old}"), &format!("{key}={new}"));
    Some(change.lasting().then(fix::daemon_reload()))
}

fn last_line(files: &[File], is: impl Fn(&str) -> bool) -> Option<(&str, usize)> {
    let line = |file: &File| file.text.lines().zip(1..).filter(|(line, _)| is(line)).last().map(|(_, number)| number);
    files.iter().rev().find_map(|file| Some((file.path.as_str(), line(file)?)))
}

/// The command that installs a server with this Python: by requirements.txt if that names it, else by its own name if
/// it is one of those that we know. `None`: nobody has said what is to be installed.
pub fn install_server(facts: &Facts, python: &str, server: &str) -> Option<Fix> {
    let package = adapter::package_of(server)?;
    let install = install_required(facts, python, &[package]);
    Some(install.unwrap_or_else(|| as_user(facts, &format!("{} -m pip install {package}", quote(python)))))
}

/// The command that installs what the application's requirements.txt names, if it names what has this module.
pub fn install_module(facts: &Facts, python: &str, module: &str) -> Option<Fix> {
    install_required(facts, python, &distributions(module))
}

/// The distributions that have a module, as far as that is known; else the one of the same name.
pub fn distributions(module: &str) -> Vec<&str> {
    let known = DISTRIBUTIONS.iter().find(|(name, _)| *name == module);
    known.map_or_else(|| vec![module], |(_, distributions)| distributions.to_vec())
}

fn install_required(facts: &Facts, python: &str, packages: &[&str]) -> Option<Fix> {
    let file = facts.requirements.as_ref()?;
    let required = |package: &&str| file.text.lines().filter_map(requirement).any(|name| name == normal(package));
    packages.iter().any(required).then_some(())?;
    Some(as_user(facts, &format!("{} -m pip install -r {}", quote(python), quote(&file.path))))
}

/// The name that a line of a requirements file asks for.
fn requirement(line: &str) -> Option<String> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let line = line.trim();
    let name = &line[..line.find(|letter| !plain(letter)).unwrap_or(line.len())];
    (name.starts_with(|letter: char| letter.is_ascii_alphanumeric())).then(|| normal(name))
}

/// A distribution's name as the index compares it (PEP 503).
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Begins again after the definition was changed by hand.
pub fn read_again(facts: &Facts) -> Fix {
    read(facts).then(target::again(facts))
}

/// systemd reads the definition; sockd, if it runs there, says whether it is right.
fn read(facts: &Facts) -> Fix {
    let check = match target::is_under_sockd(facts) {
        true => Fix::run(format!("sockd check {}", quote(&facts.service.name))),
        false => Fix::default(),
    };
    fix::daemon_reload().then(check)
}

/// The same of a service that serves: what would not start stops nothing.
pub fn renew(facts: &Facts) -> Fix {
    read(facts).then(target::prove(facts)).then(target::again(facts))
}

/// Where the definition is changed that counts, and what has it read: sockd's own configuration is read by a reload.
pub fn changed_by_hand(facts: &Facts) -> (&str, Fix) {
    let place = facts.definition.last().map_or(facts.service.fragment_path.as_str(), |file| file.path.as_str());
    let own = target::is_under_sockd(facts) && is_configuration(place);
    (place, if own { target::load(facts) } else { renew(facts) })
}

fn is_configuration(place: &str) -> bool {
    Path::new(place).extension().is_some_and(|end| end == "toml")
}

/// How more workers are written, and what has that read.
pub fn more_workers(facts: &Facts) -> (String, Fix) {
    let (place, fix) = changed_by_hand(facts);
    let setting = if is_configuration(place) { "count in [workers]" } else { "--workers" };
    (format!("more workers ({setting}) in {place}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned(), ..File::default() };
        Facts {
            definition: vec![
                file(
                    "/etc/systemd/system/a.service",
                    "[Service]\nUser=samy\n#ExecStart=/v/bin/gunicrn x\nExecStart=/v/bin/gunicrn a:b\n",
                ),
                file("/etc/systemd/system/a.service.d/u.conf", "[Service]\nUser=samy\n"),
            ],
            requirements: Some(file(
                "/srv/requirements.txt",
                "# comment\nDjango>=5\npsycopg2_binary == 2.9 # x\n-r other.txt\n",
            )),
            ..Facts::default()
        }
    }

    #[test]
    fn the_line_that_counts_is_changed() {
        assert_eq!(setting_line(&facts(), "User", "samy"), Some(("/etc/systemd/system/a.service.d/u.conf", 2)));
        assert_eq!(
            rewrite_word(&facts(), "/v/bin/gunicrn", "/v/bin/gunicorn").as_ref().map(Fix::as_str),
            Some(
                "sed -i --follow-symlinks '4s|/v/bin/gunicrn|/v/bin/gunicorn|' /etc/systemd/system/a.service && \
                 systemctl daemon-reload"
            )
        );
        assert_eq!(rewrite_word(&facts(), "/v/bin/gunicr", "/v/bin/gunicorn"), None);
        assert_eq!(rewrite_setting(&facts(), "User", "sam", "sammy"), None);
    }

    #[test]
    fn only_what_was_asked_for_is_installed() {
        let facts = facts();
        let install = |module| install_module(&facts, "/v/bin/python", module);
        assert_eq!(
            install("psycopg2").as_ref().map(Fix::as_str),
            Some("/v/bin/python -m pip install -r /srv/requirements.txt")
        );
        assert_eq!(install("django"), install("psycopg2"));
        assert_eq!((install("shop"), install("comment"), install("r")), (None, None, None));
        assert_eq!(install_server(&facts, "/v/bin/python", "gunicrn"), None);
        assert_eq!(
            install_server(&facts, "/v/bin/python", "waitress-serve").as_ref().map(Fix::as_str),
            Some("/v/bin/python -m pip install waitress")
        );
    }
}
