//! `rope`, forward and back.

use crate::engines::{Random, check};
use candlewick_core::op::Operand;
use candlewick_core::{DType, Op, Pairs, Rope};

#[test]
fn rope_forward_and_back() {
    let mut rng = Random(10);
    for dtype in DType::ALL {
        for pairs in [Pairs::Halves, Pairs::Interleaved] {
            for (rows, heads, head, rotary) in [
                (0, 2, 8, 8),
                (3, 0, 8, 8),
                (1, 1, 2, 2),
                (5, 3, 10, 6),
                (7, 2, 64, 64),
                (200, 3, 80, 40),
                (2, 2, 6, 0),
            ] {
                let width = heads * head;
                let shape = Rope::new(rows, heads, head, dtype);
                let op = Rope { rotary, pairs, x_row: width + 5, y_row: width + 2, ..shape };
                let positions: Vec<f64> =
                    (0..rows).map(|i| if i % 2 == 0 { i as f64 } else { 131072.0 - i as f64 }).collect();
                let frequencies: Vec<f64> =
                    (0..rotary / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / rotary as f64)).collect();
                let span = |operand: &Operand| operand.span;
                let n = span(&Op::from(op).operands().unwrap().inputs[0]);
                check(op, &[rng.units(n), positions.clone(), frequencies.clone()], &[]);
                let n = span(&Op::RopeBackward(op).operands().unwrap().inputs[0]);
                check(Op::RopeBackward(op), &[rng.units(n), positions, frequencies], &[]);
            }
        }
    }
    assert!(Op::from(Rope { rotary: 3, ..Rope::new(1, 1, 8, DType::F32) }).operands().is_err());
    assert!(Op::from(Rope { rotary: 10, ..Rope::new(1, 1, 8, DType::F32) }).operands().is_err());
}
