//! Which characters of a text do more than show themselves.
//!
//! Owns: the one list of characters that act on a terminal, end a line or change the order of what is read.
//! Never: knows where a text comes from or where it goes.
#![forbid(unsafe_code)]

/// Whether a character is no letter but a command: control characters (C0, DEL, C1; ECMA-48), line and paragraph
/// separators, and those that change the direction of writing (Unicode, annex 9), which can show another text than the
/// one that is there.
pub fn is_command(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// A text of several lines, made harmless for a terminal. With `colour`, what colours a text stays; nothing else that
/// begins with an escape does.
pub fn for_terminal(text: &str, colour: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let sequence = if colour && letter == '\u{1b}' { colouring(rest) } else { None };
        match (sequence, letter) {
            (Some(length), _) => out.push_str(&rest[..length]),
            (None, '\n' | '\t') => out.push(letter),
            (None, letter) if is_command(letter) => out.push('\u{fffd}'),
            (None, letter) => out.push(letter),
        }
        rest = &rest[sequence.unwrap_or(letter.len_utf8())..];
    }
    out
}

/// The length of a sequence that sets a colour or a weight at the beginning of a text (ECMA-48, SGR). One that hides the
/// text is none of these.
fn colouring(text: &str) -> Option<usize> {
    let end = text.find('m').filter(|end| *end <= 16)?;
    let mut codes = text[..end].strip_prefix("\u{1b}[")?.split(';');
    let allowed = |code: &str| {
        matches!(code.parse(), Ok(0..=4 | 22..=24 | 31..=39 | 90..=97))
            && code.bytes().all(|byte| byte.is_ascii_digit())
    };
    let palette = codes.clone().next() == Some("38");
    (palette || codes.all(allowed)).then_some(end + 1)
}

/// JSON in which no string has a character that acts on a terminal: each is escaped, and means the same.
pub fn escaped_json(json: &str) -> String {
    let escaped = |letter: char| match letter {
        // Between the strings, where the text is broken into lines.
        '\n' => "\n".to_owned(),
        letter if is_command(letter) => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    };
    json.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_colours_acts_on_a_terminal() {
        let evil = "a\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}2J\u{202e}b\r\u{2028}\u{1b}[8m\u{1b}[31mred\u{1b}[0m\u{1b}[38;5;9m\n\tc\u{1b}";
        let plain = for_terminal(evil, false);
        assert!(plain.chars().all(|c| !is_command(c) || c == '\n' || c == '\t'), "{plain:?}");
        assert_eq!(plain.chars().count(), evil.chars().count());
        let coloured = for_terminal(evil, true);
        let (red, green) = ("\u{1b}[31mred\u{1b}[0m\u{1b}[38;5;9m\n\tc", "\u{1b}[1;32mok\u{1b}[0m");
        assert!(coloured.contains(red) && coloured.matches('\u{1b}').count() == 3, "{coloured:?}");
        assert_eq!(for_terminal(green, true), green);
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "a\u{9b}b\u{202e}c\u{2028}\u{7f}\u{1b}\nü";
        let json = serde_json::json!({ "x": text });
        let escaped = escaped_json(&serde_json::to_string_pretty(&json).expect("JSON"));
        assert!(escaped.chars().all(|c| !is_command(c) || c == '\n'), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).expect("JSON"), json);
    }

    #[test]
    fn letters_are_distinguished_from_commands() {
        for command in
            ['\0', '\n', '\r', '\t', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{2028}', '\u{2029}', '\u{202e}']
        {
            assert!(is_command(command), "{command:?}");
        }
        for letter in ['a', ' ', 'ü', '日', '\u{301}', '\u{200d}', '😀', '\u{fffd}'] {
            assert!(!is_command(letter), "{letter:?}");
        }
    }
}
