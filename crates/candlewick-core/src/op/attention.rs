//! Attention: y = softmax(scale q kᵀ) v, per head and sequence.

use super::{Op, Operand, Operands, check_row_stride, matrix, require};
use crate::{DType, Result, Scalar};

/// Scaled dot-product attention (Vaswani et al., 2017) with grouped queries (Ainslie et al., 2023), over sequences of
/// any lengths: y_i = sum over the visible keys j of p_ij v_j, p_ij = exp(scale q_i · k_j - lse_i), lse_i = ln of the sum
/// of exp(scale q_i · k_j). Head h reads key-value head h / (heads / kv_heads). No engine stores the scores.
///
/// `spans` [sequences, 4] lies in device memory: (first query, queries, first key, keys) of each sequence, each clamped
/// to the tensors. So one descriptor serves a KV cache with lengths that change (first key = sequence · capacity) and
/// training on packed documents that do not see each other. A query in several spans belongs to the first of them;
/// sequences may share keys. With `causal` query i of a sequence sees its keys up to i + keys - queries: the last query
/// sees the last key. A query without keys, or in no span, has y = 0 and lse = -inf.
///
/// NaN and infinities follow IEEE 754, as in [`super::Softmax`]. Backward, from q, k, v, spans, y, lse and dy, with
/// D_i = dy_i · y_i: dv_j = sum p_ij dy_i, ds_ij = scale p_ij (dy_i · v_j - D_i), dq_i = sum ds_ij k_j,
/// dk_j = sum ds_ij q_i. Outputs are written whole: what no query sees has a gradient of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Rows of q and y, of all sequences.
    pub queries: usize,
    /// Rows of k and v, of all sequences: the whole KV cache.
    pub keys: usize,
    /// How many spans.
    pub sequences: usize,
    /// Heads of q and y; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of k and v.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head: usize,
    /// Elements between rows of q (and of dq).
    pub q_row: usize,
    /// Elements between rows of k (and of dk).
    pub k_row: usize,
    /// Elements between rows of v (and of dv).
    pub v_row: usize,
    /// Elements between rows of y (and of dy).
    pub y_row: usize,
    /// Factor of the scores, 1 / sqrt(head) mostly.
    pub scale: Scalar,
    /// No query sees a later key.
    pub causal: bool,
    /// Of q, k, v and y; spans are U32, lse is F32.
    pub dtype: DType,
}

/// The rows of one sequence, inside the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first row of q.
    pub query: usize,
    /// Its rows of q.
    pub queries: usize,
    /// Its first row of k and v.
    pub key: usize,
    /// Its rows of k and v.
    pub keys: usize,
}

impl Attention {
    /// One sequence, contiguous rows, causal, scaled by 1 / sqrt(head).
    pub fn new(queries: usize, keys: usize, heads: usize, kv_heads: usize, head: usize, dtype: DType) -> Self {
        let (wide, narrow) = (heads.saturating_mul(head), kv_heads.saturating_mul(head));
        Attention {
            queries,
            keys,
            sequences: 1,
            heads,
            kv_heads,
            head,
            q_row: wide,
            k_row: narrow,
            v_row: narrow,
            y_row: wide,
            scale: Scalar(1.0 / (head.max(1) as f32).sqrt()),
            causal: true,
            dtype,
        }
    }

    /// Heads of q that share a head of k and v.
    pub const fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// A row of `spans`, clamped to the tensors.
    pub fn span(&self, row: [u32; 4]) -> Span {
        let [query, queries, key, keys] = row.map(|number| number as usize);
        let (query, key) = (query.min(self.queries), key.min(self.keys));
        Span { query, queries: queries.min(self.queries - query), key, keys: keys.min(self.keys - key) }
    }

    /// How many leading keys of its span query `i` of that span sees.
    pub const fn visible(&self, span: &Span, i: usize) -> usize {
        if self.causal { (i + 1 + span.keys).saturating_sub(span.queries) } else { span.keys }
    }

    /// Two products over every query and key. What the spans and the mask leave out is not known here.
    pub(super) fn flops(&self) -> f64 {
        self.pairs() * (4.0 * self.head as f64 + 4.0)
    }

    /// Five products: the scores again, dv, dp, dq and dk.
    pub(super) fn backward_flops(&self) -> f64 {
        self.pairs() * (10.0 * self.head as f64 + 5.0)
    }

    fn pairs(&self) -> f64 {
        let keys = self.keys as f64 / self.sequences.max(1) as f64;
        self.queries as f64 * keys * self.heads as f64
    }

    pub(super) fn shape(&self) -> String {
        let sequences = if self.sequences == 1 { String::new() } else { format!(" s{}", self.sequences) };
        let causal = if self.causal { " causal" } else { "" };
        format!("{}x{} h{}/{}x{}{sequences}{causal}", self.queries, self.keys, self.heads, self.kv_heads, self.head)
    }

    fn check(&self, op: &'static str) -> Result<()> {
        let divides = self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads);
        require(op, "kv_heads", self.kv_heads, divides, "kv_heads divides heads")?;
        let (wide, narrow) = (self.heads.saturating_mul(self.head), self.kv_heads.saturating_mul(self.head));
        check_row_stride(op, "q_row", self.q_row, wide)?;
        check_row_stride(op, "k_row", self.k_row, narrow)?;
        check_row_stride(op, "v_row", self.v_row, narrow)?;
        check_row_stride(op, "y_row", self.y_row, wide)?;
        let finite = self.scale.get().is_finite();
        require(op, "scale", self.scale, finite, "scale is a finite number, 1 / sqrt(head) mostly")
    }

    fn tensor(&self, op: &'static str, name: &'static str) -> Result<Operand> {
        let (wide, narrow) = (self.heads.saturating_mul(self.head), self.kv_heads.saturating_mul(self.head));
        match name {
            "q" | "dq" => matrix(op, name, self.dtype, self.queries, self.q_row, wide),
            "k" | "dk" => matrix(op, name, self.dtype, self.keys, self.k_row, narrow),
            "v" | "dv" => matrix(op, name, self.dtype, self.keys, self.v_row, narrow),
            "y" | "dy" => matrix(op, name, self.dtype, self.queries, self.y_row, wide),
            "spans" => matrix(op, name, DType::U32, self.sequences, 4, 4),
            _ => matrix(op, name, DType::F32, self.queries, self.heads, self.heads),
        }
    }

    fn named(&self, op: &'static str, inputs: &[&'static str], outputs: &[&'static str]) -> Result<Operands> {
        self.check(op)?;
        let tensors = |names: &[&'static str]| names.iter().map(|name| self.tensor(op, name)).collect::<Result<_>>();
        Ok(Operands { inputs: tensors(inputs)?, outputs: tensors(outputs)? })
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        self.named(Op::Attention(*self).name(), &["q", "k", "v", "spans"], &["y", "lse"])
    }

    pub(super) fn backward_operands(&self) -> Result<Operands> {
        let inputs = ["q", "k", "v", "spans", "y", "lse", "dy"];
        self.named(Op::AttentionBackward(*self).name(), &inputs, &["dq", "dk", "dv"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_clamped_and_the_last_query_sees_the_last_key() {
        let op = Attention::new(4, 10, 2, 1, 8, DType::F32);
        let span = op.span([1, 2, 3, 5]);
        assert_eq!(span, Span { query: 1, queries: 2, key: 3, keys: 5 });
        assert_eq!([0, 1].map(|i| op.visible(&span, i)), [4, 5]);
        assert_eq!(op.span([3, u32::MAX, 9, 7]), Span { query: 3, queries: 1, key: 9, keys: 1 });
        assert_eq!(op.span([u32::MAX, 1, u32::MAX, 1]), Span { query: 4, queries: 0, key: 10, keys: 0 });
        let short = op.span([0, 4, 0, 2]);
        assert_eq!([0, 1, 2, 3].map(|i| op.visible(&short, i)), [0, 0, 1, 2], "more queries than keys");
        assert!(Attention { kv_heads: 0, ..op }.operands().is_err());
        assert!(
            Attention { heads: 3, kv_heads: 2, q_row: 24, k_row: 16, v_row: 16, y_row: 24, ..op }.operands().is_err()
        );
    }
}
