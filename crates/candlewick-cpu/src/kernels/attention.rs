//! The loops of attention between its products: a softmax that goes on from tile to tile, its gradient, and sums of rows.
//!
//! The scores themselves are `dot`'s or `product`'s.

use super::vector::{each_vector, fill_from, load, store};
use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `online_softmax`: one row of a tile of scores, folded into the row's state (Milakov and Gimelshein,
/// "Online normalizer calculation for softmax", 2018).
///
/// With `new = max(max, scale * scores)`: `scores = exp(scale * scores - new)`, and what was summed before is multiplied
/// by `exp(max - new)`.
///
/// # Safety
/// `n` elements are valid at `scores`, `cols` at `sums`, two at `state`; nothing overlaps.
#[derive(Clone, Copy, Debug)]
pub struct OnlineSoftmaxArgs {
    /// Scores of the tile that the row sees.
    pub n: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// The scores, replaced by their exponentials.
    pub scores: *mut f32,
    /// (largest, sum of exponentials) so far; (-inf, 0) before the first tile.
    pub state: *mut f32,
    /// Elements of the row's output.
    pub cols: usize,
    /// The row's output so far, not yet divided by the sum.
    pub sums: *mut f32,
}

/// The arguments of `softmax_slopes`: `scores = exp(scale * scores - lse)` and `slopes = scale * scores * (slopes - row)`.
///
/// # Safety
/// `n` elements are valid at both pointers; they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxSlopesArgs {
    /// How many scores.
    pub n: usize,
    /// The logarithm of the row's sum of exponentials.
    pub lse: f32,
    /// The row's dy · y.
    pub row: f32,
    /// Factor of the scores.
    pub scale: f32,
    /// The scores, replaced by probabilities.
    pub scores: *mut f32,
    /// dy · v, replaced by the gradients of q · k.
    pub slopes: *mut f32,
}

/// The arguments of `row_sums`: `sums(r, :) += sum over t of weights(r, t) * x(t, :)`.
///
/// # Safety
/// Every element named by the strides is valid; `sums` overlaps nothing else.
#[derive(Clone, Copy, Debug)]
pub struct RowSumsArgs {
    /// Rows of `sums`.
    pub rows: usize,
    /// Columns of `sums` and x.
    pub cols: usize,
    /// Rows of x.
    pub steps: usize,
    /// The weights.
    pub weights: *const f32,
    /// Elements from a row's weights to the next row's.
    pub weights_row: usize,
    /// Elements from a step's weight to the next step's.
    pub weights_step: usize,
    /// The rows to add up.
    pub x: *const u8,
    /// Elements from one row of x to the next.
    pub x_row: usize,
    /// x's number format.
    pub dtype: DType,
    /// What to add to.
    pub sums: *mut f32,
    /// Elements from one row of `sums` to the next.
    pub sums_row: usize,
}

/// # Safety
/// See [`OnlineSoftmaxArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn online_softmax<S: Simd>(args: &OnlineSoftmaxArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        let (before, sum) = (*args.state, *args.state.add(1));
        let scale = S::splat(args.scale);
        let mut largest = S::splat(before);
        each_vector!(S, args.n, |i, width, WHOLE| {
            let v = S::mul(scale, load::<S, f32, WHOLE>(args.scores.add(i), width));
            let v = if WHOLE { v } else { fill_from::<S>(v, width, f32::NEG_INFINITY) };
            largest = S::max(v, largest)
        });
        let max = S::reduce_max(largest);
        // Where all are -inf, exp(-inf - 0) is the 0 that it should be.
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let mut total = S::splat(0.0);
        each_vector!(S, args.n, |i, width, WHOLE| {
            let v = S::mul(scale, load::<S, f32, WHOLE>(args.scores.add(i), width));
            let v = if WHOLE { v } else { fill_from::<S>(v, width, f32::NEG_INFINITY) };
            let power = S::exp(S::sub(v, S::splat(shift)));
            store::<S, f32, WHOLE>(args.scores.add(i), power, width);
            total = S::add(total, power)
        });
        let mut sum = sum;
        if max != before {
            // Nothing was summed at -inf, whose factor may not be 0 times infinity.
            let factor = if sum == 0.0 { 0.0 } else { (before - shift).exp() };
            sum *= factor;
            let factor = S::splat(factor);
            each_vector!(S, args.cols, |i, width, WHOLE| {
                let v = load::<S, f32, WHOLE>(args.sums.add(i), width);
                store::<S, f32, WHOLE>(args.sums.add(i), S::mul(v, factor), width)
            });
        }
        *args.state = max;
        *args.state.add(1) = sum + S::reduce_add(total);
    }
}

/// # Safety
/// See [`SoftmaxSlopesArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn softmax_slopes<S: Simd>(args: &SoftmaxSlopesArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        let (lse, row, scale) = (S::splat(args.lse), S::splat(args.row), S::splat(args.scale));
        each_vector!(S, args.n, |i, width, WHOLE| {
            let p = S::exp(S::sub(S::mul(scale, load::<S, f32, WHOLE>(args.scores.add(i), width)), lse));
            let dp = load::<S, f32, WHOLE>(args.slopes.add(i), width);
            store::<S, f32, WHOLE>(args.scores.add(i), p, width);
            store::<S, f32, WHOLE>(args.slopes.add(i), S::mul(S::mul(scale, p), S::sub(dp, row)), width)
        });
    }
}

/// # Safety
/// See [`RowSumsArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn row_sums<S: Simd>(args: &RowSumsArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.dtype, T => {
            let mut r = 0;
            // As many rows as leave registers for four vectors of each.
            while S::TILE_ROWS >= 12 && args.rows - r >= 4 {
                columns::<S, T, 4>(args, r);
                r += 4;
            }
            while args.rows - r >= 2 {
                columns::<S, T, 2>(args, r);
                r += 2;
            }
            if r < args.rows {
                columns::<S, T, 1>(args, r);
            }
        })
    }
}

/// `ROWS` rows from `r` on, in blocks of columns.
///
/// # Safety
/// That of [`row_sums`].
#[inline(always)]
unsafe fn columns<S: Simd, T: Lane, const ROWS: usize>(args: &RowSumsArgs, r: usize) {
    let mut j = 0;
    // SAFETY: the caller's contract; blocks end at `cols`.
    unsafe {
        while j + 4 * S::LANES <= args.cols {
            block::<S, T, ROWS, 4, true>(args, r, j);
            j += 4 * S::LANES;
        }
        while j + S::LANES <= args.cols {
            block::<S, T, ROWS, 1, true>(args, r, j);
            j += S::LANES;
        }
        if j < args.cols {
            block::<S, T, ROWS, 1, false>(args, r, j);
        }
    }
}

/// # Safety
/// That of [`row_sums`]; `VECTORS` vectors from column `j` on are there, or one in part unless `WHOLE`.
#[inline(always)]
unsafe fn block<S: Simd, T: Lane, const ROWS: usize, const VECTORS: usize, const WHOLE: bool>(
    args: &RowSumsArgs,
    r: usize,
    j: usize,
) {
    let width = args.cols - j;
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        for i in 0..ROWS {
            for c in 0..VECTORS {
                let at = args.sums.add((r + i) * args.sums_row + j + c * S::LANES);
                sums[i][c] = load::<S, f32, WHOLE>(at, width);
            }
        }
        let (mut x, mut weights) = (args.x.cast::<T>().add(j), args.weights.add(r * args.weights_row));
        for _ in 0..args.steps {
            let mut xs = [S::splat(0.0); VECTORS];
            for c in 0..VECTORS {
                xs[c] = load::<S, T, WHOLE>(x.add(c * S::LANES), width);
            }
            for i in 0..ROWS {
                let weight = S::splat(*weights.add(i * args.weights_row));
                for c in 0..VECTORS {
                    sums[i][c] = S::fma(weight, xs[c], sums[i][c]);
                }
            }
            x = x.wrapping_add(args.x_row);
            weights = weights.wrapping_add(args.weights_step);
        }
        for i in 0..ROWS {
            for c in 0..VECTORS {
                let at = args.sums.add((r + i) * args.sums_row + j + c * S::LANES);
                store::<S, f32, WHOLE>(at, sums[i][c], width);
            }
        }
    }
}
