use crate::MatMul;

pub(super) fn forward(op: &MatMul, a: &[f64], b: &[f64], c: &mut [f64]) {
    let (alpha, beta) = (f64::from(op.alpha.get()), f64::from(op.beta.get()));
    if op.m == 0 || op.n == 0 {
        return;
    }
    // First what C held before, once for every element; then the products, which may share a C.
    for batch in 0..op.batch.count() {
        let (_, _, c0) = op.batch.offsets(batch);
        let first = (0..3).all(|i| op.batch.c[i] != 0 || digit(op, batch, i) == 0);
        for i in 0..op.m {
            for j in 0..op.n {
                let at = c0 + i * op.ldc + j;
                if first {
                    c[at] = if beta == 0.0 { 0.0 } else { beta * c[at] };
                }
            }
        }
    }
    if alpha == 0.0 {
        return;
    }
    if alpha == 0.0 {
        return;
    }
    for batch in 0..op.batch.count() {
        let (a0, b0, c0) = op.batch.offsets(batch);
        for i in 0..op.m {
            for j in 0..op.n {
                let mut sum = 0.0;
                for p in 0..op.k {
                    let x = if op.trans_a { a[a0 + p * op.lda + i] } else { a[a0 + i * op.lda + p] };
                    let y = if op.trans_b { b[b0 + j * op.ldb + p] } else { b[b0 + p * op.ldb + j] };
                    sum += x * y;
                }
                c[c0 + i * op.ldc + j] += alpha * sum;
            }
        }
    }
}

/// The index of product `batch` along batch dimension `dim`.
fn digit(op: &MatMul, batch: usize, dim: usize) -> usize {
    let inner: usize = op.batch.dims[dim + 1..].iter().product();
    batch / inner % op.batch.dims[dim]
}
