//! Which descriptors are tried: a fixed list of shapes at the edges of every kernel, then random ones.

use crate::rng::Rng;
use candlewick_core::op::{Batch, OpClass};
use candlewick_core::{DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};

/// What the inputs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Numbers of magnitude one; outputs hold NaN before, wherever the operation may not read them.
    Ordinary,
    /// NaN, both infinities and zeros among them.
    NonFinite,
    /// One input holds very large numbers.
    Huge,
    /// Whole rows of zeros, and for softmax of -inf.
    Degenerate,
}

/// A descriptor, and what its operands hold.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The operation.
    pub op: Op,
    /// What the operands hold.
    pub values: Values,
    /// What they are made from.
    pub seed: u64,
}

/// Sizes at and beside the edges of vectors, teams, shares and tiles.
const SIZES: [usize; 24] = [1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 127, 129];

/// The fixed cases of a class, then random ones, `count` in all. A function of its arguments.
pub fn cases(class: OpClass, dtype: DType, seed: u64, count: usize) -> Vec<Case> {
    let fixed = fixed(class, dtype);
    (0..count)
        .map(|index| {
            let mut rng = Rng::new(&[seed, class as u64, dtype as u64, index as u64]);
            let case_seed = seed.wrapping_mul(1 << 20) + index as u64;
            if let Some(&op) = fixed.get(index) {
                return Case { op, values: Values::Ordinary, seed: case_seed };
            }
            let values = match rng.below(10) {
                0 => Values::Huge,
                1 => Values::Degenerate,
                2 | 3 => Values::NonFinite,
                _ => Values::Ordinary,
            };
            Case { op: random(class, dtype, &mut rng), values, seed: case_seed }
        })
        .collect()
}

/// How many fixed cases a class has.
pub fn fixed_count(class: OpClass) -> usize {
    fixed(class, DType::F32).len()
}

fn fixed(class: OpClass, dtype: DType) -> Vec<Op> {
    let rows = [
        (5, 64),
        (9, 256),
        (3, 257),
        (2, 1024),
        (1, 4096),
        (1, 8192),
        (1, 8193),
        (1, 17000),
        (70, 1),
        (33, 17),
        (1, 1),
        (0, 9),
        (9, 0),
        (40, 48),
        (1, 20480),
    ];
    let products = [
        (64, 64, 64),
        (65, 70, 33),
        (1, 300, 520),
        (300, 1, 520),
        (3, 130, 264),
        (8, 40, 1024),
        (16, 65, 96),
        (5, 7, 1040),
        (17, 19, 2),
        (1, 1, 600),
        (0, 5, 7),
        (5, 0, 7),
        (5, 7, 0),
        (1, 1, 1),
        (40, 40, 700),
    ];
    let layers = [
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
    let norms =
        || rows.iter().map(|&(r, c)| RmsNorm::new(r, c, 1e-5, dtype)).chain([RmsNorm::new(300, 40, 1e-5, dtype)]);
    let softmaxes = || {
        let plain = rows.iter().map(|&(r, c)| Softmax::new(r, c, dtype));
        let masked = [(64, 64, 64), (58, 300, 29), (4, 8200, 2), (6, 520, 3), (2, 17000, 2)];
        plain.chain(masked.map(|(r, c, queries)| Softmax::new(r, c, dtype).causal(queries)))
    };
    let linears = || {
        let plain = layers.iter().map(|&(r, i, o, rank)| LoraLinear::new(r, i, o, rank, 2.0, dtype));
        plain.clone().chain(plain.map(|op| op.packed().with_bias()))
    };
    let deltas = || {
        let plain = layers.iter().map(|&(r, i, o, rank)| LoraDelta::new(r, i, o, rank, 0.5, dtype));
        plain.clone().chain(plain.map(LoraDelta::accumulate))
    };
    match class {
        OpClass::Softmax => softmaxes().map(Op::Softmax).collect(),
        OpClass::SoftmaxBackward => softmaxes().map(Op::SoftmaxBackward).collect(),
        OpClass::RmsNorm => norms().map(Op::RmsNorm).collect(),
        OpClass::RmsNormBackward => norms().map(Op::RmsNormBackward).collect(),
        OpClass::LoraLinear => linears().map(Op::LoraLinear).collect(),
        OpClass::LoraLinearBackward => linears().map(Op::LoraLinearBackward).collect(),
        OpClass::LoraDelta => deltas().map(Op::LoraDelta).collect(),
        OpClass::LoraDeltaBackward => deltas().map(Op::LoraDeltaBackward).collect(),
        _ => {
            let plain = products.iter().map(|&(m, n, k)| MatMul::new(m, n, k, dtype));
            let transposed =
                [plain.clone().map(MatMul::trans_a).collect::<Vec<_>>(), plain.clone().map(MatMul::trans_b).collect()];
            plain.chain(transposed.concat()).chain(batches(dtype)).map(Op::MatMul).collect()
        }
    }
}

/// Batches with an own C each, with a sum, with one B for all, and a sum of none.
fn batches(dtype: DType) -> [MatMul; 5] {
    let heads = MatMul::new(9, 33, 24, dtype).batched(5);
    let mut sum = heads;
    sum.batch.c[2] = 0;
    let mut shared = heads;
    shared.batch.b[2] = 0;
    let mut none = sum;
    none.batch.dims[2] = 0;
    [heads, sum, shared, none, MatMul::new(1, 40, 64, dtype).trans_b().batched(6)]
}

fn random(class: OpClass, dtype: DType, rng: &mut Rng) -> Op {
    match class {
        OpClass::Softmax => Op::Softmax(softmax(dtype, rng)),
        OpClass::SoftmaxBackward => Op::SoftmaxBackward(softmax(dtype, rng)),
        OpClass::RmsNorm => Op::RmsNorm(rms_norm(dtype, rng)),
        OpClass::RmsNormBackward => Op::RmsNormBackward(rms_norm(dtype, rng)),
        OpClass::LoraLinear => Op::LoraLinear(lora_linear(dtype, rng)),
        OpClass::LoraLinearBackward => Op::LoraLinearBackward(lora_linear(dtype, rng)),
        OpClass::LoraDelta => Op::LoraDelta(lora_delta(dtype, rng)),
        OpClass::LoraDeltaBackward => Op::LoraDeltaBackward(lora_delta(dtype, rng)),
        _ => Op::MatMul(matmul(dtype, rng)),
    }
}

/// Sizes whose product stays below a budget: an emulated GPU is slow.
fn sizes<const N: usize>(rng: &mut Rng, budget: usize) -> [usize; N] {
    let mut sizes = [(); N].map(|()| if rng.chance(3) { 0 } else { rng.pick(&SIZES) });
    if rng.chance(15) {
        let long = rng.below(N);
        sizes[long] = 200 + rng.below(900);
    }
    while sizes.iter().product::<usize>() > budget {
        let largest = (0..N).max_by_key(|&i| sizes[i]).unwrap_or(0);
        sizes[largest] = sizes[largest] / 2 + 1;
    }
    sizes
}

/// A row stride: often the row itself, else more, sometimes a multiple of 16 bytes.
fn stride(rng: &mut Rng, cols: usize) -> usize {
    match rng.below(4) {
        0 | 1 => cols,
        2 => cols.next_multiple_of(8) + rng.pick(&[0, 8, 16]),
        _ => cols + rng.pick(&[1, 2, 3, 7]),
    }
}

fn softmax(dtype: DType, rng: &mut Rng) -> Softmax {
    let scale = rng.pick(&[1.0, 1.0, 0.125, -1.0, 8.0, 0.0]);
    let [mut rows, mut cols] = sizes(rng, 1 << 13);
    let causal = rng.chance(40);
    let queries = 1 + rng.below(20);
    if causal {
        rows = queries * rng.below(4);
        cols = queries + rng.pick(&[0, 0, 1, 7, 33, 300]);
    }
    let mut op = Softmax::new(rows, cols, dtype).scaled(scale);
    if causal {
        op = op.causal(queries);
    }
    (op.x_row, op.y_row) = (stride(rng, cols), stride(rng, cols));
    op
}

fn rms_norm(dtype: DType, rng: &mut Rng) -> RmsNorm {
    let [rows, cols] = sizes(rng, 1 << 13);
    let mut op = RmsNorm::new(rows, cols, rng.pick(&[1e-5, 1e-6, 1.0, 0.0]), dtype);
    (op.x_row, op.y_row) = (stride(rng, cols), stride(rng, cols));
    op
}

fn lora_delta(dtype: DType, rng: &mut Rng) -> LoraDelta {
    let [rows, in_features, out_features] = sizes(rng, 1 << 14);
    let rank = rng.pick(&[0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 32, 33]);
    let scale = rng.pick(&[1.0, 2.0, 0.5, -0.25, 0.0]);
    let mut op = LoraDelta::new(rows, in_features, out_features, rank, scale, dtype);
    op.accumulate = rng.chance(40);
    (op.x_row, op.y_row) = (stride(rng, in_features), stride(rng, out_features));
    op
}

fn lora_linear(dtype: DType, rng: &mut Rng) -> LoraLinear {
    let delta = lora_delta(dtype, rng);
    let LoraDelta { rows, in_features, out_features, rank, scale, .. } = delta;
    let mut op = LoraLinear::new(rows, in_features, out_features, rank, scale.get(), dtype);
    (op.x_row, op.y_row) = (delta.x_row, delta.y_row);
    op.bias = rng.chance(40);
    if rng.chance(50) { op.packed() } else { op }
}

fn matmul(dtype: DType, rng: &mut Rng) -> MatMul {
    let batched = rng.chance(40);
    let [m, n, k] = sizes(rng, if batched { 1 << 11 } else { 1 << 14 });
    let mut op = MatMul::new(m, n, k, dtype);
    op.trans_a = rng.chance(50);
    op.trans_b = rng.chance(50);
    let (a_rows, a_cols) = if op.trans_a { (k, m) } else { (m, k) };
    let (b_rows, b_cols) = if op.trans_b { (n, k) } else { (k, n) };
    (op.lda, op.ldb, op.ldc) = (stride(rng, a_cols), stride(rng, b_cols), stride(rng, n));
    let scalars = [1.0, 0.0, -1.0, 0.5, 2.5];
    op = op.scaled(if rng.chance(40) { rng.pick(&scalars) } else { 1.0 }, rng.pick(&scalars));
    if !batched {
        return if rng.chance(40) { op.packed_b() } else { op };
    }
    let mut dims = [1; 3];
    for size in &mut dims[rng.below(3)..] {
        *size = if rng.chance(3) { 0 } else { rng.pick(&[1, 2, 2, 3, 4]) };
    }
    op.batch.dims = dims;
    op.batch.a = batch_strides(rng, dims, a_rows, a_cols, &mut op.lda, 20);
    op.batch.b = batch_strides(rng, dims, b_rows, b_cols, &mut op.ldb, 20);
    op.batch.c = batch_strides(rng, dims, m, n, &mut op.ldc, 15);
    op
}

/// Strides of one operand over the batches: in any order, apart, with zeros; or side by side within the rows, as the
/// heads of attention lie.
fn batch_strides(
    rng: &mut Rng,
    dims: [usize; 3],
    rows: usize,
    cols: usize,
    row: &mut usize,
    zeros: usize,
) -> [usize; 3] {
    let mut order = [0, 1, 2];
    order.swap(2, rng.below(3));
    order.swap(1, rng.below(2));
    let within = rng.chance(25);
    let mut strides = Batch::ONE.a;
    let mut next = if within { cols.max(1) } else { (rows.max(1) - 1) * *row + cols + rng.below(4) };
    for i in order {
        if !rng.chance(zeros) {
            strides[i] = next;
            next *= dims[i].max(1);
        }
    }
    if within {
        *row = next + rng.below(3);
    }
    strides
}
