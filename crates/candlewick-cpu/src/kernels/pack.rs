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
            let panel = dst.wrapping_add(j / S::PANEL * S::PANEL * args.k + j % S::PANEL);
            let height = args.cols.saturating_sub(j).min(S::LANES);
            for p in (0..args.k).step_by(S::LANES) {
                let width = (args.k - p).min(S::LANES);
                let from = src.wrapping_add(j * args.src_row + p);
                let lanes = load_block::<S, T>(from, args.src_row * size_of::<T>(), height, width);
                store_block::<S, U>(panel.add(p * S::PANEL), S::PANEL, &lanes, width, S::LANES);
            }
        }
    }
}

/// `pack` for pairs: `dst[(j / panel) * ceil(k / 2) * panel + (p / 2) * panel + j % panel]`, counted in 32-bit pairs, holds
/// B(p, j) in its low half and B(p + 1, j) in its high half for even p; zero beyond the last row and column.
///
/// # Safety
/// See [`PackArgs`]; both dtypes are bf16 and `dst` has room for whole pairs; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn pack_pairs<S: Simd>(args: &PackArgs) {
    debug_assert!(args.src_dtype == DType::BF16 && args.dst_dtype == DType::BF16);
    // SAFETY: the caller's contract.
    unsafe {
        if args.transposed {
            pairs_from_transposed::<S>(args);
        } else {
            pairs_from_rows::<S>(args);
        }
    }
}

/// # Safety
/// That of [`pack_pairs`].
#[inline(always)]
unsafe fn pairs_from_rows<S: Simd>(args: &PackArgs) {
    // A few rows of all panels at a time, as in `from_rows`.
    const PAIRS: usize = 16;
    // SAFETY: the caller's contract. The second row of a pair is read only if there is one.
    unsafe {
        let (src, dst) = (args.src.cast::<u16>(), args.dst.cast::<f32>());
        let pairs = args.k.div_ceil(2);
        for start in (0..pairs).step_by(PAIRS) {
            for j in (0..args.cols.next_multiple_of(S::PANEL)).step_by(S::PANEL) {
                let panel = dst.wrapping_add(j * pairs);
                for pair in start..(start + PAIRS).min(pairs) {
                    let first = src.wrapping_add(2 * pair * args.src_row + j);
                    let second = first.wrapping_add(args.src_row);
                    S::prefetch(first.wrapping_add(2 * PAIRS * args.src_row).cast());
                    S::prefetch(second.wrapping_add(2 * PAIRS * args.src_row).cast());
                    for lane in [0, S::LANES] {
                        let cols = args.cols.saturating_sub(j + lane).min(S::LANES);
                        let rest = if 2 * pair + 1 < args.k { cols } else { 0 };
                        let low = S::from_bits(S::load_half_first(first.wrapping_add(lane), cols));
                        // Widening bf16 puts its bits into the high half.
                        let high = S::from_bf16(S::load_half_first(second.wrapping_add(lane), rest));
                        S::store(panel.add(pair * S::PANEL + lane), S::or(low, high));
                    }
                }
            }
        }
    }
}

/// # Safety
/// That of [`pack_pairs`].
#[inline(always)]
unsafe fn pairs_from_transposed<S: Simd>(args: &PackArgs) {
    // SAFETY: the caller's contract. The stored rows hold the pairs ready: this transposes 32-bit numbers.
    unsafe {
        let (src, dst) = (args.src.cast::<u16>(), args.dst.cast::<f32>());
        let (whole, pairs) = (args.k / 2, args.k.div_ceil(2));
        for j in (0..args.cols.next_multiple_of(S::PANEL)).step_by(S::LANES) {
            let panel = dst.wrapping_add(j / S::PANEL * S::PANEL * pairs + j % S::PANEL);
            let height = args.cols.saturating_sub(j).min(S::LANES);
            let rows = src.wrapping_add(j * args.src_row);
            for pair in (0..whole).step_by(S::LANES) {
                let width = (whole - pair).min(S::LANES);
                let from = rows.wrapping_add(2 * pair).cast::<f32>();
                // The same of the next rows: the processor does not see so many streams coming.
                for i in S::LANES..2 * S::LANES {
                    S::prefetch(from.wrapping_byte_add(i * 2 * args.src_row).cast());
                }
                let lanes = load_block::<S, f32>(from, 2 * args.src_row, height, width);
                store_block::<S, f32>(panel.add(pair * S::PANEL), S::PANEL, &lanes, width, S::LANES);
            }
            if whole < pairs {
                let last = panel.add(whole * S::PANEL).cast::<u32>();
                for i in 0..S::LANES {
                    let alone = if i < height { *rows.add(i * args.src_row + args.k - 1) } else { 0 };
                    last.add(i).write(u32::from(alone));
                }
            }
        }
    }
}
