//! Lines: their cells, cut, filled up and harmless, and which of many lines are shown.

use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use crate::cli::status::terminal::{Paint, columns, cut, harmless};

/// How meanings look.
#[derive(Clone, Copy, Debug)]
pub struct Ink {
    /// Whether there are colours; without, what matters is bold, and said in words as well.
    pub colour: bool,
}

impl Ink {
    /// The look of a meaning.
    pub fn of(self, paint: Paint) -> Style {
        let (modifier, colour) = match paint {
            Paint::Good => (Modifier::empty(), Some(Color::Green)),
            Paint::Passing => (Modifier::empty(), Some(Color::Yellow)),
            Paint::Bad => (Modifier::BOLD, Some(Color::Red)),
            Paint::Faint => (Modifier::DIM, None),
            Paint::Plain => (Modifier::empty(), None),
        };
        let style = Style::new().add_modifier(modifier);
        colour.filter(|_| self.colour).map_or(style, |colour| style.fg(colour))
    }
}

/// A text as it may be shown.
pub fn span(text: &str, style: Style) -> Span<'static> {
    Span::styled(harmless(text), style)
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// What stands above it.
    pub head: &'static str,
    /// How wide it is, without the space behind it.
    pub width: usize,
    /// Whether its cells stand to the right.
    pub right: bool,
}

/// A column whose cells stand to the left.
pub const fn left(head: &'static str, width: usize) -> Column {
    Column { head, width, right: false }
}

/// A column whose cells stand to the right.
pub const fn right(head: &'static str, width: usize) -> Column {
    Column { head, width, right: true }
}

/// The columns of a table in a terminal of `width` columns: those behind which there is no room are left out, and the last
/// one takes what is left.
pub fn fit(columns: &[Column], width: usize) -> Vec<Column> {
    let (mut fitting, mut taken) = (Vec::new(), 0);
    for column in columns {
        if taken + column.width > width {
            break;
        }
        taken += column.width + 1;
        fitting.push(*column);
    }
    if let Some(last) = fitting.last_mut().filter(|last| !last.right) {
        last.width += (width + 1).saturating_sub(taken);
    }
    fitting
}

/// A line of a table; what has no column is left out.
pub fn row(cells: Vec<(String, Style)>, columns_: &[Column]) -> Line<'static> {
    let cells = cells.into_iter().zip(columns_).map(|((text, style), column)| {
        let text = cut(&harmless(&text), column.width);
        let space = " ".repeat(column.width - columns(&text));
        let text = if column.right { format!("{space}{text} ") } else { format!("{text}{space} ") };
        Span::styled(text, style)
    });
    Line::from(cells.collect::<Vec<_>>())
}

/// The heads of a table.
pub fn heads(columns: &[Column], style: Style) -> Line<'static> {
    row(columns.iter().map(|column| (column.head.to_owned(), style)).collect(), columns)
}

/// Which lines of `count` are shown in the room for `room`, so that the chosen one is among them.
pub fn window(count: usize, chosen: usize, room: usize) -> std::ops::Range<usize> {
    let first = (chosen + 1).saturating_sub(room);
    first..count.min(first + room)
}
