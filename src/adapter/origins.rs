//! Where the lines of a text come from that is put together for a worker of its owner's files.
//!
//! The worker finds the text in a descriptor and names it by `/proc/self/fd/5`; its owner looks for the file. Pure.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// Where each line comes from.
#[derive(Debug)]
pub struct Origins {
    /// The file in which the reading began.
    first: Arc<str>,
    /// By line: the file, and the number of the line there. What no file says counts as the beginning.
    lines: Vec<(Arc<str>, usize)>,
}

impl Origins {
    /// Of a text that begins with so many lines of no file, and goes on with what is read from this one.
    pub fn new(first: &Path, lines_of_no_file: usize) -> Self {
        let first: Arc<str> = first.display().to_string().into();
        Self { lines: vec![(Arc::clone(&first), 1); lines_of_no_file], first }
    }

    /// The next line is this one, counted from 1, of this file.
    pub fn push(&mut self, file: &Arc<str>, line: usize) {
        self.lines.push((Arc::clone(file), line));
    }

    /// What somebody writes who knows the text by the name `alias`, with the files in its place:
    /// `alias:7` and `alias on line 7` name the place, the name alone stands for the first file.
    pub fn name_files<'a>(&self, said: &'a str, alias: &str) -> Cow<'a, str> {
        let mut named = String::new();
        let mut rest = said;
        while let Some((before, after)) = rest.split_once(alias) {
            named.push_str(before);
            rest = after;
            // Another one, whose name begins alike.
            if after.starts_with(|next: char| next.is_ascii_digit()) {
                named.push_str(alias);
                continue;
            }
            let place = [":", " on line "].into_iter().find_map(|mark| {
                let (line, after) = number(after.strip_prefix(mark)?)?;
                let (file, line) = self.lines.get(line.checked_sub(1)?).or(self.lines.last())?;
                Some((format!("{file}{mark}{line}"), after))
            });
            match place {
                Some((place, after)) => {
                    named.push_str(&place);
                    rest = after;
                }
                None => named.push_str(&self.first),
            }
        }
        if named.is_empty() {
            return Cow::Borrowed(said);
        }
        named.push_str(rest);
        Cow::Owned(named)
    }
}

/// The number at the beginning, and what follows it.
fn number(text: &str) -> Option<(usize, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_files() {
        let mut origins = Origins::new(Path::new("/etc/main"), 1);
        let (main, pool): (Arc<str>, Arc<str>) = ("/etc/main".into(), "/etc/pool".into());
        for (file, line) in [(&main, 1), (&pool, 1), (&pool, 2), (&main, 3)] {
            origins.push(file, line);
        }
        for (said, named) in [
            ("ERROR: [fd/5:4] unknown entry", "ERROR: [/etc/pool:2] unknown entry"),
            ("unexpected '(' in fd/5 on line 5\n", "unexpected '(' in /etc/main on line 3\n"),
            ("failed to load 'fd/5'", "failed to load '/etc/main'"),
            ("fd/5:1 is nobody's", "/etc/main:1 is nobody's"),
            // At the end, and where nothing is.
            ("fd/5:6 fd/5:0 fd/5: fd/5", "/etc/main:3 /etc/main:0 /etc/main: /etc/main"),
            ("fd/51:4 and fd/4:4 are others", "fd/51:4 and fd/4:4 are others"),
            ("fd/5:99999999999999999999999", "/etc/main:99999999999999999999999"),
            ("", ""),
        ] {
            assert_eq!(origins.name_files(said, "fd/5"), named);
        }
    }
}
