//! How far a result is from the f64 reference, on the same inputs after their rounding to the dtype.

use super::cases::{Case, Family, Pass};
use super::operands::{Operand, operands, output};
use candlewick::op::{Gradient, MatMulOperand};
use candlewick::{LoraDelta, LoraLinear, MatMul, Op, Result, RmsNorm, Softmax, reference};

/// Multiply-adds that a reference may cost: large cases are checked on their first rows.
const BUDGET: usize = 1 << 23;
/// For a gradient that sums over all rows and cannot be sampled: what is dearer is not checked.
const WHOLE_BUDGET: usize = 1 << 26;

/// The first numbers of every output, in the order of [`super::runner::Runner::outputs`]; none where it would take too long.
///
/// # Errors
/// A case that contradicts itself.
pub fn expected(case: &Case) -> Result<Vec<Vec<f64>>> {
    let reference = Reference { case, operands: operands(case) };
    let mut outputs = Vec::new();
    if case.pass != Pass::Backward {
        outputs.push(reference.forward()?);
    }
    if case.pass != Pass::Forward {
        outputs.extend(reference.backward()?);
    }
    Ok(outputs)
}

/// max |y - reference| / max |reference|, the largest of the outputs. NaN where an output is NaN or missing.
pub fn error(expected: &[Vec<f64>], found: &[Vec<f64>]) -> f64 {
    if expected.len() != found.len() {
        return f64::NAN;
    }
    let of_output = |(expected, found): (&Vec<f64>, &Vec<f64>)| {
        if expected.len() != found.len() {
            return f64::NAN;
        }
        let scale = expected.iter().fold(0f64, |max, value| max.max(value.abs())).max(f64::MIN_POSITIVE);
        let worst = expected.iter().zip(found).map(|(expected, found)| (expected - found).abs());
        worst.fold(0f64, larger) / scale
    };
    expected.iter().zip(found).map(of_output).fold(0f64, larger)
}

/// The maximum, where NaN is the largest.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

struct Reference<'a> {
    case: &'a Case,
    operands: Vec<Operand>,
}

impl Reference<'_> {
    fn whole(&self, index: usize) -> Vec<f64> {
        self.rows(index, usize::MAX)
    }

    fn rows(&self, index: usize, rows: usize) -> Vec<f64> {
        let operand = self.operands[index];
        operand.rounded(self.case.dtype, rows.min(operand.rows) * operand.cols)
    }

    fn last(&self) -> usize {
        self.operands.len() - 1
    }

    fn forward(&self) -> Result<Vec<f64>> {
        match self.case.family {
            Family::MatMul => {
                let op = self.case.matmul();
                let m = sample(op.m, op.n * op.k);
                run(MatMul { m, ..op }.into(), &[&self.rows(0, m), &self.whole(1)], m * op.n)
            }
            Family::Softmax => {
                let op = self.case.softmax();
                self.softmax(sample(op.rows, op.cols))
            }
            Family::RmsNorm => {
                let op = self.case.rms_norm();
                let rows = sample(op.rows, op.cols);
                run(RmsNorm { rows, ..op }.into(), &[&self.rows(0, rows), &self.whole(1)], rows * op.cols)
            }
            Family::LoraLinear => {
                let op = self.case.lora_linear();
                let rows = sample(op.rows, op.in_features * op.out_features);
                let inputs = [self.rows(0, rows), self.whole(1), self.whole(2), self.whole(3)];
                run(LoraLinear { rows, ..op }.into(), &slices(&inputs), rows * op.out_features)
            }
            Family::LoraDelta => {
                let op = self.case.lora_delta();
                let rows = sample(op.rows, op.rank * (op.in_features + op.out_features));
                let inputs = [self.rows(0, rows), self.whole(1), self.whole(2)];
                run(LoraDelta { rows, ..op }.into(), &slices(&inputs), rows * op.out_features)
            }
        }
    }

    fn softmax(&self, rows: usize) -> Result<Vec<f64>> {
        let op = self.case.softmax();
        run(Softmax { rows, ..op }.into(), &[&self.rows(0, rows)], rows * op.cols)
    }

    fn backward(&self) -> Result<Vec<Vec<f64>>> {
        let (rows, cols) = output(self.case);
        match self.case.family {
            Family::MatMul => {
                let op = self.case.matmul();
                [op.grad_a(), op.grad_b()].into_iter().map(|gradient| self.product_gradient(gradient)).collect()
            }
            Family::Softmax => {
                let rows = sample(rows, cols);
                let op = Op::SoftmaxBackward(Softmax { rows, ..self.case.softmax() });
                Ok(vec![run(op, &[&self.softmax(rows)?, &self.rows(self.last(), rows)], rows * cols)?])
            }
            Family::RmsNorm => {
                let rows = if rows * cols <= WHOLE_BUDGET / 16 { rows } else { sample(rows, cols) };
                let op = Op::RmsNormBackward(RmsNorm { rows, ..self.case.rms_norm() });
                let inputs = [self.rows(0, rows), self.whole(1), self.rows(2, rows)];
                let (mut dx, mut dweight) = (vec![0.0; rows * cols], vec![0.0; cols]);
                reference::run(&op, &slices(&inputs), &mut [&mut dx, &mut dweight])?;
                if rows < output(self.case).0 {
                    dweight.clear();
                }
                Ok(vec![dx, dweight])
            }
            Family::LoraLinear => {
                let op = self.case.lora_linear();
                let rows = sample(op.rows, op.in_features * op.out_features);
                let inputs = [self.rows(0, rows), self.whole(1), self.whole(2), self.whole(3), self.rows(4, rows)];
                let dx = Op::LoraLinearBackward(LoraLinear { rows, ..op });
                let [dx, ..] = gradients(&dx, &slices(&inputs), self.case.lora_delta(), rows)?;
                let [_, da, db] = self.adapter_gradients([0, 2, 3, 4])?;
                Ok(vec![dx, da, db])
            }
            Family::LoraDelta => {
                let [mut dx, da, db] = self.adapter_gradients([0, 1, 2, 3])?;
                if da.is_empty() {
                    let rows = sample(rows, self.case.lora_delta().rank * 4 * cols);
                    let inputs = [self.rows(0, rows), self.whole(1), self.whole(2), self.rows(3, rows)];
                    let op = Op::LoraDeltaBackward(LoraDelta { rows, ..self.case.lora_delta() });
                    [dx, _, _] = gradients(&op, &slices(&inputs), self.case.lora_delta(), rows)?;
                }
                Ok(vec![dx, da, db])
            }
        }
    }

    /// The first rows of a gradient of a product, itself a product.
    fn product_gradient(&self, Gradient { op, a, b }: Gradient) -> Result<Vec<f64>> {
        let of = |operand| match operand {
            MatMulOperand::A => self.whole(0),
            MatMulOperand::B => self.whole(1),
            MatMulOperand::GradC => self.whole(2),
        };
        let m = sample(op.m, op.n * op.k);
        run(MatMul { m, ..op }.into(), &[&of(a), &of(b)], m * op.n)
    }

    /// `[dx, da, db]` of the delta, over all rows; empty where that is too dear. `places` are those of x, a, b and dy.
    fn adapter_gradients(&self, places: [usize; 4]) -> Result<[Vec<f64>; 3]> {
        let op = self.case.lora_delta();
        if op.rows * op.rank * (op.in_features + op.out_features) > WHOLE_BUDGET {
            return Ok(Default::default());
        }
        let inputs = places.map(|place| self.whole(place));
        gradients(&Op::LoraDeltaBackward(op), &slices(&inputs), op, op.rows)
    }
}

fn sample(rows: usize, cost_of_row: usize) -> usize {
    (BUDGET / cost_of_row.max(1)).clamp(1, rows.max(1))
}

fn slices(inputs: &[Vec<f64>]) -> Vec<&[f64]> {
    inputs.iter().map(Vec::as_slice).collect()
}

fn run(op: Op, inputs: &[&[f64]], elements: usize) -> Result<Vec<f64>> {
    let mut output = vec![0.0; elements];
    reference::run(&op, inputs, &mut [&mut output])?;
    Ok(output)
}

fn gradients(op: &Op, inputs: &[&[f64]], sizes: LoraDelta, rows: usize) -> Result<[Vec<f64>; 3]> {
    let zeros = |rows: usize, cols: usize| vec![0.0; rows * cols];
    let mut gradients =
        [zeros(rows, sizes.in_features), zeros(sizes.rank, sizes.in_features), zeros(sizes.out_features, sizes.rank)];
    let [dx, da, db] = &mut gradients;
    reference::run(op, inputs, &mut [dx, da, db])?;
    Ok(gradients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_number() {
        assert_eq!(error(&[vec![1.0, -4.0]], &[vec![1.0, -3.0]]), 0.25);
        assert_eq!(error(&[vec![1.0], vec![]], &[vec![1.0], vec![]]), 0.0);
        assert!(error(&[vec![1.0]], &[vec![f64::NAN]]).is_nan());
        assert!(error(&[vec![1.0]], &[vec![]]).is_nan());
        assert!(error(&[vec![1.0]], &[]).is_nan());
    }

    #[test]
    fn a_sample_is_the_beginning_of_the_whole() {
        for name in
            ["matmul+backward 1024x1024x1024 f32", "softmax+backward 32x512 bf16", "lora_delta_backward 8x16x24 r2 f16"]
        {
            let case: Case = name.parse().unwrap();
            let outputs = expected(&case).unwrap();
            let count = outputs.len();
            assert_eq!(count, if name.starts_with("matmul") || name.starts_with("lora") { 3 } else { 2 });
            assert!(outputs.iter().all(|output| !output.is_empty() && output.iter().all(|value| value.is_finite())));
        }
    }
}
