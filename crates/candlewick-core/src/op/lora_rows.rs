//! The LoRA delta of rows that each name their adapter: one operation for a batch, however many adapters are in it.

use super::{Op, Operands, check_row_stride, matrix, vector};
use crate::{DType, Result};

/// With s = `slots[i]`: `y[i] += (scales[s] x[i] A[s]ᵀ) B[s]ᵀ`. All adapters have one rank (a smaller one is filled up with
/// zeros) and lie behind each other: A [adapters · rank, in], B [adapters · out, rank].
///
/// A slot that is not below `adapters` leaves its row as it is: u32::MAX for rows without an adapter. An adapter that no
/// row names is not read. Serving many adapters in one batch is Punica's idea (Chen et al., 2023).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoraRows {
    /// Rows of x and y, each with a slot.
    pub rows: usize,
    /// Columns of x.
    pub in_features: usize,
    /// Columns of y.
    pub out_features: usize,
    /// Rows of each A, columns of each B.
    pub rank: usize,
    /// How many A, B and scales there are.
    pub adapters: usize,
    /// Elements between rows of x.
    pub x_row: usize,
    /// Elements between rows of y.
    pub y_row: usize,
    /// Of x, A, B and y; scales are F32, slots U32.
    pub dtype: DType,
}

impl LoraRows {
    /// Contiguous rows.
    pub fn new(
        rows: usize,
        in_features: usize,
        out_features: usize,
        rank: usize,
        adapters: usize,
        dtype: DType,
    ) -> Self {
        let (x_row, y_row) = (in_features, out_features);
        LoraRows { rows, in_features, out_features, rank, adapters, x_row, y_row, dtype }
    }

    /// With an adapter for every row.
    pub(super) fn flops(&self) -> f64 {
        2.0 * self.rows as f64 * self.rank as f64 * (self.in_features as f64 + self.out_features as f64)
    }

    /// Slots, scales and x read, y read and written, and as many adapters read as rows can name.
    pub(super) fn bytes(&self) -> f64 {
        let (rows, width) = (self.rows as f64, self.in_features as f64 + self.out_features as f64);
        let adapters = self.adapters.min(self.rows) as f64;
        let elements = rows * (width + self.out_features as f64) + adapters * self.rank as f64 * width;
        4.0 * (rows + adapters) + elements * self.dtype.bytes() as f64
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::LoraRows(*self).name();
        check_row_stride(op, "x_row", self.x_row, self.in_features)?;
        check_row_stride(op, "y_row", self.y_row, self.out_features)?;
        // Where the product overflows, so does the operand.
        let (ranks, outs) = (self.adapters.saturating_mul(self.rank), self.adapters.saturating_mul(self.out_features));
        let x = matrix(op, "x", self.dtype, self.rows, self.x_row, self.in_features)?;
        let a = matrix(op, "a", self.dtype, ranks, self.in_features, self.in_features)?;
        let b = matrix(op, "b", self.dtype, outs, self.rank, self.rank)?;
        let scales = vector(op, "scales", DType::F32, self.adapters)?;
        let slots = vector(op, "slots", DType::U32, self.rows)?;
        let y = matrix(op, "y", self.dtype, self.rows, self.y_row, self.out_features)?;
        Ok(Operands { inputs: vec![x, a, b, scales, slots], outputs: vec![y] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn adapters_lie_behind_each_other_and_are_read_where_rows_can_name_them() {
        let op = LoraRows::new(64, 4096, 2048, 16, 1000, DType::BF16);
        let operands = Op::from(op).operands().unwrap();
        let shapes: Vec<String> = operands
            .inputs
            .iter()
            .map(|operand| format!("{} {} {}", operand.name, operand.shape, operand.dtype))
            .collect();
        let expected = [
            "x [64, 4096] bf16",
            "a [16000, 4096] bf16",
            "b [2048000, 16] bf16",
            "scales [1000] f32",
            "slots [64] u32",
        ];
        assert_eq!(shapes, expected);
        assert_eq!(Op::from(op).to_string(), "lora_rows 64x4096x2048 r16 of 1000 bf16");
        assert!(Op::from(op).accumulates());
        // Of a thousand adapters, 64 rows name 64.
        assert_eq!(op.bytes(), LoraRows { adapters: 64, ..op }.bytes());
        assert!(op.bytes() > LoraRows { adapters: 63, ..op }.bytes());
    }

    #[test]
    fn more_adapters_than_fit_an_address_are_refused() {
        for op in [
            LoraRows::new(1, 8, 8, 4, usize::MAX, DType::F32),
            LoraRows::new(1, 8, usize::MAX / 2, 4, 3, DType::F32),
            LoraRows::new(1, 1 << 40, 8, 1 << 20, 1 << 20, DType::F16),
        ] {
            assert!(matches!(Op::from(op).operands(), Err(Error::TooLarge { op: "lora_rows", .. })), "{op:?}");
        }
        let overlapping = LoraRows { y_row: 7, ..LoraRows::new(2, 8, 8, 4, 2, DType::F32) };
        assert!(Op::from(overlapping).operands().unwrap_err().to_string().contains("y_row"));
    }
}
