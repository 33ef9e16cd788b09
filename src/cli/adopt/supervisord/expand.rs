//! What stands for something else in a value of supervisord's, and the variables of `environment=`.
//!
//! supervisord expands values by Python's `%` and takes `environment=` apart by `shlex.shlex`. Owns: both, as far as a
//! value can be known without supervisord. Never: names the value of a variable in an error.

use std::collections::VecDeque;

/// No value stands for more (bytes): one that names a long one many times grows with each.
const MAX_VALUE: usize = 64 << 10;
/// No number is written with more digits.
const MAX_WIDTH: usize = 64;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A text: for `s` alone.
    Text(String),
    /// A number: for `d` and `s`.
    Number(u32),
}

/// A value with everything put in that `known` knows.
///
/// # Errors
/// What is not known, or what supervisord would not start with.
pub fn expand(text: &str, known: &dyn Fn(&str) -> Option<Known>) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
        } else {
            let (name, after) = after
                .strip_prefix('(')
                .and_then(|after| after.split_once(')'))
                .ok_or("a % that is no %(NAME)s is written %%")?;
            let value = known(name).ok_or_else(|| unknown(name))?;
            let kind = after.find(|c: char| !"-0123456789".contains(c));
            let (how, after) = after.split_at(kind.unwrap_or(after.len()));
            let mut letters = after.chars();
            let written = match (value, letters.next()) {
                (Known::Text(text), Some('s')) if how.is_empty() => text,
                (Known::Number(number), Some('s')) if how.is_empty() => number.to_string(),
                (Known::Number(number), Some('d')) => padded(number, how)?,
                (_, kind) => {
                    let kind = kind.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "what %({name}){how}{kind} comes to is supervisord's to say: write it out first"
                    ));
                }
            };
            out.push_str(&written);
            rest = letters.as_str();
        }
        if out.len() > MAX_VALUE {
            return Err(format!("it stands for more than {} KiB", MAX_VALUE >> 10));
        }
    }
    Ok(out + rest)
}

fn unknown(name: &str) -> String {
    match name.strip_prefix("ENV_") {
        Some(name) => format!("the variable {name} is supervisord's own and not known here: write it out first"),
        None => format!("supervisord knows no %({name})"),
    }
}

/// A number as Python's `%` writes it: `02` pads with zeros, `-2` with spaces behind.
fn padded(number: u32, how: &str) -> Result<String, String> {
    let width = how.trim_start_matches(['-', '0']);
    let width: usize = if width.is_empty() { 0 } else { width.parse().map_err(|_| format!("{how} is no width"))? };
    let flags = &how[..how.len() - how.trim_start_matches(['-', '0']).len()];
    if width > MAX_WIDTH {
        return Err(format!("the width {width} is too large"));
    }
    Ok(match (flags.contains('-'), flags.contains('0')) {
        (true, _) => format!("{number:<width$}"),
        (false, true) => format!("{number:0width$}"),
        (false, false) => format!("{number:width$}"),
    })
}

/// The variables of an `environment=`: KEY="value",KEY2=value2.
///
/// # Errors
/// supervisord would not start with it. No value is named.
pub fn variables(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut tokens = VecDeque::from(tokens(text)?);
    let mut found: Vec<(String, String)> = Vec::new();
    while !tokens.is_empty() {
        let (name, sign, value) = (tokens.pop_front(), tokens.pop_front(), tokens.pop_front());
        let (Some(name), Some("="), Some(value)) = (name, sign.as_deref(), value) else {
            return Err(format!(
                "variable {} of it is no KEY=\"value\": a value with other letters than A-Z, a-z, 0-9 and _/.+-(): is quoted",
                found.len() + 1
            ));
        };
        // Whatever stands between two of them counts as a comma.
        tokens.pop_front();
        found.retain(|(known, _)| *known != name);
        found.push((name, value.trim_matches(['\'', '"']).to_owned()));
    }
    Ok(found)
}

/// Python's `shlex.shlex` without its POSIX mode, with the letters for words that supervisord adds.
fn tokens(text: &str) -> Result<Vec<String>, &'static str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_/.+-():".contains(c);
    let mut tokens = Vec::new();
    let mut word = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            // A comment does not end a word.
            '#' => drop(letters.by_ref().find(|letter| *letter == '\n')),
            ' ' | '\t' | '\r' | '\n' if word.is_empty() => {}
            ' ' | '\t' | '\r' | '\n' => tokens.push(std::mem::take(&mut word)),
            '\'' | '"' if word.is_empty() => {
                word.push(letter);
                loop {
                    let next = letters.next().ok_or("a quote is not closed")?;
                    word.push(next);
                    if next == letter {
                        break;
                    }
                }
                tokens.push(std::mem::take(&mut word));
            }
            letter if is_word(letter) || (!word.is_empty() && "'\"".contains(letter)) => word.push(letter),
            other => {
                tokens.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
                tokens.push(other.to_string());
            }
        }
    }
    tokens.extend((!word.is_empty()).then_some(word));
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_expanded_as_by_python() {
        let known = |name: &str| match name {
            "program_name" => Some(Known::Text("site".to_owned())),
            "process_num" => Some(Known::Number(7)),
            "long" => Some(Known::Text("x".repeat(40 << 10))),
            _ => None,
        };
        for (text, value) in [
            ("plain", "plain"),
            ("100%% of %(program_name)s", "100% of site"),
            ("80%(process_num)02d %(process_num)d %(process_num)s", "8007 7 7"),
            ("%(process_num)-3d|%(process_num)3d|%(process_num)03d", "7  |  7|007"),
        ] {
            assert_eq!(expand(text, &known).as_deref(), Ok(value), "{text}");
        }
        for (text, why) in [
            ("50%", "a % that is no"),
            ("%s", "a % that is no"),
            ("%(x)s", "supervisord knows no %(x)"),
            ("%(ENV_HOME)s", "the variable HOME is supervisord's own and not known here: write it out first"),
            ("%(program_name)d", "what %(program_name)d comes to"),
            ("%(process_num)x", "what %(process_num)x comes to"),
            ("%(process_num)999d", "the width 999 is too large"),
            ("%(long)s%(long)s", "it stands for more than 64 KiB"),
        ] {
            let said = expand(text, &known).expect_err(text);
            assert!(said.starts_with(why), "{text}: {said}");
        }
    }

    /// Each of these was read by `supervisor.datatypes.dict_of_key_value_pairs` of supervisor 4.2.5.
    #[test]
    fn variables_are_read_as_by_supervisord() {
        for (text, expected) in [
            ("A=1,B=\"x,y=z\",C='q \"r\"'", &[("A", "1"), ("B", "x,y=z"), ("C", "q \"r")][..]),
            ("A=/srv/a:b,\n  B=2 , C=\"\"", &[("A", "/srv/a:b"), ("B", "2"), ("C", "")]),
            ("A=\"1\",", &[("A", "1")]),
            ("A=1;B=2", &[("A", "1"), ("B", "2")]),
            ("A=1,A=2", &[("A", "2")]),
            ("A=\"b\"\"c\"", &[("A", "b")]),
            ("A=b\"c,D=1", &[("A", "b\"c"), ("D", "1")]),
            ("", &[]),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(variables(text), Ok(expected), "{text}");
        }
        for text in ["A", "A=", "A=b@hunter2", "A=1,hunter2", "A=\"hunter2", "A=hunter2 B=3"] {
            let said = variables(text).expect_err(text);
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
