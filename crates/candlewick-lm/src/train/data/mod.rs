//! From lines of text to batches of tokens.
//!
//! | looking for | it is in |
//! |---|---|
//! | the lines of a file, and what is wrong with them | `records.rs` |
//! | lines to tokens, which of them are learned | `documents.rs` |
//! | documents to rows of one length | `packing.rs` |
//! | rows to batches, in an order that a seed and a position decide | `feed.rs` |

mod documents;
mod feed;
mod packing;
mod records;

pub use documents::{Document, Documents, LossOn, Reader};
pub use feed::{Batch, Feed, Position};
pub use packing::Rows;
pub use records::{BadLines, Record};

/// The label of a token that is not learned.
pub const IGNORED: u32 = u32::MAX;
