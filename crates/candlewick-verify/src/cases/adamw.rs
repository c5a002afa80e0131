//! The gradients' square sum, and the optimizer's step.

use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::case::Values;
use crate::rng::Rng;
use candlewick::op::{AdamW, Operand, SumSquares};
use candlewick::{DType, Op, Scalar};

/// Sums of squares.
pub(crate) struct Squares;

/// Steps.
pub(crate) struct Step;

const SIZES: [usize; 9] = [0, 1, 7, 16, 63, 1000, 4097, 70_001, 300_000];
const GPU_SIZES: [usize; 7] = [8, 9, 255, 256, 1025, 8191, 20_000];

impl Operation for Squares {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let plain = SIZES.map(|elements| SumSquares::new(elements, dtype));
        plain.into_iter().chain(plain.map(SumSquares::accumulate)).map(Op::SumSquares).collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let plain = GPU_SIZES.map(|elements| SumSquares::new(elements, dtype));
        plain.into_iter().chain(plain.map(SumSquares::accumulate)).map(Op::SumSquares).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [a, b] = draw.sizes(1 << 16);
        let accumulate = draw.rng.chance(50);
        SumSquares { accumulate, ..SumSquares::new(a * b, draw.dtype) }.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::SumSquares(op) = op else { unreachable!("{op} sums no squares") };
        vec![(if operand == "x" { op.elements } else { 1 }, 1)]
    }

    fn ordinary(&self, _op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        if operand.name == "x" { uniform(0.0, 1.0, count, rng) } else { uniform(1.0, 1.0, count, rng) }
    }

    fn huge(&self, dtype: DType) -> f64 {
        // The squares of some are infinite in f32, whatever they are added to.
        if dtype == DType::F16 { 6e4 } else { 1e25 }
    }
}

impl Operation for Step {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let plain = SIZES.map(|elements| AdamW::new(elements, dtype));
        let clipped = plain.map(|op| AdamW { max_norm: Scalar(1.0), ..op });
        plain.into_iter().chain(clipped).map(Op::AdamW).collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        GPU_SIZES.map(|elements| AdamW { max_norm: Scalar(0.5), ..AdamW::new(elements, dtype) }.into()).to_vec()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [a, b] = draw.sizes(1 << 15);
        let mut op = AdamW::new(a * b, draw.dtype);
        let rng = &mut draw.rng;
        op.beta1 = Scalar(rng.pick(&[0.9, 0.9, 0.0, 0.5, 0.95]));
        op.beta2 = Scalar(rng.pick(&[0.999, 0.999, 0.95, 0.0, 0.9999]));
        op.eps = Scalar(rng.pick(&[1e-8, 1e-8, 1e-6, 1e-3]));
        op.weight_decay = Scalar(rng.pick(&[0.01, 0.0, 0.1, 1.0]));
        op.max_norm = Scalar(rng.pick(&[0.0, 0.0, 1.0, 0.01, 100.0]));
        op.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::AdamW(op) = op else { unreachable!("{op} is no step") };
        match operand {
            "sum_squares" => vec![(1, 1)],
            "schedule" => vec![(2, 1)],
            _ => vec![(op.elements, 1)],
        }
    }

    fn ordinary(&self, _op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        match operand.name {
            "schedule" => vec![rng.pick(&[1e-3, 1e-5, 0.1, 0.0]), rng.pick(&[1.0, 1.0, 2.0, 10.0, 1000.0, 1e6])],
            "sum_squares" => vec![rng.pick(&[0.0, 1e-12, 0.5, 1.0, 30.0, 1e6])],
            // A mean square, and a mean that is not larger than its root.
            "m" => uniform(0.0, 0.1, count, rng),
            "v" => uniform(0.5, 0.49, count, rng),
            _ => uniform(0.0, 1.0, count, rng),
        }
    }

    /// A sum of squares that is no number clips every gradient away, or all of them; a schedule is the trainer's.
    fn takes(&self, _op: &Op, operand: &Operand, values: Values) -> bool {
        match operand.name {
            "schedule" => false,
            "sum_squares" => values == Values::NonFinite,
            _ => true,
        }
    }

    fn huge(&self, dtype: DType) -> f64 {
        // Its square is a number in f32.
        if dtype == DType::F16 { 6e4 } else { 1e15 }
    }

    fn derive(&self, _op: &Op, inputs: &mut [Vec<f64>]) {
        // No sum of squares is negative.
        inputs[1][0] = inputs[1][0].abs();
    }

    fn terms(&self, op: &Op, inputs: &[Vec<f64>], outputs: &[Vec<f64>]) -> Terms {
        let Op::AdamW(op) = op else { unreachable!("{op} is no step") };
        // A mean of gradients that cancels is divided by the root of the mean square: at most 1 / sqrt(1 - beta2).
        let step = inputs[2][0] / (1.0 - f64::from(op.beta2.get())).sqrt();
        let [master, m, v] = [0, 1, 2].map(|output| finite_largest(&outputs[output]));
        let g = finite_largest(&inputs[0]);
        Terms::Magnitudes(vec![master + step, m + g, v + g * g, master + step])
    }
}
