//! Words as a POSIX shell separates them.

/// Python's `shlex.split`: words as a POSIX shell separates them, nothing expanded.
///
/// # Errors
/// A quote is not closed, or nothing follows a backslash.
pub fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(letters.next().ok_or("nothing follows the backslash")?),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or("a quote is not closed")? {
                        end if end == letter => break,
                        '\\' if letter == '"' => {
                            let next = letters.next().ok_or("a quote is not closed")?;
                            if !matches!(next, '"' | '\\') {
                                word.push('\\');
                            }
                            word.push(next);
                        }
                        other => word.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Words as one writes them in a shell: those that a shell would take apart are quoted.
pub fn join(words: &[impl AsRef<str>]) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-:@+=,%".contains(letter);
    let quoted = words.iter().map(|word| match word.as_ref() {
        word if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell() {
        for (text, words) in [
            ("", &[][..]),
            ("  a  b\t", &["a", "b"]),
            ("'a b' \"c d\"e ''", &["a b", "c de", ""]),
            (r#"a\ b "\"\\\n" '\'"#, &["a b", r#""\\n"#, r"\"]),
        ] {
            assert_eq!(split(text).expect(text), words, "{text:?}");
        }
        assert!(split("'a").is_err() && split("\"a\\").is_err() && split("a\\").is_err());
    }
}
