//! Names that are nearly those which the service asks for and which do not exist: programs, users, groups, modules.
//!
//! Owns: the lists that names are compared with. Never: reads more than [`MOST`] names of one directory.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Facts, program};
use crate::doctor::{chain, remedy};
use crate::suggestion::nearest;

/// So many names of a directory are compared.
const MOST: usize = 4096;

/// The names in a directory; none when it cannot be read.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MOST);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// The program that was probably meant by one that does not exist. A path: one beside it that is spelled alike, or one of
/// the same name in the virtual environment that is spelled alike or the only one. A word without a slash: one of PATH,
/// or of the only virtual environment in the working directory.
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
        in_other_environment(directory.parent()?, name).or_else(beside)
    } else {
        let on_path = || search.iter().filter(|_| misspelled(word)).find_map(|directory| beside(directory, word));
        in_other_environment(&working_directory.join("venv"), word).or_else(on_path)
    };
    found.map(|path| path.display().to_string())
}

/// `NAME/bin/PROGRAM` beside an environment that has no such program.
fn in_other_environment(environment: &Path, name: &str) -> Option<PathBuf> {
    let home = environment.parent()?;
    let mut others = names(home);
    others.retain(|other| is_program(&home.join(other).join("bin").join(name)));
    let written = environment.file_name()?.to_str()?;
    let meant = match others.as_slice() {
        [only] => only.as_str(),
        several => nearest(written, several.iter().map(String::as_str))?,
    };
    Some(home.join(meant).join("bin").join(name))
}

/// The user that was probably meant: one that is spelled alike, else the owner of the working directory. root is nobody's
/// slip of the hand.
pub fn user(written: &str, working_directory: &Path) -> Option<String> {
    let passwd = program::read(Path::new("/etc/passwd")).map(|file| file.text).unwrap_or_default();
    let entries = || passwd.lines().filter_map(|line| Some((line.split(':').next()?, line.split(':').nth(2)?)));
    let alike = nearest(written, entries().map(|(name, _)| name).filter(|name| *name != "root"));
    let owner = || {
        let uid = fs::metadata(working_directory).ok()?.uid();
        entries().find(|(_, id)| uid != 0 && id.parse() == Ok(uid)).map(|(name, _)| name)
    };
    alike.or_else(owner).map(str::to_owned)
}

/// The group that was probably meant: one that is spelled alike.
pub fn group(written: &str) -> Option<String> {
    let groups = program::read(Path::new("/etc/group")).map(|file| file.text).unwrap_or_default();
    let names = groups.lines().filter_map(|line| line.split(':').next()).filter(|name| *name != "root");
    nearest(written, names).map(str::to_owned)
}

/// The module that was probably meant by one that cannot be imported: one of the application's own directory, or of the
/// package in it.
pub fn module(facts: &Facts) -> Option<String> {
    let traceback = chain::import_traceback(facts)?;
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
        assert_eq!(user("daemno", Path::new("/")).as_deref(), Some("daemon"));
        assert_eq!(user("rot", Path::new("/")), None);
        assert_eq!(group("deamon").as_deref(), Some("daemon"));
    }
}
