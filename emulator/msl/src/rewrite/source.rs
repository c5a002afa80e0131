//! The tokens of a source as the passes see them: by the index among the tokens that are code.

use std::borrow::Cow;
use std::ops::Range;

use crate::lexer::{Kind, Token, tokens};

/// A source that is being rewritten. Indices count code only; white space and directives stay where they are, so no
/// pass moves a line.
pub struct Source<'a> {
    tokens: Vec<Token<'a>>,
    code: Vec<usize>,
}

impl<'a> Source<'a> {
    /// Splits preprocessed text.
    pub fn new(text: &'a str, file: &str) -> Self {
        let tokens = tokens(text, file);
        let code = (0..tokens.len()).filter(|i| tokens[*i].is_code()).collect();
        Source { tokens, code }
    }

    /// How many tokens of code there are.
    pub fn len(&self) -> usize {
        self.code.len()
    }

    /// The text of a token; empty behind the end and where a pass erased it.
    pub fn text(&self, i: usize) -> &str {
        self.code.get(i).map_or("", |at| &*self.tokens[*at].text)
    }

    /// Whether a token is this word or mark.
    pub fn is(&self, i: usize, text: &str) -> bool {
        self.text(i) == text
    }

    /// Whether a token is a name or keyword.
    pub fn is_word(&self, i: usize) -> bool {
        self.kind(i) == Some(Kind::Word) && !self.text(i).is_empty()
    }

    /// What a token is.
    pub fn kind(&self, i: usize) -> Option<Kind> {
        self.code.get(i).map(|at| self.tokens[*at].kind)
    }

    /// The line of a token in the user's source.
    pub fn line(&self, i: usize) -> u32 {
        self.code.get(i).map_or(0, |at| self.tokens[*at].line)
    }

    /// The code of a range, one space between tokens.
    pub fn code(&self, range: Range<usize>) -> String {
        range.map(|i| self.text(i)).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// Puts other code in place of a token.
    pub fn replace(&mut self, i: usize, text: impl Into<String>) {
        let at = self.code[i];
        self.tokens[at].text = Cow::Owned(text.into());
    }

    /// Takes code out.
    pub fn erase(&mut self, range: Range<usize>) {
        for i in range {
            self.replace(i, "");
        }
    }

    /// Takes out the directives that contain a word.
    pub fn erase_directives(&mut self, word: &str) {
        for token in self.tokens.iter_mut().filter(|token| token.kind == Kind::Directive && token.text.contains(word)) {
            token.text = Cow::Borrowed("");
        }
    }

    /// The whole text as it is now.
    pub fn finish(&self) -> String {
        self.tokens.iter().map(|token| &*token.text).collect()
    }

    /// The bracket that closes the one at `open`, or the last token if it is never closed.
    pub fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for i in open..self.len() {
            match self.text(i) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return i;
                    }
                }
                _ => {}
            }
        }
        self.len().saturating_sub(1)
    }

    /// The bracket that opens the one at `close`.
    pub fn opening(&self, close: usize) -> usize {
        let mut depth = 0usize;
        for i in (0..=close).rev() {
            match self.text(i) {
                ")" | "]" | "}" => depth += 1,
                "(" | "[" | "{" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return i;
                    }
                }
                _ => {}
            }
        }
        0
    }

    /// The `>` that closes the `<` at `open`; nothing if it is a comparison.
    pub fn closing_angle(&self, open: usize) -> Option<usize> {
        let mut depth = 0usize;
        let mut i = open;
        while i < self.len() {
            match self.text(i) {
                "<" => depth += 1,
                ">" => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(i);
                    }
                }
                "(" | "[" | "{" => i = self.closing(i),
                ";" | ")" | "]" | "}" => return None,
                _ => {}
            }
            i += 1;
        }
        None
    }

    /// The `<` that opens the `>` at `close`.
    pub fn opening_angle(&self, close: usize) -> Option<usize> {
        let mut depth = 0usize;
        let mut i = close;
        loop {
            match self.text(i) {
                ">" => depth += 1,
                "<" => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(i);
                    }
                }
                ")" | "]" | "}" => i = self.opening(i),
                ";" => return None,
                _ => {}
            }
            i = i.checked_sub(1)?;
        }
    }

    /// The token behind a bracketed group or a template list that starts here; the next one if none does.
    pub fn after_group(&self, i: usize) -> usize {
        match self.text(i) {
            "(" | "[" | "{" => self.closing(i) + 1,
            "<" => self.closing_angle(i).map_or(i + 1, |close| close + 1),
            _ => i + 1,
        }
    }

    /// The parts of a range between commas outside all brackets.
    pub fn split_at_commas(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut i) = (range.start, range.start);
        while i < range.end {
            if self.is(i, ",") {
                parts.push(start..i);
                start = i + 1;
            }
            i = self.after_group(i);
        }
        if start < range.end {
            parts.push(start..range.end);
        }
        parts
    }

    /// Whether `[[` starts here.
    pub fn is_attribute(&self, i: usize) -> bool {
        self.is(i, "[") && self.is(i + 1, "[")
    }

    /// The attributes of the `[[..]]` lists in a range, outside other brackets.
    pub fn attributes(&self, range: Range<usize>) -> Vec<Attribute> {
        let mut attributes = Vec::new();
        let mut i = range.start;
        while i < range.end {
            if self.is_attribute(i) {
                let inner = i + 2..self.closing(i + 1);
                attributes.extend(self.split_at_commas(inner).into_iter().map(|part| Attribute {
                    name: self.text(part.start).to_owned(),
                    arguments: if self.is(part.start + 1, "(") {
                        part.start + 2..self.closing(part.start + 1)
                    } else {
                        part.end..part.end
                    },
                }));
            }
            i = self.after_group(i);
        }
        attributes
    }

    /// The string that a range of literals spells.
    pub fn string(&self, range: Range<usize>) -> String {
        range.map(|i| self.text(i).trim_matches('"')).collect()
    }
}

/// `name(arguments)` in `[[..]]`.
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// The tokens in its parentheses.
    pub arguments: Range<usize>,
}
