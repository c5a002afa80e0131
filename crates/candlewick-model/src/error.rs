//! Everything that can go wrong with a file: each message names the file, the field, and what to do.

use std::path::{Path, PathBuf};
use thiserror::Error as ThisError;

/// Short for a result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong with a file.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The system refused an operation.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes of a file contradict its format, or each other.
    #[error("{}: {field}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The field, tensor or key.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A field means something that is not implemented, so that the results would not be the model's.
    #[error("{}: {field} = {value} is not supported: {remedy}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value, shortened.
        value: String,
        /// What can be done.
        remedy: String,
    },
    /// A file, a field or a tensor that is needed is not there.
    #[error("{}: {what} is missing: {remedy}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What is missing.
        what: String,
        /// What can be done.
        remedy: String,
    },
    /// Two things do not fit each other: an adapter and a model, a merged model and its record.
    #[error("{what}: {left} and {right} do not fit: {remedy}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// What the first one is.
        left: String,
        /// What the second one is.
        right: String,
        /// What can be done.
        remedy: String,
    },
    /// A text, or tokens, that the tokenizer or its chat template refuses.
    #[error("{what}: {problem}")]
    Text {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        problem: String,
    },
    /// A file could not be fetched.
    #[error("{what} was not fetched: {problem}. By hand: {by_hand}")]
    Fetch {
        /// The file.
        what: String,
        /// Why it failed.
        problem: String,
        /// How to get it.
        by_hand: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.to_owned(), doing, source }
    }

    pub(crate) fn damaged(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_owned(), field: field.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(
        path: &Path,
        field: impl Into<String>,
        value: impl ToString,
        remedy: impl Into<String>,
    ) -> Error {
        let value = shortened(&value.to_string());
        Error::Unsupported { path: path.to_owned(), field: field.into(), value, remedy: remedy.into() }
    }

    pub(crate) fn missing(path: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Missing { path: path.to_owned(), what: what.into(), remedy: remedy.into() }
    }
}

/// The first characters of a value that a file may have made very long.
fn shortened(value: &str) -> String {
    const MOST: usize = 80;
    if value.chars().count() <= MOST { value.to_owned() } else { value.chars().take(MOST).collect::<String>() + " .." }
}
