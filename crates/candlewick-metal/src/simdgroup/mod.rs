//! Own products on simdgroup matrices: what the kernels in `kernels/` are given.
//!
//! | looking for | it is in |
//! |---|---|
//! | one product as a dispatch or two: parameters and grid | here |
//! | how large its tiles are, and into how many its sum is split | `../tiling.rs` |
//! | the matrix product | `matmul.rs` |
//! | LoRA, forward and backward, as such products | `lora.rs` |

mod lora;
mod matmul;

pub(crate) use lora::{
    lora_delta, lora_delta_backward, lora_linear, lora_linear_backward, runs_backward, runs_delta, runs_linear,
};
pub(crate) use matmul::{matmul, runs_matmul, tensors};

use crate::ops::Build;
use crate::runtime::dispatch::Dispatch;
use crate::runtime::hazard::Access;
use crate::runtime::pipeline::Source;
use crate::tiling::{splits, tile};
use bytemuck::NoUninit;
use candlewick_core::{DType, Result};
use objc2_metal::MTLSize;

/// The text of `kernels/`, as one library.
pub(crate) const SOURCE: &str = concat!(
    include_str!("../../kernels/numbers.metal"),
    include_str!("../../kernels/product.metal"),
    include_str!("../../kernels/down.metal"),
    include_str!("../../kernels/clear.metal"),
);

/// As in `kernels/product.metal`: terms of the sum per step.
const DEPTH: usize = 16;

/// As `Matrix` in `kernels/numbers.metal`: elements from one row, one column to the next.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(crate) struct Strides {
    pub(crate) row: u64,
    pub(crate) col: u64,
    pub(crate) batch: [u64; 3],
}

impl Strides {
    fn new(row: usize, col: usize) -> Self {
        Strides { row: row as u64, col: col as u64, batch: [0; 3] }
    }
}

/// As in `kernels/product.metal`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ProductParams {
    a: Strides,
    b: Strides,
    c: Strides,
    h_row: u64,
    h_col: u64,
    e_row: u64,
    e_col: u64,
    batch: [u32; 3],
    m: u32,
    n: u32,
    k: u32,
    terms: u32,
    has_bias: u32,
    splits: u32,
    split: u32,
    alpha: f32,
    beta: f32,
}

/// A tensor of the call, by its place among inputs and outputs; how many bytes of it there are, and how they lie.
#[derive(Clone, Copy)]
pub(crate) struct Tensor {
    pub(crate) index: usize,
    pub(crate) bytes: usize,
    pub(crate) strides: Strides,
}

/// H in memory of the kernel's own (by the number that `Build::own` gave), and E.
#[derive(Clone, Copy)]
struct Extension {
    h: usize,
    h_strides: [usize; 2],
    e: Tensor,
    terms: usize,
}

/// C = alpha A B + H E + bias + beta C.
struct Product {
    /// A, B and the terms of their sum; nothing where there is H E alone.
    factors: Option<(Tensor, Tensor, usize)>,
    c: Tensor,
    bias: Option<Tensor>,
    extension: Option<Extension>,
    batch: [usize; 3],
    m: usize,
    n: usize,
    alpha: f32,
    beta: f32,
    dtype: DType,
    /// Whether a long sum may be split, for a second kernel and a barrier.
    may_split: bool,
}

impl Product {
    /// One product into C, of size m by n.
    fn new(c: Tensor, m: usize, n: usize, dtype: DType) -> Self {
        let (factors, bias, extension) = (None, None, None);
        Product { factors, c, bias, extension, batch: [1; 3], m, n, alpha: 1.0, beta: 0.0, dtype, may_split: true }
    }

    /// The product, and where its sum is split what adds it up again.
    fn dispatches(&self, build: &mut Build<'_>) -> Result<Vec<Dispatch>> {
        let Product { m, n, .. } = *self;
        let nothing = Strides::new(0, 1);
        let (a, b, k) = match self.factors {
            Some((a, b, k)) => (a.strides, b.strides, k),
            None => (nothing, nothing, 0),
        };
        let [h_row, h_col] = self.extension.map_or([0, 1], |extension| extension.h_strides).map(|stride| stride as u64);
        let e = self.extension.map_or(nothing, |extension| extension.e.strides);
        let terms = self.extension.map_or(0, |extension| extension.terms);
        let batches: usize = self.batch.iter().product();
        let cores = build.gpu().cores;
        let tile = tile(m, n, batches, cores);
        let steps = k.div_ceil(DEPTH) + terms.div_ceil(DEPTH);
        let tiles = m.div_ceil(tile) * n.div_ceil(tile) * batches;
        let splits = if self.may_split { splits(tiles, steps, cores) } else { 1 };
        let split = steps.div_ceil(splits).max(1);
        let params = ProductParams {
            a,
            b,
            c: self.c.strides,
            h_row,
            h_col,
            e_row: e.row,
            e_col: e.col,
            batch: self.batch.map(|size| size as u32),
            m: m as u32,
            n: n as u32,
            k: k as u32,
            terms: terms as u32,
            has_bias: self.bias.is_some().into(),
            splits: splits as u32,
            split: split as u32,
            alpha: self.alpha,
            beta: self.beta,
        };
        let names = match tile {
            64 => ["product_64_f32", "product_64_f16", "product_64_bf16"],
            _ => ["product_32_f32", "product_32_f16", "product_32_bf16"],
        };
        let groups = MTLSize { width: n.div_ceil(tile), height: m.div_ceil(tile), depth: batches * splits };
        let bytes = m * n * batches * splits * size_of::<f32>();
        let partial = if splits > 1 { Some(build.own(bytes)?) } else { None };
        let part = |build: &Build<'_>, access| partial.map_or(Build::unused(), |own| build.owned(own, access, bytes));
        let c = Build::tensor(self.c.index, Access::Write, self.c.bytes);
        let read = |tensor: Option<Tensor>| match tensor {
            Some(tensor) => Build::tensor(tensor.index, Access::Read, tensor.bytes),
            None => Build::unused(),
        };
        let h = match self.extension {
            Some(Extension { h, terms, .. }) => build.owned(h, Access::Read, m * terms * size_of::<f32>()),
            None => Build::unused(),
        };
        let bindings = [
            read(self.factors.map(|(a, ..)| a)),
            read(self.factors.map(|(_, b, _)| b)),
            read(self.bias),
            h,
            read(self.extension.map(|extension| extension.e)),
            if splits > 1 { Build::unused() } else { c },
            part(build, Access::Write),
        ];
        let entry = (Source::Tiles, names[dtype_index(self.dtype)]);
        let product = build.dispatch(entry, bindings, bytemuck::bytes_of(&params), groups, 128)?;
        if splits == 1 {
            return Ok(vec![product]);
        }
        let c = Build::tensor(self.c.index, Access::Write, self.c.bytes);
        let bindings = [part(build, Access::Read), read(self.bias), c];
        let name = ["product_sum_f32", "product_sum_f16", "product_sum_bf16"][dtype_index(self.dtype)];
        let groups = MTLSize { width: n.div_ceil(128), height: m, depth: batches };
        let sum = build.dispatch((Source::Tiles, name), bindings, bytemuck::bytes_of(&params), groups, 128)?;
        Ok(vec![product, sum])
    }
}

/// Whether sizes fit the kernels' 32-bit numbers, and Metal's grid, and none is zero.
fn fits(sizes: &[usize]) -> bool {
    sizes.iter().all(|&size| (1..1 << 31).contains(&size))
}

fn dtype_index(dtype: DType) -> usize {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
    }
}
