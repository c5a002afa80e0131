//! The products of attention: the rows of a tile are packed once and meet many rows of others.

use crate::kernels::{
    DotArgs, Kernels, NarrowArgs, PackArgs, PairSegment, Panels, ProductArgs, ProductBf16Args, RowSumsArgs, Segment,
    TransposeArgs, WidenArgs,
};
use crate::ops::product::pairs;
use candlewick_core::DType;
use std::ops::Range;

/// Most rows of a tile, and the distance of rows of scores.
pub(super) const TILE: usize = 64;
/// Rows that go together where each sees more of the tile than the one before it.
const STAIR: usize = 16;
/// Steps of a sum that are worth rounding its weights for.
const ROUNDED: usize = 16;

/// Successive rows of one head, in the operation's dtype.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub at: *const u8,
    /// Elements from one row to the next.
    pub row: usize,
    pub count: usize,
}

impl Rows {
    fn from(self, first: usize, bytes: usize) -> *const u8 {
        self.at.wrapping_add(first * self.row * bytes)
    }

    /// Some of them.
    pub(super) fn some(self, range: Range<usize>, bytes: usize) -> Rows {
        Rows { at: self.from(range.start, bytes), count: range.len(), ..self }
    }
}

/// Rows where they lie and, for products with more than a few others, in panels.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub rows: Rows,
    pub panels: Option<*const f32>,
    /// Whether sums over them are products of pairs.
    pairs: bool,
}

impl Factor {
    pub(super) fn plain(rows: Rows) -> Factor {
        Factor { rows, panels: None, pairs: false }
    }
}

/// The weights of sums, in a tile whose rows are [`TILE`] apart: a row of the tile has those of one row of sums or, `by_steps`,
/// those of one step.
#[derive(Clone, Copy)]
pub(super) struct Weights {
    pub at: *const f32,
    /// Rows of sums.
    pub rows: usize,
    pub by_steps: bool,
}

/// How the products of an operation are made.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub kernels: &'static Kernels,
    pub dtype: DType,
    pub head: usize,
}

impl Tiles {
    /// f32 that the panels of a tile take, of either kind.
    pub(super) fn panels(&self) -> usize {
        TILE.next_multiple_of(self.kernels.panel) * self.head.next_multiple_of(self.kernels.panel)
    }

    /// f32 that [`Tiles::scores`] and [`Tiles::add`] need for themselves.
    pub(super) fn own(&self) -> usize {
        TILE * self.head.max(TILE)
    }

    /// Rows packed for [`Tiles::scores`]: the head's elements are the sum's.
    ///
    /// # Safety
    /// The rows are there, at most [`TILE`], and `to` has room for the panels.
    pub(super) unsafe fn pack_for_scores(&self, rows: Rows, to: *mut f32) -> Factor {
        let pairs = pairs(self.dtype, self.kernels);
        let pack = if pairs { self.kernels.pack_pairs } else { self.kernels.pack };
        let dst_dtype = if pairs { self.dtype } else { DType::F32 };
        let args = PackArgs {
            k: self.head,
            cols: rows.count,
            src: rows.at,
            src_dtype: self.dtype,
            src_row: rows.row,
            transposed: true,
            dst: to.cast(),
            dst_dtype,
        };
        // SAFETY: the caller's contract.
        unsafe { pack(&args) };
        Factor { rows, panels: Some(to), pairs: false }
    }

    /// Rows packed for [`Tiles::add`]: the sum is over rows. Where the kernels multiply pairs and the weights are
    /// probabilities, all of them of all rows (`whole`), they are rounded to bf16, as between a softmax and a product.
    ///
    /// # Safety
    /// That of [`Tiles::pack_for_scores`].
    pub(super) unsafe fn pack_for_sums(&self, rows: Rows, whole: bool, to: *mut f32) -> Factor {
        let pairs = whole && rows.count >= ROUNDED && pairs(self.dtype, self.kernels);
        let pack = if pairs { self.kernels.pack_pairs } else { self.kernels.pack };
        let args = PackArgs {
            k: rows.count,
            cols: self.head,
            src: rows.at,
            src_dtype: self.dtype,
            src_row: rows.row,
            transposed: false,
            dst: to.cast(),
            dst_dtype: if pairs { self.dtype } else { DType::F32 },
        };
        // SAFETY: the caller's contract.
        unsafe { pack(&args) };
        Factor { rows, panels: Some(to), pairs }
    }

    /// `to(i, j) = x(i) · keys(j)` for the first `cols` keys, and anything for more of them; rows of `to` are [`TILE`] apart.
    ///
    /// # Safety
    /// The rows are there, `to` has room for them, and `own` for [`Tiles::own`].
    pub(super) unsafe fn scores(&self, x: Rows, keys: Factor, cols: usize, to: *mut f32, own: *mut f32) {
        let Tiles { kernels, dtype, head: k } = *self;
        let Some(panels) = keys.panels else {
            let args = DotArgs {
                rows: x.count,
                rank: cols,
                k,
                alpha: 1.0,
                x: x.at,
                x_row: x.row,
                x_dtype: dtype,
                a: keys.rows.at,
                a_row: keys.rows.row,
                a_dtype: dtype,
                h: to,
                h_row: TILE,
            };
            // SAFETY: the caller's contract.
            return unsafe { (kernels.dot)(&args) };
        };
        // Whole panels are written faster, and the last one is filled up.
        let product = ProductArgs {
            rows: x.count,
            cols: cols.next_multiple_of(kernels.panel),
            segments: &[],
            alpha: 1.0,
            beta: 0.0,
            bias: std::ptr::null(),
            c: to.cast(),
            c_row: TILE,
            c_dtype: DType::F32,
        };
        // SAFETY: the caller's contract.
        unsafe {
            if let Some(product_bf16) = kernels.product_bf16.filter(|_| pairs(dtype, kernels)) {
                let pairs = PairSegment { a: x.at, a_row: x.row, b: panels.cast(), k };
                return product_bf16(&ProductBf16Args { pairs, product });
            }
            let (mut a, mut a_row) = (x.at.cast::<f32>(), x.row);
            if dtype != DType::F32 {
                for i in 0..x.count {
                    let src = x.from(i, dtype.bytes());
                    (kernels.widen)(&WidenArgs { n: k, src, src_dtype: dtype, dst: own.add(i * k) });
                }
                (a, a_row) = (own, k);
            }
            let b = self.panels_of(panels, k);
            (kernels.product)(&ProductArgs { segments: &[Segment { a, a_row, a_col: 1, b, k }], ..product });
        }
    }

    /// `sums(i, :) += sum over s of steps of weights(i, s) * x(s, :)`. Rows of `sums` are a head apart.
    ///
    /// # Safety
    /// All of it is there; `own` has room for [`Tiles::own`].
    pub(super) unsafe fn add(&self, weights: Weights, x: Factor, steps: Range<usize>, sums: *mut f32, own: *mut f32) {
        let Tiles { kernels, dtype, head } = *self;
        let (rows, k) = (weights.rows, steps.len());
        let (a_row, a_col) = if weights.by_steps { (1, TILE) } else { (TILE, 1) };
        // A row alone, or a step alone, has nothing to share.
        let (Some(panels), true) = (x.panels, rows > 1 && k > 1) else {
            let args = RowSumsArgs {
                rows,
                cols: head,
                steps: k,
                weights: weights.at,
                weights_row: a_row,
                weights_step: a_col,
                x: x.rows.from(steps.start, dtype.bytes()),
                x_row: x.rows.row,
                dtype,
                sums,
                sums_row: head,
            };
            // SAFETY: the caller's contract.
            return unsafe { (kernels.row_sums)(&args) };
        };
        let product = ProductArgs {
            rows,
            cols: head,
            segments: &[],
            alpha: 1.0,
            beta: 1.0,
            bias: std::ptr::null(),
            c: sums.cast(),
            c_row: head,
            c_dtype: DType::F32,
        };
        // SAFETY: the caller's contract.
        unsafe {
            if let Some(product_bf16) = kernels.product_bf16.filter(|_| x.pairs) {
                debug_assert_eq!(steps, 0..x.rows.count);
                self.round(weights, k, own.cast());
                let pairs = PairSegment { a: own.cast(), a_row: TILE, b: panels.cast(), k };
                return product_bf16(&ProductBf16Args { pairs, product });
            }
            let b = self.panels_of(panels.add(steps.start * kernels.panel), x.rows.count);
            (kernels.product)(&ProductArgs { segments: &[Segment { a: weights.at, a_row, a_col, b, k }], ..product });
        }
    }

    /// Weights of `k` steps in bf16: rows are [`TILE`] apart.
    ///
    /// # Safety
    /// That of [`Tiles::add`].
    unsafe fn round(&self, weights: Weights, k: usize, to: *mut u8) {
        let (dst, dst_dtype) = (to, DType::BF16);
        // SAFETY: the caller's contract. Between the rows of a tile there is nothing but more of them.
        unsafe {
            if weights.by_steps {
                (self.kernels.transpose)(&TransposeArgs {
                    rows: k,
                    cols: weights.rows,
                    scale: 1.0,
                    src: weights.at.cast(),
                    src_dtype: DType::F32,
                    src_row: TILE,
                    dst,
                    dst_dtype,
                    dst_row: TILE,
                });
            } else {
                let n = (weights.rows - 1) * TILE + k;
                (self.kernels.narrow)(&NarrowArgs { n, scale: 1.0, src: weights.at, dst, dst_dtype });
            }
        }
    }

    /// Panels of `k` rows in f32.
    fn panels_of(&self, ptr: *const f32, k: usize) -> Panels {
        let panel = self.kernels.panel;
        Panels { ptr: ptr.cast(), dtype: DType::F32, row: panel, panel: k * panel, padded: true }
    }
}

/// Rows of a tile that go together.
pub(super) struct Step {
    pub rows: Range<usize>,
    /// Leading keys of the tile that all of them see.
    pub common: usize,
    /// Leading keys that the last of them sees.
    pub most: usize,
}

/// The rows of a tile of `keys` that see any of it, where each sees at least as much as the one before: those that see all
/// of it at once, and before them a few at a time. What a row does not see may be NaN, which a weight of zero does not
/// hide: sums over `common` keys are made together, and each row's rest by itself.
pub(super) fn stairs(rows: usize, keys: usize, seen: impl Fn(usize) -> usize) -> impl Iterator<Item = Step> {
    let mut next = (0..rows).find(|&r| seen(r) > 0).unwrap_or(rows);
    std::iter::from_fn(move || {
        let start = next;
        if start == rows {
            return None;
        }
        let common = seen(start);
        next = rows.min(start + STAIR);
        next = if common == keys { rows } else { (start + 1..next).find(|&r| seen(r) == keys).unwrap_or(next) };
        Some(Step { rows: start..next, common, most: seen(next - 1) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stairs_take_every_row_that_sees_something_once() {
        for (rows, keys, offset) in [(64, 64, 0isize), (64, 64, 30), (5, 64, 70), (40, 10, -7), (0, 9, 0), (9, 0, 0)] {
            let seen = |r: usize| (r as isize + 1 + offset).clamp(0, keys as isize) as usize;
            let mut next = (0..rows).find(|&r| seen(r) > 0).unwrap_or(rows);
            for step in stairs(rows, keys, seen) {
                assert_eq!(step.rows.start, next);
                assert_eq!((step.common, step.most), (seen(next), seen(step.rows.end - 1)));
                assert!(step.common == keys || step.most - step.common < STAIR || step.most == keys);
                next = step.rows.end;
            }
            assert_eq!(next, rows);
        }
    }
}
