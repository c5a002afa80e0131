//! y = the table's rows that the ids name.

use super::quant::blocks;
use super::{Op, Operand, Operands, Quant, matrix, require, vector};
use crate::{DType, Result};

/// y [tokens, width]: row i is row `ids[i]` of the table [vocab, width].
///
/// An id that is not below `vocab` gives a row of NaN, so that a wrong tokenizer shows. Backward: row v of dtable is the
/// sum of the rows of dy whose id is v, in the order of the tokens; it is written whole, and ids beyond `vocab` add
/// nothing. A quantised table has no backward.
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
    /// The format of a table of quantised blocks, U8 [vocab, width / block · bytes]: only the rows that the ids name become
    /// numbers. `width` is whole blocks.
    pub quant: Option<Quant>,
}

impl Embedding {
    /// All its sizes.
    pub fn new(tokens: usize, vocab: usize, width: usize, dtype: DType) -> Self {
        Embedding { tokens, vocab, width, dtype, quant: None }
    }

    /// The same with a table of quantised blocks.
    #[must_use]
    pub fn quantised(mut self, format: Quant) -> Self {
        self.quant = Some(format);
        self
    }

    pub(super) fn shape(&self) -> String {
        let quant = self.quant.map_or_else(String::new, |format| format!(" {format}"));
        format!("{}x{}x{}{quant}", self.tokens, self.vocab, self.width)
    }

    pub(super) fn elements(&self) -> f64 {
        self.tokens as f64 * self.width as f64
    }

    /// The ids, the rows that they name (each once at best) and y.
    pub(super) fn bytes(&self) -> f64 {
        let row = self.quant.map_or(self.width * self.dtype.bytes(), |format| format.row_bytes(self.width));
        let read = self.tokens.min(self.vocab) as f64 * row as f64;
        4.0 * self.tokens as f64 + read + self.elements() * self.dtype.bytes() as f64
    }

    fn table(&self, op: &'static str, name: &'static str) -> Result<Operand> {
        match self.quant {
            Some(format) => blocks(op, name, format, self.vocab, ("width", self.width)),
            None => matrix(op, name, self.dtype, self.vocab, self.width, self.width),
        }
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
        if let Some(format) = self.quant {
            require(op, "quant", format, false, "quantised blocks take no gradient: dequantise the table first")?;
        }
        Ok(Operands {
            inputs: vec![vector(op, "ids", DType::U32, self.tokens)?, self.rows(op, "dy")?],
            outputs: vec![self.table(op, "dtable")?],
        })
    }
}
