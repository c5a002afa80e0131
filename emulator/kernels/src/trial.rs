//! One case: its operands in memory, run by a program, judged against the f64 reference.

use crate::cases::{Case, Values};
use crate::gpu::{Gpu, Tensor};
use crate::judge::{expected, largest, same_class, uncancelled};
use crate::rng::Rng;
use candlewick_core::op::{Format, Operand};
use candlewick_core::{DType, Element, Op};
use candlewick_kernels::{Program, pack};

/// In the gaps of outputs: exact in every dtype, and nothing that the operations compute.
const SENTINEL: f64 = -1024.0;
/// Bytes of memory on both sides of an operand, so that a store beside it is seen.
const MARGIN: usize = 64;

/// A case with its operands and the right answers.
pub struct Trial {
    op: Op,
    inputs: Vec<Vec<f64>>,
    outputs: Vec<Vec<f64>>,
    /// Which elements of an output belong to it; the others are gaps.
    places: Vec<Vec<bool>>,
    expected: Vec<Vec<f64>>,
    exact: bool,
}

impl Trial {
    /// Makes the operands.
    ///
    /// # Panics
    /// For a descriptor that contradicts itself.
    pub fn new(case: &Case) -> Self {
        let mut rng = Rng::new(&[case.seed, case.op.class() as u64, case.op.dtype() as u64]);
        let operands = case.op.operands().expect("cases are legal");
        let special = rng.below(operands.inputs.len());
        let inputs: Vec<Vec<f64>> = operands
            .inputs
            .iter()
            .enumerate()
            .map(|(i, operand)| input(case, operand, i == special || case.values == Values::NonFinite, &mut rng))
            .collect();
        let places: Vec<Vec<bool>> = operands.outputs.iter().map(|operand| places(&case.op, operand)).collect();
        let poison = if case.values == Values::Ordinary { f64::NAN } else { 2.0 * SENTINEL };
        let outputs: Vec<Vec<f64>> = places
            .iter()
            .map(|places| {
                let value = |inside: &bool| match (inside, case.op.accumulates()) {
                    (false, _) => SENTINEL,
                    (true, false) => poison,
                    (true, true) => round(rng.unit(), case.op.dtype()),
                };
                places.iter().map(value).collect()
            })
            .collect();
        let expected = expected(&case.op, &inputs, outputs.clone());
        Trial { op: case.op, inputs, outputs, places, expected, exact: false }
    }

    /// Runs a program of the operation. The largest error, relative to the magnitude of the output.
    ///
    /// # Errors
    /// What the GPU says, an error beyond the bound, or a byte changed beside an output.
    pub fn run(&self, program: &Program, gpu: &mut dyn Gpu) -> Result<f64, String> {
        let dtype = self.op.dtype();
        // No better aligned than the program asks for.
        let start = MARGIN + program.alignment as usize;
        let mut inputs: Vec<Tensor> = self.inputs.iter().map(|input| tensor(input, start, dtype)).collect();
        let operands = self.op.operands().map_err(|error| error.to_string())?;
        for (input, operand) in inputs.iter_mut().zip(&operands.inputs) {
            if operand.format == Format::Packed {
                let elements = operand.shape.elements().unwrap_or(0);
                let mut packed = [tensor(&vec![f64::NAN; elements], start, dtype)];
                let program = pack(&self.op).ok_or("no program packs")?;
                gpu.run(&program, std::slice::from_ref(input), &mut packed)?;
                [*input] = packed;
            }
        }
        let mut outputs: Vec<Tensor> = self.outputs.iter().map(|output| tensor(output, start, dtype)).collect();
        gpu.run(program, &inputs, &mut outputs)?;
        let mut worst = 0.0f64;
        for (index, output) in outputs.iter().enumerate() {
            worst = worst.max(self.judge(index, output)?);
            if self.exact {
                self.compare(index, output)?;
            }
        }
        Ok(worst)
    }

    /// From here on, every result has to be the right answer, rounded to nearest even: for operations whose sums have
    /// one term.
    pub fn exactly(mut self) -> Self {
        self.exact = true;
        self
    }

    fn compare(&self, index: usize, output: &Tensor) -> Result<(), String> {
        let dtype = self.op.dtype();
        let found = decode(&output.memory[output.start..], dtype);
        for (at, (&expected, &found)) in self.expected[index].iter().zip(&found).enumerate() {
            let expected = round(expected, dtype);
            if self.places[index][at] && found != expected && !(found.is_nan() && expected.is_nan()) {
                return Err(format!("output {index}[{at}] is {found:e}, not {expected:e} exactly"));
            }
        }
        Ok(())
    }

    fn judge(&self, index: usize, output: &Tensor) -> Result<f64, String> {
        let dtype = self.op.dtype();
        let margin = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0x5a);
        let end = output.start + self.outputs[index].len() * dtype.bytes();
        if !margin(&output.memory[..output.start]) || !margin(&output.memory[end..]) {
            return Err(format!("output {index}: memory beside it was overwritten"));
        }
        let found = decode(&output.memory[output.start..end], dtype);
        let (expected, places, bound) = (&self.expected[index], &self.places[index], self.op.error_bound());
        let mut error = (0.0f64, 0);
        for (at, &found) in found.iter().enumerate() {
            let expected = expected[at];
            if !places[at] {
                if found != SENTINEL {
                    return Err(format!("output {index}: the gap at {at} was overwritten with {found:e}"));
                }
                continue;
            }
            let near = [1.0 - bound, 1.0 + bound].map(|factor| round(expected * factor, dtype));
            if !same_class(round(expected, dtype), found) && !near.iter().any(|&near| same_class(near, found)) {
                return Err(format!("output {index}[{at}] is {found:e}, not {expected:e}"));
            }
            let distance = (found - expected).abs();
            if distance.is_finite() && distance > error.0 {
                error = (distance, at);
            }
        }
        // Below this an output's rounding is absolute, and GPUs may take the smallest numbers for zero.
        let floor = if dtype == DType::F16 { 2f64.powi(-14) } else { 1e-25 };
        let inside: Vec<f64> = expected.iter().zip(places).filter(|(_, inside)| **inside).map(|(x, _)| *x).collect();
        let mut magnitude = largest(&inside).max(floor);
        if error.0 > bound * magnitude {
            let zeroed = self.outputs.iter().zip(&self.places).map(|(output, places)| {
                output.iter().zip(places).map(|(&x, &inside)| if inside { x } else { 0.0 }).collect()
            });
            magnitude = magnitude.max(uncancelled(&self.op, &self.inputs, &zeroed.collect::<Vec<_>>())[index]);
        }
        if error.0 > bound * magnitude {
            let (found, expected) = (found[error.1], expected[error.1]);
            let relative = error.0 / magnitude;
            return Err(format!(
                "output {index}[{}] is {found:e}, not {expected:e}: {relative:.2e} > {bound:.2e}",
                error.1
            ));
        }
        Ok(error.0 / magnitude)
    }
}

/// Whether each element of an output belongs to it.
fn places(op: &Op, operand: &Operand) -> Vec<bool> {
    let mut inside = vec![false; operand.span];
    let rows = |inside: &mut Vec<bool>, start: usize, rows: usize, row: usize, cols: usize| {
        for i in (0..rows).filter(|_| cols > 0) {
            inside[start + i * row..][..cols].fill(true);
        }
    };
    match (op, operand.name) {
        (Op::MatMul(op), _) => {
            for index in 0..op.batch.count() {
                rows(&mut inside, op.batch.offsets(index).2, op.m, op.ldc, op.n);
            }
        }
        (Op::Softmax(op), _) => rows(&mut inside, 0, op.rows, op.y_row, op.cols),
        (Op::SoftmaxBackward(op), _) => rows(&mut inside, 0, op.rows, op.x_row, op.cols),
        (Op::RmsNorm(op), _) => rows(&mut inside, 0, op.rows, op.y_row, op.cols),
        (Op::RmsNormBackward(op), "dx") => rows(&mut inside, 0, op.rows, op.x_row, op.cols),
        (Op::LoraLinear(op), _) => rows(&mut inside, 0, op.rows, op.y_row, op.out_features),
        (Op::LoraDelta(op), _) => rows(&mut inside, 0, op.rows, op.y_row, op.out_features),
        (Op::LoraLinearBackward(op), "dx") => rows(&mut inside, 0, op.rows, op.x_row, op.in_features),
        (Op::LoraDeltaBackward(op), "dx") => rows(&mut inside, 0, op.rows, op.x_row, op.in_features),
        _ => inside.fill(true),
    }
    inside
}

/// An input's elements, gaps included, as the dtype has them.
fn input(case: &Case, operand: &Operand, special: bool, rng: &mut Rng) -> Vec<f64> {
    let cols = operand.shape.sizes().last().copied().unwrap_or(1).max(1);
    let (width, centre) = match (&case.op, operand.name) {
        (Op::Softmax(_), _) => (rng.pick(&[1.0, 10.0]), rng.pick(&[0.0, 0.0, 50.0])),
        (Op::SoftmaxBackward(_), "y") => (1.0 / cols as f64, 1.0 / cols as f64),
        (Op::RmsNorm(_) | Op::RmsNormBackward(_), "weight") => (0.5, 1.0),
        _ => (1.0, 0.0),
    };
    let mut values: Vec<f64> = (0..operand.span).map(|_| centre + width * rng.unit()).collect();
    let count = values.len();
    match case.values {
        Values::NonFinite if count > 0 => {
            for _ in 0..count.min(1 + rng.below(4)) {
                values[rng.below(count)] = rng.pick(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0]);
            }
        }
        Values::Huge if special => {
            let huge = match (&case.op, case.op.dtype()) {
                (_, DType::F16) => 6e4,
                (Op::RmsNorm(_) | Op::RmsNormBackward(_), _) => 1e8,
                _ => 1e30,
            };
            values.iter_mut().filter(|_| rng.chance(20)).for_each(|value| *value *= huge);
        }
        Values::Degenerate => {
            let fill = if matches!(case.op, Op::Softmax(_)) { f64::NEG_INFINITY } else { 0.0 };
            values.chunks_mut(cols).filter(|_| rng.chance(40)).for_each(|row| row.fill(fill));
        }
        _ => {}
    }
    values.into_iter().map(|value| round(value, case.op.dtype())).collect()
}

/// In the dtype, and back.
fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f32::from_f64(value).to_f64(),
        DType::F16 => half::f16::from_f64(value).to_f64(),
        DType::BF16 => half::bf16::from_f64(value).to_f64(),
        DType::U32 | DType::U8 => value,
    }
}

fn tensor(values: &[f64], start: usize, dtype: DType) -> Tensor {
    let mut memory = vec![0x5a; start];
    for &value in values {
        match dtype {
            DType::F32 => memory.extend(f32::from_f64(value).to_le_bytes()),
            DType::F16 => memory.extend(half::f16::from_f64(value).to_le_bytes()),
            DType::BF16 => memory.extend(half::bf16::from_f64(value).to_le_bytes()),
        }
    }
    memory.extend([0x5a; MARGIN]);
    Tensor { memory, start }
}

fn decode(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let two = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    match dtype {
        DType::F32 => bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]).into()).collect(),
        DType::F16 => bytes.chunks_exact(2).map(|x| half::f16::from_bits(two(x)).to_f64()).collect(),
        DType::BF16 => bytes.chunks_exact(2).map(|x| half::bf16::from_bits(two(x)).to_f64()).collect(),
    }
}
