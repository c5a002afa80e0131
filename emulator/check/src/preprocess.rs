//! The first run of clang: the preprocessor, with headers that hold macros only.
//!
//! What comes out is the user's text and nothing else, so the rules see every macro expanded: kernels are often made
//! by macros. Words of the language such as `device` are no macros here.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use crate::Options;
use crate::clang::Clang;
use crate::headers::Headers;
use crate::process::{self, Message};
use crate::token::{Token, split_line};

/// Preprocessed source: its text without line markers, and where each line came from.
pub struct Preprocessed {
    /// The text.
    pub text: String,
    /// The names of the files it came from.
    pub files: Vec<String>,
    /// For each line of the text: its file and the line there.
    lines: Vec<(usize, u32)>,
    /// Whether a header of Metal was included.
    pub includes_metal: bool,
}

impl Preprocessed {
    /// The tokens of the text; directives that are left (`#pragma`) have none.
    pub fn tokens(&self) -> Vec<Token<'_>> {
        let mut tokens = Vec::new();
        let mut offset = 0;
        for (line, (file, number)) in self.text.split_inclusive('\n').zip(&self.lines) {
            if !line.trim_start().starts_with('#') {
                tokens.extend(split_line(line).into_iter().map(|(kind, span)| Token {
                    kind,
                    text: &line[span.clone()],
                    span: offset + span.start..offset + span.end,
                    file: *file,
                    line: *number,
                }));
            }
            offset += line.len();
        }
        tokens
    }
}

/// Preprocesses a source; gives what the preprocessor has to say along with it.
pub fn preprocess(
    clang: &Clang,
    headers: &Headers,
    source: &str,
    name: &str,
    options: &Options,
) -> std::io::Result<(Preprocessed, Vec<Message>)> {
    let mut arguments: Vec<OsString> =
        ["-E", "-x", "c++", "-std=c++17", "-undef", "-nostdinc", "-fno-color-diagnostics", "-fno-caret-diagnostics"]
            .map(OsString::from)
            .into();
    arguments.extend(["-Wno-builtin-macro-redefined", "-Wno-pragma-once-outside-header"].map(OsString::from));
    let (major, minor) = options.language_version;
    let mut define = |name: &str, value: &str| arguments.push(format!("-D{name}={value}").into());
    define("__METAL__", "1");
    define("__METAL_VERSION__", &(major * 100 + minor * 10).to_string());
    if options.fast_math {
        define("__METAL_FAST_MATH__", "1");
        define("__FAST_MATH__", "1");
    }
    if options.language_version >= (3, 1) {
        define("__HAVE_BFLOAT__", "1");
    }
    for (name, value) in &options.macros {
        define(name, value);
    }
    arguments.extend(["-isystem".into(), headers.macros().into()]);
    for folder in &options.include {
        arguments.extend(["-I".into(), folder.into()]);
    }
    arguments.push("-".into());

    // #line gives the text its name; a name with quotes or backslashes would end the directive early.
    let mut input = format!("#line 1 \"{}\"\n", name.replace(['"', '\\'], "_"));
    input.push_str(source);
    let output = process::run(clang, &arguments, &input)?;
    Ok((without_markers(&output.stdout, headers.macros()), output.messages))
}

/// Takes the line markers out of the preprocessor's output, and with them all text that comes from Metal's headers.
fn without_markers(output: &str, headers: &Path) -> Preprocessed {
    let mut result = Preprocessed { text: String::new(), files: Vec::new(), lines: Vec::new(), includes_metal: false };
    let (mut file, mut number, mut skip) = (0, 1, true);
    for line in output.lines() {
        if let Some((marked_line, marked_file)) = line_marker(line) {
            skip = Path::new(marked_file).starts_with(headers);
            result.includes_metal |= skip;
            skip |= matches!(marked_file, "<built-in>" | "<command line>");
            number = marked_line;
            file = result.files.iter().position(|known| known == marked_file).unwrap_or_else(|| {
                result.files.push(marked_file.to_owned());
                result.files.len() - 1
            });
            continue;
        }
        if !skip {
            let _ = writeln!(result.text, "{line}");
            result.lines.push((file, number));
        }
        number += 1;
    }
    result
}

/// `# 12 "file" 1` gives 12 and the file.
fn line_marker(line: &str) -> Option<(u32, &str)> {
    let (number, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (file, _) = rest.strip_prefix('"')?.split_once('"')?;
    Some((number.parse().ok()?, file))
}

/// The files of a source and, for every token, the column it has there.
///
/// The preprocessor keeps lines, not columns: the tokens of a line are found again in the line as it was written. The
/// tokens of a macro all stand at the macro's name.
pub struct Origin<'a> {
    files: Vec<Vec<&'a str>>,
}

impl<'a> Origin<'a> {
    /// `texts` are the contents of the files, in the order of [`Preprocessed::files`].
    pub fn new(texts: &'a [String]) -> Self {
        Origin { files: texts.iter().map(|text| text.lines().collect()).collect() }
    }

    /// The text of a line, or nothing if it is not known.
    pub fn line(&self, file: usize, line: u32) -> &'a str {
        let index = (line as usize).wrapping_sub(1);
        self.files.get(file).and_then(|lines| lines.get(index)).copied().unwrap_or_default()
    }

    /// The columns of all tokens, from 1.
    pub fn columns(&self, tokens: &[Token<'_>]) -> Vec<u32> {
        let mut found = HashMap::<(usize, u32), LineCursor>::new();
        tokens
            .iter()
            .map(|token| {
                let cursor = found.entry((token.file, token.line)).or_insert_with(|| {
                    let line = self.line(token.file, token.line);
                    LineCursor::new(line)
                });
                cursor.column_of(token.text)
            })
            .collect()
    }
}

/// A walk along the tokens of one written line.
struct LineCursor {
    pieces: Vec<(String, u32)>,
    next: usize,
}

impl LineCursor {
    fn new(line: &str) -> Self {
        let pieces =
            split_line(line).into_iter().map(|(_, span)| (line[span.clone()].to_owned(), span.start as u32 + 1));
        LineCursor { pieces: pieces.collect(), next: 0 }
    }

    fn column_of(&mut self, text: &str) -> u32 {
        let Some((piece, column)) = self.pieces.get(self.next) else {
            return self.pieces.last().map_or(1, |(_, column)| *column);
        };
        if piece == text {
            self.next += 1;
            return *column;
        }
        // Inside a macro: go on behind it once the token that stands there comes up.
        let after = self.after_macro();
        match self.pieces.get(after) {
            Some((piece, column)) if piece == text => {
                self.next = after + 1;
                *column
            }
            _ => *column,
        }
    }

    /// The index behind the macro's name and, if it has them, its arguments.
    fn after_macro(&self) -> usize {
        let mut at = self.next + 1;
        let mut depth = 0usize;
        while let Some((piece, _)) = self.pieces.get(at) {
            match piece.as_str() {
                "(" => depth += 1,
                ")" if depth > 0 => {
                    depth -= 1;
                    if depth == 0 {
                        return at + 1;
                    }
                }
                _ if depth == 0 => return at,
                _ => {}
            }
            at += 1;
        }
        at
    }
}
