//! In which form the factors of a product are read.

use super::{Order, Shape};
use crate::kernels::Kernels;
use candlewick_core::DType;

/// How a task gets at A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Where it lies.
    InPlace,
    /// Copied, block by block, into rows of f32.
    Copied,
}

/// How a task gets at B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Where it lies, packed or row by row.
    InPlace,
    /// Packed into f32 panels by the task, or widened, if it lies in panels of 16 bits.
    PackedByTask,
    /// Not as panels: few rows meet the stored rows of a transposed B, vector by vector.
    Dot,
}

/// Parts of a long sum of pairs with many rows: in one piece no more than a few rows of A would stay in cache, and the rest of
/// A would pass once for each panel of B. A packed B does not come apart.
pub(super) fn parts(shape: &Shape) -> usize {
    const ROWS: usize = 64;
    const LONG: usize = 8 * 1024;
    const LEAST: usize = 1024;
    let apart = matches!((shape.a, shape.b), (Order::Rows { .. }, Order::Rows { .. } | Order::Columns { .. }));
    let plain = shape.extension.is_none() && !shape.bias && shape.alpha == 1.0;
    if !apart || !plain || shape.rows < ROWS || shape.k < LONG {
        return 1;
    }
    // Whole steps of the matrix unit.
    let most = shape.k / LEAST;
    (2..=most).rev().find(|parts| shape.k.is_multiple_of(32 * parts)).unwrap_or(1)
}

/// Whether the kernels multiply pairs of this dtype.
pub(in crate::ops) fn pairs(dtype: DType, kernels: &Kernels) -> bool {
    dtype == DType::BF16 && kernels.product_bf16.is_some()
}

/// f32 rows are read where they lie; so are columns, while all of A fits the innermost cache.
pub(super) fn left(shape: &Shape, pairs: bool) -> Left {
    match shape.a {
        Order::Rows { .. } if pairs => Left::InPlace,
        _ if shape.dtype != DType::F32 => Left::Copied,
        Order::Columns { column } if column * shape.k > 8 * 1024 => Left::Copied,
        _ => Left::InPlace,
    }
}

/// Copying B into panels costs about as much as multiplying a few rows by it.
pub(super) fn right(shape: &Shape, kernels: &Kernels, pairs: bool) -> Right {
    let rows_of_a = matches!(shape.a, Order::Rows { .. });
    match shape.b {
        // Without a base product there is no B at all.
        _ if shape.k == 0 => Right::InPlace,
        // 16 bits are widened on the way into the registers, again for every block of rows, or once for all of them.
        Order::Packed if pairs => Right::InPlace,
        Order::Packed if shape.dtype != DType::F32 && shape.rows > 2 * kernels.tile_rows => Right::PackedByTask,
        Order::Packed => Right::InPlace,
        // With alpha = 0 the factors are not read, and dots would read them.
        Order::Columns { .. }
            if shape.rows <= 8 && rows_of_a && shape.alpha != 0.0 && shape.beta == 0.0 && shape.summed == 1 =>
        {
            // A tile in f32 cannot have a 16-bit bias added to it.
            if shape.dtype == DType::F32 || !shape.bias { Right::Dot } else { Right::PackedByTask }
        }
        Order::Columns { .. } => Right::PackedByTask,
        Order::Rows { row } => {
            // Where pairs pay, copying B into them pays sooner.
            let few_rows = shape.rows <= if pairs { 16 } else { 2 * kernels.tile_rows };
            let fits = !pairs && row * shape.k <= 16 * 1024;
            if few_rows || fits { Right::InPlace } else { Right::PackedByTask }
        }
    }
}
