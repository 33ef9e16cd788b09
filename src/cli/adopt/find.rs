//! Where a unit and its sockets are: systemd is asked, and the files that it names are read.
//!
//! Owns: the questions to systemd, and the plain word where there is nothing to adopt.
//! Never: changes anything, or reads a file without end.

use std::path::{Path, PathBuf};

use super::emperor;
use super::file_owner::Writers;
use super::service::drop_in_path;
use super::unit::Unit;
use crate::cli::next_step;
use crate::regular_file;
use crate::systemd::show;
use crate::systemd::unit_files::{self, UnitFiles};
use crate::systemd::{Manager, UnitName};

/// Unit files are far shorter.
const FILE_LIMIT: u64 = 256 << 10;
/// So many sites of an Emperor are listed.
const MAX_SITES: usize = 64;
/// A unit and the sockets that start it.
#[derive(Debug)]
pub struct Found {
    /// The unit without the drop-in of an earlier adoption.
    pub unit: Unit,
    /// Its sockets.
    pub sockets: Vec<String>,
}

/// The name of a service as people write it, with its type.
///
/// # Errors
/// It is the name of something else.
pub fn name(written: &str) -> Result<UnitName, String> {
    if written.contains('/') {
        return Err(format!(
            "{written} is neither the name of a unit nor a file of uWSGI's (.ini) or supervisord's (.conf)"
        ));
    }
    let unit = UnitName::complete(written).map_err(|error| error.to_string())?;
    if let Some(name) = written.strip_suffix(".socket") {
        return Err(format!(
            "{written} is a socket unit: name the service that it starts, as in `sockd adopt {name}.service`"
        ));
    }
    if unit.is_service() { Ok(unit) } else { Err(format!("{written} is no service")) }
}

/// Looks a service up.
///
/// # Errors
/// Why there is nothing to adopt.
pub fn find(unit: &UnitName) -> Result<Found, String> {
    let (name, manager) = (unit.as_str(), unit.manager());
    // A template is no unit that systemd could show. Any instance has its files.
    let asked = name.replace("@.", "@sockd.");
    let properties = show::properties(manager, &asked, "Id,LoadState,FragmentPath,DropInPaths,TriggeredBy")?;
    let value = |key| show::first(&properties, key);
    let fragment = value("FragmentPath");
    match value("LoadState") {
        "not-found" => return Err(not_found(unit)),
        "masked" => return Err(format!("{name} is masked: systemctl unmask {name}")),
        _ if fragment.is_empty() => return Err(format!("{name} has no unit file")),
        // Also one with faults: they are found in its text.
        _ => {}
    }
    // An alias has the files of the unit that it stands for.
    let name = if asked == name { value("Id") } else { name };
    let own = drop_in_path(name, manager);
    let paths = [fragment].into_iter().chain(value("DropInPaths").split_whitespace());
    let mut files = Vec::new();
    for path in paths.map(PathBuf::from).filter(|path| *path != own) {
        let text = read(&path)?;
        files.push((path, text));
    }
    let unit = Unit::read(name, files.iter().map(|(path, text)| (path.clone(), text.as_str())));
    Ok(Found { sockets: sockets(manager, name, &asked, value("TriggeredBy"))?, unit })
}

/// The sockets of a service: those that systemd knows to start it, and the one of its name, which systemd need not have
/// loaded.
fn sockets(manager: Manager, name: &str, asked: &str, triggers: &str) -> Result<Vec<String>, String> {
    let is_socket = |unit: &&str| unit.ends_with(".socket");
    let mut sockets: Vec<String> = triggers.split_whitespace().filter(is_socket).map(str::to_owned).collect();
    let same_name = |service: &str| service.replace(".service", ".socket");
    if sockets.is_empty() {
        let properties = show::properties(manager, &same_name(asked), "LoadState")?;
        if show::first(&properties, "LoadState") == "loaded" {
            sockets.push(same_name(asked));
        }
    }
    // What belongs to the instance that was asked for belongs to each.
    if name != asked {
        sockets.iter_mut().for_each(|socket| *socket = socket.replace("@sockd.", "@%i."));
    }
    Ok(sockets)
}

/// Whether systemd has a unit with this name, be it one that can be adopted or not.
///
/// # Errors
/// systemd cannot be asked.
pub fn exists(unit: &UnitName) -> Result<bool, String> {
    let asked = unit.as_str().replace("@.", "@sockd.");
    let properties = show::properties(unit.manager(), &asked, "LoadState")?;
    Ok(show::first(&properties, "LoadState") != "not-found")
}

fn not_found(unit: &UnitName) -> String {
    match unit.manager() {
        Manager::System => match unit_files::find(Manager::User, unit.as_str()) {
            Some(file) => format!(
                "{unit} is a unit of a user's own service manager ({}): its user types `sockd adopt --user {unit}`",
                file.display()
            ),
            None => format!("there is no unit {unit}; {}", next_step::adopt()),
        },
        Manager::User => format!("your own service manager has no unit {unit}; {}", next_step::adopt()),
    }
}

/// The .ini files of an Emperor's directories, so many at most.
pub fn sites(directories: &[String]) -> Vec<String> {
    let entries = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let mut sites: Vec<String> = entries.filter_map(|entry| entry.path().into_os_string().into_string().ok()).collect();
    sites.retain(|site| site.ends_with(".ini"));
    sites.sort();
    sites.truncate(MAX_SITES);
    sites
}

/// The unit that runs uWSGI as an Emperor.
pub fn emperor() -> Option<String> {
    UnitFiles::search(Manager::System, "--emperor").services().next().map(str::to_owned)
}

/// Which uWSGI there is, and which unit runs it as an Emperor. `holder`: who may write the site's file.
pub fn around_uwsgi(holder: Writers) -> emperor::Surroundings {
    // The guide's comes from PyPI, and Debian's is the other.
    let programs = ["/usr/local/bin/uwsgi", "/usr/bin/uwsgi"];
    let found = programs.into_iter().find(|program| Path::new(program).exists());
    emperor::Surroundings { uwsgi: found.unwrap_or("uwsgi").to_owned(), emperor: emperor(), holder }
}

/// Whether `passwd` or `group` has this name, by whatever directory service this machine asks.
pub fn account_exists(database: &str, name: &str) -> bool {
    show::output("getent", &[database, "--", name]).is_ok_and(|(known, _)| known)
}

/// The text of a file that systemd or the user has named.
///
/// # Errors
/// "cannot read PATH: why".
pub fn read(path: &Path) -> Result<String, String> {
    regular_file::read_text(path, FILE_LIMIT).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// The text of a site's file, and who may write it.
///
/// # Errors
/// "cannot read PATH: why".
pub fn site(path: &Path) -> Result<(String, Writers), String> {
    let read = regular_file::read_text_and_metadata(path, FILE_LIMIT);
    let (text, metadata) = read.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok((text, Writers::of(path, &metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_others_refused() {
        for (written, unit) in [
            ("gunicorn", "gunicorn.service"),
            ("shop.example.com.service", "shop.example.com.service"),
            ("site@.service", "site@.service"),
        ] {
            assert_eq!(name(written).map(|unit| unit.to_string()).as_deref(), Ok(unit));
        }
        for (written, part) in
            [("gunicorn.socket", "sockd adopt gunicorn.service"), ("x.timer", "no service"), ("./x", "neither")]
        {
            let said = name(written).expect_err(written);
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn what_is_no_text_is_not_read() {
        assert!(read(Path::new("/dev/zero")).expect_err("endless").contains("no regular file"));
        assert!(read(Path::new("/nonexistent")).expect_err("missing").starts_with("cannot read /nonexistent: "));
    }
}
