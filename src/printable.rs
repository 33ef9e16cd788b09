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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_told_from_commands() {
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
