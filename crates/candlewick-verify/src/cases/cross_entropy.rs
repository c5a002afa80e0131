//! Cross-entropy over chunks of a vocabulary: what each row's numbers are, the loss, and the gradient of a chunk.

use super::rows::{GPU_ROWS, ROWS};
use super::{Draw, Operation, Terms, finite_largest, uniform};
use crate::case::Values;
use crate::rng::Rng;
use crate::trial::run_reference;
use candlewick::op::{CrossEntropyGrad, CrossEntropyLoss, CrossEntropyStats, Operand};
use candlewick::{DType, Op};

/// The largest logit, the sum of exponentials and the label's logit of each row.
pub(crate) struct Stats;

/// The mean loss.
pub(crate) struct Loss;

/// The gradient of a chunk.
pub(crate) struct Grad;

/// Labels below `vocab`, of which some columns matter to a chunk, and labels that do not count.
fn labels(vocab: usize, count: usize, rng: &mut Rng) -> Vec<f64> {
    let ignored = rng.pick(&[0, 20, 20, 100]);
    let label = |rng: &mut Rng| match vocab {
        0 => u32::MAX.into(),
        _ if rng.chance(ignored) => rng.pick(&[vocab as u32, (vocab as u32).saturating_add(1), u32::MAX]).into(),
        vocab => rng.below(vocab) as f64,
    };
    (0..count).map(|_| label(rng)).collect()
}

fn logits(count: usize, rng: &mut Rng) -> Vec<f64> {
    let (width, centre) = (rng.pick(&[1.0, 10.0]), rng.pick(&[0.0, 0.0, 50.0]));
    uniform(centre, width, count, rng)
}

/// What earlier chunks left: mostly numbers, sometimes the start, or chunks of -inf.
fn stats(count: usize, rng: &mut Rng) -> Vec<f64> {
    let row = |rng: &mut Rng| match rng.below(10) {
        0 => [f64::NEG_INFINITY, 0.0, 0.0],
        1 => [f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY],
        _ => [10.0 * rng.unit(), 20.0 + 19.0 * rng.unit(), 10.0 * rng.unit()],
    };
    (0..count / 3).flat_map(|_| row(rng)).collect()
}

impl Operation for Stats {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let whole = ROWS.map(|(rows, cols)| CrossEntropyStats::new(rows, cols, dtype));
        let later = [(64, 1000), (3, 16_385), (9, 0), (5, 1)];
        let later = later.map(|(rows, cols)| CrossEntropyStats::new(rows, cols, dtype).at(500));
        whole.into_iter().chain(later).map(Op::CrossEntropyStats).collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let op = |(rows, cols)| CrossEntropyStats::new(rows, cols, dtype);
        GPU_ROWS.map(op).into_iter().chain(GPU_ROWS.map(|sizes| op(sizes).at(33))).map(Op::CrossEntropyStats).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, cols] = draw.sizes(1 << 16);
        let mut op = CrossEntropyStats::new(rows, cols, draw.dtype);
        op.logits_row = draw.stride(cols);
        if draw.rng.chance(60) {
            let first = draw.rng.pick(&[0, 1, cols, 50, 32_000]);
            op = op.at(first);
        }
        op.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::CrossEntropyStats(op) = op else { unreachable!("{op} makes no stats") };
        dims(op.rows, op.cols, op.logits_row, operand)
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        let Op::CrossEntropyStats(op) = op else { unreachable!("{op} makes no stats") };
        match operand.name {
            "labels" => labels(op.first + op.cols + op.cols / 2, count, rng),
            "stats" => stats(count, rng),
            _ => logits(count, rng),
        }
    }

    fn takes(&self, _op: &Op, operand: &Operand, _values: Values) -> bool {
        operand.name == "logits"
    }

    fn degenerate(&self, _op: &Op) -> f64 {
        f64::NEG_INFINITY
    }

    fn columns(&self, _op: &Op, _output: &str) -> usize {
        3
    }
}

impl Operation for Loss {
    fn dtypes(&self) -> &'static [DType] {
        &[DType::F32]
    }

    fn fixed(&self, _dtype: DType) -> Vec<Op> {
        let sizes =
            [(0, 7), (1, 1), (7, 0), (64, 1000), (257, 32_000), (4096, 151_936), (70_001, 10), (5, u32::MAX as usize)];
        sizes.map(|(rows, vocab)| CrossEntropyLoss::new(rows, vocab).into()).to_vec()
    }

    fn gpu_edges(&self, _dtype: DType) -> Vec<Op> {
        let sizes = [(31, 9), (32, 9), (33, 9), (256, 9), (1025, 9)];
        sizes.map(|(rows, vocab)| CrossEntropyLoss::new(rows, vocab).into()).to_vec()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, vocab] = draw.sizes(1 << 20);
        CrossEntropyLoss::new(rows, vocab).into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let Op::CrossEntropyLoss(op) = op else { unreachable!("{op} is no loss") };
        dims(op.rows, 0, 0, operand)
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        let Op::CrossEntropyLoss(op) = op else { unreachable!("{op} is no loss") };
        if operand.name == "labels" {
            return labels(op.vocab, count, rng);
        }
        let row = |rng: &mut Rng| [10.0 * rng.unit(), 20.0 + 19.0 * rng.unit(), 10.0 * rng.unit()];
        (0..count / 3).flat_map(|_| row(rng)).collect()
    }

    /// A sum is neither huge nor negative.
    fn takes(&self, _op: &Op, operand: &Operand, values: Values) -> bool {
        operand.name == "stats" && values == Values::NonFinite
    }

    fn derive(&self, _op: &Op, inputs: &mut [Vec<f64>]) {
        inputs[0].iter_mut().skip(1).step_by(3).for_each(|sum| *sum = sum.abs());
    }

    fn columns(&self, _op: &Op, _output: &str) -> usize {
        2
    }

    fn terms(&self, _op: &Op, inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        let rows = inputs[0].chunks_exact(3);
        let terms: Vec<f64> = rows.flat_map(|row| [row[0], row[1].ln(), row[2]]).collect();
        Terms::Magnitudes(vec![finite_largest(&terms)])
    }
}

impl Operation for Grad {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let whole = ROWS.map(|(rows, vocab)| CrossEntropyGrad::new(rows, vocab, dtype));
        let chunk = CrossEntropyGrad { first: 500, vocab: 3000, ..CrossEntropyGrad::new(33, 1000, dtype) };
        whole.into_iter().chain([chunk]).map(Op::CrossEntropyGrad).collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let op =
            |(rows, cols)| CrossEntropyGrad { first: 7, vocab: cols + 9, ..CrossEntropyGrad::new(rows, cols, dtype) };
        GPU_ROWS.map(op).map(Op::CrossEntropyGrad).to_vec()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let [rows, cols] = draw.sizes(1 << 16);
        let mut op = CrossEntropyGrad::new(rows, cols, draw.dtype);
        op.logits_row = draw.stride(cols);
        op.first = draw.rng.pick(&[0, 0, 1, 50, 32_000]);
        op.vocab = op.first + cols + draw.rng.pick(&[0, 1, 77]);
        op.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = grad(op);
        dims(op.rows, op.cols, op.logits_row, operand)
    }

    fn ordinary(&self, op: &Op, operand: &Operand, count: usize, rng: &mut Rng) -> Vec<f64> {
        match operand.name {
            "labels" => labels(grad(op).vocab, count, rng),
            // What the other chunks left.
            "stats" => stats(count, rng),
            "dloss" => vec![rng.pick(&[1.0, 1.0, -0.5, 1024.0])],
            _ => logits(count, rng),
        }
    }

    fn takes(&self, _op: &Op, operand: &Operand, _values: Values) -> bool {
        operand.name == "logits"
    }

    fn degenerate(&self, _op: &Op) -> f64 {
        f64::NEG_INFINITY
    }

    /// The forward pass: stats of this chunk after the others, and the loss of those.
    fn derive(&self, op: &Op, inputs: &mut [Vec<f64>]) {
        let CrossEntropyGrad { rows, cols, first, vocab, logits_row, dtype } = *grad(op);
        let forward = CrossEntropyStats { rows, cols, first, logits_row, begin: first == 0 && cols == vocab, dtype };
        let run = |op: Op, inputs: &[Vec<f64>], outputs| run_reference(&op, inputs, outputs).expect("it is legal");
        inputs[2] = run(forward.into(), &inputs[..2], vec![inputs[2].clone()]).remove(0);
        inputs[2].iter_mut().for_each(|x| *x = f64::from(*x as f32));
        let [labels, stats] = [inputs[1].clone(), inputs[2].clone()];
        inputs[3] = run(CrossEntropyLoss::new(rows, vocab).into(), &[stats, labels], vec![vec![0.0; 2]]).remove(0);
    }

    fn terms(&self, _op: &Op, inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        // p - onehot: both are at most 1.
        Terms::Magnitudes(vec![(inputs[4][0] / inputs[3][1].max(1.0)).abs()])
    }
}

fn grad(op: &Op) -> &CrossEntropyGrad {
    match op {
        Op::CrossEntropyGrad(op) => op,
        _ => unreachable!("{op} is no gradient of a loss"),
    }
}

fn dims(rows: usize, cols: usize, logits_row: usize, operand: &str) -> Vec<(usize, usize)> {
    match operand {
        "labels" => vec![(rows, 1)],
        "stats" => vec![(rows, 3), (3, 1)],
        "loss" => vec![(2, 1)],
        "dloss" => vec![(1, 1)],
        _ => vec![(rows, logits_row), (cols, 1)],
    }
}
