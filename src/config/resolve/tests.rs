//! Resolution in real directories. The tests run as root or not; what only one of them can see is said in place.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::config::{Options, load as load_settings};

/// A directory of the test's own, gone with it.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sockd-resolve-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory can be made");
        Self(fs::canonicalize(path).expect("it is there"))
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it has a parent")).expect("a directory can be made");
        fs::write(&path, text).expect("a file can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode can be set");
        path
    }

    /// Resolves a command in this directory with this PATH.
    fn resolve(&self, command: &[&str], path: &str) -> Result<Command, Diagnostics> {
        let mut settings = settings(command);
        settings.directory = Some(self.0.clone());
        resolve(&settings, &environment(&[("PATH", path)]), Path::new("/"))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(command: &[&str]) -> Settings {
    let command = command.iter().map(OsString::from).collect();
    load_settings(None, &Options { command, ..Options::default() }).expect("a command is enough").settings
}

fn environment(variables: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[track_caller]
fn fails(result: Result<Command, Diagnostics>, parts: &[&str]) {
    let text = result.expect_err("this must not resolve").to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[test]
fn a_program_is_found_below_the_directory_and_in_path() {
    let room = Room::new();
    let gunicorn = room.file("venv/bin/gunicorn", "#!/bin/sh\n", 0o755);
    for (name, path) in [("venv/bin/gunicorn", ""), ("gunicorn", "/nowhere:venv/bin"), ("gunicorn", "/x:./venv/bin/")] {
        let command = room.resolve(&[name, "a:b"], path).expect(path);
        assert_eq!(fs::canonicalize(&command.program).expect("it exists"), gunicorn);
        assert!(command.program.is_absolute());
        assert_eq!(command.arguments, [command.program.as_os_str(), OsStr::new("a:b")]);
        assert_eq!(command.directory, room.0);
    }
}

#[test]
fn the_directorys_links_are_followed_and_the_programs_are_not() {
    let room = Room::new();
    let python = room.file("releases/2/real/python3.11", "", 0o755);
    fs::create_dir(room.0.join("releases/2/bin")).expect("a directory can be made");
    symlink(&python, room.0.join("releases/2/bin/python")).expect("a link can be made");
    symlink("releases/2", room.0.join("current")).expect("a link can be made");
    let mut settings = settings(&["bin/python"]);
    settings.directory = Some(room.0.join("current"));
    let command = resolve(&settings, &BTreeMap::new(), Path::new("/")).expect("it resolves");
    assert_eq!(command.directory, room.0.join("releases/2"));
    assert_eq!(command.program, room.0.join("releases/2/bin/python"));
}

#[test]
fn without_a_directory_it_is_where_sockd_was_started() {
    let room = Room::new();
    room.file("run", "", 0o755);
    let command = resolve(&settings(&["./run"]), &BTreeMap::new(), &room.0).expect("it resolves");
    assert_eq!(command.directory, room.0);
}

#[test]
fn a_missing_program_is_reported_with_its_remedy() {
    let room = Room::new();
    fails(room.resolve(&["bin/gunicorn"], ""), &["bin does not exist"]);
    room.file("venv/bin/python", "", 0o755);
    fails(
        room.resolve(&["venv/bin/gunicorn"], ""),
        &["gunicorn is not installed in the virtual environment", "venv/bin/python -m pip install gunicorn"],
    );
    fails(room.resolve(&["venv/bin/waitress-serve"], ""), &["venv/bin/python -m pip install waitress"]);
    let unknown = room.resolve(&["venv/bin/shop"], "").expect_err("it is not there");
    assert_eq!(unknown.iter().filter_map(|problem| problem.help.as_deref()).next(), None);
    room.file("venv/bin/uvicorn", "", 0o755);
    fails(room.resolve(&["venv/bin/uvicron"], ""), &["did you mean", "venv/bin/uvicorn?"]);
    fails(room.resolve(&["venv/bin/python3"], ""), &["it does not exist"]);
    fails(room.resolve(&["gunicorn"], "/nowhere"), &["cannot find gunicorn in PATH (/nowhere)", "whole path"]);
    room.file(".venv/bin/gunicorn", "", 0o755);
    fails(room.resolve(&["gunicorn"], "/nowhere"), &["write .venv/bin/gunicorn"]);
}

#[test]
fn what_cannot_be_executed_is_reported() {
    let room = Room::new();
    room.file("plain", "", 0o644);
    room.file("file/not", "", 0o755);
    fails(room.resolve(&["./plain"], ""), &["permission denied", "chmod a+x"]);
    fails(room.resolve(&["plain"], "."), &["permission denied", "chmod a+x"]);
    fails(room.resolve(&["./file"], ""), &["it is a directory"]);
    fails(room.resolve(&["plain/x"], ""), &["plain is not a directory"]);
    symlink("gone", room.0.join("link")).expect("a link can be made");
    fails(room.resolve(&["./link"], ""), &["link is a link to gone, which does not exist"]);
    fails(room.resolve(&["/dev/null"], ""), &["not a regular file"]);
}

#[test]
fn a_script_without_its_interpreter_is_reported() {
    let room = Room::new();
    room.file("venv/bin/python", "", 0o755);
    room.file("venv/bin/moved", "#!/old/venv/bin/python3 -E\nimport x\n", 0o755);
    fails(
        room.resolve(&["venv/bin/moved"], ""),
        &["its first line names /old/venv/bin/python3", "/old does not exist"],
    );
    symlink("/usr/bin/python2.1", room.0.join("venv/bin/python3")).expect("a link can be made");
    let line = format!("#!{}/venv/bin/python3\n", room.0.display());
    room.file("venv/bin/upgraded", &line, 0o755);
    fails(
        room.resolve(&["venv/bin/upgraded"], ""),
        &["is a link to /usr/bin/python2.1, which does not exist", "create it again"],
    );
}

#[test]
fn a_directory_that_cannot_be_used_is_reported() {
    let room = Room::new();
    room.file("file", "", 0o755);
    let mut settings = settings(&["/bin/sh"]);
    for (name, part) in [("gone", "it does not exist"), ("file", "it is not a directory"), ("gone/x", "gone does not")]
    {
        settings.directory = Some(room.0.join(name));
        fails(resolve(&settings, &BTreeMap::new(), &room.0), &["cannot work in the directory", part]);
    }
}

#[test]
fn a_closed_directory_is_reported() {
    // Root enters everything: then there is nothing to tell.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let room = Room::new();
    room.file("closed/in/run", "", 0o755);
    fs::set_permissions(room.0.join("closed"), fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    fails(room.resolve(&["closed/in/run"], ""), &["no permission to enter", "closed", "namei -l"]);
    fs::set_permissions(room.0.join("closed"), fs::Permissions::from_mode(0o700)).expect("its mode can be set");
}

#[test]
fn the_environment_is_layered_and_scrubbed() {
    let room = Room::new();
    let first = room.file("first", "A=file\nB=first\nC=first\n", 0o644);
    let second = room.file("second", "C=second\n", 0o644);
    let missing = PathBuf::from(format!("-{}", room.0.join("missing").display()));
    let mut settings = settings(&["/bin/sh"]);
    settings.environment_files = vec![first, missing, second];
    settings.environment = BTreeMap::from([("A".to_owned(), "own".to_owned())]);
    let base = environment(&[
        ("A", "base"),
        ("HOME", "/h"),
        ("NOTIFY_SOCKET", "/n"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PIDFDID", "7"),
        ("WATCHDOG_USEC", "9"),
        ("INVOCATION_ID", "i"),
    ]);
    let expected =
        environment(&[("A", "own"), ("B", "first"), ("C", "second"), ("HOME", "/h"), ("INVOCATION_ID", "i")]);
    assert_eq!(resolve_environment(&settings, &base), Ok(expected));
}

#[test]
fn all_problems_are_reported_at_once() {
    let room = Room::new();
    let broken = room.file("env", "A=1\nnonsense\nexport B=2\n", 0o644);
    let mut settings = settings(&["/nowhere/run"]);
    settings.directory = Some("/nowhere".into());
    settings.environment_files = vec![broken.clone(), room.0.join("gone")];
    let problems = resolve(&settings, &BTreeMap::new(), &room.0).expect_err("nothing is right");
    let lines: Vec<String> = problems.lines().collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    assert_eq!(lines[0], format!("{}:2:1: expected KEY=value", broken.display()));
    assert!(lines[1].starts_with(&format!("{}:3:1: leave out `export`", broken.display())), "{lines:#?}");
    assert!(lines[2].contains("gone"), "{lines:#?}");
}
