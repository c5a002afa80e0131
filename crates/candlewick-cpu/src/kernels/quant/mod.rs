//! GGUF's quantised blocks, decoded in registers: written out, or multiplied with x as they come.
//!
//! Of the plain blocks (`blocks.rs`), and of blocks that were packed into panels (`panels.rs`), with x as it is
//! (`exact.rs`) or rounded (`int8.rs`).
//!
//! What the bytes mean is `candlewick_core::reference::decode_block`.

mod blocks;
mod blocks_of_256;
mod blocks_of_32;
mod exact;
mod int8;
mod panels;

use super::with_type;
use crate::simd::{Lane, Simd};
use blocks::{Blocks, GROUPS, Scales};
use blocks_of_32::{Q4_0, Q4_1, Q8_0};
use blocks_of_256::{Q4K, Q6K};
use candlewick_core::{DType, Quant};

pub use exact::QuantExactArgs;
pub(super) use exact::quant_exact;
pub use int8::{QuantProductArgs, QuantRoundArgs, most_rows, rounded_bytes, tile_of, unpacked_bytes};
pub(super) use int8::{quant_product, quant_round};
pub use panels::{GROUP, PANEL, pack_panel, scales_of};

/// The arguments of `dequantize`: `y = the numbers of the blocks`.
///
/// # Safety
/// `count` blocks are valid at `blocks`, and their numbers at y; they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct DequantizeArgs {
    /// How many blocks.
    pub count: usize,
    /// Their format.
    pub format: Quant,
    /// The blocks.
    pub blocks: *const u8,
    /// y's number format.
    pub dtype: DType,
    /// Where to write.
    pub y: *mut u8,
}

/// The arguments of `quant_dot`: `y(o) = sum of x * w(o)` for rows of blocks. An infinite scale may make a NaN of what the
/// format's definition makes infinite.
///
/// # Safety
/// `count` blocks are valid in each of `rows` rows of w, their numbers at x, and `rows` elements at y; y overlaps nothing.
#[derive(Clone, Copy, Debug)]
pub struct QuantDotArgs {
    /// Rows of w, elements of y.
    pub rows: usize,
    /// Blocks in a row.
    pub count: usize,
    /// Their format.
    pub format: Quant,
    /// What the rows are multiplied with, in f32.
    pub x: *const f32,
    /// The blocks, row after row.
    pub w: *const u8,
    /// Where to write.
    pub y: *mut f32,
}

/// Takes the numbers of a block, a vector at a time.
trait Take<S: Simd> {
    /// Whether (q - 32) · scale has to be computed so: q · scale - 32 · scale is faster, but NaN where the scale is infinite.
    const INFINITE_SCALES: bool;

    /// The `LANES` numbers from `at` on, counted from the block's first.
    ///
    /// # Safety
    /// The CPU has the instruction set, and what takes them has room or partners for them.
    unsafe fn take(&mut self, at: usize, v: S::V);
}

/// Runs `$body` with `$F` standing for the decoder of `$format`.
macro_rules! with_format {
    ($format:expr, $F:ident => $body:expr) => {
        match $format {
            Quant::Q4_0 => {
                type $F = Q4_0;
                $body
            }
            Quant::Q4_1 => {
                type $F = Q4_1;
                $body
            }
            Quant::Q8_0 => {
                type $F = Q8_0;
                $body
            }
            Quant::Q4K => {
                type $F = Q4K;
                $body
            }
            Quant::Q6K => {
                type $F = Q6K;
                $body
            }
        }
    };
}

/// Writes numbers.
struct Write<T>(*mut T);

impl<S: Simd, T: Lane> Take<S> for Write<T> {
    const INFINITE_SCALES: bool = true;

    #[inline(always)]
    unsafe fn take(&mut self, at: usize, v: S::V) {
        // SAFETY: the caller's contract.
        unsafe { T::store::<S>(self.0.add(at), v) }
    }
}

/// Adds up products with x, in two chains: an addition waits for the one before it.
struct Dot<S: Simd> {
    x: *const f32,
    sums: [S::V; 2],
}

impl<S: Simd> Take<S> for Dot<S> {
    const INFINITE_SCALES: bool = false;

    #[inline(always)]
    unsafe fn take(&mut self, at: usize, v: S::V) {
        let chain = at / S::LANES % 2;
        // SAFETY: the caller's contract.
        unsafe { self.sums[chain] = S::fma(v, S::load(self.x.add(at)), self.sums[chain]) }
    }
}

/// # Safety
/// See [`DequantizeArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn dequantize<S: Simd>(args: &DequantizeArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_format!(args.format, F => with_type!(args.dtype, T => {
            let mut scales = Scales::ZERO;
            let most = GROUPS / F::GROUPS;
            for first in (0..args.count).step_by(most) {
                let blocks = args.blocks.add(first * F::FORMAT.bytes());
                let count = most.min(args.count - first);
                F::scales::<S>(blocks, count, &mut scales);
                for nth in 0..count {
                    let mut to = Write(args.y.cast::<T>().add((first + nth) * F::FORMAT.block()));
                    F::decode::<S, _>(blocks.add(nth * F::FORMAT.bytes()), &scales, nth * F::GROUPS, &mut to);
                }
            }
        }))
    }
}

/// # Safety
/// See [`QuantDotArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn quant_dot<S: Simd>(args: &QuantDotArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_format!(args.format, F => {
            let mut scales = [Scales::ZERO; 4];
            let mut o = 0;
            while o + 4 <= args.rows {
                rows::<S, F, 4>(args, o, &mut scales);
                o += 4;
            }
            while o < args.rows {
                rows::<S, F, 1>(args, o, &mut scales);
                o += 1;
            }
        })
    }
}

/// `ROWS` rows of w from `o` on: a vector of x serves them all.
///
/// # Safety
/// That of [`quant_dot`], with F its format.
#[inline(always)]
unsafe fn rows<S: Simd, F: Blocks, const ROWS: usize>(args: &QuantDotArgs, o: usize, scales: &mut [Scales; 4]) {
    let row = args.count * F::FORMAT.bytes();
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; ROWS];
        let most = GROUPS / F::GROUPS;
        for first in (0..args.count).step_by(most) {
            let count = most.min(args.count - first);
            let w = args.w.add(o * row + first * F::FORMAT.bytes());
            for r in 0..ROWS {
                F::scales::<S>(w.add(r * row), count, &mut scales[r]);
            }
            for nth in 0..count {
                let x = args.x.add((first + nth) * F::FORMAT.block());
                for r in 0..ROWS {
                    let mut dot = Dot::<S> { x, sums: sums[r] };
                    let block = w.add(r * row + nth * F::FORMAT.bytes());
                    F::decode::<S, _>(block, &scales[r], nth * F::GROUPS, &mut dot);
                    sums[r] = dot.sums;
                }
            }
        }
        for r in 0..ROWS {
            *args.y.add(o + r) = S::reduce_add(S::add(sums[r][0], sums[r][1]));
        }
    }
}
