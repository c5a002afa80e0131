//! Cross-entropy of a product with the vocabulary's table, in chunks of it: the logits of all of it never lie in memory.
//!
//! Forward: for each chunk its logits, folded into three numbers a row; then the mean. Backward: for each chunk the logits
//! again (but for a vocabulary of one chunk), their gradient in their place, and its product with the chunk's weights. The idea is Liger's and Unsloth's
//! ("Cut your losses in large-vocabulary language models", Wijmans et al., 2024, goes further).

use super::Tensor;
use super::graph::Node;
use super::recorder::{Here, Recorder, here};
use crate::op::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats};
use crate::{DType, Error, MatMul, Result, Scalar};
use std::ops::Range;

/// What the gradient of a loss needs.
#[derive(Clone, Copy)]
pub(super) struct Head {
    x: Tensor,
    w: Tensor,
    labels: Tensor,
    stats: Tensor,
    chunk: usize,
    /// Of the whole vocabulary, where it is one chunk: they need not be computed again.
    logits: Option<Tensor>,
}

impl Recorder {
    /// The mean over labels [1, rows] in u32 of `-ln softmax(x Wᵀ)[label]`: [1, 2] in f32, the mean and how many rows count.
    /// Rows whose label is `u32::MAX` do not. W [vocab, width] is frozen, plain or quantised; `chunk` of its rows are
    /// taken at a time.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit, a chunk of nothing.
    #[track_caller]
    pub fn cross_entropy(&mut self, x: Tensor, w: Tensor, labels: Tensor, chunk: usize) -> Result<Tensor> {
        let ((rows, _), (vocab, _), (_, labelled)) = (self.shape(x), self.shape(w), self.shape(labels));
        self.same("cross_entropy", ("x", x, rows), ("labels", labels, labelled), "labels are [1, rows]")?;
        let chunk = chunk.clamp(1, vocab.max(1));
        let recorded = self.graph.nodes.len();
        let dtype = self.dtype(x);
        let stats = self.temporary("stats", rows, 3, DType::F32);
        let mut kept = None;
        for columns in chunks(vocab, chunk) {
            let logits = self.logits(x, w, columns.clone()).here()?;
            let op = CrossEntropyStats::new(rows, columns.len(), dtype);
            let op = if columns.start == 0 { op } else { op.at(columns.start) };
            self.op_into(op, &[logits, labels], &[stats]).here()?;
            kept = (chunk >= vocab).then_some(logits);
        }
        let loss = self.one(CrossEntropyLoss::new(rows, vocab), &[stats, labels])?;
        self.heads.insert(loss, Head { x, w, labels, stats, chunk, logits: kept });
        self.recorded_here(recorded);
        Ok(loss)
    }

    /// What [`Recorder::cross_entropy`] found of each row, [rows, 3] in f32: the largest logit, the sum of exponentials, the
    /// label's logit. The label is the likeliest where the first and the last are equal.
    ///
    /// # Errors
    /// A tensor that it did not return.
    #[track_caller]
    pub fn cross_entropy_stats(&self, loss: Tensor) -> Result<Tensor> {
        let unknown = || Error::Descriptor {
            op: "cross_entropy",
            field: "loss",
            value: "another tensor".into(),
            remedy: "give what `Recorder::cross_entropy` returned",
        };
        self.heads.get(&loss).map(|head| head.stats).ok_or_else(|| here(unknown()))
    }

    /// x times the transpose of some rows of W.
    fn logits(&mut self, x: Tensor, w: Tensor, columns: Range<usize>) -> Result<Tensor> {
        let part = self.rows(w, columns)?;
        if self.quant_of(w).is_some() { self.linear(x, part, None) } else { self.matmul_transposed(x, part) }
    }

    /// The loss's first number has the gradient; x is what depends on parameters.
    pub(super) fn cross_entropy_backward(&mut self, node: &Node, dloss: Tensor) -> Result<Option<(Tensor, Tensor)>> {
        let loss = node.outputs[0];
        let Some(Head { x, w, labels, stats, chunk, logits: kept }) = self.heads.get(&loss).copied() else {
            return Ok(None);
        };
        let ((rows, width), (vocab, _), dtype) = (self.shape(x), self.shape(w), self.dtype(x));
        let dx = self.temporary("dx", rows, width, dtype);
        let dloss = self.columns(dloss, 0..1)?;
        for columns in chunks(vocab, chunk) {
            let logits = match kept {
                Some(logits) => logits,
                None => self.logits(x, w, columns.clone())?,
            };
            let (first, cols) = (columns.start, columns.len());
            let op = CrossEntropyGrad { cols, first, logits_row: cols, ..CrossEntropyGrad::new(rows, vocab, dtype) };
            let dlogits = self.one(op, &[logits, labels, stats, loss, dloss])?;
            let part = self.rows(w, columns)?;
            let part = self.dequantized(part, dtype)?;
            let beta = if first == 0 { 0.0 } else { 1.0 };
            let product = MatMul { beta: Scalar(beta), ..MatMul::new(rows, width, cols, dtype) };
            self.op_into(MatMul { ldb: self.row(part), ..product }, &[dlogits, part], &[dx])?;
        }
        Ok(Some((x, dx)))
    }
}

fn chunks(vocab: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..vocab.div_ceil(chunk)).map(move |i| i * chunk..vocab.min((i + 1) * chunk))
}
