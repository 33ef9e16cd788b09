//! What servers in Ruby share: how their command is recognised, how their options are written, and what their configuration
//! file says, as far as that is seen without running it.
//!
//! The file is a Ruby program. Understood are calls at the beginning of a line with a number or a text behind them, or
//! with a variable of the environment and what stands in for it, as Rails and Heroku write it. Whatever else is there,
//! the server alone can tell.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Where the arguments of such a program begin: behind its name, or behind `bundle exec` and its name.
pub(super) fn position(command: &[OsString], programs: &[&str]) -> Option<usize> {
    let name = |index: usize| Path::new(command.get(index)?).file_name().and_then(OsStr::to_str);
    match name(0)? {
        "bundle" if name(1) == Some("exec") && programs.contains(&name(2)?) => Some(3),
        program if programs.contains(&program) => Some(1),
        _ => None,
    }
}

/// An option and a value that is joined to it, as Ruby's `OptionParser` has them: `--bind=X`, `-p80`.
pub(super) fn option(word: &str) -> (&str, Option<&str>) {
    if let Some((name, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
        return (name, Some(value));
    }
    match word.char_indices().nth(2) {
        Some((end, _)) if word.starts_with('-') && !word.starts_with("--") => (&word[..end], Some(&word[end..])),
        _ => (word, None),
    }
}

/// One call in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// The number of its line, from 1.
    pub(super) line: usize,
    /// What is called.
    pub(super) name: &'static str,
    /// Its first argument. `None`: only the server can tell.
    pub(super) value: Option<String>,
    /// The named arguments behind it, as they are written: `:backlog => 64`, `backlog: 64`.
    pub(super) named: String,
}

/// The calls by these names, in their order.
pub(super) fn calls(text: &str, names: &[&'static str], environment: &BTreeMap<OsString, OsString>) -> Vec<Call> {
    let call = |(index, line): (usize, &str)| {
        let bare = line.trim_start();
        let called = |name: &&&str| bare.strip_prefix(**name).is_some_and(|rest| rest.starts_with([' ', '\t', '(']));
        let name = *names.iter().find(called)?;
        let written = bare[name.len()..].split(" #").next().unwrap_or_default().trim();
        // `workers = 3` is a variable of the file's own.
        if written.starts_with('=') {
            return None;
        }
        let (argument, named) = first_argument(unwrapped(written));
        // What is indented stands under a condition, and so does what has one behind it.
        let sure = bare == line && named.is_none_or(names_arguments);
        let value = if sure { value(argument, environment) } else { None };
        Some(Call { line: index + 1, name, value, named: named.unwrap_or_default().to_owned() })
    };
    text.lines().enumerate().filter_map(call).collect()
}

/// An argument, and what stands behind the comma that ends it, if there is one.
fn first_argument(text: &str) -> (&str, Option<&str>) {
    let (mut quote, mut depth) = (None, 0_i32);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => return (text[..at].trim(), Some(text[at + 1..].trim())),
            (None, _) => {}
        }
    }
    (text, None)
}

/// Whether arguments have names, `:backlog => 64` or `backlog: 64`, and no condition is behind them.
fn names_arguments(text: &str) -> bool {
    let word = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    (text.starts_with(':') || word.len() < text.len() && word.starts_with(':'))
        && !text.contains(" if ")
        && !text.contains(" unless ")
}

/// Without parentheses around all of it.
fn unwrapped(text: &str) -> &str {
    text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text).trim()
}

/// `3`, `"text"`, `Integer(…)`, `….to_i`, `ENV.fetch("NAME") { 3 }`, `ENV.fetch("NAME", 3)`, `ENV["NAME"] || 3`.
fn value(text: &str, environment: &BTreeMap<OsString, OsString>) -> Option<String> {
    let text = text.trim();
    let text = text.strip_suffix(".to_i").unwrap_or(text);
    let text = text.strip_prefix("Integer").map_or(text, unwrapped);
    let (name, otherwise) = if let Some(rest) = text.strip_prefix("ENV.fetch(") {
        if let Some((name, block)) = rest.split_once(')').filter(|(name, _)| !name.contains(',')) {
            (name, block.trim().strip_prefix('{')?.strip_suffix('}')?)
        } else {
            rest.strip_suffix(')')?.split_once(',')?
        }
    } else if let Some(rest) = text.strip_prefix("ENV[") {
        let (name, rest) = rest.split_once(']')?;
        (name, rest.trim().strip_prefix("||")?)
    } else {
        return literal(text);
    };
    let found = environment.get(OsStr::new(&literal(name.trim())?));
    match found {
        Some(value) => value.to_str().map(str::to_owned),
        None => literal(otherwise.trim()),
    }
}

fn literal(text: &str) -> Option<String> {
    let quoted = |quote: char| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    if let Some(inner) = quoted('"').or_else(|| quoted('\'')) {
        return (!inner.contains(['"', '\'', '\\', '#'])).then(|| inner.to_owned());
    }
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["workers", "bind", "port"];

    #[test]
    fn what_a_file_says_is_understood_or_left_to_the_server() {
        let environment = BTreeMap::from([("SET".into(), "7".into())]);
        for (line, expected) in [
            ("workers 3", Some("3")),
            ("workers(3)  # per core", Some("3")),
            ("port '3000'", Some("3000")),
            ("bind \"unix:///run/x.sock?umask=0007\"", Some("unix:///run/x.sock?umask=0007")),
            ("workers ENV.fetch(\"WEB_CONCURRENCY\") { 2 }", Some("2")),
            ("workers ENV.fetch(\"SET\") { 2 }", Some("7")),
            ("workers ENV.fetch('SET', 2).to_i", Some("7")),
            ("port        ENV.fetch(\"PORT\", 3000)", Some("3000")),
            ("workers Integer(ENV['WEB_CONCURRENCY'] || 2)", Some("2")),
            ("workers Integer(ENV['SET'] || 2)", Some("7")),
            ("bind '/run/x,y.sock', :backlog => 64", Some("/run/x,y.sock")),
            ("bind('/run/x.sock', umask: 0o7)", Some("/run/x.sock")),
            ("bind ENV.fetch('SOCKET', 80), tcp_nopush: true", Some("80")),
            ("port 3000, '127.0.0.1'", None),
            ("bind 80,", None),
            ("bind 80, tcp_nopush: true if ENV['X']", None),
            ("bind 80, *others", None),
            ("  workers 3", None),
            ("workers 3 if ENV['X']", None),
            ("workers Etc.nprocessors", None),
            ("workers ENV[\"SET\"", None),
            ("workers ENV.fetch(\"SET\"", None),
            ("bind \"unix://#{shared}/x.sock\"", None),
            ("bind", None),
        ] {
            let said = calls(line, &NAMES, &environment).pop().and_then(|call| call.value);
            assert_eq!(said.as_deref(), expected, "{line}");
        }
        let other = "# workers 3\nworkers = 3\nworker_timeout 60\nthreads 5, 5\nbind_to_activated_sockets\n";
        assert_eq!(calls(other, &NAMES, &environment), []);
        let numbers: Vec<_> = calls("threads 1\nport 1\n\n  workers 2\n", &NAMES, &environment);
        assert_eq!(
            numbers.iter().map(|call| (call.line, call.name)).collect::<Vec<_>>(),
            [(2, "port"), (4, "workers")]
        );
    }

    #[test]
    fn a_program_is_recognised_by_its_name_and_behind_bundle_exec() {
        let at = |line: &str| {
            let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            position(&command, &["puma", "pumas"])
        };
        for line in ["puma", "/usr/bin/puma -C x.rb", "pumas"] {
            assert_eq!(at(line), Some(1), "{line}");
        }
        for line in ["/usr/bin/bundle exec puma", "bundle exec bin/pumas -p 80"] {
            assert_eq!(at(line), Some(3), "{line}");
        }
        for line in ["", "pumactl", "bundle exec rails server", "bundle install puma", "ruby puma", "bundle exec"] {
            assert_eq!(at(line), None, "{line}");
        }
    }
}
