//! The session on a terminal, or as Markdown.

use super::tables;
use crate::bench::session::Session;
use anstyle::Style;
use std::io::Write as _;

/// Prints the tables; only the summary where it is to be pasted.
pub fn print(session: &Session, markdown: bool) {
    // A reader who closes the pipe has seen enough.
    let _ = if markdown { print_markdown(session) } else { print_tables(session) };
}

fn print_tables(session: &Session) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    let (bold, faint) = (Style::new().bold(), Style::new().dimmed());
    let facts = session.facts();
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in &facts {
        let mut lines = wrap(value, 118 - width).into_iter();
        writeln!(out, "{faint}{name:width$}{faint:#}  {}", lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "{:width$}  {line}", "")?;
        }
    }
    for block in tables::blocks(session) {
        writeln!(out, "\n{bold}{}{bold:#}  {faint}{}{faint:#}", block.title, block.meaning)?;
        write!(out, "{}", tables::block(session, &block).to_terminal())?;
    }
    for regime in tables::summed_up(session) {
        let summary = tables::summary(session, regime);
        if !summary.is_empty() {
            writeln!(out, "\n{bold}summary: {}{bold:#}", regime.title())?;
            for line in wrap(&tables::summary_meaning(session, regime), 118) {
                writeln!(out, "{faint}{line}{faint:#}")?;
            }
            write!(out, "{}", summary.to_terminal())?;
        }
    }
    writeln!(out)?;
    for note in tables::notes(session).into_iter().chain(tables::columns(session)) {
        for line in wrap(&note, 118) {
            writeln!(out, "{faint}{line}{faint:#}")?;
        }
    }
    out.flush()
}

fn print_markdown(session: &Session) -> std::io::Result<()> {
    let mut out = anstream::stdout().lock();
    for (name, value) in session.facts() {
        writeln!(out, "- {name}: {value}")?;
    }
    for regime in tables::summed_up(session) {
        writeln!(out, "\n{}\n", tables::summary_meaning(session, regime))?;
        writeln!(out, "{}", tables::summary(session, regime).to_markdown())?;
    }
    for note in tables::notes(session) {
        writeln!(out, "{note}  ")?;
    }
    out.flush()
}

/// Lines of at most `width` characters, broken between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("longer than wide", 3), ["longer", "than", "wide"]);
    }
}
