//! Bytes of the system as text that can be searched, split and joined, and back again without a loss.
//!
//! Names of files and arguments are bytes. What reads them as words of a language (`--bind unix:…`) wants text. A byte that
//! is no UTF-8 becomes a character of the private use area's last plane, and so do the bytes of these characters
//! themselves, so that each text comes from one sequence of bytes alone.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The character that stands for byte zero; 256 follow.
const FIRST: u32 = 0x0010_FE00;

/// Bytes as text.
pub fn from_os(bytes: &OsStr) -> String {
    let mut text = String::new();
    for chunk in bytes.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match byte(character) {
                None => text.push(character),
                Some(_) => text.extend(character.encode_utf8(&mut [0; 4]).bytes().filter_map(stand_in)),
            }
        }
        text.extend(chunk.invalid().iter().copied().filter_map(stand_in));
    }
    text
}

/// The bytes that a text of [`from_os`] came from.
pub fn to_os(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(character.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    OsString::from_vec(bytes)
}

/// A string of Python's as text: its surrogates U+DC80 to U+DCFF, here as three bytes, are single bytes that were no
/// UTF-8 (PEP 383).
pub fn from_python(string: &[u8]) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(string.len()), string);
    while let Some((first, tail)) = rest.split_first() {
        if let [0xED, second @ 0xB2..=0xB3, third @ 0x80..=0xBF, tail @ ..] = rest {
            bytes.push((second & 3) << 6 | third & 0x3F);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    from_os(OsStr::from_bytes(&bytes))
}

fn stand_in(byte: u8) -> Option<char> {
    char::from_u32(FIRST + u32::from(byte))
}

fn byte(stand_in: char) -> Option<u8> {
    u32::from(stand_in).checked_sub(FIRST)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_of_bytes_comes_back() {
        let stand_in = stand_in(7).expect("a character").to_string();
        for bytes in
            [&b"plain"[..], b"", "caf\u{e9} \u{1F600}".as_bytes(), b"caf\xe9/x", b"\xff\x80", stand_in.as_bytes()]
        {
            let bytes = OsStr::from_bytes(bytes);
            assert_eq!(to_os(&from_os(bytes)), bytes, "{bytes:?}");
        }
        assert_eq!(from_os(OsStr::new("unix:/run/a")), "unix:/run/a");
    }

    #[test]
    fn pythons_surrogates_are_bytes() {
        // '/caf\udce9', '\udc80\udcff' and U+D7FF, which is none, in WTF-8.
        for (string, bytes) in [
            (&b"/caf\xed\xb3\xa9"[..], &b"/caf\xe9"[..]),
            (b"\xed\xb2\x80\xed\xb3\xbf", b"\x80\xff"),
            (b"\xed\x9f\xbf", b"\xed\x9f\xbf"),
        ] {
            assert_eq!(to_os(&from_python(string)), OsStr::from_bytes(bytes));
        }
    }
}
