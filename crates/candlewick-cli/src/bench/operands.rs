//! The numbers that go in: the same for every engine and every peer, so that their results can be compared.

use super::cases::{Case, Family, Pass};
use candlewick::{DType, Element};
use half::{bf16, f16};

/// An operand of a case, rows by columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    seed: u32,
}

/// The seed of the output's gradient; the operands of the forward pass have their place as their seed.
const DY_SEED: u32 = 9;

/// The operands of the forward pass in the formula's order, then the output's gradient where there is a backward pass.
pub fn operands(case: &Case) -> Vec<Operand> {
    let forward = match case.family {
        Family::MatMul => {
            let op = case.matmul();
            vec![(op.m, op.k), (op.k, op.n)]
        }
        Family::Softmax => vec![output(case)],
        Family::RmsNorm => vec![output(case), (1, case.rms_norm().cols)],
        Family::LoraLinear | Family::LoraDelta => {
            let op = case.lora_delta();
            let w = (case.family == Family::LoraLinear).then_some((op.out_features, op.in_features));
            let adapter = [(op.rank, op.in_features), (op.out_features, op.rank)];
            [(op.rows, op.in_features)].into_iter().chain(w).chain(adapter).collect()
        }
    };
    let mut operands: Vec<Operand> =
        forward.into_iter().zip(0..).map(|((rows, cols), seed)| Operand { rows, cols, seed }).collect();
    if case.pass != Pass::Forward {
        let (rows, cols) = output(case);
        operands.push(Operand { rows, cols, seed: DY_SEED });
    }
    operands
}

/// Rows and columns of the forward's output.
pub fn output(case: &Case) -> (usize, usize) {
    match case.family {
        Family::MatMul => (case.matmul().m, case.matmul().n),
        Family::Softmax => (case.softmax().rows, case.softmax().cols),
        Family::RmsNorm => (case.rms_norm().rows, case.rms_norm().cols),
        Family::LoraLinear | Family::LoraDelta => (case.lora_delta().rows, case.lora_delta().out_features),
    }
}

impl Operand {
    /// How many numbers.
    pub fn elements(&self) -> usize {
        self.rows * self.cols
    }

    /// The first `count` numbers, as `T` rounds them.
    pub fn values<T: Element>(&self, count: usize) -> Vec<T> {
        (0..count as u32).map(|i| T::from_f64(number(self.seed, i))).collect()
    }

    /// The first `count` numbers in f64, rounded to `dtype` before.
    pub fn rounded(&self, dtype: DType, count: usize) -> Vec<f64> {
        fn in_f64<T: Element>(values: Vec<T>) -> Vec<f64> {
            values.into_iter().map(T::to_f64).collect()
        }
        match dtype {
            DType::F32 => in_f64(self.values::<f32>(count)),
            DType::F16 => in_f64(self.values::<f16>(count)),
            DType::BF16 => in_f64(self.values::<bf16>(count)),
            DType::U32 | DType::U8 => unreachable!("no operation computes in integers"),
        }
    }
}

/// Number `i` of an operand, uniform in [-1, 1): a hash of the index, so that a peer in any language makes the same.
fn number(seed: u32, i: u32) -> f64 {
    let mut hash = i.wrapping_mul(0x9E37_79B1).wrapping_add(seed.wrapping_mul(0x85EB_CA77));
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    hash = (hash ^ (hash >> 12)).wrapping_mul(0x297A_2D39);
    hash ^= hash >> 15;
    f64::from(hash >> 8) / f64::from(1 << 23) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_random() {
        let operand = Operand { rows: 100, cols: 100, seed: 1 };
        let values = operand.rounded(DType::F32, operand.elements());
        let mean = values.iter().sum::<f64>() / 1e4;
        let square = values.iter().map(|value| value * value).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.03 && (square - 1.0 / 3.0).abs() < 0.02, "{mean} {square}");
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        assert_ne!(values, Operand { seed: 2, ..operand }.rounded(DType::F32, operand.elements()));
    }
}
