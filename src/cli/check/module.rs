//! Whether Python will find `MODULE:NAME`: in the application's own directories, among the installed packages, in its
//! own library; and whether the module has that name.
//!
//! Python decides at run time. What is certain here is an error; what a `.pth` file, a hook or a text that makes names
//! while it runs may still bring is not certain.
//!
//! Owns: Python's path as far as files tell it. Never: runs Python, or reads more than [`MAX_MODULE`] of a file.

use std::fs;
use std::path::{Path, PathBuf};

use crate::regular_file;
use crate::suggestion::nearest;

/// The longest module that is read, in bytes.
const MAX_MODULE: u64 = 1 << 20;
/// Files of site-packages that bring no modules of their own.
const HARMLESS: [&str; 2] = ["distutils-precedence.pth", "_virtualenv.pth"];
/// What can make names that are not written as such.
const MAKES_NAMES: [&str; 6] = ["import *", "__getattr__", "globals(", "setattr(", "exec(", "vars("];

/// Whether the first part of a module's name is installed beside the application: `None` when that cannot be decided.
pub(super) fn installed(module: &str, packages: &[PathBuf], program: &Path) -> Option<bool> {
    let top = module.split('.').next().unwrap_or_default();
    if packages.is_empty() {
        return None;
    }
    let mut roots: Vec<PathBuf> = packages.to_vec();
    for directory in packages {
        let library = directory.parent()?;
        roots.extend([library.to_owned(), library.join("lib-dynload")]);
        for entry in fs::read_dir(directory).ok()?.flatten() {
            let name = entry.file_name().into_string().ok()?;
            if name.ends_with(".egg-link") || name.ends_with(".egg") {
                return None;
            }
            if name.ends_with(".pth") && !HARMLESS.contains(&name.as_str()) {
                let text = read(&entry.path())?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                for line in lines {
                    // Code, which may do anything.
                    if line.starts_with("import ") || line.starts_with("import\t") {
                        return None;
                    }
                    roots.push(directory.join(line));
                }
            }
        }
    }
    roots.extend(base_libraries(program)?);
    Some(roots.iter().any(|root| has(root, top)))
}

/// The library of the Python that a virtual environment was made from. `None`: it also takes that one's packages, or
/// there is no such library.
fn base_libraries(program: &Path) -> Option<Vec<PathBuf>> {
    let environment = program.parent()?.parent()?;
    let text = read(&environment.join("pyvenv.cfg"))?;
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.trim(), value.trim())).find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    (value("include-system-site-packages") != Some("true")).then_some(())?;
    let library = Path::new(value("home")?).parent()?.join("lib");
    let version = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.starts_with("python3.").then(|| entry.path())
    };
    let found: Vec<PathBuf> = fs::read_dir(library).ok()?.flatten().filter_map(version).collect();
    let all = found.iter().flat_map(|path| [path.clone(), path.join("lib-dynload")]).collect();
    // One that is there has this module, whatever its version.
    found.iter().any(|path| path.join("os.py").exists()).then_some(all)
}

/// Whether a directory has a module, a package or a bare directory of this name.
fn has(root: &Path, name: &str) -> bool {
    let prefix = format!("{name}.");
    fs::read_dir(root).into_iter().flatten().flatten().any(|entry| {
        let file = entry.file_name();
        let Some(file) = file.to_str() else { return false };
        file == name || file.strip_prefix(&prefix).is_some_and(|end| matches!(end, "py" | "pyc") || end.ends_with("so"))
    })
}

/// What is wrong with a name that a module should have. `None`: nothing that is certain.
pub(super) fn missing_name(file: &Path, name: &str) -> Option<String> {
    let first = name.split(['.', '(']).next().unwrap_or_default().trim();
    let plain = |text: &str| !text.is_empty() && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    let text = plain(first).then(|| read(file))??;
    let separates = |letter: char| !(letter.is_alphanumeric() || letter == '_');
    let spoken_of = text.split(separates).any(|word| word == first);
    (!spoken_of && !MAKES_NAMES.iter().any(|maker| text.contains(maker))).then_some(())?;
    let help = nearest(first, top_level(&text)).map_or(String::new(), |near| format!("; did you mean {near}?"));
    Some(format!("{} has no {first}{help}", file.display()))
}

/// The names that the lines without indentation give.
fn top_level(text: &str) -> Vec<&str> {
    let word =
        |text: &'_ str| text.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(text.len());
    let name = |line| {
        let defined = ["async def ", "def ", "class "].iter().find_map(|key| str::strip_prefix(line, key));
        let rest: &str = defined.unwrap_or(line);
        let (name, after) = rest.split_at(word(rest));
        let assigned = after.trim_start().starts_with('=') && !after.trim_start().starts_with("==");
        (!name.is_empty() && (defined.is_some() || assigned || after.trim_start().starts_with(':'))).then_some(name)
    };
    text.lines().filter_map(name).collect()
}

/// A file's text, if it is a regular one of a sensible size.
pub(super) fn read(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&regular_file::read(path, MAX_MODULE).ok()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let room = std::env::temp_dir().join(format!("sockd-module-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = room.join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        }
        room
    }

    #[test]
    fn what_is_installed_is_known_as_far_as_files_tell() {
        let base = room("base", &[("lib/python3.11/os.py", ""), ("lib/python3.11/json/__init__.py", "")]);
        let home = format!("home = {}\nversion = 3.11\n", base.join("bin").display());
        let venv = room("venv", &[("pyvenv.cfg", &home), ("lib/python3.11/site-packages/django/__init__.py", "")]);
        let packages = [venv.join("lib/python3.11/site-packages")];
        let program = venv.join("bin/gunicorn");
        let ask = |module| installed(module, &packages, &program);
        assert_eq!((ask("django.core"), ask("json"), ask("nomod")), (Some(true), Some(true), Some(false)));
        assert_eq!(installed("nomod", &[], &program), None);
        fs::write(packages[0].join("paths.pth"), "../elsewhere\n").expect("written");
        fs::create_dir_all(venv.join("lib/python3.11/elsewhere/nomod")).expect("made");
        assert_eq!(ask("nomod"), Some(true));
        fs::write(packages[0].join("__editable__.x.pth"), "import x; x.install()\n").expect("written");
        assert_eq!(ask("other"), None);
        fs::remove_dir_all(base).and_then(|()| fs::remove_dir_all(venv)).expect("removed");
    }

    #[test]
    fn a_name_that_stands_nowhere_is_missing() {
        let room = room(
            "names",
            &[
                ("wsgi.py", "from x import get\n\napplication = get()\n\ndef other(): pass\n"),
                ("magic.py", "from x import *\n"),
                ("typed.py", "app: App = make()\nclass Site: pass\n"),
            ],
        );
        let ask = |file: &str, name: &str| {
            missing_name(&room.join(file), name).map(|text| text.replace(&format!("{}/", room.display()), ""))
        };
        for (file, name) in [
            ("wsgi.py", "application"),
            ("wsgi.py", "get"),
            ("magic.py", "app"),
            ("typed.py", "app.sub"),
            ("typed.py", "Site()"),
        ] {
            assert_eq!(ask(file, name), None, "{file}:{name}");
        }
        assert_eq!(
            ask("wsgi.py", "aplication").as_deref(),
            Some("wsgi.py has no aplication; did you mean application?")
        );
        assert_eq!(ask("typed.py", "create_app()").as_deref(), Some("typed.py has no create_app"));
        fs::remove_dir_all(room).expect("removed");
    }
}
