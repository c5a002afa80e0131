//! Cross-entropy over chunks of the vocabulary, so that the logits of all of it never lie in memory at once.
//!
//! Forward: for each chunk a product makes its logits and [`CrossEntropyStats`] folds them into three numbers a row; then
//! [`CrossEntropyLoss`]. Backward: for each chunk the product again, [`CrossEntropyGrad`], and the product's gradients.

use super::{Op, Operand, Operands, check_row_stride, matrix, require, vector};
use crate::{DType, Result};

/// stats [rows, 3] = (m, s, l) of the logits so far: m the largest, s the sum of exp(logit - m), l the logit of the row's
/// label, 0 until its chunk has come. Updated in place, chunk by chunk; `begin` starts with (-inf, 0, 0).
///
/// A row with NaN or +inf has m = s = NaN, and so its loss. Logits of -inf count as probability 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropyStats {
    /// Rows: tokens.
    pub rows: usize,
    /// Columns of this chunk of the vocabulary.
    pub cols: usize,
    /// The vocabulary's column that is the chunk's first.
    pub first: usize,
    /// Elements between rows of the logits.
    pub logits_row: usize,
    /// Whether this is the first chunk: stats is then not read.
    pub begin: bool,
    /// Of the logits; labels are U32, stats F32.
    pub dtype: DType,
}

/// loss of length 2 = (the mean over the counted rows of ln(s) + m - l, how many rows count). The mean of no rows is 0.
///
/// A row counts where its label is below `vocab`; u32::MAX is the label to give to rows that shall not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropyLoss {
    /// Rows: tokens.
    pub rows: usize,
    /// Columns of all chunks together.
    pub vocab: usize,
}

/// dlogits = dloss / count · (exp(logit - m) / s - onehot(label)) of one chunk, and 0 in rows that do not count.
///
/// In place (dlogits being logits) is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CrossEntropyGrad {
    /// Rows: tokens.
    pub rows: usize,
    /// Columns of this chunk of the vocabulary.
    pub cols: usize,
    /// The vocabulary's column that is the chunk's first.
    pub first: usize,
    /// Columns of all chunks together.
    pub vocab: usize,
    /// Elements between rows of the logits and of dlogits.
    pub logits_row: usize,
    /// Of logits and dlogits; labels are U32; stats, loss and dloss F32.
    pub dtype: DType,
}

fn stats(op: &'static str, rows: usize) -> Result<Operand> {
    matrix(op, "stats", DType::F32, rows, 3, 3)
}

impl CrossEntropyStats {
    /// The first chunk, contiguous rows.
    pub fn new(rows: usize, cols: usize, dtype: DType) -> Self {
        CrossEntropyStats { rows, cols, first: 0, logits_row: cols, begin: true, dtype }
    }

    /// A later chunk, which begins at column `first` of the vocabulary.
    pub fn at(mut self, first: usize) -> Self {
        (self.first, self.begin) = (first, false);
        self
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::CrossEntropyStats(*self).name();
        check_row_stride(op, "logits_row", self.logits_row, self.cols)?;
        let fits = self.first.checked_add(self.cols).is_some_and(|end| end <= u32::MAX as usize);
        require(op, "first", self.first, fits, "the chunk ends before column 2^32 - 1, which labels cannot name")?;
        let logits = matrix(op, "logits", self.dtype, self.rows, self.logits_row, self.cols)?;
        let labels = vector(op, "labels", DType::U32, self.rows)?;
        Ok(Operands { inputs: vec![logits, labels], outputs: vec![stats(op, self.rows)?] })
    }
}

impl CrossEntropyLoss {
    /// All its sizes.
    pub fn new(rows: usize, vocab: usize) -> Self {
        CrossEntropyLoss { rows, vocab }
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::CrossEntropyLoss(*self).name();
        let fits = self.vocab <= u32::MAX as usize;
        require(op, "vocab", self.vocab, fits, "at most 2^32 - 1 columns, which labels can name")?;
        let labels = vector(op, "labels", DType::U32, self.rows)?;
        Ok(Operands { inputs: vec![stats(op, self.rows)?, labels], outputs: vec![vector(op, "loss", DType::F32, 2)?] })
    }
}

impl CrossEntropyGrad {
    /// The whole vocabulary in one chunk, contiguous rows.
    pub fn new(rows: usize, vocab: usize, dtype: DType) -> Self {
        CrossEntropyGrad { rows, cols: vocab, first: 0, vocab, logits_row: vocab, dtype }
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::CrossEntropyGrad(*self).name();
        check_row_stride(op, "logits_row", self.logits_row, self.cols)?;
        let fits = self.vocab <= u32::MAX as usize;
        require(op, "vocab", self.vocab, fits, "at most 2^32 - 1 columns, which labels can name")?;
        let fits = self.first.checked_add(self.cols).is_some_and(|end| end <= self.vocab);
        require(op, "first", self.first, fits, "first + cols is at most vocab")?;
        let logits = |name| matrix(op, name, self.dtype, self.rows, self.logits_row, self.cols);
        let labels = vector(op, "labels", DType::U32, self.rows)?;
        let (loss, dloss) = (vector(op, "loss", DType::F32, 2)?, vector(op, "dloss", DType::F32, 1)?);
        Ok(Operands {
            inputs: vec![logits("logits")?, labels, stats(op, self.rows)?, loss, dloss],
            outputs: vec![logits("dlogits")?],
        })
    }
}
