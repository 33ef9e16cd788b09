//! What gunicorn's configuration file says in plain texts, read without Python.
//!
//! Owns: the assignments that mean the same wherever they are executed: `bind = "unix:/run/app.sock"` at the beginning of
//! a line. Never: runs the file, or guesses: what only Python knows is [`FileSetting::Unknown`].

/// What a file says of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSetting {
    /// Nothing.
    Absent,
    /// This text, or this list of texts.
    Values(Vec<String>),
    /// Python alone knows.
    Unknown,
}

/// Words by which a file gets names that are not written in it.
const ELSEWHERE: [&str; 6] = ["exec", "execfile", "globals", "locals", "vars", "setattr"];

/// Reads what a file says of one setting. The last assignment counts, as in Python.
pub fn setting(text: &str, name: &str) -> FileSetting {
    let mut found = FileSetting::Absent;
    // The marks that end a text of several lines.
    let mut until: Option<&str> = None;
    for line in text.lines() {
        if let Some(marks) = until {
            until = Some(marks).filter(|marks| !line.contains(marks));
            continue;
        }
        if let Some(value) = assigned(line, name) {
            found = literal(value).map_or(FileSetting::Unknown, FileSetting::Values);
        } else if words(code(line)).any(|word| word == name || ELSEWHERE.contains(&word)) || imports_all(line) {
            found = FileSetting::Unknown;
        }
        let opened = |marks: &&str| code(line).matches(marks).count() % 2 == 1;
        until = ["\"\"\"", "'''"].into_iter().find(opened);
    }
    found
}

/// The value of an assignment to a name that stands at the beginning of a line.
fn assigned<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?;
    (!value.starts_with('=')).then(|| value.trim())
}

fn imports_all(line: &str) -> bool {
    line.trim_start().starts_with("from ") && code(line).trim_end().ends_with('*')
}

/// A text, or a list or tuple of texts, and nothing else but a comment.
fn literal(value: &str) -> Option<Vec<String>> {
    let end = |rest: &str| rest.trim_start().is_empty() || rest.trim_start().starts_with('#');
    let Some(inner) = value.strip_prefix(['[', '(']) else {
        let (text, rest) = quoted(value)?;
        return end(rest).then(|| vec![text.to_owned()]);
    };
    let mut found = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.starts_with([']', ')']) {
        let (text, after) = quoted(rest)?;
        found.push(text.to_owned());
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            // ("a") is a text in Python, and means the same here.
            None if rest.starts_with([']', ')']) => {}
            None => return None,
        }
    }
    end(&rest[1..]).then_some(found)
}

/// A text in single or double quotes, without an escape, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let (inner, rest) = text[1..].split_once(quote)?;
    (!inner.contains('\\') && !rest.starts_with(quote)).then_some((inner, rest))
}

/// A line without its comment.
fn code(line: &str) -> &str {
    let mut quote = None;
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (None, '#') => return &line[..at],
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    line
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_assignments_are_read_and_nothing_is_guessed() {
        let values = |values: &[&str]| FileSetting::Values(values.iter().map(|&value| value.to_owned()).collect());
        for (text, expected) in [
            ("", FileSetting::Absent),
            ("workers = 3\n# protocol = 'uwsgi'\nproxy_protocol = True\nname = 'x'  # protocol\n", FileSetting::Absent),
            ("\"\"\"Settings.\n\nprotocol = 'uwsgi'\n\"\"\"\nworkers = 3\n", FileSetting::Absent),
            ("protocol = 'uwsgi'\n", values(&["uwsgi"])),
            ("protocol=\"uwsgi\"  # Nginx has uwsgi_pass\r\n", values(&["uwsgi"])),
            ("protocol = 'http'\nprotocol = 'uwsgi'\n", values(&["uwsgi"])),
            ("from base import *\nprotocol = 'uwsgi'\n", values(&["uwsgi"])),
            ("protocol = ['a', \"b\",]\n", values(&["a", "b"])),
            ("protocol = ()", values(&[])),
            ("protocol == 'uwsgi'\n", FileSetting::Unknown),
            ("protocol = 'uwsgi'\nif x:\n    protocol = 'http'\n", FileSetting::Unknown),
            ("protocol = 'uwsgi'\nfrom base import *\n", FileSetting::Unknown),
            ("protocol = 'uwsgi' if x else 'http'\n", FileSetting::Unknown),
            ("protocol = '''uwsgi'''\n", FileSetting::Unknown),
            ("protocol = f'{x}'\n", FileSetting::Unknown),
            ("protocol = '\\x75wsgi'\n", FileSetting::Unknown),
            ("protocol = os.environ['P']\n", FileSetting::Unknown),
            ("protocol = [\n    'uwsgi',\n]\n", FileSetting::Unknown),
            ("workers, protocol = 3, 'uwsgi'\n", FileSetting::Unknown),
            ("globals().update(x)\n", FileSetting::Unknown),
        ] {
            assert_eq!(setting(text, "protocol"), expected, "{text}");
        }
    }
}
