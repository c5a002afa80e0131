//! The skinny product `H = alpha * X A^T` of LoRA: A has few rows, and both operands are contiguous along k.
//!
//! Vectors run along k, so every element of H ends as a vector of partial sums; a tree adds up eight of them at once.

use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `dot`: `H(i, j) = alpha * sum_p X(i, p) A(j, p)`.
///
/// # Safety
/// Every element named by the strides is valid, H overlaps nothing else, and A is f32 or has X's dtype.
#[derive(Clone, Copy, Debug)]
pub struct DotArgs {
    /// Rows of X and of H.
    pub rows: usize,
    /// Rows of A and columns of H.
    pub rank: usize,
    /// Columns of X and of A.
    pub k: usize,
    /// Factor of the sum.
    pub alpha: f32,
    /// X, contiguous along k.
    pub x: *const u8,
    /// Elements from one row of X to the next.
    pub x_row: usize,
    /// X's number format.
    pub x_dtype: DType,
    /// A, contiguous along k.
    pub a: *const u8,
    /// Elements from one row of A to the next.
    pub a_row: usize,
    /// A's number format: f32, or that of X.
    pub a_dtype: DType,
    /// H, in f32.
    pub h: *mut f32,
    /// Elements from one row of H to the next.
    pub h_row: usize,
}

/// # Safety
/// See [`DotArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn dot<S: Simd>(args: &DotArgs) {
    debug_assert!(args.a_dtype == DType::F32 || args.a_dtype == args.x_dtype);
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.x_dtype, T => if args.a_dtype == DType::F32 {
            panels::<S, T, f32>(args)
        } else {
            panels::<S, T, T>(args)
        });
    }
}

/// Walks the rows of A in blocks that stay in the innermost cache while all of X passes by.
///
/// # Safety
/// That of [`dot`].
#[inline(always)]
unsafe fn panels<S: Simd, X: Lane, A: Lane>(args: &DotArgs) {
    // One row of X alone has registers to spare for more rows of A.
    let most = if args.rows == 1 { 8 } else { S::DOT_RANK };
    let mut j = 0;
    while j < args.rank {
        let left = (args.rank - j).min(most);
        // SAFETY: the caller's contract; the block has at most `left` rows.
        unsafe {
            j += match left {
                8.. => rows::<S, X, A, 8>(args, j),
                4.. => rows::<S, X, A, 4>(args, j),
                2.. => rows::<S, X, A, 2>(args, j),
                _ => rows::<S, X, A, 1>(args, j),
            };
        }
    }
}

/// All rows of X against `RANK` rows of A; returns `RANK`.
///
/// # Safety
/// That of [`dot`].
#[inline(always)]
unsafe fn rows<S: Simd, X: Lane, A: Lane, const RANK: usize>(args: &DotArgs, j: usize) -> usize {
    let mut i = 0;
    // SAFETY: the caller's contract; the blocks have at most as many rows as are left.
    unsafe {
        if RANK <= S::DOT_RANK {
            // Four rows left make two pairs: a single row keeps the multipliers less busy.
            while S::DOT_ROWS == 3 && (args.rows - i > 4 || args.rows - i == 3) {
                block::<S, X, A, 3, RANK>(args, i, j);
                i += 3;
            }
            while args.rows - i >= 2 {
                block::<S, X, A, 2, RANK>(args, i, j);
                i += 2;
            }
        }
        while i < args.rows {
            block::<S, X, A, 1, RANK>(args, i, j);
            i += 1;
        }
    }
    RANK
}

/// `ROWS` rows of X against `RANK` rows of A.
///
/// # Safety
/// That of [`dot`].
#[inline(always)]
unsafe fn block<S: Simd, X: Lane, A: Lane, const ROWS: usize, const RANK: usize>(args: &DotArgs, i: usize, j: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let x = args.x.cast::<X>().wrapping_add(i * args.x_row);
        let a = args.a.cast::<A>().wrapping_add(j * args.a_row);
        let mut sums = [[S::splat(0.0); RANK]; ROWS];
        let mut p = 0;
        // Formats of their own order agree only if X and A have the same one.
        if size_of::<X>() == size_of::<A>() {
            while p + 2 * S::LANES <= args.k {
                step::<S, X, A, ROWS, RANK, PART_0>(&mut sums, args, x.add(p), a.add(p), 0);
                step::<S, X, A, ROWS, RANK, PART_1>(&mut sums, args, x.add(p), a.add(p), 0);
                p += 2 * S::LANES;
            }
        }
        while p + S::LANES <= args.k {
            step::<S, X, A, ROWS, RANK, WHOLE>(&mut sums, args, x.add(p), a.add(p), 0);
            p += S::LANES;
        }
        if p < args.k {
            step::<S, X, A, ROWS, RANK, FIRST>(&mut sums, args, x.add(p), a.add(p), args.k - p);
        }
        for r in 0..ROWS {
            let mut eight = [S::splat(0.0); 8];
            eight[..RANK].copy_from_slice(&sums[r]);
            let totals = S::sum8(eight);
            let h = args.h.add((i + r) * args.h_row + j);
            for s in 0..RANK {
                *h.add(s) = args.alpha * totals[s];
            }
        }
    }
}

/// A vector of consecutive elements.
const WHOLE: usize = 0;
/// The first few elements.
const FIRST: usize = 1;
/// See [`Lane::load_part`].
const PART_0: usize = 2;
/// See [`Lane::load_part`].
const PART_1: usize = 3;

/// One vector of each row of X times one of each row of A.
///
/// # Safety
/// The elements that `READ` says are valid, `n` of them if it is `FIRST`; the CPU has the instruction set.
#[inline(always)]
unsafe fn step<S: Simd, X: Lane, A: Lane, const ROWS: usize, const RANK: usize, const READ: usize>(
    sums: &mut [[S::V; RANK]; ROWS],
    args: &DotArgs,
    x: *const X,
    a: *const A,
    n: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut xs = [S::splat(0.0); ROWS];
        for r in 0..ROWS {
            xs[r] = read::<S, X, READ>(x.add(r * args.x_row), n);
        }
        for s in 0..RANK {
            let w = read::<S, A, READ>(a.add(s * args.a_row), n);
            for r in 0..ROWS {
                sums[r][s] = S::fma(xs[r], w, sums[r][s]);
            }
        }
    }
}

/// # Safety
/// That of [`step`].
#[inline(always)]
unsafe fn read<S: Simd, T: Lane, const READ: usize>(p: *const T, n: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        match READ {
            WHOLE => T::load::<S>(p),
            FIRST => T::load_first::<S>(p, n),
            PART_0 => T::load_part::<S, 0>(p),
            _ => T::load_part::<S, 1>(p),
        }
    }
}
