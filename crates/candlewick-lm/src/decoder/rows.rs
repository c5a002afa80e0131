//! The rows of a forward pass: which tokens, at which positions, and what each sees.

use super::Cache;
use candlewick::DType;
use candlewick::plan::{Recorder, Tensor};

/// The rows of a forward pass: tokens of one or several sequences, in any order that keeps those of a sequence together.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The tokens, [1, rows] in u32.
    pub ids: Tensor,
    /// Each one's position in its sequence, [1, rows] in u32.
    pub positions: Tensor,
    /// Which rows belong together, [sequences, 4] in u32: first row, rows, first key, keys; see
    /// [`Attention`](candlewick::op::Attention). Keys are rows of the cache, or without one these rows.
    pub spans: Tensor,
    /// Keys and values of earlier tokens, and the row of the cache that each row goes to, [1, rows] in u32: `u32::MAX`
    /// keeps it out.
    pub cache: Option<(&'a Cache, Tensor)>,
    /// The rows whose hidden states are wanted, [1, wanted] in u32; nothing for all.
    pub wanted: Option<Tensor>,
}

impl Rows<'_> {
    /// Whole sequences without a cache, as inputs `ids`, `positions` and `spans`: for training.
    pub fn uncached(p: &mut Recorder, rows: usize, sequences: usize) -> Rows<'static> {
        Rows {
            ids: p.input("ids", 1, rows, DType::U32),
            positions: p.input("positions", 1, rows, DType::U32),
            spans: p.input("spans", sequences, 4, DType::U32),
            cache: None,
            wanted: None,
        }
    }
}
