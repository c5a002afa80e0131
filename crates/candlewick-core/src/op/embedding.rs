//! y = the table's rows that the ids name.

use super::{Op, Operand, Operands, matrix, vector};
use crate::{DType, Result};

/// y [tokens, width]: row i is row `ids[i]` of the table [vocab, width].
///
/// An id that is not below `vocab` gives a row of NaN, so that a wrong tokenizer shows. Backward: row v of dtable is the
/// sum of the rows of dy whose id is v, in the order of the tokens; it is written whole, and ids beyond `vocab` add
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Embedding {
    /// How many ids, and rows of y.
    pub tokens: usize,
    /// Rows of the table.
    pub vocab: usize,
    /// Columns of the table and of y.
    pub width: usize,
    /// Of the table and y; ids are U32.
    pub dtype: DType,
}

impl Embedding {
    /// All its sizes.
    pub fn new(tokens: usize, vocab: usize, width: usize, dtype: DType) -> Self {
        Embedding { tokens, vocab, width, dtype }
    }

    pub(super) fn elements(&self) -> f64 {
        self.tokens as f64 * self.width as f64
    }

    /// The ids, the rows that they name (each once at best) and y.
    pub(super) fn bytes(&self) -> f64 {
        let read = self.tokens.min(self.vocab) as f64 * self.width as f64;
        4.0 * self.tokens as f64 + (read + self.elements()) * self.dtype.bytes() as f64
    }

    fn table(&self, op: &'static str, name: &'static str) -> Result<Operand> {
        matrix(op, name, self.dtype, self.vocab, self.width, self.width)
    }

    fn rows(&self, op: &'static str, name: &'static str) -> Result<Operand> {
        matrix(op, name, self.dtype, self.tokens, self.width, self.width)
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::Embedding(*self).name();
        Ok(Operands {
            inputs: vec![vector(op, "ids", DType::U32, self.tokens)?, self.table(op, "table")?],
            outputs: vec![self.rows(op, "y")?],
        })
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let op = Op::EmbeddingBackward(*self).name();
        Ok(Operands {
            inputs: vec![vector(op, "ids", DType::U32, self.tokens)?, self.rows(op, "dy")?],
            outputs: vec![self.table(op, "dtable")?],
        })
    }
}
