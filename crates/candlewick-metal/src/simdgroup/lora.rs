//! LoRA as products on simdgroup matrices.
//!
//! Forward: h = s x A^T, then y = x W^T + bias + h B^T in one sum. Backward: h, and dh = s dy B; then dx = dy W + dh A in one
//! sum, da = dh^T x, and db = dy^T h.

use super::{Extension, Product, Strides, Tensor, dtype_index, fits};
use crate::ops::Build;
use crate::runtime::dispatch::Dispatch;
use crate::runtime::hazard::Access;
use crate::runtime::pipeline::Source;
use bytemuck::NoUninit;
use candlewick_core::{DType, LoraDelta, LoraLinear, Result};
use objc2_metal::MTLSize;

/// As in `kernels/down.metal`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct DownParams {
    x_row: u64,
    a_row: u64,
    a_col: u64,
    rows: u32,
    rank: u32,
    k: u32,
    factor: f32,
}

/// Whether the engine runs a layer; without a rank it is a plain product.
pub(crate) fn runs_linear(op: &LoraLinear) -> bool {
    fits(&[op.rows, op.in_features, op.out_features]) && op.rank < 1 << 31
}

/// Whether it runs a delta, and its backward.
pub(crate) fn runs_delta(op: &LoraDelta) -> bool {
    fits(&[op.rows, op.in_features, op.out_features, op.rank])
}

/// Whether it runs a layer's backward.
pub(crate) fn runs_backward(op: &LoraLinear) -> bool {
    runs_linear(op) && op.rank > 0
}

/// The sizes and tensors of a layer.
struct Layer {
    rows: usize,
    ins: usize,
    outs: usize,
    rank: usize,
    scale: f32,
    x_row: usize,
    y_row: usize,
    dtype: DType,
}

impl Layer {
    fn of(op: &LoraLinear) -> Self {
        let LoraLinear { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
        Layer { rows, ins: in_features, outs: out_features, rank, scale: scale.get(), x_row, y_row, dtype }
    }

    fn of_delta(op: &LoraDelta) -> Self {
        let LoraDelta { rows, in_features, out_features, rank, scale, x_row, y_row, dtype, .. } = *op;
        Layer { rows, ins: in_features, outs: out_features, rank, scale: scale.get(), x_row, y_row, dtype }
    }

    fn tensor(&self, index: usize, rows: usize, row: usize, cols: usize) -> Tensor {
        let bytes = ((rows - 1) * row + cols) * self.dtype.bytes();
        Tensor { index, bytes, strides: Strides::new(row, 1) }
    }

    /// x or dx.
    fn x(&self, index: usize) -> Tensor {
        self.tensor(index, self.rows, self.x_row, self.ins)
    }

    /// y or dy.
    fn y(&self, index: usize) -> Tensor {
        self.tensor(index, self.rows, self.y_row, self.outs)
    }

    /// W [out, in].
    fn w(&self, index: usize) -> Tensor {
        self.tensor(index, self.outs, self.ins, self.ins)
    }

    /// A [rank, in], or its gradient.
    fn a(&self, index: usize) -> Tensor {
        self.tensor(index, self.rank, self.ins, self.ins)
    }

    /// B [out, rank], or its gradient.
    fn b(&self, index: usize) -> Tensor {
        self.tensor(index, self.outs, self.rank, self.rank)
    }

    /// `scale` `x` `a`^T in memory of the kernel's own, for x [rows, k] and a [rank, k]: the memory and the dispatch.
    fn down(&self, x: Tensor, a: Tensor, k: usize, build: &mut Build<'_>) -> Result<(usize, Dispatch)> {
        let bytes = self.rows * self.rank * size_of::<f32>();
        let h = build.own(bytes)?;
        let params = DownParams {
            x_row: x.strides.row,
            a_row: a.strides.row,
            a_col: a.strides.col,
            rows: self.rows as u32,
            rank: self.rank as u32,
            k: k as u32,
            factor: self.scale,
        };
        let entry = (Source::Tiles, ["down_f32", "down_f16", "down_bf16"][dtype_index(self.dtype)]);
        let groups = MTLSize { width: self.rank.div_ceil(64), height: self.rows.div_ceil(8), depth: 1 };
        let bindings = [
            Build::tensor(x.index, Access::Read, x.bytes),
            Build::tensor(a.index, Access::Read, a.bytes),
            build.owned(h, Access::Write, bytes),
        ];
        Ok((h, build.dispatch(entry, bindings, bytemuck::bytes_of(&params), groups, 256)?))
    }

    /// H E with H [rows, rank].
    fn by_rows(&self, h: usize, e: Tensor) -> Option<Extension> {
        Some(Extension { h, h_strides: [self.rank, 1], e, terms: self.rank })
    }

    /// H^T E: the gradients of A and B, sums over the rows.
    fn by_rank(&self, h: usize, e: Tensor) -> Option<Extension> {
        Some(Extension { h, h_strides: [1, self.rank], e, terms: self.rows })
    }
}

fn transposed(tensor: Tensor) -> Tensor {
    let Strides { row, col, batch } = tensor.strides;
    Tensor { strides: Strides { row: col, col: row, batch }, ..tensor }
}

/// y = x W^T + bias + s (x A^T) B^T, or y += it.
pub(crate) fn lora_linear(op: &LoraLinear, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
    let layer = Layer::of(op);
    // Inputs: x, w, bias where there is one, a, b; then y.
    let (bias, a) = if op.bias { (Some(layer.tensor(2, 1, 0, layer.outs)), 3) } else { (None, 2) };
    let x = layer.x(0);
    let mut product = Product {
        factors: Some((x, transposed(layer.w(1)), layer.ins)),
        bias,
        beta: if op.accumulate { 1.0 } else { 0.0 },
        // A third kernel would make the layer cost more than ten messages.
        may_split: layer.rank == 0,
        ..Product::new(layer.y(a + 2), layer.rows, layer.outs, layer.dtype)
    };
    let mut dispatches = Vec::new();
    if layer.rank > 0 {
        let (h, down) = layer.down(x, layer.a(a), layer.ins, build)?;
        product.extension = layer.by_rows(h, transposed(layer.b(a + 1)));
        dispatches.push(down);
    }
    dispatches.extend(product.dispatches(build)?);
    Ok(dispatches)
}

/// y = s (x A^T) B^T, or y += it.
pub(crate) fn lora_delta(op: &LoraDelta, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
    let layer = Layer::of_delta(op);
    let (h, down) = layer.down(layer.x(0), layer.a(1), layer.ins, build)?;
    let up = Product {
        extension: layer.by_rows(h, transposed(layer.b(2))),
        beta: if op.accumulate { 1.0 } else { 0.0 },
        ..Product::new(layer.y(3), layer.rows, layer.outs, layer.dtype)
    };
    let mut dispatches = vec![down];
    dispatches.extend(up.dispatches(build)?);
    Ok(dispatches)
}

/// dx, da and db from x, w, a, b and dy.
pub(crate) fn lora_linear_backward(op: &LoraLinear, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
    let layer = Layer::of(op);
    layer.backward(Some(layer.w(1)), 2, build)
}

/// dx, da and db from x, a, b and dy.
pub(crate) fn lora_delta_backward(op: &LoraDelta, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
    Layer::of_delta(op).backward(None, 1, build)
}

impl Layer {
    /// The inputs x, W where there is one, A at `first`, B, dy; then dx, dA and dB.
    fn backward(&self, w: Option<Tensor>, first: usize, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
        let (x, a, b, dy) = (self.x(0), self.a(first), self.b(first + 1), self.y(first + 2));
        let (dx, da, db) = (self.x(first + 3), self.a(first + 4), self.b(first + 5));
        let Layer { rows, ins, outs, rank, dtype, .. } = *self;
        let (h, down) = self.down(x, a, ins, build)?;
        let (dh, back) = self.down(dy, transposed(b), outs, build)?;
        let dx = Product {
            factors: w.map(|w| (dy, w, outs)),
            extension: self.by_rows(dh, a),
            ..Product::new(dx, rows, ins, dtype)
        };
        let da = Product { extension: self.by_rank(dh, x), ..Product::new(da, rank, ins, dtype) };
        // As db^T = h^T dy: its rows are the rank's.
        let db = Product { extension: self.by_rank(h, dy), ..Product::new(transposed(db), rank, outs, dtype) };
        let mut dispatches = vec![down, back];
        for product in [dx, da, db] {
            dispatches.extend(product.dispatches(build)?);
        }
        Ok(dispatches)
    }
}
