//! Own products on simdgroup matrices: what the kernels in `kernels/` are given.
//!
//! | looking for | it is in |
//! |---|---|
//! | one product as a dispatch: parameters, tiles, grid | here |
//! | the matrix product | `matmul.rs` |
//! | LoRA, forward and backward, as such products | `lora.rs` |

mod lora;
mod matmul;

pub(crate) use lora::{
    lora_delta, lora_delta_backward, lora_linear, lora_linear_backward, runs_backward, runs_delta, runs_linear,
};
pub(crate) use matmul::{matmul, runs_matmul};

use crate::ops::Build;
use crate::runtime::dispatch::Dispatch;
use crate::runtime::hazard::Access;
use crate::runtime::pipeline::Source;
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

/// As `Matrix` in `kernels/numbers.metal`: elements from one row, one column to the next.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Strides {
    row: u64,
    col: u64,
    batch: [u64; 3],
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
    alpha: f32,
    beta: f32,
}

/// A tensor of the call, by its place among inputs and outputs; how many bytes of it there are, and how they lie.
#[derive(Clone, Copy)]
struct Tensor {
    index: usize,
    bytes: usize,
    strides: Strides,
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
}

impl Product {
    /// One product into C, of size m by n.
    fn new(c: Tensor, m: usize, n: usize, dtype: DType) -> Self {
        let (factors, bias, extension) = (None, None, None);
        Product { factors, c, bias, extension, batch: [1; 3], m, n, alpha: 1.0, beta: 0.0, dtype }
    }

    fn dispatch(&self, build: &mut Build<'_>) -> Result<Dispatch> {
        let Product { m, n, .. } = *self;
        let nothing = Strides::new(0, 1);
        let (a, b, k) = match self.factors {
            Some((a, b, k)) => (a.strides, b.strides, k),
            None => (nothing, nothing, 0),
        };
        let [h_row, h_col] = self.extension.map_or([0, 1], |extension| extension.h_strides).map(|stride| stride as u64);
        let e = self.extension.map_or(nothing, |extension| extension.e.strides);
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
            terms: self.extension.map_or(0, |extension| extension.terms) as u32,
            has_bias: self.bias.is_some().into(),
            alpha: self.alpha,
            beta: self.beta,
        };
        let batches: usize = self.batch.iter().product();
        let tile = tile(m, n, batches, build.gpu().cores);
        let names = match tile {
            64 => ["product_64_f32", "product_64_f16", "product_64_bf16"],
            _ => ["product_32_f32", "product_32_f16", "product_32_bf16"],
        };
        let groups = MTLSize { width: n.div_ceil(tile), height: m.div_ceil(tile), depth: batches };
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
            Build::tensor(self.c.index, Access::Write, self.c.bytes),
        ];
        let entry = (Source::Tiles, names[dtype_index(self.dtype)]);
        build.dispatch(entry, bindings, bytemuck::bytes_of(&params), groups, 128)
    }
}

/// The larger tile reads half as much; the smaller one keeps more of the GPU busy. A guess, until a Mac measures it.
fn tile(m: usize, n: usize, batches: usize, cores: u32) -> usize {
    let groups = m.div_ceil(64) * n.div_ceil(64) * batches;
    if m > 32 && n > 32 && groups >= 2 * cores as usize { 64 } else { 32 }
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
