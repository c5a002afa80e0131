//! Everything that can go wrong with a training run: each message names the file or the option, and what to do.

use super::data::BadLines;
use std::path::{Path, PathBuf};
use thiserror::Error as ThisError;

/// Short for a result with this error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with a training run.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// What a plan or a device says.
    #[error(transparent)]
    Plan(#[from] candlewick::Error),
    /// What a model's, a tokenizer's or an adapter's file says.
    #[error(transparent)]
    Model(#[from] candlewick_model::Error),
    /// What the decoder says.
    #[error(transparent)]
    Decoder(#[from] crate::Error),
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
    /// An option that contradicts itself, another one or the model.
    #[error("{field} = {value}: {remedy}")]
    Option {
        /// The option.
        field: &'static str,
        /// Its value.
        value: String,
        /// What can be done.
        remedy: String,
    },
    /// Lines of the data that cannot be used.
    #[error(transparent)]
    Data(#[from] BadLines),
    /// A data file without anything to learn.
    #[error("{}: {problem}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A checkpoint of another run, or a damaged one.
    #[error("{}: {field}: the checkpoint has {found}, this run {expected}: {remedy}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        field: String,
        /// What the checkpoint says.
        found: String,
        /// What this run says.
        expected: String,
        /// What can be done.
        remedy: &'static str,
    },
    /// The loss is no number any more.
    #[error(
        "step {step}: {what} is not finite: lower the learning rate, or clip gradients; the last checkpoint is kept"
    )]
    Diverged {
        /// Counted from 1.
        step: u64,
        /// The loss, or the gradients' norm.
        what: &'static str,
    },
}

impl Error {
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.to_owned(), doing, source }
    }

    pub(super) fn option(field: &'static str, value: impl ToString, remedy: impl Into<String>) -> Error {
        Error::Option { field, value: value.to_string(), remedy: remedy.into() }
    }
}
