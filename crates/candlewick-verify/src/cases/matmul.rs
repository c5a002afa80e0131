//! C = alpha op(A) op(B) + beta C.

use super::{Draw, Operation, Terms};
use crate::rng::Rng;
use candlewick::op::Batch;
use candlewick::{DType, MatMul, Op, Scalar};

/// Matrix products, batched and packed too.
pub(crate) struct Product;

impl Operation for Product {
    fn fixed(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
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
        let plain = sizes.map(|(m, n, k)| MatMul::new(m, n, k, dtype));
        let square = MatMul::new(129, 130, 257, dtype);
        let views = [square.trans_b(), square.trans_a(), square.trans_a().trans_b()];
        let heads = MatMul::new(33, 65, 64, dtype).batched(24);
        [&plain[..], &plain.map(MatMul::packed_b), &views, &summed(heads)]
            .concat()
            .into_iter()
            .map(Op::MatMul)
            .collect()
    }

    fn gpu_edges(&self, dtype: DType) -> Vec<Op> {
        let sizes = [
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
        let plain = sizes.map(|(m, n, k)| MatMul::new(m, n, k, dtype));
        let (trans_a, trans_b) = (plain.map(MatMul::trans_a), plain.map(MatMul::trans_b));
        let heads = MatMul::new(9, 33, 24, dtype).batched(5);
        let rows = [MatMul::new(1, 40, 64, dtype).trans_b().batched(6)];
        [&plain[..], &trans_a, &trans_b, &summed(heads), &rows].concat().into_iter().map(Op::MatMul).collect()
    }

    fn random(&self, draw: &mut Draw) -> Op {
        let batched = draw.rng.chance(40);
        let [m, n, k] = draw.sizes(if batched { 1 << 14 } else { 1 << 17 });
        let mut op = MatMul::new(m, n, k, draw.dtype);
        op.trans_a = draw.rng.chance(50);
        op.trans_b = draw.rng.chance(50);
        let (a_rows, a_cols) = if op.trans_a { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if op.trans_b { (n, k) } else { (k, n) };
        (op.lda, op.ldb, op.ldc) = (draw.stride(a_cols), draw.stride(b_cols), draw.stride(n));
        let rng = &mut draw.rng;
        let scalars = [1.0, 0.0, -1.0, 0.5, 2.5];
        op = op.scaled(if rng.chance(40) { rng.pick(&scalars) } else { 1.0 }, rng.pick(&scalars));
        if !batched {
            return if rng.chance(40) { op.packed_b() } else { op }.into();
        }
        let mut dims = [1; 3];
        for size in &mut dims[rng.below(3)..] {
            *size = if rng.chance(3) { 0 } else { rng.pick(&[1, 2, 2, 3, 4, 5]) };
        }
        op.batch.dims = dims;
        op.batch.a = batch_strides(rng, dims, a_rows, a_cols, &mut op.lda, 20);
        op.batch.b = batch_strides(rng, dims, b_rows, b_cols, &mut op.ldb, 20);
        op.batch.c = batch_strides(rng, dims, m, n, &mut op.ldc, 15);
        op.into()
    }

    fn dims(&self, op: &Op, operand: &str) -> Vec<(usize, usize)> {
        let op = product(op);
        let (batch, rows, cols, row) = match (operand, op.trans_a, op.trans_b) {
            ("a", false, _) => (op.batch.a, op.m, op.k, op.lda),
            ("a", true, _) => (op.batch.a, op.k, op.m, op.lda),
            ("b", _, false) => (op.batch.b, op.k, op.n, op.ldb),
            ("b", _, true) => (op.batch.b, op.n, op.k, op.ldb),
            _ => (op.batch.c, op.m, op.n, op.ldc),
        };
        op.batch.dims.into_iter().zip(batch).chain([(rows, row), (cols, 1)]).collect()
    }

    fn terms(&self, op: &Op, _inputs: &[Vec<f64>], _outputs: &[Vec<f64>]) -> Terms {
        let op = *product(op);
        let squared = |scalar: Scalar| Scalar(scalar.get() * scalar.get());
        Terms::Squares(MatMul { alpha: squared(op.alpha), beta: squared(op.beta), ..op }.into())
    }
}

fn product(op: &Op) -> &MatMul {
    match op {
        Op::MatMul(op) => op,
        _ => unreachable!("{op} is no matrix product"),
    }
}

/// A batch, its sum, with one B for all, and a sum of none.
fn summed(batch: MatMul) -> [MatMul; 4] {
    let mut sum = batch;
    sum.batch.c[2] = 0;
    let mut shared = batch;
    shared.batch.b[2] = 0;
    let mut none = sum;
    none.batch.dims[2] = 0;
    [batch, sum, shared, none]
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

#[cfg(test)]
mod tests {
    use crate::case::{Case, Hardware, fixed_count};
    use candlewick::op::{Format, OpClass};
    use candlewick::{DType, MatMul, Op};

    #[test]
    fn the_sweep_meets_every_kind_of_layout() {
        for hardware in [Hardware::Cpu, Hardware::Gpu] {
            let ops: Vec<MatMul> = (fixed_count(OpClass::MatMul, hardware)..3000)
                .filter_map(|index| match Case::new(1, OpClass::MatMul, DType::F32, index, hardware).op {
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
            meets(&|op| op.ldc > op.n && op.m > 1 && op.ldc.is_multiple_of(8));
            meets(&|op| op.batch.count() > 1 && op.batch.b == [0; 3]);
            meets(&|op| op.summed_batches() > 1 && op.beta.get() != 0.0);
            meets(&|op| op.batch.dims.iter().all(|&size| size > 1));
            meets(&|op| op.batch.dims[2] > 1 && op.batch.c[2] > 0 && op.batch.c[2] < op.ldc && op.m > 1);
        }
    }
}
