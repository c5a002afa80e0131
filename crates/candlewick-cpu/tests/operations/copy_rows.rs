//! `copy_rows`.

use crate::engines::{Random, check};
use candlewick_core::{CopyRows, DType, Op};

#[test]
fn copied_rows() {
    let mut rng = Random(11);
    for dtype in DType::ALL {
        for (rows, width, capacity) in [(0, 3, 4), (3, 0, 4), (3, 2, 0), (1, 1, 1), (5, 17, 8), (70, 64, 300)] {
            let op = CopyRows { x_row: width + 1, ..CopyRows::new(rows, width, capacity, dtype) };
            // Different slots in no order, and some that are skipped.
            let slots: Vec<f64> = (0..rows)
                .map(|i| if i % 5 == 4 { f64::from(u32::MAX) } else { ((i * 7 + 3) % capacity.max(71)) as f64 })
                .collect();
            let x = rng.units(Op::from(op).operands().unwrap().inputs[0].span);
            check(op, &[x, slots], &[rng.units(capacity * width)]);
        }
    }
}
