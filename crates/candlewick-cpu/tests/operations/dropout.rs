//! `dropout`.

use crate::engines::{SIZES, check, random, rounded};
use candlewick_core::{DType, Dropout};

#[test]
fn dropped_elements() {
    for dtype in DType::ALL {
        for (rows, cols) in SIZES {
            for rate in [0.0, 0.1, 0.5, 0.999_999_94] {
                let op = Dropout::new(rows, cols, rate, 5, dtype);
                for op in [op, Dropout { x_row: cols + 3, y_row: cols + 1, ..op }] {
                    let mut inputs = random(op, 17);
                    inputs[1] = vec![f64::from(u32::MAX), 3.0];
                    let want = check(op, &inputs, &[]);
                    if rate == 0.0 && op.x_row == cols {
                        assert_eq!(want[0], rounded(dtype, &inputs[0]), "a copy");
                    }
                }
            }
        }
    }
    let special = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1.0, f64::INFINITY, f64::NAN, 0.0];
    check(Dropout::new(1, 8, 0.5, 0, DType::F32), &[special, vec![1.0, 2.0]], &[]);
}
