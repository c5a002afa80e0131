//! A table, for a terminal, Markdown or a page.

use anstyle::{AnsiColor, Style};
use std::fmt::Write as _;

/// What a cell wants to say beyond its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// The row that it is all about.
    Strong,
    /// Background.
    Faint,
    /// A win.
    Good,
    /// A loss.
    Bad,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// Columns with titles, and rows of as many cells.
#[derive(Clone, Debug, Default)]
pub struct Grid {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
struct Column {
    title: String,
    numbers: bool,
}

impl Cell {
    /// With a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Cell { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell::new(text, Tone::Plain)
    }
}

impl Grid {
    /// Texts on the left, numbers on the right.
    pub fn new(texts: &[&str], numbers: &[&str]) -> Self {
        let column = |numbers| move |title: &&str| Column { title: (*title).to_owned(), numbers };
        let columns = texts.iter().map(column(false)).chain(numbers.iter().map(column(true)));
        Grid { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub fn push(&mut self, mut row: Vec<Cell>) {
        row.resize(self.columns.len(), Cell::default());
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Without the columns that say nothing in any row.
    pub fn without_empty_columns(self) -> Self {
        let kept: Vec<bool> =
            (0..self.columns.len()).map(|column| self.rows.iter().any(|row| !row[column].text.is_empty())).collect();
        fn keep<T>(list: Vec<T>, kept: &[bool]) -> Vec<T> {
            list.into_iter().zip(kept).filter_map(|(item, &kept)| kept.then_some(item)).collect()
        }
        let rows = self.rows.into_iter().map(|row| keep(row, &kept)).collect();
        Grid { columns: keep(self.columns, &kept), rows }
    }

    /// A first cell that only repeats the one above says nothing new.
    fn repeats(&self, row: usize) -> bool {
        row > 0 && self.rows[row][0].text == self.rows[row - 1][0].text
    }

    /// Aligned, in colours, which `anstream` drops where they are not wanted.
    pub fn to_terminal(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].text.chars().count());
                cells.chain([self.columns[column].title.chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = (&str, Style)>| {
            let mut line = String::new();
            for (column, (cell, style)) in cells.enumerate() {
                let space = " ".repeat(widths[column] - cell.chars().count());
                let gap = if column == 0 { "" } else { "  " };
                let styled = if cell.is_empty() { String::new() } else { format!("{style}{cell}{style:#}") };
                line += &if self.columns[column].numbers {
                    format!("{gap}{space}{styled}")
                } else {
                    format!("{gap}{styled}{space}")
                };
            }
            text += line.trim_end();
            text.push('\n');
        };
        line(&mut self.columns.iter().map(|column| (column.title.as_str(), Style::new().dimmed())));
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let text = if column == 0 && self.repeats(index) { "" } else { &cell.text };
                (text, style(cell.tone))
            });
            line(&mut cells.into_iter());
        }
        text
    }

    /// To be pasted into a README.
    pub fn to_markdown(&self) -> String {
        let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.iter().map(|column| column.title.as_str()).collect());
        text += &line(self.columns.iter().map(|column| if column.numbers { "---:" } else { "---" }).collect());
        for row in &self.rows {
            text += &line(row.iter().map(|cell| cell.text.as_str()).collect());
        }
        text
    }

    /// For a page, in a box of its own that scrolls where the screen is narrow.
    pub fn to_html(&self) -> String {
        let class = |column: usize| if self.columns[column].numbers { " class=\"number\"" } else { "" };
        let mut text = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
        for (index, column) in self.columns.iter().enumerate() {
            let _ = write!(text, "<th{}>{}</th>", class(index), escape(&column.title));
        }
        text += "</tr></thead>\n<tbody>\n";
        for (index, row) in self.rows.iter().enumerate() {
            text += if index > 0 && !self.repeats(index) { "<tr class=\"next\">" } else { "<tr>" };
            for (column, cell) in row.iter().enumerate() {
                let shown = if column == 0 && self.repeats(index) { "" } else { &cell.text };
                let tone = match cell.tone {
                    Tone::Plain => escape(shown),
                    Tone::Strong => format!("<b>{}</b>", escape(shown)),
                    Tone::Faint => format!("<span class=\"faint\">{}</span>", escape(shown)),
                    Tone::Good => format!("<span class=\"good\">{}</span>", escape(shown)),
                    Tone::Bad => format!("<span class=\"bad\">{}</span>", escape(shown)),
                };
                let _ = write!(text, "<td{}>{tone}</td>", class(column));
            }
            text += "</tr>\n";
        }
        text + "</tbody></table></div>\n"
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::new(),
        Tone::Strong => Style::new().bold(),
        Tone::Faint => Style::new().dimmed(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Bad => AnsiColor::Red.on_default(),
    }
}

/// Text inside HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&["shape", "engine"], &["µs", "nothing"]);
        grid.push(vec!["64x64".into(), Cell::new("a<b", Tone::Strong), "1.25".into()]);
        grid.push(vec!["64x64".into(), "c".into(), Cell::new("100", Tone::Good)]);
        grid.without_empty_columns()
    }

    #[test]
    fn columns_align_and_repeated_shapes_are_left_out() {
        let plain = anstream::adapter::strip_str(&grid().to_terminal()).to_string();
        assert_eq!(plain, "shape  engine    µs\n64x64  a<b     1.25\n       c        100\n");
    }

    #[test]
    fn markdown_and_html() {
        assert!(grid().to_markdown().contains("| shape | engine | µs |\n| --- | --- | ---: |\n| 64x64 | a<b | 1.25 |"));
        assert!(grid().to_html().contains("<b>a&lt;b</b>"));
    }
}
