//! The operations by name, with the descriptor taken from the tensors.

use super::Tensor;
use super::recorder::{Recorder, here};
use crate::op::{Add, Attention, Cast, CopyRows, Dropout, Embedding, LoraRows, QuantLinear, Rope, SiluMul};
use crate::{DType, Error, LoraDelta, LoraLinear, MatMul, Result, RmsNorm, Softmax};

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

    /// x Wᵀ + bias with W [out, in] frozen: a constant, which is packed, or in quantised blocks.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn linear(&mut self, x: Tensor, w: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        if self.quant_of(w).is_some() {
            let y = self.quant_linear(x, w)?;
            return match bias {
                Some(bias) => self.add_row(y, bias),
                None => Ok(y),
            };
        }
        let (_, in_features) = self.shape(x);
        let (out_features, _) = self.shape(w);
        let dtype = self.dtype(x);
        // A layer of rank zero has empty factors.
        let (a, b) = (self.filled(0.0, 0, in_features, dtype), self.filled(0.0, out_features, 0, dtype));
        self.lora_linear(x, w, bias, a, b, 0.0)
    }

    /// x Wᵀ + bias + scale (x Aᵀ) Bᵀ with W [out, in] frozen, plain or quantised, A [rank, in], B [out, rank]; scale is
    /// alpha / rank.
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
        if self.quant_of(w).is_some() {
            let (base, delta) = (self.linear(x, w, bias)?, self.lora_delta(x, a, b, scale)?);
            return self.add(base, delta);
        }
        let ((rows, in_features), (out_features, w_cols)) = (self.shape(x), self.shape(w));
        let ((rank, a_cols), (b_rows, b_cols)) = (self.shape(a), self.shape(b));
        self.same("lora_linear", ("x", x, in_features), ("w", w, w_cols), "x is [rows, in] and w is [out, in]")?;
        self.same("lora_linear", ("x", x, in_features), ("a", a, a_cols), "x is [rows, in] and a is [rank, in]")?;
        self.same("lora_linear", ("w", w, out_features), ("b", b, b_rows), "w is [out, in] and b is [out, rank]")?;
        self.same("lora_linear", ("a", a, rank), ("b", b, b_cols), "a is [rank, in] and b is [out, rank]")?;
        let op = LoraLinear::new(rows, in_features, out_features, rank, scale, self.dtype(x));
        let op = LoraLinear { x_row: self.row(x), bias: bias.is_some(), ..op };
        let op = if self.graph.packs && self.is_constant(w) { op.packed() } else { op };
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

    /// Adds to each row of y what the adapter that its slot names says: see [`LoraRows`]. A [adapters · rank, in],
    /// B [adapters · out, rank], scales [adapters, 1] or [1, adapters] in f32, slots [1, rows] in u32. y is a state, or what
    /// operations of this plan made. It has no gradient.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit, a y that cannot be written.
    #[track_caller]
    pub fn lora_rows(&mut self, x: Tensor, [a, b, scales]: [Tensor; 3], slots: Tensor, y: Tensor) -> Result<()> {
        let ((rows, in_features), (y_rows, out_features)) = (self.shape(x), self.shape(y));
        let ((b_rows, rank), (a_rows, a_cols)) = (self.shape(b), self.shape(a));
        let elements = |(rows, cols): (usize, usize)| rows * cols;
        let (adapters, slotted) = (elements(self.shape(scales)), elements(self.shape(slots)));
        let name = "lora_rows";
        let factors = "a is [adapters · rank, in] and b is [adapters · out, rank], with one scale for each adapter";
        self.same(name, ("x", x, rows), ("y", y, y_rows), "x is [rows, in] and y is [rows, out]")?;
        self.same(name, ("x", x, in_features), ("a", a, a_cols), "x is [rows, in] and a is [adapters · rank, in]")?;
        self.same(name, ("a", a, a_rows), ("b", b, adapters * rank), factors)?;
        self.same(name, ("y", y, adapters * out_features), ("b", b, b_rows), factors)?;
        self.same(name, ("x", x, rows), ("slots", slots, slotted), "a row has a slot")?;
        let op = LoraRows::new(rows, in_features, out_features, rank, adapters, self.dtype(x));
        let op = LoraRows { x_row: self.row(x), y_row: self.row(y), ..op };
        self.op_into(op, &[x, a, b, scales, slots], &[y])
    }

    /// a + b.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let op = self.add_op(a, b)?;
        self.one(op, &[a, b])
    }

    /// factor · x: recorded as a product with one, which goes into the product before it where x is one.
    ///
    /// # Errors
    /// A tensor of another plan.
    #[track_caller]
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Result<Tensor> {
        self.check_owner(x).map_err(here)?;
        let ((rows, cols), dtype) = (self.shape(x), self.dtype(x));
        // One row of all elements has no gaps.
        let x = if self.row(x) == cols {
            x
        } else {
            let zeros = self.filled(0.0, 1, cols, dtype);
            self.add_row(x, zeros)?
        };
        let (one, y) = (self.filled(1.0, 1, 1, dtype), self.temporary("scaled", rows, cols, dtype));
        self.op_into(MatMul::new(1, rows * cols, 1, dtype).scaled(factor, 0.0), &[one, x], &[y])?;
        Ok(y)
    }

    /// silu(gate) · up.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn silu_mul(&mut self, gate: Tensor, up: Tensor) -> Result<Tensor> {
        let (rows, cols) = self.shape(gate);
        self.same_shape("silu_mul", ("gate", gate), ("up", up))?;
        let op = SiluMul::new(rows, cols, self.dtype(gate));
        self.one(SiluMul { gate_row: self.row(gate), up_row: self.row(up), ..op }, &[gate, up])
    }

    /// x in another float format.
    ///
    /// # Errors
    /// Columns of a wider tensor, an integer format.
    #[track_caller]
    pub fn cast(&mut self, x: Tensor, dtype: DType) -> Result<Tensor> {
        let (rows, cols) = self.shape(x);
        if rows > 1 && self.row(x) != cols {
            let (shape, strides) = ([rows, cols].into(), [self.row(x), 1].into());
            let remedy = "cast the whole tensor, then take its columns";
            return Err(here(Error::Strides { op: "cast", operand: "x", shape, strides, remedy }));
        }
        let y = self.temporary("y", rows, cols, dtype);
        self.op_into(Cast::new(rows * cols, self.dtype(x), dtype), &[x], &[y])?;
        Ok(y)
    }

    /// The rows of a table [vocab, width] that ids [1, tokens] in u32 name.
    ///
    /// # Errors
    /// Ids of another dtype.
    #[track_caller]
    pub fn embedding(&mut self, ids: Tensor, table: Tensor) -> Result<Tensor> {
        let ((vocab, width), (rows, cols)) = (self.shape(table), self.shape(ids));
        self.one(Embedding::new(rows * cols, vocab, width, self.dtype(table)), &[ids, table])
    }

    /// The same of a table of quantised blocks, of which only these rows become numbers, in `dtype`. The table stays as the
    /// file has it, beside its packed form where it is also a head's weight.
    ///
    /// # Errors
    /// Ids of another dtype, a table without blocks.
    #[track_caller]
    pub fn quant_embedding(&mut self, ids: Tensor, table: Tensor, dtype: DType) -> Result<Tensor> {
        let ((vocab, bytes), (rows, cols)) = (self.shape(table), self.shape(ids));
        let Some(format) = self.quant_of(table) else {
            return Err(here(Error::Shape {
                op: "embedding",
                operand: "table",
                shape: [vocab, bytes].into(),
                remedy: "make the table with `Recorder::quantised`, or use `Recorder::embedding`",
            }));
        };
        let width = bytes / format.bytes() * format.block();
        self.one(Embedding::new(rows * cols, vocab, width, dtype).quantised(format), &[ids, table])
    }

    /// x with elements dropped at a rate, and the others larger, by seed [1, 2] = (seed, step) in u32 and a stream: another
    /// number for each use of the seed. The gradient reads the seed again: what changes it comes behind.
    ///
    /// # Errors
    /// A rate that is not within 0..1, a seed of another dtype.
    #[track_caller]
    pub fn dropout(&mut self, x: Tensor, seed: Tensor, rate: f32, stream: u32) -> Result<Tensor> {
        let (rows, cols) = self.shape(x);
        let op = Dropout::new(rows, cols, rate, stream, self.dtype(x));
        self.one(Dropout { x_row: self.row(x), ..op }, &[x, seed])
    }

    /// Rotates heads of `head` elements by positions [1, rows] in u32, with frequencies [1, head / 2] in f32.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn rope(&mut self, x: Tensor, positions: Tensor, frequencies: Tensor, op: Rope) -> Result<Tensor> {
        let op = Rope { x_row: self.row(x), ..op };
        self.one(op, &[x, positions, frequencies])
    }

    /// Attention of q over k and v, where spans [sequences, 4] in u32 say which rows belong together; see [`Attention`].
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn attention(&mut self, q: Tensor, k: Tensor, v: Tensor, spans: Tensor, op: Attention) -> Result<Tensor> {
        let op = Attention { q_row: self.row(q), k_row: self.row(k), v_row: self.row(v), ..op };
        self.one(op, &[q, k, v, spans])
    }

    /// Copies rows into the rows of a state that slots [1, rows] in u32 name.
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn copy_rows(&mut self, x: Tensor, slots: Tensor, state: Tensor) -> Result<()> {
        let ((rows, width), (capacity, state_width)) = (self.shape(x), self.shape(state));
        self.same("copy_rows", ("x", x, width), ("state", state, state_width), "a row of x is a row of the state")?;
        let op = CopyRows { x_row: self.row(x), ..CopyRows::new(rows, width, capacity, self.dtype(x)) };
        self.op_into(op, &[x, slots], &[state])
    }

    /// a plus one row for all, [1, cols].
    ///
    /// # Errors
    /// Sizes or dtypes that do not fit.
    #[track_caller]
    pub fn add_row(&mut self, a: Tensor, row: Tensor) -> Result<Tensor> {
        let ((rows, cols), (_, width)) = (self.shape(a), self.shape(row));
        self.same("add", ("a", a, cols), ("b", row, width), "the row has one number per column")?;
        let op = Add { a_row: self.row(a), b_row: 0, ..Add::new(rows, cols, self.dtype(a)) };
        self.one(op, &[a, row])
    }

    fn quant_linear(&mut self, x: Tensor, w: Tensor) -> Result<Tensor> {
        let ((rows, in_features), (out_features, bytes)) = (self.shape(x), self.shape(w));
        let Some(format) = self.quant_of(w) else { unreachable!("asked by those who know") };
        let remedy = "x is [rows, in] and w is [out, in], in blocks";
        let columns = bytes / format.bytes() * format.block();
        self.same("quant_linear", ("x", x, in_features), ("w", w, columns), remedy)?;
        let op = QuantLinear::new(rows, in_features, out_features, format, self.dtype(x));
        let op = if self.graph.packs && self.is_constant(w) && self.is_whole(w) { op.packed() } else { op };
        self.one(QuantLinear { x_row: self.row(x), activations: self.activations, ..op }, &[x, w])
    }

    pub(super) fn quant_of(&self, tensor: Tensor) -> Option<crate::op::Quant> {
        self.graph.storage(tensor).quant
    }

    pub(super) fn add_op(&self, a: Tensor, b: Tensor) -> Result<Add> {
        let (rows, cols) = self.shape(a);
        self.same_shape("add", ("a", a), ("b", b))?;
        Ok(Add { a_row: self.row(a), b_row: self.row(b), ..Add::new(rows, cols, self.dtype(a)) })
    }

    #[track_caller]
    fn same_shape(&self, op: &'static str, left: (&'static str, Tensor), right: (&'static str, Tensor)) -> Result<()> {
        let (of_left, of_right) = (self.shape(left.1), self.shape(right.1));
        let remedy = "they have the same shape";
        self.same(op, (left.0, left.1, of_left.0), (right.0, right.1, of_right.0), remedy)?;
        self.same(op, (left.0, left.1, of_left.1), (right.0, right.1, of_right.1), remedy)
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
