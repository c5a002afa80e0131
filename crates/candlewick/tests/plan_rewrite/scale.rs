//! A scale goes into the product that it multiplies.

use crate::recorded::*;
use candlewick::{LoraDelta, MatMul};

#[test]
fn a_scale_goes_into_the_product() {
    for dtype in [F32, BF16] {
        for (rows, ins, outs) in [(1, 64, 48), (7, 33, 17)] {
            let limit = bound(MatMul::new(rows, outs, ins, dtype));
            let ran = both(dtype, limit, |m| {
                let (x, w) = (m.input(rows, ins), m.input(outs, ins));
                let y = m.p.matmul_transposed(x, w)?;
                let y = m.p.scale(y, -0.75)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.scales, ran.operations), (1, 1), "{}", ran.described);
            let expected = product(&numbers(rows * ins, 0), &numbers(outs * ins, 1), rows, ins, outs);
            let expected: Vec<f64> = expected.iter().map(|y| -0.75 * y).collect();
            close(&ran.outputs[0], &expected, limit, "the reference");
            let ran = both(dtype, bound(LoraDelta::new(rows, ins, outs, 4, 2.0, dtype)), |m| {
                let (x, a, b) = (m.input(rows, ins), m.constant(4, ins), m.constant(outs, 4));
                let y = m.p.lora_delta(x, a, b, 2.0)?;
                let y = m.p.scale(y, 3.0)?;
                m.output(y)
            });
            assert_eq!((ran.rewrites.scales, ran.operations), (1, 1), "{}", ran.described);
        }
    }
}

#[test]
fn a_scale_alone_is_a_scale_and_has_a_gradient() {
    let ran = both(F32, 1e-6, |m| {
        let (x, w) = (m.input(3, 10), m.constant(4, 10));
        // With a base there is no factor of all, and columns have gaps.
        let y = m.p.linear(x, w, None)?;
        let y = m.p.scale(y, 2.0)?;
        m.output(y)?;
        let part = m.p.columns(x, 2..7)?;
        let y = m.p.scale(part, -0.5)?;
        m.output(y)?;
        let gradients = m.p.grad_from(&[(y, part)], &[x])?;
        m.output(gradients[0])
    });
    assert_eq!(ran.rewrites.scales, 0);
    let x = numbers(30, 0);
    for (i, row) in x.chunks(10).enumerate() {
        for (j, &x) in row.iter().enumerate() {
            let inside = (2..7).contains(&j);
            let expected = if inside { -0.5 * f64::from(x) } else { 0.0 };
            assert_eq!(ran.outputs[2][i * 10 + j], expected);
            assert!(!inside || ran.outputs[1][i * 5 + j - 2] == expected);
        }
    }
    // Zero would hide what the product has of NaN.
    let zero = both(F32, 1e-6, |m| {
        let (x, w) = (m.input(3, 10), m.input(10, 4));
        let y = m.p.matmul(x, w)?;
        let y = m.p.scale(y, 0.0)?;
        let (other, y) = (m.input(3, 4), y);
        let y = m.p.add(other, y)?;
        m.output(y)
    });
    assert_eq!(zero.rewrites.scales, 0);
}
