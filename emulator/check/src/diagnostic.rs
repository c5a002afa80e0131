//! What a check says: single diagnostics, and the report of a source that is refused.

use std::fmt;

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It explains the diagnostic before it.
    Note,
    /// The source is valid, yet something about it is doubtful.
    Warning,
    /// Apple's compiler would refuse the source.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One finding, at one place of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error, warning or note.
    pub severity: Severity,
    /// The name of the file, as it was given to [`check`](crate::check) or found by `#include`.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The column, counted from 1 in bytes.
    pub column: u32,
    /// What is wrong, in one line.
    pub message: String,
    /// The text of the line, or nothing where it is not known.
    pub source_line: String,
    /// Which rule found it: `clang` for clang itself, or the name of a rule of this crate.
    pub rule: &'static str,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}: {}", self.file, self.line, self.column, self.severity, self.message)?;
        if !self.source_line.is_empty() {
            write!(f, "\n{}\n{}^", self.source_line, self.caret_indent())?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// Blanks up to the column; tabs stay tabs, so that the caret stands where the terminal shows the text.
    fn caret_indent(&self) -> String {
        let before = self.source_line.bytes().take(self.column.saturating_sub(1) as usize);
        before.filter(|byte| byte & 0xC0 != 0x80).map(|byte| if byte == b'\t' { '\t' } else { ' ' }).collect()
    }
}

/// Why a source is refused: every diagnostic, errors and warnings, in the order of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// All diagnostics; at least one is an error.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// The diagnostics that are errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
