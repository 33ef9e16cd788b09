//! Looking at the program that the service starts and at its uWSGI files.
//!
//! Owns: which program ExecStart= means, and the beginning of that file.
//! Never: runs it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{File, Program, alike, file};
use crate::adapter::declared_sockets::{MoreSettings, values};
use crate::adapter::python::{Launcher, interpreter};
use crate::adapter::{self, Adapter, Making};
use crate::app::text;
use crate::config::{self, Script};
use crate::doctor::target;
use crate::regular_file;
use crate::systemd::details::Details;

/// The PATH that systemd gives its services (systemd.exec(5)).
const SERVICE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";
/// So much of a program is read to find its interpreter, in bytes.
const HEAD: u64 = 4096;
/// So many .ini files of uWSGI's are read.
const MAX_INI_FILES: usize = 64;

/// Looks at the server's program.
pub fn look(service: &Details) -> Program {
    let Some(word) = target::command(service).first() else { return Program::default() };
    let candidates: Vec<PathBuf> = if word.contains('/') {
        vec![Path::new(&service.working_directory).join(word)]
    } else {
        let environment = target::environment(service);
        let path = environment.get(std::ffi::OsStr::new("PATH")).and_then(|path| path.to_str()).unwrap_or(SERVICE_PATH);
        std::env::split_paths(path).map(|directory| directory.join(word)).collect()
    };
    let at = candidates.iter().position(|candidate| candidate.exists());
    if candidates.is_empty() {
        return Program::default();
    }
    let found = program(candidates[at.unwrap_or(0)].clone());
    let directories: Vec<PathBuf> = candidates.iter().filter_map(|path| Some(path.parent()?.to_owned())).collect();
    let missing = found.exists == Some(false);
    let alike = missing.then(|| alike::program(word, &directories, Path::new(&service.working_directory))).flatten();
    let opaque = if target::runs_sockd(service) { opaque(service) } else { None };
    Program { alike, opaque, ..found }
}

/// Why sockd cannot look through the program to the server that it starts. `None`: it can, or there is none.
fn opaque(service: &Details) -> Option<String> {
    let command: Vec<OsString> = target::command(service).iter().map(OsString::from).collect();
    let (_, command) = adapter::look_through(&command);
    match adapter::recognise(&command) {
        unknown if adapter::is_unknown(unknown) => adapter::hidden_server(&command).map(adapter::hidden_server_note),
        Adapter { making: Making::Template(server), .. } => {
            let Launcher::Script(program) = server.invocation(&command)?.launcher else { return None };
            let mut environment = target::environment(service);
            environment.entry("PATH".into()).or_insert_with(|| SERVICE_PATH.into());
            let path = config::find_program(program, Path::new(&service.working_directory), &environment).ok()?;
            match config::script(&path).ok()? {
                Script::Other(why) => Some(format!("{why}: sockd runs it as it is, once for each worker")),
                Script::Python(..) | Script::Shim(_) => None,
            }
        }
        _ => None,
    }
}

fn program(path: PathBuf) -> Program {
    // An error other than "not there" is that we may not look.
    let metadata = fs::metadata(&path);
    let exists = match &metadata {
        Ok(_) => Some(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    };
    // What cannot be read has no interpreter that we know.
    let head = regular_file::head(&path, HEAD).unwrap_or_default();
    let interpreter = interpreter(&String::from_utf8_lossy(&head), &path).ok();
    let interpreter = interpreter.map(|(interpreter, _)| interpreter).filter(|interpreter| interpreter.is_absolute());
    let there = |path: &PathBuf| match fs::metadata(path) {
        Err(error) => (error.kind() != std::io::ErrorKind::NotFound).then_some(true),
        Ok(_) => Some(true),
    };
    let python = path.parent().is_some_and(|directory| directory.join("python").exists());
    Program {
        exists,
        interpreter_exists: interpreter.as_ref().map(|path| there(path).unwrap_or(false)),
        interpreter: interpreter.map_or(String::new(), |path| path.display().to_string()),
        executable: metadata.ok().map(|metadata| metadata.permissions().mode() & 0o111 != 0),
        python: python && path.starts_with("/") && !path.starts_with("/usr"),
        alike: None,
        opaque: None,
        path: path.display().to_string(),
    }
}

/// The .ini files of a uWSGI: `--ini FILE`, `--emperor DIRECTORY`.
pub fn uwsgi_files(service: &Details) -> Vec<File> {
    let command = target::command(service);
    let directory = Path::new(&service.working_directory);
    let named = values(command.iter(), &["--ini"]).into_iter().map(|file| directory.join(file));
    let mut paths: Vec<PathBuf> = named.collect();
    for directory in values(command.iter(), &["--emperor"]) {
        paths.extend(fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "ini"));
    paths.sort();
    paths.iter().take(MAX_INI_FILES).filter_map(|path| file::read(path).ok()).collect()
}

/// The configuration file that the server's own options name, or that it finds by itself; and whether there is one that
/// cannot be read.
pub fn server_file(service: &Details) -> (Option<File>, bool) {
    match target::more_settings(service) {
        MoreSettings::Nowhere => (None, false),
        MoreSettings::Module => (None, true),
        MoreSettings::File(name) => match file::read(&Path::new(&service.working_directory).join(text::to_os(&name))) {
            Ok(file) => (Some(file), false),
            Err(error) => (None, error.kind() != std::io::ErrorKind::NotFound),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_the_server_is_distinguished() {
        let room = std::env::temp_dir().join(format!("sockd-opaque-{}", std::process::id()));
        fs::create_dir_all(&room).expect("made");
        let pyenv =
            "#!/usr/bin/env bash\nprogram=\"${0##*/}\"\nexec \"/root/.pyenv/libexec/pyenv\" exec \"$program\" \"$@\"\n";
        for (text, line, reason) in [
            (
                "#!/usr/bin/env bash\nexec python -m gunicorn \"$@\"\n",
                "sockd run -- gunicorn a:b",
                Some("is not run by Python"),
            ),
            ("#!/bin/sh\nexec /srv/start\n", "/usr/bin/sockd run -- ROOM/gunicorn a:b", Some("is not run by Python")),
            ("\x7fELF\x02\x01", "sockd run -- env A=b ROOM/gunicorn a:b", Some("is a compiled program, not Python")),
            ("", "sockd run -- /opt/agent gunicorn a:b", Some("gunicorn is started by a program")),
            (pyenv, "sockd run -- gunicorn a:b", None),
            ("#!/srv/venv/bin/python3\n", "sockd run -- gunicorn a:b", None),
            ("#!/bin/sh\nexec /srv/start\n", "ROOM/gunicorn a:b", None),
            ("#!/bin/sh\nexec /srv/start\n", "sockd run -- /v/bin/python -m gunicorn a:b", None),
        ] {
            let path = room.join("gunicorn");
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
            let room = room.display().to_string();
            let service = Details {
                exec_start: line.split(' ').map(|word| word.replace("ROOM", &room)).collect(),
                environment: vec![format!("PATH={room}")],
                working_directory: room.clone(),
                ..Details::default()
            };
            let found = look(&service).opaque;
            assert_eq!(found.is_some(), reason.is_some(), "{line}: {found:?}");
            assert!(found.unwrap_or_default().contains(reason.unwrap_or_default()), "{line}");
        }
        fs::remove_dir_all(room).expect("removed");
    }
}
