//! The .ini files of uWSGI, as far as they say where it listens.
//!
//! Owns: the section `[uwsgi]`, its keys and the `%(name)` in its values.
//! Never: reads a file, or what only uWSGI can know (`@(…)`, `if-`, `for-`).

use std::collections::BTreeMap;

use crate::adapter::uwsgi::ini;

/// A value that stands for more is not put together (bytes).
const LONGEST: usize = 4096;

/// What an .ini file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ini {
    /// `socket =`: the uwsgi protocol, for `uwsgi_pass`.
    pub sockets: Vec<String>,
    /// `http-socket =`: HTTP, for `proxy_pass`.
    pub http_sockets: Vec<String>,
}

/// Reads the file's text; `name` is the file's name without directory and ending, uWSGI's `%n`.
pub fn read(text: &str, name: &str) -> Ini {
    let mut found = Ini::default();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for ini::Line { key, value, .. } in ini::lines(text, "uwsgi") {
        let (key, value) = (key.replace('_', "-"), expand(value, &values, name));
        match key.as_str() {
            "socket" | "uwsgi-socket" => found.sockets.push(value.clone()),
            "http-socket" => found.http_sockets.push(value.clone()),
            _ => {}
        }
        values.insert(key, value);
    }
    found
}

fn expand(value: &str, values: &BTreeMap<String, String>, name: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    // A value of names that each stand for two others doubles with every line; no address is that long.
    while let Some((before, after)) = rest.split_once('%').filter(|_| out.len() <= LONGEST) {
        out.push_str(before);
        if let Some((key, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            out.push_str(values.get(&key.replace('_', "-")).map_or("", String::as_str));
            rest = after;
        } else if let Some(after) = after.strip_prefix('n') {
            out.push_str(name);
            rest = after;
        } else {
            out.push('%');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelt_in_two_ways_and_what_doubles_is_bounded() {
        let ini = read("[uwsgi]\nmy_name = first\nsocket = /run/%(my_name)-%(my-name).sock\n", "x");
        assert_eq!(ini.sockets, ["/run/first-first.sock"]);
        let doubling: String = (1..40).map(|n| format!("a{n} = %(a{})%(a{})\n", n - 1, n - 1)).collect();
        let ini = read(&format!("[uwsgi]\na0 = 0123456789abcdef\n{doubling}socket = %(a39)\n"), "x");
        assert!(ini.sockets[0].len() <= 3 * LONGEST, "{} bytes", ini.sockets[0].len());
    }

    #[test]
    fn the_guides_file_is_read() {
        let text = "[uwsgi]\nproject = firstsite\nuid = sammy\nbase = /home/%(uid)\n# socket = /no\n\
                    module = %(project).wsgi:application\nsocket = /run/uwsgi/%(project).sock\nhttp-socket = :%n0%\n\
                    [other]\nsocket = /no\n";
        let ini = read(text, "8");
        assert_eq!(
            (ini.sockets, ini.http_sockets),
            (vec!["/run/uwsgi/firstsite.sock".to_owned()], vec![":80%".to_owned()])
        );
    }
}
