//! y = x Wᵀ + bias + scale (x Aᵀ) Bᵀ, written or added, the delta alone, and their backwards.

use super::{Draw, Operation, Terms};
use candlewick::{DType, LoraDelta, LoraLinear, Op, Scalar};

/// Rows, in, out, rank.
const SIZES: [(usize, usize, usize, usize); 13] = [
    (32, 512, 256, 8),
    (1, 1024, 700, 16),
    (64, 300, 257, 32),
    (257, 129, 1, 5),
    (65, 1, 129, 3),
    (33, 100, 65, 0),
    (0, 16, 17, 4),
    (7, 0, 9, 2),
    (7, 9, 0, 2),
    (1, 1, 1, 1),
    (5, 65, 64, 129),
    (130, 260, 128, 8),
    (2, 33, 1030, 64),
];

/// The same where the GPU kernels share a row, a column or a sum among more threads.
const GPU_SIZES: [(usize, usize, usize, usize); 15] = [
    (1, 512, 96, 8),
    (1, 264, 130, 16),
    (4, 256, 64, 8),
    (33, 80, 70, 8),
    (9, 64, 520, 33),
    (65, 1, 9, 3),
    (33, 20, 65, 0),
    (0, 16, 17, 4),
    (7, 0, 9, 2),
    (7, 9, 0, 2),
    (1, 1, 1, 1),
    (5, 65, 64, 130),
    (130, 64, 8, 4),
    (1, 300, 70, 17),
    (70, 264, 256, 64),
];

/// The layer, forward or backward, by what a descriptor becomes.
pub(crate) struct Layer(pub(crate) fn(LoraLinear) -> Op);

/// The delta, forward or backward.
pub(crate) struct Delta(pub(crate) fn(LoraDelta) -> Op);

impl Operation for Layer {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let plain = SIZES.map(|(rows, i, o, rank)| LoraLinear::new(rows, i, o, rank, 2.0, dtype));
        let added = plain.map(|op| op.packed().accumulate());
        plain.into_iter().chain(plain.map(LoraLinear::packed)).chain(added).map(self.0).collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let plain = GPU_SIZES.map(|(rows, i, o, rank)| LoraLinear::new(rows, i, o, rank, 2.0, dtype));
        let added = plain.map(|op| op.packed().with_bias().accumulate());
        let plain = plain.into_iter().chain(plain.map(LoraLinear::accumulate));
        plain.chain(added).chain(added.map(|op| LoraLinear { accumulate: false, ..op })).map(self.0).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let LoraDelta { rows, in_features, out_features, rank, scale, accumulate, x_row, y_row, .. } =
            random_delta(draw);
        let mut op = LoraLinear::new(rows, in_features, out_features, rank, scale.get(), draw.dtype);
        (op.x_row, op.y_row, op.accumulate) = (x_row, y_row, accumulate);
        op.bias = draw.rng.chance(40);
        self.0(if draw.rng.chance(50) { op.packed() } else { op })
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = layer(op);
        dims([op.rows, op.in_features, op.out_features, op.rank], op.x_row, op.y_row, operand)
    }

    fn terms(&self, op: &Op, _inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        let op = *layer(op);
        Terms::Squares(self.0(LoraLinear { scale: squared(op.scale), ..op }))
    }
}

impl Operation for Delta {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        SIZES.map(|(rows, i, o, rank)| self.0(LoraDelta::new(rows, i, o, rank, 0.5, dtype))).to_vec()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let plain = GPU_SIZES.map(|(rows, i, o, rank)| LoraDelta::new(rows, i, o, rank, 0.5, dtype));
        plain.into_iter().chain(plain.map(LoraDelta::accumulate)).map(self.0).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        self.0(random_delta(draw))
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = delta(op);
        dims([op.rows, op.in_features, op.out_features, op.rank], op.x_row, op.y_row, operand)
    }

    fn terms(&self, op: &Op, _inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        let op = *delta(op);
        Terms::Squares(self.0(LoraDelta { scale: squared(op.scale), ..op }))
    }
}

fn layer(op: &Op) -> &LoraLinear {
    match op {
        Op::LoraLinear(op) | Op::LoraLinearBackward(op) => op,
        _ => unreachable!("{op} is no LoRA layer"),
    }
}

fn delta(op: &Op) -> &LoraDelta {
    match op {
        Op::LoraDelta(op) | Op::LoraDeltaBackward(op) => op,
        _ => unreachable!("{op} is no LoRA delta"),
    }
}

fn random_delta(draw: &mut Draw) -> LoraDelta {
    let [rows, in_features, out_features] = draw.sizes(1 << 16);
    let rank = draw.rng.pick(&[0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 32, 33, 65]);
    let scale = draw.rng.pick(&[1.0, 2.0, 0.5, -0.25, 0.0]);
    let mut op = LoraDelta::new(rows, in_features, out_features, rank, scale, draw.dtype);
    op.accumulate = draw.rng.chance(40);
    (op.x_row, op.y_row) = (draw.stride(in_features), draw.stride(out_features));
    op
}

fn dims([rows, i, o, rank]: [usize; 4], x_row: usize, y_row: usize, operand: &str) -> Vec<(usize, usize)> {
    match operand {
        "x" | "dx" => vec![(rows, x_row), (i, 1)],
        "y" | "dy" => vec![(rows, y_row), (o, 1)],
        "w" => vec![(o, i), (i, 1)],
        "bias" => vec![(o, 1)],
        "a" | "da" => vec![(rank, i), (i, 1)],
        _ => vec![(o, rank), (rank, 1)],
    }
}

fn squared(scalar: Scalar) -> Scalar {
    Scalar(scalar.get() * scalar.get())
}
