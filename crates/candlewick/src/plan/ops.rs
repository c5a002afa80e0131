//! The operations by name, with the descriptor taken from the tensors.

use super::Tensor;
use super::recorder::{Recorder, here};
use crate::{Error, LoraDelta, LoraLinear, MatMul, Result, RmsNorm, Softmax};

impl Recorder {
    /// a [m, k] times b [k, n].
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn matmul(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let ((m, k), (b_rows, n)) = (self.shape(a), self.shape(b));
        self.same("matmul", ("a", a, k), ("b", b, b_rows), "a is [m, k] and b is [k, n]")?;
        let op = MatMul { lda: self.row(a), ldb: self.row(b), ..MatMul::new(m, n, k, self.dtype(a)) };
        self.one(op, &[a, b])
    }

    /// a [m, k] times the transpose of b [n, k].
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn matmul_transposed(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let ((m, k), (n, b_cols)) = (self.shape(a), self.shape(b));
        self.same("matmul", ("a", a, k), ("b", b, b_cols), "a is [m, k] and b is [n, k]")?;
        let op = MatMul::new(m, n, k, self.dtype(a)).trans_b();
        self.one(MatMul { lda: self.row(a), ldb: self.row(b), ..op }, &[a, b])
    }

    /// softmax(scale x), by rows.
    ///
    /// # Errors
    /// A tensor of another plan.
    #[track_caller]
    pub fn softmax(&mut self, x: Tensor, scale: f32) -> Result<Tensor> {
        let (rows, cols) = self.shape(x);
        let op = Softmax { x_row: self.row(x), ..Softmax::new(rows, cols, self.dtype(x)).scaled(scale) };
        self.one(op, &[x])
    }

    /// x / sqrt(mean(x²) + eps) · weight [1, cols], by rows.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn rms_norm(&mut self, x: Tensor, weight: Tensor, eps: f32) -> Result<Tensor> {
        let ((rows, cols), (_, weights)) = (self.shape(x), self.shape(weight));
        self.same(
            "rms_norm",
            ("x", x, cols),
            ("weight", weight, weights),
            "the weight has one number per column of x",
        )?;
        let op = RmsNorm { x_row: self.row(x), ..RmsNorm::new(rows, cols, eps, self.dtype(x)) };
        self.one(op, &[x, weight])
    }

    /// x Wᵀ + bias with W [out, in] frozen: a constant, which is packed.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn linear(&mut self, x: Tensor, w: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        let (_, in_features) = self.shape(x);
        let (out_features, _) = self.shape(w);
        let dtype = self.dtype(x);
        // A layer of rank zero has empty factors.
        let (a, b) = (self.filled(0.0, 0, in_features, dtype), self.filled(0.0, out_features, 0, dtype));
        self.lora_linear(x, w, bias, a, b, 0.0)
    }

    /// x Wᵀ + bias + scale (x Aᵀ) Bᵀ with W [out, in] frozen, A [rank, in], B [out, rank]; scale is alpha / rank.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn lora_linear(
        &mut self,
        x: Tensor,
        w: Tensor,
        bias: Option<Tensor>,
        a: Tensor,
        b: Tensor,
        scale: f32,
    ) -> Result<Tensor> {
        let ((rows, in_features), (out_features, w_cols)) = (self.shape(x), self.shape(w));
        let ((rank, a_cols), (b_rows, b_cols)) = (self.shape(a), self.shape(b));
        self.same("lora_linear", ("x", x, in_features), ("w", w, w_cols), "x is [rows, in] and w is [out, in]")?;
        self.same("lora_linear", ("x", x, in_features), ("a", a, a_cols), "x is [rows, in] and a is [rank, in]")?;
        self.same("lora_linear", ("w", w, out_features), ("b", b, b_rows), "w is [out, in] and b is [out, rank]")?;
        self.same("lora_linear", ("a", a, rank), ("b", b, b_cols), "a is [rank, in] and b is [out, rank]")?;
        let op = LoraLinear::new(rows, in_features, out_features, rank, scale, self.dtype(x));
        let op = LoraLinear { x_row: self.row(x), bias: bias.is_some(), ..op };
        let op = if self.is_constant(w) { op.packed() } else { op };
        let inputs: Vec<Tensor> = [Some(x), Some(w), bias, Some(a), Some(b)].into_iter().flatten().collect();
        self.one(op, &inputs)
    }

    /// scale (x Aᵀ) Bᵀ.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn lora_delta(&mut self, x: Tensor, a: Tensor, b: Tensor, scale: f32) -> Result<Tensor> {
        let (rows, in_features) = self.shape(x);
        let ((rank, a_cols), (out_features, b_cols)) = (self.shape(a), self.shape(b));
        self.same("lora_delta", ("x", x, in_features), ("a", a, a_cols), "x is [rows, in] and a is [rank, in]")?;
        self.same("lora_delta", ("a", a, rank), ("b", b, b_cols), "a is [rank, in] and b is [out, rank]")?;
        let op = LoraDelta::new(rows, in_features, out_features, rank, scale, self.dtype(x));
        self.one(LoraDelta { x_row: self.row(x), ..op }, &[x, a, b])
    }

    pub(super) fn row(&self, tensor: Tensor) -> usize {
        let view = self.graph.view(tensor);
        // The stride of a single row is never used, and descriptors want a whole row.
        if view.rows <= 1 { view.cols } else { view.row }
    }

    #[track_caller]
    pub(super) fn one(&mut self, op: impl Into<crate::Op>, inputs: &[Tensor]) -> Result<Tensor> {
        Ok(self.op(op, inputs)?[0])
    }

    /// Two sizes that must be equal, of two tensors of this plan.
    #[track_caller]
    pub(super) fn same(
        &self,
        op: &'static str,
        left: (&'static str, Tensor, usize),
        right: (&'static str, Tensor, usize),
        remedy: &'static str,
    ) -> Result<()> {
        let shape = |tensor: Tensor| -> [usize; 2] { self.shape(tensor).into() };
        if left.2 == right.2 {
            return Ok(());
        }
        Err(here(Error::ShapeMismatch {
            op,
            left: left.0,
            left_shape: shape(left.1).into(),
            right: right.0,
            right_shape: shape(right.1).into(),
            remedy,
        }))
    }
}

// SUMS
impl Recorder {
    pub(super) fn sum(&mut self, a: Tensor, _b: Tensor) -> Result<Tensor> {
        Ok(a)
    }
    pub(super) fn sum_into_columns(&mut self, a: Tensor, _b: Tensor, _first: usize) -> Result<Tensor> {
        Ok(a)
    }
}
