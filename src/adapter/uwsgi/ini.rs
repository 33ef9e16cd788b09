//! uWSGI's .ini files: their lines, and what stands for something else in a value.
//!
//! As `core/ini.c` and `config_magic_table_fill` of uWSGI 2.0.31 read them. A file's text is taken apart here because
//! what is left of it is given to uWSGI under another name. Who only wants to know what a file says takes a [`Section`].

use std::collections::BTreeMap;
use std::path::Path;

/// The options that name a socket for the uwsgi protocol.
pub const UWSGI_SOCKETS: [&str; 2] = ["socket", "uwsgi-socket"];
/// The options that name a socket for HTTP.
pub const HTTP_SOCKETS: [&str; 2] = ["http-socket", "http11-socket"];
/// A value is looked through for so many signs `%`, `$` and `@`, those of what is put in among them; one with more is taken
/// for a circle.
const MAX_SIGNS: usize = 64;
/// No value stands for more (bytes): names that name others twice double at each level.
const MAX_VALUE: usize = 4096;

/// A file, perhaps with a section: `site.ini`, `site.ini:staging`, or `:staging` for the file that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference<'a> {
    /// The file, as written. Empty: the same.
    pub(super) file: &'a str,
    /// The section that counts.
    pub(super) section: &'a str,
}

impl<'a> Reference<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        match text.rsplit_once(':') {
            Some((file, "")) => Self { file, section: "uwsgi" },
            Some((file, section)) => Self { file, section },
            None => Self { file: text, section: "uwsgi" },
        }
    }
}

/// One option of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Counted from 1.
    pub number: usize,
    /// The option's name, as written.
    pub key: &'a str,
    /// Empty where there is none.
    pub value: &'a str,
}

/// The options of one section.
pub fn lines<'a>(text: &'a str, section: &str) -> Vec<Line<'a>> {
    let blank = [' ', '\t', '\r'];
    let mut found = Vec::new();
    let mut here = "";
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = line.trim_matches(blank);
        if let Some(name) = line.strip_prefix('[') {
            // uWSGI takes the last byte off, whatever it is.
            here = name.strip_suffix(']').unwrap_or(name);
        } else if !line.is_empty() && !line.starts_with([';', '#']) && here == section {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            found.push(Line { number, key: key.trim_end_matches(blank), value: value.trim_start_matches(blank) });
        }
    }
    found
}

/// What `%n` and its like mean in one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Letters {
    known: Vec<(char, String)>,
}

impl Letters {
    /// For the file called `written`, whose absolute path is `path`. In a file that another one includes, the capitals
    /// speak of that `outer` one.
    pub(super) fn new(written: &str, path: &str, section: Option<&str>, outer: Option<&Self>) -> Self {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let parent = directory.rsplit('/').next().unwrap_or_default();
        let mut known: Vec<(char, String)> = [
            ('o', written),
            ('p', path),
            ('s', name),
            ('d', &path[..path.len() - name.len()]),
            ('c', parent),
            ('e', extension),
            ('n', stem),
            ('x', section.unwrap_or_default()),
        ]
        .map(|(letter, text)| (letter, text.to_owned()))
        .into();
        let mut parts = directory.split('/').filter(|part| !part.is_empty());
        known.extend(('0'..='9').map(|digit| (digit, parts.next().unwrap_or_default().to_owned())));
        let capitals: Vec<_> = match outer {
            Some(outer) => outer.known.iter().filter(|(letter, _)| letter.is_ascii_uppercase()).cloned().collect(),
            None => {
                let of = known.iter().filter(|(letter, _)| "odspcenx".contains(*letter));
                of.map(|(letter, text)| (letter.to_ascii_uppercase(), text.clone())).collect()
            }
        };
        known.extend(capitals);
        Self { known }
    }

    fn get(&self, letter: char) -> Option<&str> {
        self.known.iter().find(|(known, _)| *known == letter).map(|(_, text)| text.as_str())
    }

    /// Puts in what depends on the file's name, so that the text means the same in a file of another name. The rest,
    /// `%(NAME)` and `%v` and their like, is left for uWSGI.
    ///
    /// # Errors
    /// A letter that nobody but uWSGI itself can tell.
    pub(super) fn put_in(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                out.push(letter);
                continue;
            }
            match letters.next() {
                Some(unknown @ ('i' | 'I' | 'j' | 'J')) => {
                    return Err(format!("%{unknown} depends on the file itself, which uWSGI does not see under sockd"));
                }
                Some(letter) => match self.get(letter) {
                    // What is put in must not be read once more.
                    Some(text) => out.push_str(&text.replace('%', "%%")),
                    None => out.extend(['%', letter]),
                },
                None => out.push('%'),
            }
        }
        Ok(out)
    }
}

/// What stands for something else in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placeholder<'a> {
    /// `%(NAME)`: the value of an option, the first one if there are several (measured).
    Option(&'a str),
    /// `$(NAME)`: a variable of the environment.
    Variable(&'a str),
    /// `%n`.
    Letter(char),
}

/// A value with everything put in that `known` knows. What an option holds may hold more.
///
/// # Errors
/// What is not known, and what does not end.
pub(super) fn expand(value: &str, known: impl Fn(Placeholder<'_>) -> Option<String>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), value.to_owned());
    for _ in 0..=MAX_SIGNS {
        let Some(at) = rest.find(['%', '$', '@']) else { return Ok(out + &rest) };
        out.push_str(&rest[..at]);
        let (sign, after) = rest[at..].split_at(1);
        let name = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        rest = match (sign, name) {
            ("%", Some((name, after))) => {
                known(Placeholder::Option(name)).ok_or_else(|| format!("there is no {name}"))? + after
            }
            ("$", Some((name, after))) => {
                let variable = known(Placeholder::Variable(name));
                variable.ok_or_else(|| format!("the variable {name} is not known here: write it out first"))? + after
            }
            ("@", Some(_)) => return Err("what stands in another file is not looked at: write it out first".to_owned()),
            ("%", None) => {
                let letter = after.chars().next().ok_or("it ends in a lone %")?;
                let text = if letter == '%' { Some("%".to_owned()) } else { known(Placeholder::Letter(letter)) };
                out +=
                    &text.ok_or_else(|| format!("what %{letter} stands for is not known here: write it out first"))?;
                after[letter.len_utf8()..].to_owned()
            }
            (sign, _) => {
                out.push_str(sign);
                after.to_owned()
            }
        };
        if out.len() + rest.len() > MAX_VALUE {
            return Err(format!("it stands for more than {MAX_VALUE} bytes"));
        }
    }
    Err("it stands for itself, or for too much".to_owned())
}

/// The section `[uwsgi]` of one file.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    path: &'a Path,
    letters: Letters,
    lines: Vec<Line<'a>>,
    /// What `%(NAME)` looks up: the first value of each option.
    first: BTreeMap<&'a str, &'a str>,
}

impl<'a> Section<'a> {
    /// Takes it from the file's text. `path` is absolute, and is not read.
    pub fn read(path: &'a Path, text: &'a str) -> Self {
        let name = path.to_string_lossy();
        let lines = lines(text, "uwsgi");
        let first = lines.iter().rev().map(|line| (line.key, line.value)).collect();
        Self { path, letters: Letters::new(&name, &name, None, None), lines, first }
    }

    /// Its lines.
    pub fn lines(&self) -> &[Line<'a>] {
        &self.lines
    }

    /// Every value of some options, which are spelt with `-`; uWSGI takes `_` as well.
    ///
    /// Each is an error where only uWSGI can tell what it comes to: the file, the line, and why.
    pub fn values(&self, options: &[&str]) -> impl Iterator<Item = Result<String, String>> {
        let asked = |line: &&Line<'_>| options.contains(&line.key.replace('_', "-").as_str());
        self.lines.iter().filter(asked).map(|Line { number, key, value }| {
            let expanded = expand(value, |placeholder| self.known(placeholder));
            expanded.map_err(|why| format!("{}:{number}: {key} = {value}: {why}", self.path.display()))
        })
    }

    fn known(&self, placeholder: Placeholder<'_>) -> Option<String> {
        match placeholder {
            Placeholder::Option(name) => self.first.get(name).map(|value| (*value).to_owned()),
            Placeholder::Letter(letter) => self.letters.get(letter).map(str::to_owned),
            Placeholder::Variable(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_section() {
        let text = "; a comment\n[other]\nprocesses = 9\n[uwsgi]\n # another\n  master=true\r\nsocket =  /run/a b.sock \nno-value\nset = a=b\n[third]\nx = y";
        let found = lines(text, "uwsgi");
        let pairs: Vec<_> = found.iter().map(|line| (line.number, line.key, line.value)).collect();
        assert_eq!(
            pairs,
            [(6, "master", "true"), (7, "socket", "/run/a b.sock"), (8, "no-value", ""), (9, "set", "a=b")]
        );
        assert_eq!(lines(text, "other").len(), 1);
        assert!(lines(text, "none").is_empty());
    }

    #[test]
    fn sections_are_named_after_the_last_colon() {
        for (text, file, section) in
            [("a.ini", "a.ini", "uwsgi"), ("a.ini:b", "a.ini", "b"), (":b", "", "b"), ("a.ini:", "a.ini", "uwsgi")]
        {
            assert_eq!(Reference::parse(text), Reference { file, section }, "{text}");
        }
    }

    #[test]
    fn letters_are_parts_of_the_name() {
        let outer = Letters::new("first.site.ini", "/etc/uwsgi/sites/first.site.ini", None, None);
        for (text, expected) in [
            ("%n|%s|%e|%c|%d", "first.site|first.site.ini|ini|sites|/etc/uwsgi/sites/"),
            ("%p %o", "/etc/uwsgi/sites/first.site.ini first.site.ini"),
            ("%0-%1-%2-%3", "etc-uwsgi-sites-"),
            ("%(project) %k %%n 100%", "%(project) %k %%n 100%"),
            ("%N %X.", "first.site ."),
        ] {
            assert_eq!(outer.put_in(text).expect(text), expected, "{text}");
        }
        let inner = Letters::new("/b/50%.ini", "/b/50%.ini", Some("x"), Some(&outer));
        assert_eq!(inner.put_in("%n %N %x").expect("known"), "50%% first.site x");
        assert!(outer.put_in("%j").is_err());
    }

    #[test]
    fn the_guides_file_is_read() {
        let text = "[uwsgi]\nproject = firstsite\nuid = sammy\nbase = /home/%(uid)\n# socket = /no\n\
                    module = %(project).wsgi:application\nsocket = /run/uwsgi/%(project).sock\nhttp_socket = :%n0\n\
                    [other]\nsocket = /no\n";
        let section = Section::read(Path::new("/etc/uwsgi/sites/8.ini"), text);
        let values: Vec<_> = section.values(&["socket", "http-socket"]).collect();
        assert_eq!(values, [Ok("/run/uwsgi/firstsite.sock".to_owned()), Ok(":80".to_owned())]);
    }

    /// What uWSGI 2.0.31 prints for `print =` with the same values.
    #[test]
    fn names_stand_for_the_first_value_wherever_it_is() {
        let text = "[uwsgi]\na = first\na = second\nb_c = under\nprint = A %(a) C %(b_c) E %n 100%% a@b $5\n\
                    print = late %(late)\nlate = x%(late2)\nlate2 = end\n";
        let section = Section::read(Path::new("/srv/t.ini"), text);
        let values: Vec<_> = section.values(&["print"]).collect();
        assert_eq!(values, [Ok("A first C under E t 100% a@b $5".to_owned()), Ok("late xend".to_owned())]);
    }

    #[test]
    fn what_only_uwsgi_can_tell_is_named_with_its_line() {
        let doubling: String = (1..40).map(|n| format!("a{n} = %(a{})%(a{})\n", n - 1, n - 1)).collect();
        let text = format!("[uwsgi]\na0 = {}\n{doubling}circle = %(circle)\n", "x".repeat(1000));
        for (value, why) in [
            ("%(b-c)", "there is no b-c"),
            ("$(HOME)/x", "the variable HOME is not known here: write it out first"),
            ("@(/etc/name)", "what stands in another file is not looked at: write it out first"),
            ("%k", "what %k stands for is not known here: write it out first"),
            ("%", "it ends in a lone %"),
            ("%(circle)", "it stands for itself, or for too much"),
            ("%(a39)", "it stands for more than 4096 bytes"),
        ] {
            let text = format!("{text}socket = {value}\n");
            let section = Section::read(Path::new("/srv/t.ini"), &text);
            let values: Vec<_> = section.values(&["socket"]).collect();
            assert_eq!(values, [Err(format!("/srv/t.ini:43: socket = {value}: {why}"))]);
        }
    }
}
