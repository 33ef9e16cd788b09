//! Files of variables, with the syntax of systemd's `EnvironmentFile=` (systemd.exec(5), `src/basic/env-file.c`).
//!
//! `KEY=value` a line; `#` and `;` begin comments; `'single'` quotes keep everything, `"double"` quotes and no quotes
//! know the backslash; a backslash at the end of a line joins it with the next; what is outside quotes is trimmed.
//! Nothing is expanded. Where systemd silently skips a line that sets nothing, an error is reported.

use std::ops::Range;

use super::inherited;

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Names and values in the order of the lines; a later one wins.
    pub(super) variables: Vec<(String, String)>,
    /// Lines that set nothing: which bytes, and why.
    pub(super) errors: Vec<(Range<usize>, String)>,
}

/// Where the parser is.
#[derive(Clone, Copy)]
enum State {
    BeforeKey,
    Comment,
    Key,
    BeforeValue,
    Value,
    Escape,
    Single,
    Double,
    DoubleEscape,
}

/// Reads a file's text.
pub(super) fn parse(text: &str) -> Contents {
    let mut contents = Contents::default();
    let mut state = State::BeforeKey;
    let (mut key_start, mut key) = (0, 0..0);
    let mut value = String::new();
    // Where the value ends if only white space follows outside of quotes.
    let mut trimmed = 0;
    // systemd ends a line at CR as well as at LF; the text ends as if by a line end.
    for (at, c) in text.char_indices().chain([(text.len(), '\n')]) {
        let line_end = c == '\n' || c == '\r';
        state = match state {
            State::BeforeKey if c == '#' || c == ';' => State::Comment,
            State::BeforeKey if c.is_ascii_whitespace() || c == '\u{feff}' => State::BeforeKey,
            State::BeforeKey | State::Key if c == '=' => {
                let start = if matches!(state, State::Key) { key_start } else { at };
                key = start..start + text[start..at].trim_end().len();
                value.clear();
                trimmed = 0;
                State::BeforeValue
            }
            State::BeforeKey => {
                key_start = at;
                State::Key
            }
            State::Key if line_end => {
                let line = key_start..key_start + text[key_start..at].trim_end().len();
                contents.errors.push((line, "expected KEY=value".to_owned()));
                State::BeforeKey
            }
            State::Key => State::Key,
            State::Comment if line_end => State::BeforeKey,
            State::Comment => State::Comment,
            State::BeforeValue | State::Value if line_end => {
                value.truncate(trimmed);
                contents.take(text, key.clone(), std::mem::take(&mut value));
                State::BeforeKey
            }
            State::BeforeValue if c == '\'' => State::Single,
            State::BeforeValue if c == '"' => State::Double,
            State::BeforeValue | State::Value if c == '\\' => State::Escape,
            State::BeforeValue if c.is_ascii_whitespace() => State::BeforeValue,
            State::BeforeValue | State::Value => {
                value.push(c);
                if !c.is_ascii_whitespace() {
                    trimmed = value.len();
                }
                State::Value
            }
            State::Escape => {
                if !line_end {
                    value.push(c);
                    trimmed = value.len();
                }
                State::Value
            }
            State::Single if c == '\'' => State::BeforeValue,
            State::Double if c == '"' => State::BeforeValue,
            State::Double if c == '\\' => State::DoubleEscape,
            State::Single | State::Double => {
                value.push(c);
                trimmed = value.len();
                state
            }
            State::DoubleEscape => {
                if !line_end {
                    if !matches!(c, '"' | '\\' | '`' | '$') {
                        value.push('\\');
                    }
                    value.push(c);
                    trimmed = value.len();
                }
                State::Double
            }
        };
    }
    if matches!(state, State::Single | State::Double) {
        contents.errors.push((key, "the quote is not closed".to_owned()));
    } else if matches!(state, State::Value) {
        // The file ended in a backslash.
        value.truncate(trimmed);
        contents.take(text, key, value);
    }
    contents
}

impl Contents {
    fn take(&mut self, text: &str, key: Range<usize>, value: String) {
        let name = &text[key.clone()];
        let checked = match name.strip_prefix("export ") {
            Some(_) => Err("leave out `export`: this is no shell script".to_owned()),
            None => inherited::check_name(name).and_then(|()| inherited::check_value(&value)),
        };
        match checked {
            Ok(()) => self.variables.push((name.to_owned(), value)),
            Err(error) => self.errors.push((key, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, expected: &[(&str, &str)]) {
        let contents = parse(text);
        let found: Vec<_> = contents.variables.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(found, expected, "{text:?}");
        assert_eq!(contents.errors, [], "{text:?}");
    }

    #[test]
    fn reads_what_systemd_reads() {
        reads("", &[]);
        reads("A=1", &[("A", "1")]);
        reads("A=1\nB=2\n", &[("A", "1"), ("B", "2")]);
        reads("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]);
        reads("# A=1\n; B=2\n\n  C=3", &[("C", "3")]);
        reads("# a comment ends here \\\nA=1", &[("A", "1")]);
        reads("A =  two words \t\n", &[("A", "two words")]);
        reads("A=", &[("A", "")]);
        reads("A=\"\"\nB=''", &[("A", ""), ("B", "")]);
        reads("A=b # not a comment", &[("A", "b # not a comment")]);
        reads("A='$x \\n \"q\"'", &[("A", "$x \\n \"q\"")]);
        reads(r#"A="a \"b\" \\ \$ \n""#, &[("A", r#"a "b" \ $ \n"#)]);
        reads("A=\" kept \" ", &[("A", " kept ")]);
        reads("A=\"one\ntwo\"", &[("A", "one\ntwo")]);
        reads("A=one \\\ntwo", &[("A", "one two")]);
        reads("A=\"one \\\ntwo\"", &[("A", "one two")]);
        reads("A=a\\ \nB=c", &[("A", "a "), ("B", "c")]);
        reads("A=it's", &[("A", "it's")]);
        reads("A='a' 'b'c", &[("A", "abc")]);
        reads("URL=postgres://u:p=w@h/d?x=1", &[("URL", "postgres://u:p=w@h/d?x=1")]);
        reads("A=1\nA=2", &[("A", "1"), ("A", "2")]);
        reads("A=x\\", &[("A", "x")]);
        reads("\u{feff}A=ü", &[("A", "ü")]);
    }

    #[test]
    fn reports_lines_that_set_nothing() {
        for (text, span, part) in [
            ("A=1\nnonsense \nB=2", 4..12, "KEY=value"),
            ("export A=1", 0..8, "export"),
            ("=1", 0..0, "missing"),
            ("1A=1", 0..2, "digits"),
            ("A-B=1", 0..3, "underscores"),
            ("NOTIFY_SOCKET=/x", 0..13, "not for setting"),
            ("A='x", 0..1, "not closed"),
            ("A=\"x\\\"", 0..1, "not closed"),
            ("A=a\0b", 0..1, "zero byte"),
        ] {
            let errors = parse(text).errors;
            assert_eq!(errors.len(), 1, "{text:?}: {errors:?}");
            assert_eq!(errors[0].0, span, "{text:?}");
            assert!(errors[0].1.contains(part), "{text:?}: {errors:?}");
        }
    }
}
