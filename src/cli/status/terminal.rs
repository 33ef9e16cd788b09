//! Text on a screen: its width, its lines, its tables and its colours.
//!
//! Owns: tables and screens. How many columns a character takes and where a line is broken is unicode-width's and
//! textwrap's.
//! Never: knows what the text is about.

use std::borrow::Cow;

use textwrap::{Options, WordSplitter};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::printable::is_command;

/// Colours by what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// All is well.
    Good,
    /// Under way, or worth a look.
    Passing,
    /// Wrong.
    Bad,
    /// Of less weight.
    Faint,
    /// As any other text.
    Plain,
}

impl Paint {
    /// The text between the escape sequences of its colour, or as it is without colour.
    pub fn on(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Good => "1;32",
            Self::Passing => "1;33",
            Self::Bad => "1;31",
            Self::Faint => "2",
            Self::Plain => return text.to_owned(),
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// What others wrote, made harmless: control characters would act on the terminal, bidirectional ones would change the
/// order of what is read.
pub fn harmless(text: &str) -> String {
    text.trim_end()
        .chars()
        .map(|letter| match letter {
            '\t' => ' ',
            letter if is_command(letter) => '\u{fffd}',
            letter => letter,
        })
        .collect()
}

/// How many columns a text takes: combining marks none, East Asian wide characters and emoji two.
pub fn columns(text: &str) -> usize {
    text.width()
}

/// Breaks a text into lines of at most `width` columns (at least 20), at spaces where there are any: words that are typed
/// or searched for are not broken at a hyphen.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let options = Options::new(width.max(20)).word_splitter(WordSplitter::NoHyphenation);
    textwrap::wrap(text, options).into_iter().map(Cow::into_owned).collect()
}

/// A text in the place of what a terminal of so many lines shows: nothing scrolls, and nothing flickers, because only
/// what is left of each old line is wiped out. Of a text that is too long the beginning is shown.
pub fn screen(text: &str, height: usize) -> String {
    let room = height.saturating_sub(1).max(1);
    let lines = text.lines().count();
    let mut shown: Vec<String> = text.lines().take(room).map(str::to_owned).collect();
    if lines > room {
        shown[room - 1] = format!("... {} more lines: make the window higher", lines - room + 1);
    }
    // Home; each line, and the rest of it wiped; then all below wiped (ECMA-48: CUP, EL, ED).
    let shown: String = shown.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{shown}\x1b[J")
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A cell in plain colour.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: Paint::Plain }
    }

    /// A cell in a colour.
    pub fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint }
    }
}

/// A text that fits into so many columns: one that is longer is cut, and ends in a mark of that.
pub fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    if width == 0 {
        return String::new();
    }
    let mut shown = String::new();
    for letter in text.chars() {
        if columns(&shown) + letter.width().unwrap_or(0) + 1 > width {
            break;
        }
        shown.push(letter);
    }
    shown + "\u{2026}"
}

/// Sets a table: two spaces between columns, each as wide as its widest cell, the columns in `left` to the left and
/// all others to the right. No spaces at the ends of lines. The last column is cut where the line would be wider than
/// `width`, but never below 20.
pub fn table(
    heads: &[&str],
    left: &[usize],
    rows: &[Vec<Cell>],
    indent: usize,
    width: Option<usize>,
    colour: bool,
) -> String {
    let mut widths: Vec<usize> = heads.iter().map(|head| columns(head)).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(&cell.text));
        }
    }
    if let (Some(width), [before @ .., last]) = (width, &mut *widths) {
        let taken = indent + before.iter().map(|width| width + 2).sum::<usize>();
        *last = (*last).min(width.saturating_sub(taken).max(20));
    }
    let head: Vec<Cell> = heads.iter().map(|head| Cell::painted(*head, Paint::Faint)).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = " ".repeat(indent);
        for (number, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let text = cut(&cell.text, *width);
            let space = " ".repeat(width - columns(&text));
            let shown = cell.paint.on(&text, colour);
            if number > 0 {
                line.push_str("  ");
            }
            match left.contains(&number) {
                true => line.extend([shown, space]),
                false => line.extend([space, shown]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_of_letters() {
        assert_eq!(columns("a\u{308}ß→"), 3);
        assert_eq!(columns("日本"), 4);
        assert_eq!(columns("🦀"), 2);
    }

    #[test]
    fn lines_break_at_spaces_and_in_long_words() {
        assert_eq!(wrap("the application could not be loaded", 20), ["the application", "could not be loaded"]);
        assert_eq!(wrap(&"x".repeat(45), 20), ["x".repeat(20), "x".repeat(20), "x".repeat(5)]);
        assert_eq!(wrap("", 20), [""]);
        assert_eq!(wrap("see sockd-doctor and --no-such-option", 20), ["see sockd-doctor and", "--no-such-option"]);
        for line in wrap(&"日本語 ".repeat(30), 25) {
            assert!(columns(&line) <= 25, "{line}");
        }
    }

    #[test]
    fn the_last_column_is_cut_where_the_line_ends() {
        let rows =
            [vec![Cell::plain("a"), Cell::plain("日本".repeat(20))], vec![Cell::plain("b"), Cell::plain("short")]];
        let text = table(&["", "TEXT"], &[0, 1], &rows, 0, Some(30), false);
        assert_eq!(text, format!("   TEXT\na  {}\u{2026}\nb  short\n", "日本".repeat(6) + "日"));
        assert!(!table(&["", "TEXT"], &[0, 1], &rows, 0, None, false).contains('\u{2026}'));
    }

    #[test]
    fn a_screen_never_scrolls() {
        let text = "one\ntwo\nthree\n";
        assert_eq!(screen(text, 24), "\x1b[Hone\x1b[K\ntwo\x1b[K\nthree\x1b[K\n\x1b[J");
        assert_eq!(screen(text, 4), screen(text, 24));
        let small = screen(text, 3);
        assert!(small.contains("one") && small.contains("... 2 more lines") && !small.contains("two"), "{small:?}");
        for height in 0..5 {
            assert!(screen(text, height).matches('\n').count() < height.max(2), "{height}");
        }
    }

    #[test]
    fn nothing_acts_on_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc\u{202e}d\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c\u{fffd}d");
    }
}
