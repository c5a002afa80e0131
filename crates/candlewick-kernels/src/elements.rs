//! `kernels/prelude/elements.h`: how threads share the elements of rows and vectors.

use crate::program::Alignment;

/// A thread's share.
const SHARE: usize = 8;
/// Threads of a group, at most.
const THREADS: usize = 256;

/// A grid over the elements of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) groups: u64,
    pub(crate) threads: u32,
    /// Threads that share a block of a row.
    pub(crate) lanes: u32,
}

/// Over `rows` rows of `cols` elements. `None` where kernels cannot count the blocks.
pub(crate) fn rows(rows: usize, cols: usize) -> Option<Grid> {
    if rows == 0 || cols == 0 {
        return Some(Grid { groups: 0, threads: THREADS as u32, lanes: 1 });
    }
    let lanes = cols.div_ceil(SHARE).next_power_of_two().min(THREADS);
    let blocks = u32::try_from(rows.checked_mul(cols.div_ceil(lanes * SHARE))?).ok()?;
    // The last group may count beyond the last block.
    blocks.checked_add(THREADS as u32)?;
    let groups = (blocks as usize).div_ceil(THREADS / lanes) as u64;
    Some(Grid { groups, threads: THREADS as u32, lanes: lanes as u32 })
}

/// Over a vector.
pub(crate) fn vector(elements: usize) -> Grid {
    let threads = elements.div_ceil(SHARE).next_multiple_of(32).clamp(32, THREADS);
    Grid { groups: elements.div_ceil(threads * SHARE) as u64, threads: threads as u32, lanes: threads as u32 }
}

/// Rows and columns as few as they can be: rows without gaps are one.
pub(crate) fn joined(rows: usize, cols: usize, strides: &[usize]) -> (usize, usize) {
    let apart = rows > 1 && strides.iter().any(|&stride| stride != cols);
    match rows.checked_mul(cols) {
        Some(all) if !apart && all < i32::MAX as usize => (1, all),
        _ => (rows, cols),
    }
}

/// Whether a vector can go 16 bytes at a time.
pub(crate) fn vector_wide(alignment: Alignment, elements: usize) -> bool {
    alignment == Alignment::Sixteen && elements.is_multiple_of(SHARE)
}
