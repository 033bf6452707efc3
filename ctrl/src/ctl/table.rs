//! Tables and detail blocks, laid out from one list of columns.
//!
//! What is printed comes from the daemon, that is from configuration files and other gateways:
//! control characters are replaced, so that no name can drive the terminal.

use super::units;

/// How a cell is meant, and which colour it gets on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Of no interest.
    Dim,
    /// A heading.
    Bold,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// Whether to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Colour and bold.
    pub colour: bool,
}

impl Style {
    /// `text` in `tone`.
    #[must_use]
    pub fn paint(self, text: &str, tone: Tone) -> String {
        match (self.colour, tone.code()) {
            (false, _) | (true, "") => text.to_owned(),
            (true, code) => format!("{code}{text}\x1b[0m"),
        }
    }
}

/// Text and its tone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A plain cell.
    #[must_use]
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref().replace(char::is_control, "\u{fffd}");
        if text.is_empty() || text == units::NONE {
            return Self { text: units::NONE.to_owned(), tone: Tone::Dim };
        }
        Self { text, tone: Tone::Plain }
    }

    /// The cell in `tone`.
    #[must_use]
    pub const fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// The cell in `tone` when `condition` holds.
    #[must_use]
    pub const fn tone_if(self, condition: bool, tone: Tone) -> Self {
        if condition { self.tone(tone) } else { self }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A column: its title and how to get a cell from a row.
#[derive(Debug)]
pub struct Column<T> {
    title: &'static str,
    right: bool,
    detail_only: bool,
    cell: fn(&T) -> Cell,
}

impl<T> Column<T> {
    /// Aligned to the left: names.
    #[must_use]
    pub const fn left(title: &'static str, cell: fn(&T) -> Cell) -> Self {
        Self { title, right: false, detail_only: false, cell }
    }

    /// Aligned to the right: numbers.
    #[must_use]
    pub const fn right(title: &'static str, cell: fn(&T) -> Cell) -> Self {
        Self { title, right: true, detail_only: false, cell }
    }

    /// Shown in details, not in the table.
    #[must_use]
    pub const fn detail(title: &'static str, cell: fn(&T) -> Cell) -> Self {
        Self { title, right: false, detail_only: true, cell }
    }
}

/// One line per row, columns aligned, two spaces between them.
#[must_use]
pub fn table<T>(columns: &[Column<T>], rows: &[T], style: Style) -> String {
    let columns: Vec<_> = columns.iter().filter(|c| !c.detail_only).collect();
    let heading: Vec<_> = columns.iter().map(|c| Cell::new(c.title).tone(Tone::Bold)).collect();
    let mut lines = vec![heading];
    lines.extend(rows.iter().map(|row| columns.iter().map(|c| (c.cell)(row)).collect()));

    let mut widths = vec![0; columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.width().max(*width);
        }
    }
    let mut out = String::new();
    for line in &lines {
        let mut gap = 0;
        for ((cell, column), width) in line.iter().zip(&columns).zip(&widths) {
            let pad = width - cell.width();
            let before = if column.right { pad } else { 0 };
            out.extend(std::iter::repeat_n(' ', gap + before));
            out.push_str(&style.paint(&cell.text, cell.tone));
            gap = 2 + pad - before;
        }
        out.push('\n');
    }
    out
}

/// One block per row with every column on a line of its own.
#[must_use]
pub fn details<T>(columns: &[Column<T>], rows: &[T], style: Style) -> String {
    let width = columns.iter().map(|c| c.title.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        for column in columns {
            let cell = (column.cell)(row);
            let title = format!("{:<width$}", column.title.to_lowercase());
            out.push_str(&style.paint(&title, Tone::Bold));
            out.push_str("  ");
            out.push_str(&style.paint(&cell.text, cell.tone));
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, u64);

    const COLUMNS: &[Column<Row>] = &[
        Column::left("NAME", |r| Cell::new(r.0)),
        Column::right("PACKETS", |r| Cell::new(units::count(r.1)).tone_if(r.1 == 0, Tone::Warn)),
        Column::left("SECOND NAME", |r| Cell::new(r.0)),
        Column::detail("TWICE", |r| Cell::new(units::count(r.1 * 2))),
    ];

    #[test]
    fn columns_align_and_lines_have_no_trailing_space() {
        let rows = [("a", 0), ("größer", 1_234_567), ("", 5)];
        let text = table(COLUMNS, &rows, Style::default());
        let expected = "\
NAME      PACKETS  SECOND NAME
a               0  a
größer  1,234,567  größer
–               5  –
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|l| l.trim_end() == l));
    }

    #[test]
    fn details_show_every_column() {
        let text = details(COLUMNS, &[("a", 4), ("b", 5)], Style::default());
        let expected = "\
name         a
packets      4
second name  a
twice        8

name         b
packets      5
second name  b
twice        10
";
        assert_eq!(text, expected);
    }

    #[test]
    fn colour_changes_no_alignment_and_only_when_asked_for() {
        let rows = [("a", 0), ("b", 12)];
        let plain = table(COLUMNS, &rows, Style::default());
        let mut coloured = table(COLUMNS, &rows, Style { colour: true });
        assert!(coloured.contains("\x1b[33m0\x1b[0m"));
        for code in ["\x1b[33m", "\x1b[0m", "\x1b[1m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, plain);
        assert!(!plain.contains('\x1b'));
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        let rows = [("\x1b]0;owned\x07\r\nx\u{9b}2J", 1)];
        let text = table(COLUMNS, &rows, Style::default());
        assert_eq!(text.lines().count(), 2);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
