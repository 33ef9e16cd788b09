//! Keys, as a terminal sends them: letters, and ECMA-48's sequences for arrows and the like.
//!
//! Owns: which bytes are which key. Never: knows what a key does, or keeps more than one unfinished sequence.
//!
//! crossterm's reader is no choice: it reads a terminal that has gone away again and again without an end, and waits in
//! read(2) for the rest of a sequence, so that neither a signal nor a look at the instances is heeded meanwhile.

/// The longest sequence that is waited for, in bytes.
const MAX_SEQUENCE: usize = 16;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A letter, digit or sign.
    Letter(char),
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Enter.
    Enter,
    /// Tab.
    Tab,
    /// Escape.
    Escape,
    /// Ctrl-C: in raw mode it is a byte and no signal.
    Interrupt,
}

/// Makes keys of bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a sequence or a letter whose rest has not come.
    begun: Vec<u8>,
}

impl Decoder {
    /// The keys that are complete with these bytes. An escape that nothing follows is the key of that name.
    pub fn decode(&mut self, bytes: &[u8]) -> Vec<Key> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let (mut rest, mut keys) = (&*all, Vec::new());
        while !rest.is_empty() {
            let Some((key, length)) = first(rest) else {
                // The rest of one that is longer is none that we know.
                if rest.len() < MAX_SEQUENCE {
                    self.begun = rest.to_vec();
                }
                break;
            };
            keys.extend(key);
            rest = &rest[length..];
        }
        keys
    }
}

/// The first key of these bytes, none where they are none that we know, and how many they are. `None`: its end has not come.
fn first(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    Some(match bytes {
        [0x1b, b'O'] => return None,
        [0x1b, b'O', end, ..] => (cursor(*end), 3),
        [0x1b, b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
            let key = match (&rest[..end], rest[end]) {
                ([], end) => cursor(end),
                (b"1" | b"7", b'~') => Some(Key::Home),
                (b"4" | b"8", b'~') => Some(Key::End),
                (b"5", b'~') => Some(Key::PageUp),
                (b"6", b'~') => Some(Key::PageDown),
                _ => None,
            };
            (key, 2 + end + 1)
        }
        [0x1b, ..] => (Some(Key::Escape), 1),
        [0x03, ..] => (Some(Key::Interrupt), 1),
        [b'\t', ..] => (Some(Key::Tab), 1),
        [b'\r' | b'\n', ..] => (Some(Key::Enter), 1),
        [..0x20 | 0x7f, ..] => (None, 1),
        letters => {
            let whole = letters.utf8_chunks().next()?;
            match whole.valid().chars().next() {
                Some(letter) => (Some(Key::Letter(letter)), letter.len_utf8()),
                // The beginning of a letter, or no text at all.
                None if whole.invalid().len() == letters.len() && letters.len() < 4 && letters[0] >= 0xc2 => {
                    return None;
                }
                None => (None, whole.invalid().len()),
            }
        }
    })
}

/// What the last byte of a sequence without numbers stands for.
fn cursor(end: u8) -> Option<Key> {
    Some(match end {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Vec<Key> {
        Decoder::default().decode(bytes)
    }

    #[test]
    fn what_terminals_send() {
        assert_eq!(decode(b"jQ\xc3\xbc"), [Key::Letter('j'), Key::Letter('Q'), Key::Letter('ü')]);
        assert_eq!(decode(b"\x1b[A\x1bOB\x1b[C\x1bOD"), [Key::Up, Key::Down, Key::Right, Key::Left]);
        assert_eq!(decode(b"\x1b[5~\x1b[6~"), [Key::PageUp, Key::PageDown]);
        assert_eq!(decode(b"\x1b[H\x1b[1~\x1b[7~\x1bOF\x1b[4~"), [Key::Home, Key::Home, Key::Home, Key::End, Key::End]);
        assert_eq!(decode(b"\t\r\n\x03\x1b"), [Key::Tab, Key::Enter, Key::Enter, Key::Interrupt, Key::Escape]);
    }

    #[test]
    fn what_is_no_key_is_left_out() {
        assert_eq!(decode(b"\x00\x1a\x7f\xff\x80q"), [Key::Letter('q')]);
        assert_eq!(decode(b"\x1b[1;5A\x1b[200~\x1b[Zq"), [Key::Letter('q')]);
    }

    #[test]
    fn a_key_may_come_in_parts_and_nothing_is_waited_for_without_end() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(b"\x1b["), []);
        assert_eq!(decoder.decode(b"A\xc3"), [Key::Up]);
        assert_eq!(decoder.decode(b"\xbc"), [Key::Letter('ü')]);
        assert_eq!(decoder.decode(b"\x1b[0000000000000000"), []);
        assert_eq!(decoder.decode(b"q"), [Key::Letter('q')]);
        // Whatever comes, in whatever parts.
        for length in 1..4 {
            for seed in 0..=255_u8 {
                let bytes = [seed, 0x1b, b'[', seed ^ 0x55, b'O', 0xe2, seed];
                let mut decoder = Decoder::default();
                bytes.chunks(length).for_each(|part| drop(decoder.decode(part)));
                assert!(decoder.begun.len() <= MAX_SEQUENCE);
            }
        }
    }
}
