//! What puma's configuration file says of workers and addresses, as far as that is seen without running it.
//!
//! The file is a Ruby program. Understood are `workers`, `bind` and `port` at the beginning of a line, with a number or
//! a text behind them, or with a variable of the environment and what stands in for it, as Rails and Heroku write it.
//! Whatever else is there, puma alone can tell.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// One line of the file that concerns us.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Its number, from 1.
    pub(super) line: usize,
    /// `workers`, `bind` or `port`.
    pub(super) name: &'static str,
    /// What it says. `None`: only puma can tell.
    pub(super) value: Option<String>,
}

/// The lines that concern us, in their order.
pub(super) fn calls(text: &str, environment: &BTreeMap<OsString, OsString>) -> Vec<Call> {
    let call = |(index, line): (usize, &str)| {
        let bare = line.trim_start();
        let name = ["workers", "bind", "port"]
            .into_iter()
            .find(|name| bare.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '\t', '('])))?;
        let argument = bare[name.len()..].split(" #").next().unwrap_or_default().trim();
        // `workers = 3` is a variable of the file's own.
        if argument.starts_with('=') {
            return None;
        }
        // What is indented stands under a condition.
        let value = if bare == line { value(unwrapped(argument), environment) } else { None };
        Some(Call { line: index + 1, name, value })
    };
    text.lines().enumerate().filter_map(call).collect()
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

    #[test]
    fn what_a_file_says_is_understood_or_left_to_puma() {
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
            ("  workers 3", None),
            ("workers 3 if ENV['X']", None),
            ("workers Etc.nprocessors", None),
            ("workers ENV[\"SET\"", None),
            ("workers ENV.fetch(\"SET\"", None),
            ("bind \"unix://#{shared}/x.sock\"", None),
            ("bind", None),
        ] {
            let said = calls(line, &environment).pop().and_then(|call| call.value);
            assert_eq!(said.as_deref(), expected, "{line}");
        }
        let other = "# workers 3\nworkers = 3\nworker_timeout 60\nthreads 5, 5\nbind_to_activated_sockets\n";
        assert_eq!(calls(other, &environment), []);
        let numbers: Vec<_> = calls("threads 1\nport 1\n\n  workers 2\n", &environment);
        assert_eq!(
            numbers.iter().map(|call| (call.line, call.name)).collect::<Vec<_>>(),
            [(2, "port"), (4, "workers")]
        );
    }
}
