//! Tokens of preprocessed source, each with the place in the files where it came from.

use std::ops::Range;

/// What a token is, as far as the rules need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    /// A number, with its suffix.
    Number,
    /// A string or a character, with its quotes.
    Text,
    /// An operator or a bracket. `>` always stands alone, so that `a<b<c>>` closes twice.
    Mark,
}

/// One token.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its characters.
    pub text: &'a str,
    /// Where these lie in the preprocessed text.
    pub span: Range<usize>,
    /// Where it came from: an index into [`Preprocessed::files`](crate::preprocess::Preprocessed::files).
    pub file: usize,
    /// The line in that file, from 1.
    pub line: u32,
}

impl Token<'_> {
    /// Whether the token is this word or mark.
    pub fn is(&self, text: &str) -> bool {
        self.text == text
    }

    /// Whether the token is one of these.
    pub fn is_one_of(&self, texts: &[&str]) -> bool {
        texts.contains(&self.text)
    }
}

/// Operators of several characters that must not be taken apart.
const LONG_MARKS: [&str; 20] = [
    "<<=", "...", "::", "->", "&&", "||", "==", "!=", "<=", "<<", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "++",
    "--",
];

/// Splits one line into tokens: pieces of the line with their offsets.
///
/// Comments are gone by then. A raw string or a string that is not closed ends with the line.
pub fn split_line(line: &str) -> Vec<(Kind, Range<usize>)> {
    let bytes = line.as_bytes();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let byte = bytes[at];
        let kind = if byte.is_ascii_whitespace() {
            at += 1;
            continue;
        } else if is_word_byte(byte) && !byte.is_ascii_digit() {
            at = end_of(bytes, at, is_word_byte);
            Kind::Word
        } else if byte.is_ascii_digit() || (byte == b'.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)) {
            at = end_of_number(bytes, at);
            Kind::Number
        } else if byte == b'"' || byte == b'\'' {
            at = end_of_text(bytes, at);
            Kind::Text
        } else {
            let long = LONG_MARKS.iter().find(|mark| line[at..].starts_with(**mark));
            at += long.map_or_else(|| line[at..].chars().next().map_or(1, char::len_utf8), |mark| mark.len());
            Kind::Mark
        };
        pieces.push((kind, start..at));
    }
    pieces
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn end_of(bytes: &[u8], from: usize, belongs: fn(u8) -> bool) -> usize {
    bytes[from..].iter().position(|byte| !belongs(*byte)).map_or(bytes.len(), |length| from + length)
}

/// A number takes letters, points, digit separators, and the sign of its exponent.
fn end_of_number(bytes: &[u8], from: usize) -> usize {
    let hexadecimal = bytes[from] == b'0' && matches!(bytes.get(from + 1), Some(b'x' | b'X'));
    let mut at = from + 1;
    while at < bytes.len() {
        let exponent = matches!(bytes[at - 1], b'p' | b'P') || (!hexadecimal && matches!(bytes[at - 1], b'e' | b'E'));
        let belongs = is_word_byte(bytes[at])
            || bytes[at] == b'.'
            || bytes[at] == b'\''
            || (exponent && matches!(bytes[at], b'+' | b'-'));
        if !belongs {
            break;
        }
        at += 1;
    }
    at
}

fn end_of_text(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != bytes[from] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The index just past the bracket that closes the one at `open`, or `tokens.len()` if it is never closed.
pub fn after_closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The index just past the `>` that closes the `<` at `open`, or nothing if this `<` opens no template list.
pub fn after_angle(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut i = open;
    while i < tokens.len() {
        match tokens[i].text {
            "<" => depth += 1,
            ">" => {
                depth -= 1;
                if depth == 0 {
                    return Some(i + 1);
                }
            }
            "(" | "[" => {
                i = after_closing(tokens, i);
                continue;
            }
            ";" | "{" | "}" | ")" | "]" => return None,
            _ => {}
        }
        i += 1;
    }
    None
}

/// The parts of a range between commas that stand in no bracket of any kind.
pub fn split_at_commas(tokens: &[Token<'_>], range: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = range.start;
    let mut i = range.start;
    while i < range.end {
        match tokens[i].text {
            "(" | "[" | "{" => {
                i = after_closing(tokens, i).min(range.end);
                continue;
            }
            "<" => {
                if let Some(after) = after_angle(tokens, i).filter(|after| *after <= range.end) {
                    i = after;
                    continue;
                }
            }
            "," => {
                parts.push(start..i);
                start = i + 1;
            }
            _ => {}
        }
        i += 1;
    }
    if start < range.end {
        parts.push(start..range.end);
    }
    parts
}
