//! Which Python a console script runs on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::super::shlex::split;
use crate::app::text::to_os;

/// The interpreter of a console script, with the arguments it is given before the script.
///
/// `head` is the beginning of the script, its first two lines at least, as [`crate::app::text::from_os`] makes it a text. A program without a slash is looked for in
/// PATH, as `env` would. Where the script does not say, it is the `python3` beside it, as in a virtual environment;
/// the caller finds out whether that is there.
///
/// # Errors
/// Why the script is not run by Python: it is a shell script of another kind, or the first line cannot be understood.
pub fn interpreter(head: &str, script: &Path) -> Result<(PathBuf, Vec<OsString>), String> {
    let sibling = || Ok((script.with_file_name("python3"), Vec::new()));
    let mut lines = head.lines();
    let Some(line) = lines.next().and_then(|line| line.strip_prefix("#!")) else {
        return sibling();
    };
    // The kernel splits once: what follows the program is one argument.
    let (program, argument) = split_word(line.trim());
    match Path::new(program).file_name().and_then(|name| name.to_str()) {
        None => Err(format!("{}: the first line names no interpreter", script.display())),
        Some("sh" | "bash" | "dash") => match exec_line(lines.next().unwrap_or_default()) {
            // A relocatable script works its own place out, and Python is beside it.
            Some(words) if words.contains("$0") && words.contains("dirname") => sibling(),
            Some(words) => {
                let program = split(words).ok().and_then(|words| words.into_iter().next());
                let program = program.filter(|program| is_python(Path::new(program.as_str())));
                program.map(|program| (to_os(&program).into(), Vec::new())).ok_or_else(|| not_python(script, line))
            }
            None => Err(not_python(script, line)),
        },
        Some("env") => {
            let found = env(argument).filter(|(program, _)| is_python(program));
            found.ok_or_else(|| not_python(script, line))
        }
        Some(_) if is_python(Path::new(program)) => {
            let arguments = if argument.is_empty() { Vec::new() } else { vec![to_os(argument)] };
            Ok((to_os(program).into(), arguments))
        }
        Some(_) => Err(not_python(script, line)),
    }
}

/// What `'''exec' …` runs: pip and uv write this as the second line when the path of Python is too long, or has
/// spaces, for a first line. To the shell it is a command; to Python, the beginning of a text.
fn exec_line(line: &str) -> Option<&str> {
    line.strip_prefix("'''exec'").or_else(|| line.strip_prefix("''':'; exec")).map(str::trim)
}

/// What `env` would run: one program, or with `-S` a program and its arguments.
fn env(argument: &str) -> Option<(PathBuf, Vec<OsString>)> {
    let words = match argument.strip_prefix("-S").or_else(|| argument.strip_prefix("--split-string=")) {
        Some(text) => split(text).ok()?,
        None => vec![argument.to_owned()],
    };
    let (program, arguments) = words.split_first()?;
    // Options of env itself and assignments are not for us to follow.
    let plain = !program.is_empty() && !program.starts_with('-') && !program.contains(['=', ' ']);
    plain.then(|| (to_os(program).into(), arguments.iter().map(|argument| to_os(argument)).collect()))
}

/// Whether a program is a Python, by its name: whatever else a first line names would run our text as its own language.
fn is_python(program: &Path) -> bool {
    let name = program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ["python", "pypy", "graalpy"].into_iter().any(|python| name.contains(python))
}

fn split_word(line: &str) -> (&str, &str) {
    line.split_once([' ', '\t']).map_or((line, ""), |(program, rest)| (program, rest.trim()))
}

fn not_python(script: &Path, line: &str) -> String {
    format!("{} is not run by Python: its first line is \"#!{}\"", script.display(), line.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_python() {
        for (head, program, arguments) in [
            ("#!/srv/venv/bin/python3\nimport sys\n", "/srv/venv/bin/python3", &[][..]),
            ("#!/srv/venv/bin/python3\r\nimport sys\r\n", "/srv/venv/bin/python3", &[]),
            ("#! /usr/bin/python3.11 -E\n", "/usr/bin/python3.11", &["-E"]),
            ("#!/usr/bin/python3 -s -E\n", "/usr/bin/python3", &["-s -E"]),
            ("#!/usr/bin/env python3\n", "python3", &[]),
            ("#!/usr/bin/env -S python3 -u -X dev\n", "python3", &["-u", "-X", "dev"]),
            ("#!/usr/bin/env -Spython3\n", "python3", &[]),
            ("#!/bin/sh\n'''exec' \"/a long/path/python3\" \"$0\" \"$@\"\n' '''\n", "/a long/path/python3", &[]),
            ("#!/bin/sh\n'''exec' /very/long/python3 \"$0\" \"$@\"\n' '''\n", "/very/long/python3", &[]),
            ("#!/bin/sh\n'''exec' '/uv/bin/python' \"$0\" \"$@\"\n' '''\n", "/uv/bin/python", &[]),
            (
                "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\n",
                "/srv/venv/bin/python3",
                &[],
            ),
            ("", "/srv/venv/bin/python3", &[]),
        ] {
            let found = interpreter(head, Path::new("/srv/venv/bin/gunicorn"));
            let expected = (PathBuf::from(program), arguments.iter().map(OsString::from).collect());
            assert_eq!(found, Ok(expected), "{head:?}");
        }
    }

    #[test]
    fn tells_what_is_not_python() {
        for head in [
            "#!/bin/sh\nexec /srv/app/start\n",
            "#!/bin/bash",
            "#!/usr/bin/perl\n",
            "#!/usr/bin/env\n",
            "#!/usr/bin/env bash\n",
            "#!/usr/bin/env -S bash -e\n",
            "#!/usr/bin/env python3 -u\n",
            "#!/usr/bin/env -i python3\n",
            "#!/usr/bin/env -S A=b python3\n",
            "#!\n",
            "#!/bin/sh\n'''exec' \"unclosed\n",
        ] {
            let error = interpreter(head, Path::new("/x/gunicorn")).expect_err(head);
            assert!(error.starts_with("/x/gunicorn"), "{error}");
        }
    }
}
