//! Everything that can go wrong beside the operations and the files.

use thiserror::Error as ThisError;

/// Short for a result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// An operation, a plan or a device.
    #[error(transparent)]
    Operation(#[from] candlewick::Error),
    /// A file: of a model, a tokenizer, an adapter.
    #[error(transparent)]
    File(#[from] candlewick_model::Error),
    /// Something that was asked for cannot be done.
    #[error("{what}: {problem}: {remedy}")]
    Refused {
        /// What was asked for: `prompt 3`, `temperature`.
        what: String,
        /// Why it cannot be done.
        problem: String,
        /// What can be done instead.
        remedy: String,
    },
}

impl Error {
    pub(crate) fn refused(what: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Error {
        Error::Refused { what: what.into(), problem: problem.into(), remedy: remedy.into() }
    }
}
