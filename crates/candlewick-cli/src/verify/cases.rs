//! Which descriptors are tried: a fixed list of nasty ones per operation, then a random sweep that never ends.

use super::rng::Rng;
use candlewick::op::{Batch, OpClass};
use candlewick::{DType, LoraDelta, LoraLinear, MatMul, Op, RmsNorm, Softmax};
use std::fmt;

/// Sizes at and beside the edges of vectors, tiles and panels.
const SIZES: [usize; 26] =
    [0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 127, 129];

const LARGE: [usize; 8] = [63, 64, 65, 100, 127, 129, 200, 257];

/// What the inputs hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Numbers of magnitude one; outputs hold NaN before, wherever the operation may not read them.
    Ordinary,
    /// NaN, both infinities and zeros among them.
    NonFinite,
    /// One input holds very large numbers.
    Huge,
    /// One input holds numbers below the smallest normal one.
    Subnormal,
    /// Whole rows of zeros, and for softmax of -inf.
    Degenerate,
}

/// Where the tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Slices of larger slices, at odd offsets.
    Slices,
    /// Parts of larger buffers, at odd offsets.
    Buffers,
}

/// One trial: a descriptor and what its tensors hold. A function of seed, operation, dtype and index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) index: usize,
    pub(super) op: Op,
    pub(super) values: Values,
    pub(super) storage: Storage,
}

impl Case {
    pub(super) fn new(seed: u64, class: OpClass, dtype: DType, index: usize) -> Self {
        let mut rng = Rng::new(&[seed, class as u64, dtype as u64, index as u64]);
        let storage = rng.pick(&[Storage::Slices, Storage::Buffers]);
        let fixed = fixed(class, dtype);
        if let Some(&op) = fixed.get(index) {
            return Case { seed, index, op, values: Values::Ordinary, storage };
        }
        let values = match rng.below(10) {
            0 => Values::Huge,
            1 => Values::Subnormal,
            2 => Values::Degenerate,
            3 | 4 => Values::NonFinite,
            _ => Values::Ordinary,
        };
        let op = random(class, dtype, values, &mut rng);
        Case { seed, index, op, values, storage }
    }

    /// A sequence for what the tensors hold.
    pub(super) fn rng(&self) -> Rng {
        Rng::new(&[self.seed, self.op.class() as u64, self.op.dtype() as u64, self.index as u64, 1])
    }

    /// The command line that runs this case alone, on every engine.
    pub(super) fn rerun(&self) -> String {
        let (op, dtype) = (self.op.name(), self.op.dtype());
        format!("candlewick verify --ops {op} --dtype {dtype} --seed {} --case {}", self.seed, self.index)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op.shape())?;
        match self.values {
            Values::Ordinary => {}
            Values::NonFinite => f.write_str(" nan/inf")?,
            Values::Huge => f.write_str(" huge")?,
            Values::Subnormal => f.write_str(" subnormal")?,
            Values::Degenerate => f.write_str(" degenerate")?,
        }
        write!(f, " #{}", self.index)
    }
}

/// How many cases of the fixed list there are.
pub(super) fn fixed_count(class: OpClass) -> usize {
    fixed(class, DType::F32).len()
}

/// Shapes that a sweep seldom meets: large enough for every thread and for several blocks, long and thin, empty.
fn fixed(class: OpClass, dtype: DType) -> Vec<Op> {
    let products = [
        (128, 256, 200),
        (129, 257, 130),
        (48, 100, 2100),
        (1, 1025, 700),
        (700, 1, 1025),
        (1, 1, 5000),
        (65, 1100, 8),
        (8, 8, 4097),
        (1025, 8, 64),
        (0, 5, 7),
        (5, 0, 7),
        (5, 7, 0),
        (1, 1, 1),
        (64, 64, 64),
        (13, 1030, 129),
    ];
    let rows =
        [(128, 4096), (257, 1023), (1, 70_001), (70_001, 1), (3, 16_385), (1000, 17), (0, 9), (9, 0), (1, 1), (64, 64)];
    let layers = [
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
    let norms = || rows.iter().map(|&(r, c)| RmsNorm::new(r, c, 1e-5, dtype));
    let softmaxes = || {
        let plain = rows.iter().map(|&(r, c)| Softmax::new(r, c, dtype));
        plain.chain([Softmax::new(192, 64, dtype).causal(64), Softmax::new(258, 300, dtype).causal(129)])
    };
    let linears = || {
        let plain = layers.iter().map(|&(r, i, o, rank)| LoraLinear::new(r, i, o, rank, 2.0, dtype));
        plain.clone().chain(plain.map(LoraLinear::packed))
    };
    let deltas = || layers.iter().map(|&(r, i, o, rank)| LoraDelta::new(r, i, o, rank, 0.5, dtype));
    match class {
        OpClass::MatMul => {
            let plain = products.iter().map(|&(m, n, k)| MatMul::new(m, n, k, dtype));
            let views = [(false, true), (true, false), (true, true)].map(|(a, b)| {
                let op = MatMul::new(129, 130, 257, dtype);
                let op = if a { op.trans_a() } else { op };
                if b { op.trans_b() } else { op }
            });
            let packed = plain.clone().map(MatMul::packed_b);
            plain.chain(packed).chain(views).chain(summed(dtype)).map(Op::MatMul).collect()
        }
        OpClass::Softmax => softmaxes().map(Op::Softmax).collect(),
        OpClass::SoftmaxBackward => softmaxes().map(Op::SoftmaxBackward).collect(),
        OpClass::RmsNorm => norms().map(Op::RmsNorm).collect(),
        OpClass::RmsNormBackward => norms().map(Op::RmsNormBackward).collect(),
        OpClass::LoraLinear => linears().map(Op::LoraLinear).collect(),
        OpClass::LoraLinearBackward => linears().map(Op::LoraLinearBackward).collect(),
        OpClass::LoraDelta => deltas().map(Op::LoraDelta).collect(),
        OpClass::LoraDeltaBackward => deltas().map(Op::LoraDeltaBackward).collect(),
        // A class that this list does not know is a class that nothing here verifies: `every_class_has_cases` fails.
        _ => Vec::new(),
    }
}

/// Batches large enough for every thread, with a sum, with one B for all, and a sum of none.
fn summed(dtype: DType) -> [MatMul; 4] {
    let heads = MatMul::new(33, 65, 64, dtype).batched(24);
    let mut sum = heads;
    sum.batch.c[2] = 0;
    let mut shared = heads;
    shared.batch.b[2] = 0;
    let mut none = sum;
    none.batch.dims[2] = 0;
    [heads, sum, shared, none]
}

fn random(class: OpClass, dtype: DType, values: Values, rng: &mut Rng) -> Op {
    match class {
        OpClass::Softmax => Op::Softmax(softmax(dtype, rng)),
        OpClass::SoftmaxBackward => Op::SoftmaxBackward(softmax(dtype, rng)),
        OpClass::RmsNorm => Op::RmsNorm(rms_norm(dtype, values, rng)),
        OpClass::RmsNormBackward => Op::RmsNormBackward(rms_norm(dtype, values, rng)),
        OpClass::LoraLinear => Op::LoraLinear(lora_linear(dtype, rng)),
        OpClass::LoraLinearBackward => Op::LoraLinearBackward(lora_linear(dtype, rng)),
        OpClass::LoraDelta => Op::LoraDelta(lora_delta(dtype, rng)),
        OpClass::LoraDeltaBackward => Op::LoraDeltaBackward(lora_delta(dtype, rng)),
        _ => Op::MatMul(matmul(dtype, rng)),
    }
}

/// Sizes whose product stays below a budget: the f64 reference is a plain loop. Some cases are large enough for every
/// thread.
fn sizes<const N: usize>(rng: &mut Rng, budget: usize) -> [usize; N] {
    let large = rng.chance(4);
    let budget = if large { 16 * budget } else { budget };
    let mut sizes = [(); N].map(|()| rng.pick(if large { &LARGE } else { &SIZES }));
    if rng.chance(10) {
        let long = rng.below(N);
        sizes[long] = 200 + rng.below(900);
    }
    while sizes.iter().product::<usize>() > budget {
        let largest = (0..N).max_by_key(|&i| sizes[i]).unwrap_or(0);
        sizes[largest] = sizes[largest] / 2 + 1;
    }
    sizes
}

/// A row stride: often the row itself, else more.
fn stride(rng: &mut Rng, cols: usize) -> usize {
    if rng.chance(50) { cols } else { cols + rng.pick(&[1, 2, 3, 7, 8, 16, 31]) }
}

fn matmul(dtype: DType, rng: &mut Rng) -> MatMul {
    let batched = rng.chance(40);
    let [m, n, k] = sizes(rng, if batched { 1 << 14 } else { 1 << 17 });
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
        *size = if rng.chance(3) { 0 } else { rng.pick(&[1, 2, 2, 3, 4, 5]) };
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
    let mut strides = [0; 3];
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
    // A dimension of one has no second element: its stride means nothing, whatever it is.
    for i in (0..3).filter(|&i| dims[i] == 1 && rng.chance(50)) {
        strides[i] = Batch::ONE.a[i];
    }
    strides
}

fn softmax(dtype: DType, rng: &mut Rng) -> Softmax {
    let scale = rng.pick(&[1.0, 1.0, 0.125, -1.0, 8.0, 0.0]);
    let [mut rows, mut cols] = sizes(rng, 1 << 16);
    let causal = rng.chance(40);
    let queries = 1 + rng.below(40);
    if causal {
        rows = queries * rng.below(5);
        cols = queries + rng.pick(&[0, 0, 1, 7, 33]);
    }
    let mut op = Softmax::new(rows, cols, dtype).scaled(scale);
    if causal {
        op = op.causal(queries);
    }
    (op.x_row, op.y_row) = (stride(rng, cols), stride(rng, cols));
    op
}

fn rms_norm(dtype: DType, values: Values, rng: &mut Rng) -> RmsNorm {
    let [rows, cols] = sizes(rng, 1 << 16);
    // Squares of very small numbers vanish in f32, where only eps keeps the mean from zero.
    let eps = if values == Values::Subnormal { 1e-5 } else { rng.pick(&[1e-5, 1e-6, 1.0, 0.0]) };
    let mut op = RmsNorm::new(rows, cols, eps, dtype);
    (op.x_row, op.y_row) = (stride(rng, cols), stride(rng, cols));
    op
}

fn lora_delta(dtype: DType, rng: &mut Rng) -> LoraDelta {
    let [rows, in_features, out_features] = sizes(rng, 1 << 16);
    let rank = rng.pick(&[0, 1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 32, 33, 65]);
    let scale = rng.pick(&[1.0, 2.0, 0.5, -0.25, 0.0]);
    let mut op = LoraDelta::new(rows, in_features, out_features, rank, scale, dtype);
    op.accumulate = rng.chance(40);
    (op.x_row, op.y_row) = (stride(rng, in_features), stride(rng, out_features));
    op
}

fn lora_linear(dtype: DType, rng: &mut Rng) -> LoraLinear {
    let delta = lora_delta(dtype, rng);
    let mut op =
        LoraLinear::new(delta.rows, delta.in_features, delta.out_features, delta.rank, delta.scale.get(), dtype);
    (op.x_row, op.y_row) = (delta.x_row, delta.y_row);
    op.bias = rng.chance(40);
    if rng.chance(50) { op.packed() } else { op }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick::op::Format;

    #[test]
    fn every_class_has_cases_and_every_descriptor_is_legal() {
        for class in OpClass::ALL {
            assert!(fixed_count(class) > 5, "{class} has no fixed cases");
            for index in 0..400 {
                let case = Case::new(7, class, DType::BF16, index);
                assert_eq!(case.op.class(), class);
                assert_eq!(case.op.dtype(), DType::BF16);
                if let Err(error) = case.op.operands() {
                    panic!("{}: {error}", case.rerun());
                }
            }
        }
    }

    #[test]
    fn the_sweep_meets_every_kind_of_layout() {
        let ops: Vec<MatMul> = (fixed_count(OpClass::MatMul)..3000)
            .filter_map(|index| match Case::new(1, OpClass::MatMul, DType::F32, index).op {
                Op::MatMul(op) => Some(op),
                _ => None,
            })
            .collect();
        let meets = |kind: &dyn Fn(&MatMul) -> bool| {
            let count = ops.iter().filter(|op| kind(op)).count();
            assert!(count >= 10, "{count} such cases");
        };
        for transposes in [(false, false), (false, true), (true, false), (true, true)] {
            meets(&|op| (op.trans_a, op.trans_b) == transposes);
        }
        meets(&|op| op.k == 0);
        meets(&|op| op.b_format == Format::Packed && op.ldb > op.n.max(op.k));
        meets(&|op| op.ldc > op.n && op.m > 1);
        meets(&|op| op.batch.count() > 1 && op.batch.b == [0; 3]);
        meets(&|op| op.summed_batches() > 1 && op.beta.get() != 0.0);
        meets(&|op| op.batch.dims.iter().all(|&size| size > 1));
        meets(&|op| op.batch.dims[2] > 1 && op.batch.c[2] > 0 && op.batch.c[2] < op.ldc && op.m > 1);
    }
}
