//! How far a result may be from the reference.

use candlewick_core::{LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Scalar, reference};

/// Runs the reference on whole operands.
pub(crate) fn expected(op: &Op, inputs: &[Vec<f64>], mut outputs: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
    let mut written: Vec<&mut [f64]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    reference::run(op, &inputs, &mut written).expect("the operands were made for the operation");
    outputs
}

/// The magnitude of every output if its terms did not cancel: a single sum may come out near zero by chance, and
/// rounding errors are relative to the terms.
pub(crate) fn uncancelled(op: &Op, inputs: &[Vec<f64>], outputs: &[Vec<f64>]) -> Vec<f64> {
    let squared = |scalar: Scalar| Scalar(scalar.get() * scalar.get());
    let squares = match *op {
        Op::MatMul(op) => Op::from(MatMul { alpha: squared(op.alpha), beta: squared(op.beta), ..op }),
        Op::LoraLinear(op) => Op::from(LoraLinear { scale: squared(op.scale), ..op }),
        Op::LoraLinearBackward(op) => Op::LoraLinearBackward(LoraLinear { scale: squared(op.scale), ..op }),
        Op::LoraDelta(op) => Op::from(LoraDelta { scale: squared(op.scale), ..op }),
        Op::LoraDeltaBackward(op) => Op::LoraDeltaBackward(LoraDelta { scale: squared(op.scale), ..op }),
        // dx = scale y (dy - sum(y dy)): both terms are at most this.
        Op::SoftmaxBackward(op) => {
            return vec![f64::from(op.scale.get()).abs() * largest(&inputs[0]) * largest(&inputs[1])];
        }
        Op::RmsNormBackward(op) => return rms_norm_terms(&op, inputs),
        _ => return vec![0.0; outputs.len()],
    };
    // The terms of a sum of products with random signs add up as their squares do.
    let square = |tensors: &[Vec<f64>]| -> Vec<Vec<f64>> {
        tensors.iter().map(|tensor| tensor.iter().map(|x| x * x).collect()).collect()
    };
    expected(&squares, &square(inputs), square(outputs)).iter().map(|sums| largest(sums).sqrt()).collect()
}

/// The largest r weight dy, and the largest root of the sum of (dy x r)^2: where a row has one column, the two terms
/// of dx differ by eps alone.
fn rms_norm_terms(op: &RmsNorm, inputs: &[Vec<f64>]) -> Vec<f64> {
    let (mut dx, mut dweight) = (0.0f64, vec![0.0f64; op.cols]);
    for row in 0..op.rows {
        let (x, dy) = (&inputs[0][row * op.x_row..], &inputs[2][row * op.y_row..]);
        let mean = (0..op.cols).map(|j| x[j] * x[j]).sum::<f64>() / op.cols as f64;
        let r = 1.0 / (mean + f64::from(op.eps.get())).sqrt();
        for (j, dweight) in dweight.iter_mut().enumerate() {
            let term = (r * inputs[1][j] * dy[j]).abs();
            dx = dx.max(if term.is_finite() { term } else { 0.0 });
            *dweight += (dy[j] * x[j] * r).powi(2);
        }
    }
    vec![dx, largest(&dweight).sqrt()]
}

/// The largest finite magnitude.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().filter(|x| x.is_finite()).fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Whether both are NaN, both the same infinity, or both numbers.
pub(crate) fn same_class(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || (a.is_finite() && b.is_finite()) || (a.is_infinite() && a == b)
}
