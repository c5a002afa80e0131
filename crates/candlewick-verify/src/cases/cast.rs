//! y = x in another float format.

use super::{Draw, Operation, uniform};
use crate::rng::Rng;
use candlewick::op::{Cast, Operand};
use candlewick::{DType, Op};

/// Roundings to nearest even.
pub(crate) struct Rounding;

fn casts(sizes: &[usize], to: DType) -> Vec<Op> {
    sizes.iter().flat_map(|&elements| DType::ALL.map(|from| Cast::new(elements, from, to).into())).collect()
}

impl Operation for Rounding {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        casts(&[0, 1, 15, 33, 4099, 140_003], dtype)
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        casts(&[7, 8, 9, 255, 257, 1025], dtype)
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [a, b] = draw.sizes(1 << 16);
        let from = draw.rng.pick(&DType::ALL);
        Cast::new(a * b + draw.rng.below(5), from, draw.dtype).into()
    }

    fn dims(&self, op: &Op, _operand: &str) -> Vec<(usize, usize)> {
        let Op::Cast(op) = op else { unreachable!("{op} is no cast") };
        vec![(op.elements, 1)]
    }

    /// Of every magnitude, or ties between two neighbours of f16 and of bf16, or beside f16's largest.
    fn ordinary(&self, _op: &Op, _operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        let tie = |rng: &mut Rng, bits: i32| {
            let odd = (2 * (rng.below(1 << bits) + (1 << bits)) + 1) as f64;
            odd * 2f64.powi(rng.below(12) as i32 - 6 - bits)
        };
        match rng.below(4) {
            0 => uniform(0.0, 1.0, count, rng),
            1 => (0..count).map(|_| rng.unit() * 2f64.powi(rng.below(60) as i32 - 40)).collect(),
            2 => (0..count).map(|_| if rng.chance(50) { tie(rng, 10) } else { tie(rng, 7) }).collect(),
            _ => (0..count).map(|_| rng.pick(&[65504.0, 65519.0, 65520.0, -65520.0, 65536.0, 6e-8, 2.9e-8])).collect(),
        }
    }

    fn exact(&self) -> bool {
        true
    }
}
