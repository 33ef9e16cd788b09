//! What stands before a server on a command line, sets its environment or its rights, and executes it: `env`, `nice`,
//! `newrelic-admin run-program`, `poetry run`.
//!
//! Such a launcher becomes the server: same process, same descriptors. So the server behind it is at home with sockd, and
//! its launcher is executed before whatever sockd executes in the server's place. What stays the server's parent (a
//! shell, `timeout`, `dumb-init`, `uv run`) is no launcher: it is a program like any other.
//!
//! Owns no IO.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::shlex;

/// So many launchers are followed.
const MAX_LAUNCHERS: usize = 8;

/// What was found before a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launcher {
    /// What is executed before the server's own program; empty where there is nothing.
    pub words: Vec<OsString>,
    /// What `env` among it does to the environment, in this order. It is not among the words: sockd does it.
    pub variables: Vec<Variable>,
    /// Whether the server's program is found by the launcher, in an environment of its own.
    pub finds_program: bool,
}

/// One change of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// Nothing of it is left.
    Clear,
    /// This one goes.
    Unset(OsString),
    /// This one has this value.
    Set(OsString, OsString),
}

/// What follows a launcher's name.
struct Form {
    name: &'static str,
    /// The words that must come next: `run-program`.
    then: &'static [&'static str],
    /// Options whose value is the next word, by their short letters.
    letters: &'static str,
    /// The same, in full.
    long: &'static [&'static str],
    /// Options without a value, by their short letters; `+`: all long ones of a known name too.
    flags: &'static str,
    /// Words that are no options and stand before the command: chrt's priority.
    operands: usize,
    finds_program: bool,
}

const PLAIN: Form = Form { name: "", then: &[], letters: "", long: &[], flags: "", operands: 0, finds_program: false };

/// Each by its own manual; tried with newrelic 14.1, ddtrace 4.16, opentelemetry-distro 0.66b2, pipenv 2026.10, poetry 2.5
/// and those of Debian 12's coreutils and util-linux.
const FORMS: [Form; 15] = [
    Form { name: "nice", letters: "n", long: &["adjustment"], flags: "0123456789", ..PLAIN },
    Form { name: "ionice", letters: "cn", long: &["class", "classdata"], flags: "t", ..PLAIN },
    Form {
        name: "chrt",
        letters: "TPD",
        long: &["sched-runtime", "sched-period", "sched-deadline"],
        flags: "bfiordRv",
        operands: 1,
        ..PLAIN
    },
    Form { name: "taskset", flags: "ac", operands: 1, ..PLAIN },
    Form { name: "choom", letters: "n", long: &["adjust"], ..PLAIN },
    Form { name: "stdbuf", letters: "ioe", long: &["input", "output", "error"], ..PLAIN },
    Form { name: "numactl", letters: "NCmipw", long: &["cpunodebind", "membind", "interleave"], flags: "lb", ..PLAIN },
    Form { name: "nohup", ..PLAIN },
    Form {
        name: "setpriv",
        long: &["reuid", "regid", "groups", "inh-caps", "ambient-caps", "bounding-set", "securebits", "selinux-label"],
        flags: "+",
        ..PLAIN
    },
    Form { name: "newrelic-admin", then: &["run-program"], ..PLAIN },
    Form { name: "ddtrace-run", flags: "dpiv", ..PLAIN },
    Form {
        name: "opentelemetry-instrument",
        long: &["exporter_otlp_endpoint", "service_name", "traces_exporter", "metrics_exporter", "logs_exporter"],
        ..PLAIN
    },
    Form { name: "poetry", then: &["run"], finds_program: true, ..PLAIN },
    Form { name: "pipenv", then: &["run"], finds_program: true, ..PLAIN },
    Form { name: "pyenv", then: &["exec"], finds_program: true, ..PLAIN },
];

/// The same as modules of Python.
const MODULES: [(&str, &[&str]); 4] = [
    ("newrelic.admin", &["run-program"]),
    ("poetry", &["run"]),
    ("pipenv", &["run"]),
    ("ddtrace.commands.ddtrace_run", &[]),
];

/// Splits a command into what stands before, and the command that it executes. With nothing before, the launcher is
/// empty and the command is the same.
pub fn split(command: &[OsString]) -> (Launcher, Vec<OsString>) {
    let (mut launcher, mut rest) = (Launcher::default(), command.to_vec());
    for _ in 0..MAX_LAUNCHERS {
        let Some(program) = rest.first() else { break };
        let name = Path::new(program).file_name().unwrap_or_default().to_owned();
        if name == "env" {
            let Some((variables, behind)) = env(&rest[1..]) else { break };
            launcher.variables.extend(variables);
            rest = behind;
            continue;
        }
        let before = match FORMS.iter().find(|form| name == form.name) {
            Some(form) => form.words_before(&rest).map(|before| (before, form.finds_program)),
            None => module(&rest),
        };
        let Some((before, finds_program)) = before.filter(|(before, _)| *before < rest.len()) else { break };
        launcher.words.extend(rest.drain(..before));
        launcher.finds_program |= finds_program;
    }
    if rest.is_empty() { (Launcher::default(), command.to_vec()) } else { (launcher, rest) }
}

impl Form {
    /// How many words stand before the command. `None`: it is used for something else, such as a running process.
    fn words_before(&self, command: &[OsString]) -> Option<usize> {
        let mut at = 1;
        for word in self.then {
            if command.get(at)? != word {
                return None;
            }
            at += 1;
        }
        while let Some(word) = command.get(at).and_then(|word| word.to_str()).filter(|word| word.starts_with('-')) {
            at += 1;
            if word == "--" {
                break;
            }
            at += self.option(word)?;
        }
        Some(at + self.operands)
    }

    /// How many words the option takes beside its own. `None`: it is not known.
    fn option(&self, word: &str) -> Option<usize> {
        if let Some(long) = word.strip_prefix("--") {
            let (name, joined) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            if self.long.contains(&name) {
                return Some(usize::from(!joined));
            }
            // Names of flags in full: as long as they take no value they are no matter.
            return (self.flags.contains('+') || !self.flags.is_empty() && !joined && name != "pid").then_some(0);
        }
        let letters = &word[1..];
        for (index, letter) in letters.char_indices() {
            if self.letters.contains(letter) {
                return Some(usize::from(index + letter.len_utf8() == letters.len()));
            }
            if !self.flags.contains(letter) {
                return None;
            }
        }
        Some(0)
    }
}

/// `python -m newrelic.admin run-program`: how many words, and whether it finds programs.
fn module(command: &[OsString]) -> Option<(usize, bool)> {
    let name = Path::new(command.first()?).file_name()?.to_str()?;
    if !name.starts_with("python") || command.get(1)? != "-m" {
        return None;
    }
    let (_, then) = MODULES.iter().find(|(module, _)| command.get(2).is_some_and(|word| word == module))?;
    let follows = then.iter().zip(&command[3..]).filter(|(want, word)| word == want).count() == then.len();
    let finds_program = matches!(command[2].to_str()?, "poetry" | "pipenv");
    follows.then_some((3 + then.len(), finds_program))
}

/// What `env` does, and what it executes. `None`: it does something that is not followed.
fn env(arguments: &[OsString]) -> Option<(Vec<Variable>, Vec<OsString>)> {
    let (mut variables, mut rest) = (Vec::new(), arguments.to_vec());
    loop {
        let word = rest.first()?.clone();
        let text = word.to_str().unwrap_or_default();
        let mut taken = 1;
        // An option's value: joined to it, or the next word.
        let mut value = |joined: &str| {
            if joined.is_empty() {
                taken = 2;
                rest.get(1).cloned()
            } else {
                Some(OsString::from(joined))
            }
        };
        if text == "--" {
            rest.remove(0);
            break;
        } else if matches!(text, "-" | "-i" | "--ignore-environment") {
            variables.push(Variable::Clear);
        } else if let Some(joined) = text.strip_prefix("--unset=").or_else(|| text.strip_prefix("-u")) {
            variables.push(Variable::Unset(value(joined)?));
        } else if let Some(joined) = text.strip_prefix("--split-string=").or_else(|| text.strip_prefix("-S")) {
            let words = shlex::split(value(joined)?.to_str()?).ok()?;
            rest.drain(..taken);
            rest.splice(..0, words.into_iter().map(OsString::from));
            continue;
        } else if text.starts_with('-') {
            return None;
        } else if !assign(&word, &mut variables) {
            break;
        }
        rest.drain(..taken);
    }
    // Behind `--` assignments may follow as well.
    while rest.first().is_some_and(|word| assign(word, &mut variables)) {
        rest.remove(0);
    }
    (!rest.is_empty()).then_some((variables, rest))
}

fn assign(word: &OsStr, variables: &mut Vec<Variable>) -> bool {
    let bytes = word.as_bytes();
    let Some(at) = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0) else { return false };
    let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    variables.push(Variable::Set(part(&bytes[..at]), part(&bytes[at + 1..])));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<OsString> {
        shlex::split(text).expect("a line").into_iter().map(OsString::from).collect()
    }

    fn set(name: &str, value: &str) -> Variable {
        Variable::Set(name.into(), value.into())
    }

    #[test]
    fn launchers_are_taken_off_with_their_own_options_alone() {
        for (before, finds_program) in [
            ("nice", false),
            ("nice -n 5", false),
            ("/usr/bin/nice -10", false),
            ("nice --adjustment=5", false),
            ("ionice -c2 -n 7", false),
            ("ionice -c 2 -n7 -t", false),
            ("chrt -b 0", false),
            ("chrt --idle 0", false),
            ("taskset -c 0,1", false),
            ("taskset 0x3", false),
            ("choom -n 500 --", false),
            ("stdbuf -oL -e0", false),
            ("setpriv --no-new-privs --inh-caps=-all --reuid 1000", false),
            ("nohup", false),
            ("newrelic-admin run-program", false),
            ("/srv/venv/bin/python -m newrelic.admin run-program", false),
            ("ddtrace-run -d", false),
            ("opentelemetry-instrument --service_name shop --traces_exporter=otlp", false),
            ("poetry run", true),
            ("/root/.local/bin/pipenv run", true),
            ("python3 -m pipenv run", true),
            ("nice -n 5 ionice -c3 ddtrace-run poetry run", true),
        ] {
            let behind = line("gunicorn -w 3 -n shop app:app");
            let whole = [line(before), behind.clone()].concat();
            let expected = Launcher { words: line(before), variables: Vec::new(), finds_program };
            assert_eq!(split(&whole), (expected, behind), "{before}");
        }
    }

    #[test]
    fn env_is_understood_and_need_not_be_executed() {
        for (before, variables) in [
            ("env", vec![]),
            ("/usr/bin/env A=b C=", vec![set("A", "b"), set("C", "")]),
            ("env -i PATH=/bin", vec![Variable::Clear, set("PATH", "/bin")]),
            (
                "env -u A --unset=B -uC -- D=e",
                vec![
                    Variable::Unset("A".into()),
                    Variable::Unset("B".into()),
                    Variable::Unset("C".into()),
                    set("D", "e"),
                ],
            ),
            ("env -S 'A=b nice'", vec![set("A", "b")]),
            ("env A='b c' env -", vec![set("A", "b c"), Variable::Clear]),
        ] {
            let behind = line("gunicorn -e X=y app:app");
            let (launcher, rest) = split(&[line(before), behind.clone()].concat());
            assert_eq!((launcher.variables, rest), (variables, behind), "{before}");
        }
        assert_eq!(split(&line("env -S 'A=b nice' gunicorn")).0.words, line("nice"));
    }

    #[test]
    fn what_stays_the_servers_parent_or_is_not_understood_is_left_as_it_is() {
        for text in [
            "gunicorn -w 3 app:app",
            "bash -c 'exec gunicorn app:app'",
            "timeout 60 gunicorn app:app",
            "uv run gunicorn app:app",
            "dumb-init gunicorn app:app",
            "newrelic-admin generate-config x",
            "taskset -p 3 700",
            "ionice -p 700",
            "nice",
            "env A=b",
            "env --chdir=/srv gunicorn",
            "env -C /srv gunicorn",
            "poetry install",
            "python -m newrelic.admin",
            "",
        ] {
            let (launcher, rest) = split(&line(text));
            assert_eq!((launcher, rest), (Launcher::default(), line(text)), "{text}");
        }
    }
}
