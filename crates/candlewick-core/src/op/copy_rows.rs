//! Rows written to the slots that a table names: what fills a KV cache.

use super::{Op, Operands, check_row_stride, matrix, vector};
use crate::{DType, Result};

/// Row `slots[i]` of cache [capacity, width] becomes row i of x; all other rows stay.
///
/// A slot that is not below `capacity` is skipped: u32::MAX for rows that shall not be kept. Slots differ from each other;
/// where two are equal, one of the two rows is there afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyRows {
    /// Rows of x.
    pub rows: usize,
    /// Columns of x and of the cache.
    pub width: usize,
    /// Rows of the cache.
    pub capacity: usize,
    /// Elements between rows of x.
    pub x_row: usize,
    /// Of x and the cache; slots are U32.
    pub dtype: DType,
}

impl CopyRows {
    /// Contiguous rows.
    pub fn new(rows: usize, width: usize, capacity: usize, dtype: DType) -> Self {
        CopyRows { rows, width, capacity, x_row: width, dtype }
    }

    /// The slots, and every row of x read and written.
    pub(super) fn bytes(&self) -> f64 {
        self.rows as f64 * (4.0 + 2.0 * self.width as f64 * self.dtype.bytes() as f64)
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::CopyRows(*self).name();
        check_row_stride(op, "x_row", self.x_row, self.width)?;
        let x = matrix(op, "x", self.dtype, self.rows, self.x_row, self.width)?;
        let slots = vector(op, "slots", DType::U32, self.rows)?;
        let cache = matrix(op, "cache", self.dtype, self.capacity, self.width, self.width)?;
        Ok(Operands { inputs: vec![x, slots], outputs: vec![cache] })
    }
}
