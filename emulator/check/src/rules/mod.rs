//! What clang cannot see, as rules over tokens; one file per group.

use crate::Options;
use crate::diagnostic::Severity;
use crate::outline::Outline;
use crate::token::Token;

mod language;
mod parameters;
mod pointers;
mod recursion;
mod variables;

/// What the rules look at.
pub struct Source<'a> {
    /// The tokens of the preprocessed source.
    pub tokens: &'a [Token<'a>],
    /// Its functions, variables and types.
    pub outline: &'a Outline,
    /// How it is to be read.
    pub options: &'a Options,
    /// Whether a header of Metal was included.
    pub includes_metal: bool,
}

impl Source<'_> {
    /// The text of the token before this one, or nothing at the beginning.
    pub fn before(&self, at: usize) -> &str {
        at.checked_sub(1).map_or("", |before| self.tokens[before].text)
    }

    /// The text of the token that follows at this distance, or nothing at the end.
    pub fn after(&self, at: usize, distance: usize) -> &str {
        self.tokens.get(at + distance).map_or("", |token| token.text)
    }

    /// Whether the source is read as this version of the language or a later one.
    pub fn is_version(&self, major: u32, minor: u32) -> bool {
        self.options.language_version >= (major, minor)
    }
}

/// A place where a rule is broken.
pub struct Violation {
    /// The index of the token.
    pub token: usize,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The name of the rule.
    pub rule: &'static str,
}

impl Violation {
    /// An error at a token.
    pub fn error(token: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Violation { token, severity: Severity::Error, message: message.into(), rule }
    }

    /// A warning at a token.
    pub fn warning(token: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Violation { token, severity: Severity::Warning, message: message.into(), rule }
    }
}

/// Everything that the rules find.
pub fn violations(source: &Source<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    language::check(source, &mut found);
    pointers::check(source, &mut found);
    variables::check(source, &mut found);
    parameters::check(source, &mut found);
    recursion::check(source, &mut found);
    found
}
