//! Names that are nearly those which the service asks for and which do not exist: programs, users, groups, modules.
//!
//! Owns: the lists that names are compared with. Never: reads more than [`MAX_NAMES`] names of one directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Facts, file};
use crate::doctor::{remedy, target};
use crate::suggestion::nearest;

/// So many names of a directory are compared.
const MAX_NAMES: usize = 4096;

/// The names in a directory; none when it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MAX_NAMES);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The program that was probably meant by one that does not exist. A path: one beside it that is spelled alike, or, where
/// its virtual environment is not there, the one of another that is. A word without a slash: one of the application's
/// own virtual environment, or of PATH.
pub fn program(word: &str, search: &[PathBuf], working_directory: &Path) -> Option<String> {
    let beside = |directory: &Path, name: &str| {
        let there = names(directory);
        let programs = there.iter().map(String::as_str).filter(|name| is_program(&directory.join(name)));
        nearest(name, programs).map(|name| directory.join(name))
    };
    // The name of a server that we know is no slip of the hand: uvicorn is not meant by gunicorn.
    let misspelled = |name: &str| !remedy::is_server(name);
    let found = if word.contains('/') {
        let path = working_directory.join(word);
        let (directory, name) = (path.parent()?, path.file_name()?.to_str()?);
        let beside = || misspelled(name).then(|| beside(directory, name)).flatten();
        in_other_environment(directory.parent()?, name, working_directory).or_else(beside)
    } else {
        let on_path = || search.iter().filter(|_| misspelled(word)).find_map(|directory| beside(directory, word));
        in_own_environment(word, working_directory).or_else(on_path)
    };
    found.map(|path| path.display().to_string())
}

/// The directories in `home` that have `bin/PROGRAM`: virtual environments.
fn environments(home: &Path, program: &str) -> Vec<String> {
    let mut found = names(home);
    found.retain(|name| is_program(&home.join(name).join("bin").join(program)));
    found
}

/// The program in the application's own environment, if there is only one.
fn in_own_environment(program: &str, working_directory: &Path) -> Option<PathBuf> {
    match environments(working_directory, program).as_slice() {
        [only] => Some(working_directory.join(only).join("bin").join(program)),
        [] | [_, ..] => None,
    }
}

/// The program in place of one in an environment that is not there: in one that is spelled alike, or in the only one of
/// the application's own directory. In other directories the others are other applications'.
fn in_other_environment(environment: &Path, program: &str, working_directory: &Path) -> Option<PathBuf> {
    if environment.join("bin/python").exists() {
        return None;
    }
    let home = environment.parent()?;
    let there = environments(home, program);
    let alike = nearest(environment.file_name()?.to_str()?, there.iter().map(String::as_str));
    let alike = alike.map(|name| home.join(name).join("bin").join(program));
    alike.or_else(|| (home == working_directory).then(|| in_own_environment(program, working_directory)).flatten())
}

/// The user that was probably meant: one that is spelled alike, else the owner of the working directory. Neither root nor
/// a user that another service has for itself.
pub fn user(written: &str, working_directory: &Path) -> Option<String> {
    let passwd = file::read(Path::new("/etc/passwd")).map(|file| file.text).unwrap_or_default();
    let entries = || passwd.lines().filter_map(|line| Some((line.split(':').next()?, line.split(':').nth(2)?)));
    let owner = fs::metadata(working_directory).ok().map(|metadata| metadata.uid()).filter(|uid| *uid != 0);
    let owns = |id: &str| owner.is_some_and(|uid| id.parse() == Ok(uid));
    // Debian gives people numbers from 1000 on.
    let persons = |id: &str| id.parse::<u32>().is_ok_and(|uid| (1000..60000).contains(&uid));
    let meant = entries().filter(|(name, id)| owns(id) || persons(id) || *name == "www-data");
    let alike = nearest(written, meant.map(|(name, _)| name));
    alike.or_else(|| entries().find(|(_, id)| owns(id)).map(|(name, _)| name)).map(str::to_owned)
}

/// The group that was probably meant: one that is spelled alike.
pub fn group(written: &str) -> Option<String> {
    let groups = file::read(Path::new("/etc/group")).map(|file| file.text).unwrap_or_default();
    let names = groups.lines().filter_map(|line| line.split(':').next()).filter(|name| *name != "root");
    nearest(written, names).map(str::to_owned)
}

/// The module that was probably meant by one that cannot be imported: one of the application's own directory, or of the
/// package in it.
pub fn module(facts: &Facts) -> Option<String> {
    let traceback = target::import_traceback(facts)?;
    module_in(traceback.missing_module()?, Path::new(&facts.service.working_directory))
}

/// `shopp.wsgi` is `shop.wsgi` where there is a package `shop` and no `shopp`.
pub fn module_in(written: &str, directory: &Path) -> Option<String> {
    let mut directory = directory.to_owned();
    let mut parts: Vec<String> = written.split('.').map(str::to_owned).collect();
    for at in 0..parts.len() {
        let there = modules(&directory);
        if !there.contains(&parts[at]) {
            parts[at] = nearest(&parts[at], there.iter().map(String::as_str))?.to_owned();
            return Some(parts.join("."));
        }
        directory.push(&parts[at]);
    }
    None
}

/// The modules and packages of a directory.
pub fn modules(directory: &Path) -> Vec<String> {
    let plain = |name: &String| name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let module = |name: String| match name.strip_suffix(".py") {
        Some(module) => Some(module.to_owned()),
        None => directory.join(&name).is_dir().then_some(name),
    };
    names(directory).into_iter().filter_map(module).filter(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str, programs: &[&str]) -> PathBuf {
        let room = std::env::temp_dir().join(format!("sockd-alike-{name}-{}", std::process::id()));
        for program in programs {
            let path = room.join(program);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(&path, "").expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        }
        room
    }

    #[test]
    fn programs_that_were_meant_are_found() {
        let room = room("programs", &["app/venv/bin/gunicorn", "app/venv/bin/python", "bin/uvicorn"]);
        let search = [room.join("bin")];
        let directory = room.join("app");
        let meant =
            |word: &str| program(word, &search, &directory).map(|path| path.replace(&room.display().to_string(), ""));
        for (word, path) in [
            ("venv/bin/gunicrn", Some("/app/venv/bin/gunicorn")),
            ("vnv/bin/gunicorn", Some("/app/venv/bin/gunicorn")),
            (".env/bin/gunicorn", Some("/app/venv/bin/gunicorn")),
            // Another application's environment is not meant.
            ("../other/bin/gunicorn", None),
            ("uvicrn", Some("/bin/uvicorn")),
            ("gunicorn", Some("/app/venv/bin/gunicorn")),
            ("venv/bin/hypercorn", None),
            ("hypercorn", None),
        ] {
            assert_eq!(meant(word).as_deref(), path, "{word}");
        }
        fs::remove_dir_all(room).expect("removed");
    }

    #[test]
    fn modules_that_were_meant_are_found() {
        let room = room("modules", &["shop/wsgi.py", "shop/__init__.py", "main.py"]);
        for (written, meant) in [
            ("shopp.wsgi", Some("shop.wsgi")),
            ("shop.wsgii", Some("shop.wsgi")),
            ("mian", Some("main")),
            ("requests", None),
            ("shop.wsgi", None),
        ] {
            assert_eq!(module_in(written, &room).as_deref(), meant, "{written}");
        }
        fs::remove_dir_all(room).expect("removed");
    }

    #[test]
    fn users_and_groups_that_were_meant_are_found() {
        assert_eq!(user("www-date", Path::new("/")).as_deref(), Some("www-data"));
        for written in ["rot", "daemno", "no-such-user"] {
            assert_eq!(user(written, Path::new("/")), None, "{written}");
        }
        assert_eq!(group("deamon").as_deref(), Some("daemon"));
    }
}
