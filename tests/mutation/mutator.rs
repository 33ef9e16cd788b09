//! Mutations: a text, and what somebody may write in its place to harm. The numbers are seeded: a failure comes again.

/// How often each seed is mutated.
pub const ROUNDS: usize = 4000;
/// What ends a line, begins another, or means something to systemd, to a shell or to uWSGI.
const NASTY: [&str; 34] = [
    "\r",
    "\n",
    "\0",
    "\r\n",
    "\\",
    "\\\n",
    "\\\r",
    " \\\n",
    "%",
    "%%",
    "%i",
    "%(uid)",
    "%n",
    "\"",
    "'",
    " ",
    "\t",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{1b}[2J",
    ";",
    "#",
    "$",
    "${X}",
    "=",
    ":",
    "/../",
    "é",
    "root",
    "\rExecStartPre=+/bin/sh /home/mallory/evil.sh",
    "\n[Service]\nUser=root\n",
    "\u{9b}2J",
];

/// Numbers that are the same each time (xorshift64).
pub struct Numbers(pub u64);

impl Numbers {
    /// A number below this one.
    pub fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most as u64) as usize
    }

    /// One to three nasty pieces put in, or pieces cut out.
    pub fn mutated(&mut self, text: &str) -> String {
        let mut letters: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(3) {
            let at = self.below(letters.len() + 1);
            if self.below(5) == 0 {
                let end = (at + self.below(6)).min(letters.len());
                letters.drain(at..end);
            } else {
                letters.splice(at..at, NASTY[self.below(NASTY.len())].chars());
            }
        }
        letters.into_iter().collect()
    }

    /// The same for bytes, of which some become any others.
    pub fn mutated_bytes(&mut self, text: &[u8]) -> Vec<u8> {
        let mut bytes = self.mutated(&String::from_utf8_lossy(text)).into_bytes();
        for _ in 0..self.below(3) {
            if !bytes.is_empty() {
                let at = self.below(bytes.len());
                bytes[at] = self.below(256) as u8;
            }
        }
        bytes
    }
}
