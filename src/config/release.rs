//! The release: the directory that an application runs from, and settings that are led to another one.
//!
//! A deployment that moves a link writes the link's path wherever the application is named: in `directory`, in the path of
//! the program, in PATH. To run a release that the link does not lead to, each of them is written again.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Settings;
use crate::adapter::gunicorn::{self, GunicornArgs};
use crate::adapter::launcher::Variable;
use crate::app::Command;

/// The directory of the application as it is written: `directory`, or gunicorn's --chdir.
fn written(settings: &Settings, environment: &BTreeMap<OsString, OsString>, directory: &Path) -> PathBuf {
    let invocation = gunicorn::PYTHON.invocation(&settings.command);
    let chdir = invocation.and_then(|invocation| GunicornArgs::read(invocation.arguments, environment).chdir);
    match chdir {
        Some(chdir) => directory.join(chdir),
        None => directory.to_owned(),
    }
}

/// The release that a command runs from: its path without symbolic links.
pub fn release(settings: &Settings, command: &Command) -> PathBuf {
    let written = written(settings, &command.environment, &command.directory);
    fs::canonicalize(&written).unwrap_or(written)
}

/// Leads the settings, and what they are resolved with, to this release: wherever a path begins with the directory of the
/// application as it is written, it begins with the release instead. Where both end alike (`/srv/current/site` and
/// `/srv/releases/1/site`), what is before that is exchanged.
pub fn lead_to(
    release: &Path,
    settings: &mut Settings,
    environment: &mut BTreeMap<OsString, OsString>,
    base_directory: &mut PathBuf,
) {
    let directory = settings.directory.get_or_insert_with(|| base_directory.clone());
    let directory = directory.clone();
    let written: PathBuf = written(settings, environment, &directory).components().collect();
    let (mut from, mut to) = (written.as_path(), release);
    while let (Some(from_name), Some(to_name)) = (from.file_name(), to.file_name())
        && from != to
        && from_name == to_name
        && let (Some(from_parent), Some(to_parent)) = (from.parent(), to.parent())
    {
        (from, to) = (from_parent, to_parent);
    }
    if from == to || from.parent().is_none() {
        return;
    }
    let path =
        |path: &mut PathBuf| *path = moved(path.as_os_str(), from, to).unwrap_or_else(|| path.clone().into()).into();
    let word = |word: &mut OsString| *word = moved_word(word, from, to);
    let list = |value: &mut OsString| {
        let parts: Vec<Vec<u8>> = value
            .as_bytes()
            .split(|byte| *byte == b':')
            .map(|part| moved_word(OsStr::from_bytes(part), from, to).into_vec())
            .collect();
        *value = OsString::from_vec(parts.join(&b':'));
    };
    settings.directory.iter_mut().for_each(path);
    settings.command.iter_mut().for_each(word);
    settings.launcher.words.iter_mut().for_each(word);
    for variable in &mut settings.launcher.variables {
        if let Variable::Set(_, value) = variable {
            list(value);
        }
    }
    settings.health.command.iter_mut().for_each(word);
    settings.reload.check.iter_mut().flatten().for_each(word);
    settings.reload.after.iter_mut().for_each(word);
    for file in &mut settings.environment_files {
        let optional = file.as_os_str().as_bytes().strip_prefix(b"-").map(|rest| OsStr::from_bytes(rest).to_owned());
        match optional {
            Some(rest) => {
                let mut dashed = OsString::from("-");
                dashed.push(moved_word(&rest, from, to));
                *file = dashed.into();
            }
            None => path(file),
        }
    }
    for value in settings.environment.values_mut() {
        let mut moved = OsString::from(&*value);
        list(&mut moved);
        if let Ok(moved) = moved.into_string() {
            *value = moved;
        }
    }
    environment.values_mut().for_each(list);
    path(base_directory);
}

/// A path below `from`, below `to`.
fn moved(path: &OsStr, from: &Path, to: &Path) -> Option<OsString> {
    let below = Path::new(path).strip_prefix(from).ok()?;
    Some(if below.as_os_str().is_empty() { to.into() } else { to.join(below).into() })
}

/// The same of a word that is such a path, or has one behind "=".
fn moved_word(word: &OsStr, from: &Path, to: &Path) -> OsString {
    if let Some(moved) = moved(word, from, to) {
        return moved;
    }
    let bytes = word.as_bytes();
    let behind = bytes.iter().position(|byte| *byte == b'=').map(|at| bytes.split_at(at + 1));
    let moved = behind.and_then(|(option, path)| Some((option, moved(OsStr::from_bytes(path), from, to)?)));
    match moved {
        Some((option, path)) => {
            let mut word = OsStr::from_bytes(option).to_owned();
            word.push(path);
            word
        }
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, load};

    fn led(directory: &str, command: &str, release: &str) -> (Settings, BTreeMap<OsString, OsString>) {
        let command = command.split(' ').map(Into::into).collect();
        let mut settings = load(None, &Options { command, ..Options::default() }).expect("it is enough").settings;
        settings.directory = Some(directory.into());
        settings.environment_files = vec!["-/srv/current/env".into(), "/etc/env".into()];
        settings.environment.insert("PYTHONPATH".to_owned(), "/srv/current/lib:/opt".to_owned());
        settings.reload.check = vec![vec!["/srv/current/check".into()]];
        let path = ("PATH".into(), "/usr/bin:/srv/current/venv/bin:/srv/currently/bin".into());
        let mut environment = BTreeMap::from([path]);
        lead_to(Path::new(release), &mut settings, &mut environment, &mut PathBuf::from("/"));
        (settings, environment)
    }

    fn words(command: &[OsString]) -> String {
        command.join(OsStr::new(" ")).into_string().expect("UTF-8")
    }

    #[test]
    fn whatever_lay_below_the_link_lies_below_the_release() {
        let command =
            "/srv/current/venv/bin/gunicorn --config=/srv/current/g.py --pythonpath /srv/current site /srv/currently";
        let (settings, environment) = led("/srv/current", command, "/srv/releases/1");
        assert_eq!(settings.directory.as_deref(), Some(Path::new("/srv/releases/1")));
        let led_to = "/srv/releases/1/venv/bin/gunicorn --config=/srv/releases/1/g.py --pythonpath /srv/releases/1 site /srv/currently";
        assert_eq!(words(&settings.command), led_to);
        assert_eq!(settings.environment_files, ["-/srv/releases/1/env", "/etc/env"].map(PathBuf::from));
        assert_eq!(settings.environment["PYTHONPATH"], "/srv/releases/1/lib:/opt");
        assert_eq!(words(&settings.reload.check[0]), "/srv/releases/1/check");
        assert_eq!(environment[OsStr::new("PATH")], "/usr/bin:/srv/releases/1/venv/bin:/srv/currently/bin");
    }

    #[test]
    fn a_directory_within_the_release_and_gunicorns_own_count_too() {
        let (settings, environment) = led("/srv/current/site/", "../venv/bin/gunicorn site", "/srv/releases/1/site");
        assert_eq!(settings.directory.as_deref(), Some(Path::new("/srv/releases/1/site")));
        assert_eq!(environment[OsStr::new("PATH")], "/usr/bin:/srv/releases/1/venv/bin:/srv/currently/bin");
        let (settings, _) = led("/home/sammy", "gunicorn --chdir /srv/current site", "/srv/releases/1");
        assert_eq!(words(&settings.command), "gunicorn --chdir /srv/releases/1 site");
        assert_eq!(settings.directory.as_deref(), Some(Path::new("/home/sammy")));
        // There is nothing to exchange.
        let (settings, _) = led("/srv/current", "gunicorn site", "/srv/current");
        assert_eq!(settings.directory.as_deref(), Some(Path::new("/srv/current")));
    }
}
