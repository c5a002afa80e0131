//! Packing of B into panels, so that a product reads it as one stream.

use super::transpose::{load_block, store_block};
use super::with_type;
use crate::simd::{Bits, Lane, Simd};
use candlewick_core::DType;

/// The arguments of `pack`: `dst[(j / panel) * k * panel + p * panel + j % panel] = B(p, j)`, and zero in the columns
/// that fill up the last panel.
///
/// Threads share the work by panels: each passes pointers to its first column and its first panel.
///
/// # Safety
/// Every element of B is valid, and so is every panel of `dst`, the last one in full; they do not overlap; `dst` is f32
/// or has the dtype of `src`.
#[derive(Clone, Copy, Debug)]
pub struct PackArgs {
    /// Rows of B.
    pub k: usize,
    /// Columns of B.
    pub cols: usize,
    /// B.
    pub src: *const u8,
    /// Its number format.
    pub src_dtype: DType,
    /// Elements from one row of the stored matrix to the next.
    pub src_row: usize,
    /// Whether the stored matrix is B's transpose, `[cols x k]`: `B(p, j) = src[j * src_row + p]`.
    pub transposed: bool,
    /// The panels.
    pub dst: *mut u8,
    /// Their number format: f32, or that of `src`.
    pub dst_dtype: DType,
}

/// # Safety
/// See [`PackArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(args: &PackArgs) {
    debug_assert!(args.dst_dtype == DType::F32 || args.dst_dtype == args.src_dtype);
    // SAFETY: the caller's contract; `Bits` copies any 16-bit format.
    unsafe {
        if args.dst_dtype == DType::F32 {
            with_type!(args.src_dtype, T => panels::<S, T, f32>(args));
        } else {
            panels::<S, Bits, Bits>(args);
        }
    }
}

/// # Safety
/// That of [`pack`], with T and U the number formats.
#[inline(always)]
unsafe fn panels<S: Simd, T: Lane, U: Lane>(args: &PackArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        if args.transposed {
            from_transposed::<S, T, U>(args);
        } else {
            from_rows::<S, T, U>(args);
        }
    }
}

/// # Safety
/// That of [`panels`].
#[inline(always)]
unsafe fn from_rows<S: Simd, T: Lane, U: Lane>(args: &PackArgs) {
    // A few rows of all panels at a time: one row of B after the other would need a page of memory each.
    const ROWS: usize = 32;
    // SAFETY: the caller's contract.
    unsafe {
        let (src, dst) = (args.src.cast::<T>(), args.dst.cast::<U>());
        for first in (0..args.k).step_by(ROWS) {
            let last = (first + ROWS).min(args.k);
            for j in (0..args.cols).step_by(S::PANEL) {
                let panel = dst.add(j * args.k);
                let cols = (args.cols - j).min(S::PANEL);
                let low = cols.min(S::LANES);
                for p in first..last {
                    let (from, to) = (src.add(p * args.src_row + j), panel.add(p * S::PANEL));
                    let pair = if cols == S::PANEL {
                        [T::load::<S>(from), T::load::<S>(from.add(S::LANES))]
                    } else {
                        [T::load_first::<S>(from, low), T::load_first::<S>(from.add(low), cols - low)]
                    };
                    U::store::<S>(to, pair[0]);
                    U::store::<S>(to.add(S::LANES), pair[1]);
                }
            }
        }
    }
}

/// # Safety
/// That of [`panels`].
#[inline(always)]
unsafe fn from_transposed<S: Simd, T: Lane, U: Lane>(args: &PackArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        let (src, dst) = (args.src.cast::<T>(), args.dst.cast::<U>());
        let padded = args.cols.next_multiple_of(S::PANEL);
        for j in (0..padded).step_by(S::LANES) {
            let panel = dst.add(j / S::PANEL * S::PANEL * args.k + j % S::PANEL);
            let height = args.cols.saturating_sub(j).min(S::LANES);
            for p in (0..args.k).step_by(S::LANES) {
                let width = (args.k - p).min(S::LANES);
                let from = src.wrapping_add(j * args.src_row + p);
                let lanes = load_block::<S, T>(from, args.src_row, height, width);
                store_block::<S, U>(panel.add(p * S::PANEL), S::PANEL, &lanes, width, S::LANES);
            }
        }
    }
}
