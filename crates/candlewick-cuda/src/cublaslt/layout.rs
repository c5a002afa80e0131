//! How the matrices of a product lie, in the library's words.
//!
//! It counts columns first. Row-major C = op(A) op(B) is, read that way, Cᵀ = op(B)ᵀ op(A)ᵀ: the operands change places, and
//! each keeps its flag.

use candlewick_core::MatMul;
use candlewick_core::op::Format;

/// The batch as one dimension: how many, and from one product to the next in A, B and C. A stride of zero broadcasts A or
/// B; the library sums no C.
fn batch(op: &MatMul) -> Option<(usize, [usize; 3])> {
    let used: Vec<usize> = (0..3).filter(|&i| op.batch.dims[i] != 1).collect();
    let (Some(&last), batch) = (used.last(), op.batch) else { return Some((1, [0; 3])) };
    let mut count = 1;
    for &i in used.iter().rev() {
        if [batch.a, batch.b, batch.c].iter().any(|strides| strides[i] != count * strides[last]) {
            return None;
        }
        count *= batch.dims[i];
    }
    (batch.c[last] != 0).then_some((count, [batch.a[last], batch.b[last], batch.c[last]]))
}

/// Whether the library runs a product. With alpha = 0 an infinite A would show.
pub(crate) fn runs_matmul(op: &MatMul) -> bool {
    let sizes = [op.m, op.n, op.k, op.batch.count(), op.lda, op.ldb, op.ldc];
    sizes.iter().all(|&size| (1..1 << 31).contains(&size)) && op.alpha.get() != 0.0 && batch(op).is_some()
}

/// A matrix as the library sees it: columns are its stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) rows: u64,
    pub(super) cols: u64,
    /// Elements from one column to the next.
    pub(super) column: i64,
    pub(super) transposed: bool,
    /// Elements from one product to the next.
    pub(super) stride: i64,
}

/// What a product is made of, without objects: left, right and result of the library's product.
pub(super) fn stored(op: &MatMul) -> Option<(usize, [Stored; 3])> {
    let (count, [a_stride, b_stride, c_stride]) = batch(op)?;
    let (a_rows, a_cols) = if op.trans_a { (op.k, op.m) } else { (op.m, op.k) };
    let (b_rows, b_cols) = if op.trans_b { (op.n, op.k) } else { (op.k, op.n) };
    // Packed, the stored rows lie side by side.
    let ldb = if op.b_format == Format::Packed { b_cols } else { op.ldb };
    let matrix = |rows, cols, row, transposed, stride| Stored {
        rows: cols as u64,
        cols: rows as u64,
        column: row as i64,
        transposed,
        stride: stride as i64,
    };
    let left = matrix(b_rows, b_cols, ldb, op.trans_b, b_stride);
    let right = matrix(a_rows, a_cols, op.lda, op.trans_a, a_stride);
    Some((count, [left, right, matrix(op.m, op.n, op.ldc, false, c_stride)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candlewick_core::DType;

    /// The library's product on its own terms: result(i, j) at i + j * column, from left and right so described.
    fn multiply(count: usize, [left, right, result]: [Stored; 3], k: usize, a: &[f64], b: &[f64], c: &mut [f64]) {
        let at = |matrix: Stored, i: usize, j: usize| {
            let (i, j) = if matrix.transposed { (j, i) } else { (i, j) };
            i + j * matrix.column as usize
        };
        for product in 0..count {
            let offset = |matrix: Stored| product * matrix.stride as usize;
            for i in 0..result.rows as usize {
                for j in 0..result.cols as usize {
                    c[offset(result) + at(result, i, j)] =
                        (0..k).map(|p| b[offset(left) + at(left, i, p)] * a[offset(right) + at(right, p, j)]).sum();
                }
            }
        }
    }

    #[test]
    fn swapped_operands_give_the_row_major_product() {
        let numbers = |count: usize| (0..count).map(|i| ((i * 7919) % 23) as f64 - 11.0).collect::<Vec<_>>();
        for (trans_a, trans_b, packed) in [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (false, true, true),
        ] {
            let mut op = MatMul::new(3, 4, 5, DType::F32);
            op = if trans_a { op.trans_a() } else { op };
            op = if trans_b { op.trans_b() } else { op };
            (op.lda, op.ldc) = (op.lda + 2, op.ldc + 1);
            let mut op = if packed { op } else { MatMul { ldb: op.ldb + 3, ..op }.batched(2) };
            if packed {
                op.b_format = Format::Packed;
            } else {
                op.batch.b[2] = 0;
            }
            assert!(runs_matmul(&op));
            let (a, b) = (numbers(200), numbers(200));
            let (count, matrices) = stored(&op).unwrap();
            assert_eq!(count, op.batch.count());
            let mut c = vec![0.0; 200];
            multiply(count, matrices, op.k, &a, &b, &mut c);
            for product in 0..count {
                let (a_at, b_at, c_at) = op.batch.offsets(product);
                for i in 0..op.m {
                    for j in 0..op.n {
                        let a = |p: usize| a[a_at + if trans_a { p * op.lda + i } else { i * op.lda + p }];
                        let b = |p: usize| b[b_at + if trans_b { j * op.ldb + p } else { p * op.ldb + j }];
                        let sum: f64 = (0..op.k).map(|p| a(p) * b(p)).sum();
                        assert_eq!(c[c_at + i * op.ldc + j], sum, "{op:?} at {i}, {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_library_does_not_do_is_left_to_others() {
        let op = MatMul::new(4, 4, 4, DType::BF16);
        assert!(runs_matmul(&op) && runs_matmul(&op.batched(3)));
        let mut summed = op.batched(3);
        summed.batch.c[2] = 0;
        assert!(!runs_matmul(&summed), "a sum over the batch");
        let mut uneven = op.batched(6);
        (uneven.batch.dims, uneven.batch.a) = ([1, 2, 3], [0, 100, 16]);
        (uneven.batch.b, uneven.batch.c) = ([0, 48, 16], [0, 48, 16]);
        assert!(!runs_matmul(&uneven), "two strides in a");
        uneven.batch.a = [0, 48, 16];
        assert_eq!(batch(&uneven), Some((6, [16, 16, 16])));
        assert!(!runs_matmul(&MatMul::new(4, 4, 0, DType::F32)) && !runs_matmul(&op.scaled(0.0, 1.0)));
    }
}
