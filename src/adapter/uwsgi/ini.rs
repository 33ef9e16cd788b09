//! uWSGI's .ini files: their lines, and the letters that stand for parts of a file's name.
//!
//! As `core/ini.c` and `config_magic_table_fill` of uWSGI 2.0.31 read them. A file's text is taken apart here because
//! what is left of it is given to uWSGI under another name.

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
                Some(letter) => match self.known.iter().find(|(known, _)| *known == letter) {
                    // What is put in must not be read once more.
                    Some((_, text)) => out.push_str(&text.replace('%', "%%")),
                    None => out.extend(['%', letter]),
                },
                None => out.push('%'),
            }
        }
        Ok(out)
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
}
