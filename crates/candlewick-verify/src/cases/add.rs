//! y = a + b, with one row of b for all too.

use super::rows::{GPU_ROWS, ROWS};
use super::{Draw, Operation};
use candlewick::op::Add;
use candlewick::{DType, Op};

/// Sums.
pub(crate) struct Sum;

/// Each size, and a few with one row of b for every row of a.
fn sums(sizes: &[(usize, usize)], dtype: DType) -> Vec<Op> {
    let plain = sizes.iter().map(|&(rows, cols)| Add::new(rows, cols, dtype));
    let bias = [(5, 64), (33, 17), (0, 9), (9, 0), (3, 1)];
    let bias = bias.map(|(rows, cols)| Add { b_row: 0, ..Add::new(rows, cols, dtype) });
    plain.chain(bias).map(Op::Add).collect()
}

impl Operation for Sum {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        sums(&ROWS, dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        sums(&GPU_ROWS, dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, cols] = draw.sizes(1 << 16);
        let mut op = Add::new(rows, cols, draw.dtype);
        (op.a_row, op.b_row, op.y_row) = (draw.stride(cols), draw.stride(cols), draw.stride(cols));
        if draw.rng.chance(20) {
            op.b_row = 0;
        }
        op.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::Add(op) = op else { unreachable!("{op} is no sum") };
        let row = match operand {
            "a" => op.a_row,
            "b" => op.b_row,
            _ => op.y_row,
        };
        vec![(op.rows, row), (op.cols, 1)]
    }
}
