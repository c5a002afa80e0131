//! `matmul` where its sum is long.

use crate::engines::{check, random};
use candlewick_core::{DType, MatMul, Scalar};

#[test]
fn long_sums() {
    for dtype in [DType::F32, DType::BF16] {
        for (m, n, k) in [(64, 70, 8192), (65, 33, 9 * 1024), (70, 96, 8194), (63, 64, 8192)] {
            for (trans_b, beta) in [(false, 0.0), (false, 1.0), (true, 0.5)] {
                let plain = MatMul::new(m, n, k, dtype);
                let ldb = if trans_b { k + 2 } else { n + 1 };
                let op = MatMul { trans_b, ldb, lda: k + 3, ldc: n + 5, beta: Scalar(beta), ..plain };
                check(op, &random(op, 21), &[]);
            }
        }
    }
}
