//! What the Python servers share: how their command lines name a Python, and what a template needs to be booted.
//!
//! Owns no IO: callers read the script and pass in its beginning.

mod package;
mod shebang;

pub use package::{BOOTSTRAP, BOOTSTRAP_PATH};
pub use shebang::interpreter;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::declared_sockets::{DeclaredSockets, Options};
use crate::app::text;

/// SIGTERM (signal(7)): what every Python server takes as its stop signal.
pub(super) const STOP_SIGNAL: i32 = 15;
/// A real-time signal, and SIGUSR2 (signal(7)): our worker programs take SIGUSR2 as a patient SIGTERM if sockd itself has
/// sent the other one before (`Drain` of `sockd_worker/drain.py`). SIGUSR2 alone comes from anybody.
pub(super) const DRAIN_SIGNALS: &[i32] = &[62, 12];

/// The oldest Python that templates run on: `bootstrap.py` has it, too.
pub const OLDEST_PYTHON: (u32, u32) = (3, 7);

/// One Python server whose workers a template forks.
#[derive(Debug)]
pub struct Python {
    /// The name of its console script.
    pub script: &'static str,
    /// What pip calls it.
    pub package: &'static str,
    /// The first two numbers of the oldest version that its template supports; the template has them, too, and refuses
    /// what is older.
    pub oldest: (u32, u32),
    /// What follows `python -m`.
    pub modules: &'static [&'static str],
    /// Where it listens if nobody says anything.
    pub default_bind: &'static str,
    /// How its command line calls the address, for messages.
    pub bind_options: &'static str,
    /// What its options state of its sockets: see [`Self::stated`].
    pub options: fn(&Options<'_>) -> Result<DeclaredSockets, String>,
}

/// A command that runs a Python server, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation<'a> {
    /// What finds Python.
    pub launcher: Launcher<'a>,
    /// The arguments of the server itself.
    pub arguments: &'a [OsString],
}

/// How a command names the Python that runs the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launcher<'a> {
    /// A console script: its first lines name the [`interpreter`].
    Script(&'a OsStr),
    /// A Python with its own options, those before `-m MODULE` or the script.
    Python(&'a OsStr, Vec<OsString>),
}

impl Python {
    /// The modules of its template, as `bootstrap.py` reads them.
    ///
    /// # Errors
    /// The lists of modules and sources do not agree, which tests rule out.
    pub fn package(&self) -> Result<String, String> {
        package::text(self.script)
    }

    /// Takes a command apart. `None`: it does not run this server.
    ///
    /// For gunicorn, recognised are `gunicorn`, `gunicorn3`, `gunicorn-3.11` and the like, `python… -m gunicorn`, and
    /// `python… …/gunicorn`; for the others the same.
    pub fn invocation<'a>(&self, command: &'a [OsString]) -> Option<Invocation<'a>> {
        let (program, rest) = command.split_first()?;
        if self.is_script(program) {
            return Some(Invocation { launcher: Launcher::Script(program), arguments: rest });
        }
        if !is_python(program) {
            return None;
        }
        let (options, after) = self.python_options(rest)?;
        Some(Invocation { launcher: Launcher::Python(program, options), arguments: after })
    }

    /// What a command that runs this server states of its sockets. `None`: it does not run it.
    ///
    /// # Errors
    /// An option whose value cannot be.
    pub fn stated(
        &self,
        command: &[OsString],
        environment: &BTreeMap<OsString, OsString>,
    ) -> Option<Result<DeclaredSockets, String>> {
        let arguments = self.invocation(command)?.arguments;
        Some((self.options)(&Options { arguments, environment }))
    }

    /// Splits Python's arguments into its options and what follows `-m MODULE` or the server's script. `None`: Python
    /// runs something else.
    fn python_options<'a>(&self, arguments: &'a [OsString]) -> Option<(Vec<OsString>, &'a [OsString])> {
        let mut at = 0;
        while let Some(argument) = arguments.get(at) {
            let text = &*text::from_os(argument);
            if text == "--check-hash-based-pycs" {
                at += 2;
                continue;
            }
            let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                return self.is_script(argument).then(|| (arguments[..at].to_vec(), &arguments[at + 1..]));
            };
            if letters.starts_with('-') {
                return None;
            }
            // As getopt does: W, X, c and m take the rest of the word, or the next one.
            let Some((index, letter)) = letters.char_indices().find(|(_, letter)| "WXcm".contains(*letter)) else {
                at += 1;
                continue;
            };
            let joined = &letters[index + 1..];
            let next = if joined.is_empty() { at + 2 } else { at + 1 };
            match letter {
                'm' => {
                    let module = if joined.is_empty() { arguments.get(at + 1)?.to_str()? } else { joined };
                    let mut options = arguments[..at].to_vec();
                    if index > 0 {
                        options.push(text::to_os(&format!("-{}", &letters[..index])));
                    }
                    return self.modules.contains(&module).then(|| (options, &arguments[next..]));
                }
                'c' => return None,
                _ => at = next,
            }
        }
        None
    }

    fn is_script(&self, program: &OsStr) -> bool {
        name_after(program, self.script)
            .is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b".-".contains(&b)))
    }
}

pub(super) fn is_python(program: &OsStr) -> bool {
    ["python", "pypy"].iter().any(|name| {
        // 3.13t is the free-threaded one, 3.13d the one for debugging.
        name_after(program, name)
            .is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit() || b".td".contains(&b)))
    })
}

fn name_after<'a>(program: &'a OsStr, prefix: &str) -> Option<&'a str> {
    Path::new(program).file_name()?.to_str()?.strip_prefix(prefix)
}

#[cfg(test)]
mod tests {
    use super::super::gunicorn::PYTHON;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn recognises_scripts() {
        for line in ["gunicorn", "/srv/venv/bin/gunicorn app:app", "gunicorn3 -w 3", "./gunicorn-3.11", "gunicorn3.11"]
        {
            let command = words(line);
            let invocation = PYTHON.invocation(&command).expect(line);
            assert_eq!(invocation.launcher, Launcher::Script(&command[0]), "{line}");
            assert_eq!(invocation.arguments, &command[1..], "{line}");
        }
    }

    #[test]
    fn recognises_python() {
        for (line, options, arguments) in [
            ("python -m gunicorn app:app", "", "app:app"),
            ("/v/bin/python3.13t -u -m gunicorn -w 3 app:app", "-u", "-w 3 app:app"),
            ("python3 -X dev -W error -I -mgunicorn app", "-X dev -W error -I", "app"),
            ("python3 -Xdev -Werror -um gunicorn app", "-Xdev -Werror -u", "app"),
            ("python3 -m gunicorn.app.wsgiapp -m 007 app", "", "-m 007 app"),
            ("python3 --check-hash-based-pycs always -m gunicorn app", "--check-hash-based-pycs always", "app"),
            ("pypy3 -OO venv/bin/gunicorn -c x.py", "-OO", "-c x.py"),
            ("python3 -uX dev -m gunicorn", "-uX dev", ""),
        ] {
            let command = words(line);
            let invocation = PYTHON.invocation(&command).expect(line);
            assert_eq!(invocation.launcher, Launcher::Python(&command[0], words(options)), "{line}");
            assert_eq!(invocation.arguments, words(arguments), "{line}");
        }
    }

    #[test]
    fn leaves_others_alone() {
        for line in [
            "",
            "uvicorn main:app",
            "gunicorn.sh",
            "gunicorn_paster x.ini",
            "mygunicorn",
            "python",
            "python -m",
            "python -c gunicorn",
            "python -m uvicorn gunicorn",
            "python -W gunicorn",
            "python manage.py gunicorn",
            "python - gunicorn",
            "python --help -m gunicorn",
            "pythonic -m gunicorn",
            "env python -m gunicorn",
        ] {
            assert_eq!(PYTHON.invocation(&words(line)), None, "{line}");
        }
    }
}
