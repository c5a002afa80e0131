//! Tokens of preprocessed source. Joined again they give the same text, so lines stay where they are.

use std::borrow::Cow;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    /// A number with its suffix.
    Number,
    /// A string or character literal.
    Literal,
    /// An operator or a bracket. `<` and `>` always stand alone, for template lists.
    Mark,
    /// White space.
    Space,
    /// A line that starts with `#`: a line marker or a pragma.
    Directive,
}

/// A piece of the source.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its text, or what replaces it.
    pub text: Cow<'a, str>,
    /// Its line in the user's source; 0 if it is not from there.
    pub line: u32,
}

impl Token<'_> {
    /// Whether it says something to the compiler.
    pub fn is_code(&self) -> bool {
        !matches!(self.kind, Kind::Space | Kind::Directive)
    }
}

const LONG_MARKS: [&str; 15] =
    ["::", "->", "&&", "||", "==", "!=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "..."];

/// Splits preprocessed text; `file` is the name that line markers give to the user's source.
pub fn tokens<'a>(source: &'a str, file: &str) -> Vec<Token<'a>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let (mut line, mut in_file, mut at_line_start) = (1, true, true);
    while !rest.is_empty() {
        let (kind, length) = next(rest, at_line_start);
        let (text, after) = rest.split_at(length);
        tokens.push(Token { kind, text: Cow::Borrowed(text), line: if in_file { line } else { 0 } });
        if let Some((number, name)) = line_marker(text).filter(|_| kind == Kind::Directive) {
            in_file = name == file;
            line = number.wrapping_sub(1); // the marker's own line end brings it to `number`
        }
        let ends = text.matches('\n').count() as u32;
        line = line.wrapping_add(ends);
        at_line_start = if kind == Kind::Space { at_line_start || ends > 0 } else { false };
        rest = after;
    }
    tokens
}

/// `# 12 "file"` gives 12 and the file.
fn line_marker(text: &str) -> Option<(u32, &str)> {
    let (number, name) = text.strip_prefix("# ")?.split_once(' ')?;
    Some((number.parse().ok()?, name.strip_prefix('"')?.split_once('"')?.0))
}

/// The kind and length of the first token.
fn next(text: &str, at_line_start: bool) -> (Kind, usize) {
    let bytes = text.as_bytes();
    let first = bytes[0];
    let while_is = |belongs: fn(u8) -> bool| bytes.iter().position(|b| !belongs(*b)).unwrap_or(bytes.len());
    if first.is_ascii_whitespace() {
        (Kind::Space, while_is(|b| b.is_ascii_whitespace()))
    } else if first == b'#' && at_line_start {
        (Kind::Directive, while_is(|b| b != b'\n'))
    } else if is_word(first) && !first.is_ascii_digit() {
        (Kind::Word, while_is(is_word))
    } else if first.is_ascii_digit() || (first == b'.' && bytes.get(1).is_some_and(u8::is_ascii_digit)) {
        (Kind::Number, number_length(bytes))
    } else if first == b'"' || first == b'\'' {
        (Kind::Literal, literal_length(bytes))
    } else {
        let long = LONG_MARKS.iter().find(|mark| text.starts_with(**mark));
        (Kind::Mark, long.map_or_else(|| text.chars().next().map_or(1, char::len_utf8), |mark| mark.len()))
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// A number takes the sign of its exponent along: `1e-5`, `0x1p+3`, but not `0xe+1`.
fn number_length(bytes: &[u8]) -> usize {
    let hexadecimal = bytes.starts_with(b"0x") || bytes.starts_with(b"0X");
    let mut at = 1;
    while at < bytes.len() {
        let exponent = match bytes[at - 1] {
            b'p' | b'P' => hexadecimal,
            b'e' | b'E' => !hexadecimal,
            _ => false,
        };
        let belongs = is_word(bytes[at]) || bytes[at] == b'.' || (exponent && matches!(bytes[at], b'+' | b'-'));
        if !belongs {
            break;
        }
        at += 1;
    }
    at
}

fn literal_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] && bytes[at] != b'\n' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_the_source() {
        let source = "# 1 \"program_source\"\nkernel void f(device float* a [[buffer(0)]]) {\n  a[0] = 1.5e-3f >> .5h; // x\n}\n";
        let joined: String = tokens(source, "program_source").iter().map(|token| &*token.text).collect();
        assert_eq!(joined, source);
    }

    #[test]
    fn lines_follow_the_markers() {
        let source = "# 7 \"program_source\"\na\n# 1 \"other\"\nb\n# 40 \"program_source\" 2\nc";
        let tokens = tokens(source, "program_source");
        let line = |word: &str| tokens.iter().find(|token| token.text == word).map(|token| token.line);
        assert_eq!((line("a"), line("b"), line("c")), (Some(7), Some(0), Some(40)));
    }

    #[test]
    fn a_template_list_closes_twice() {
        let tokens = tokens("vec<array<T,4>> x", "");
        assert_eq!(tokens.iter().filter(|token| token.text == ">").count(), 2);
    }
}
