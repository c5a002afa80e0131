//! `add`, `silu_mul` and their gradients.

use crate::engines::{SIZES, check, random};
use candlewick_core::{Add, DType, Op, SiluMul};

#[test]
fn add_silu_mul_and_its_gradients() {
    for dtype in DType::ALL {
        for (rows, cols) in SIZES {
            for gap in [0, 3] {
                let op = Add { a_row: cols + gap, b_row: cols + 2 * gap, ..Add::new(rows, cols, dtype) };
                check(op, &random(op, 1), &[]);
                let op = SiluMul { gate_row: cols + gap, y_row: cols + 2 * gap, ..SiluMul::new(rows, cols, dtype) };
                let mut x = random(op, 2);
                x[0].iter_mut().for_each(|gate| *gate *= 8.0);
                check(op, &x, &[]);
                let backward = Op::SiluMulBackward(op);
                let mut x = random(backward, 3);
                x[0].iter_mut().for_each(|gate| *gate *= 8.0);
                check(backward, &x, &[]);
            }
        }
    }
    let special = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -200.0, 200.0, 0.0, -0.0, 1.0];
    let op = SiluMul::new(1, 8, DType::F32);
    check(op, &[special.clone(), vec![1.0; 8]], &[]);
    check(Add::new(1, 8, DType::F32), &[special.clone(), special], &[]);
}
