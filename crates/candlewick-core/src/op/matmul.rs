//! C = alpha op(A) op(B) + beta C, batched, with both transposes.

use super::{Format, Op, Operand, Operands, check_row_stride, operand};
use crate::layout::collapse;
use crate::{DType, Error, Layout, Result, Scalar, Shape};

/// A matrix product, C [m, n] = alpha op(A) op(B) + beta C, where op(A) is [m, k] and op(B) is [k, n].
///
/// With beta = 0 C is not read, so NaN there does not leak; with alpha = 0 A and B are not read, as in BLAS. With
/// `trans_a` A is stored [k, m], with `trans_b` B is stored [n, k]. Rows lie `lda`, `ldb`, `ldc` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// The length of the sum.
    pub k: usize,
    /// How many such products, and where their matrices lie.
    pub batch: Batch,
    /// A is stored [k, m].
    pub trans_a: bool,
    /// B is stored [n, k].
    pub trans_b: bool,
    /// Elements between the stored rows of A.
    pub lda: usize,
    /// Elements between the stored rows of B.
    pub ldb: usize,
    /// Elements between the rows of C.
    pub ldc: usize,
    /// Factor of the product.
    pub alpha: Scalar,
    /// Factor of what C held before.
    pub beta: Scalar,
    /// Of A, B and C.
    pub dtype: DType,
    /// Whether B was packed once, by `Stream::pack`.
    pub b_format: Format,
}

/// Up to three batch dimensions, outermost first, each with a stride per operand in elements.
///
/// A stride of zero in A or B broadcasts that operand. A stride of zero in C sums the products over that dimension:
/// the gradient of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Sizes; one where a dimension is not used.
    pub dims: [usize; 3],
    /// Strides of A.
    pub a: [usize; 3],
    /// Strides of B.
    pub b: [usize; 3],
    /// Strides of C.
    pub c: [usize; 3],
}

impl Batch {
    /// One product.
    pub const ONE: Batch = Batch { dims: [1; 3], a: [0; 3], b: [0; 3], c: [0; 3] };

    /// How many products.
    pub const fn count(&self) -> usize {
        self.dims[0].saturating_mul(self.dims[1]).saturating_mul(self.dims[2])
    }

    /// The offsets of A, B and C of product `index`, in elements.
    pub const fn offsets(&self, index: usize) -> (usize, usize, usize) {
        let inner = index % self.dims[2];
        let middle = index / self.dims[2] % self.dims[1];
        let outer = index / self.dims[2] / self.dims[1];
        (
            outer * self.a[0] + middle * self.a[1] + inner * self.a[2],
            outer * self.b[0] + middle * self.b[1] + inner * self.b[2],
            outer * self.c[0] + middle * self.c[1] + inner * self.c[2],
        )
    }
}

/// Which tensor a gradient product reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatMulOperand {
    /// The forward's A.
    A,
    /// The forward's B.
    B,
    /// The gradient of C.
    GradC,
}

/// A gradient as a product: the descriptor, and what its A and its B are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gradient {
    /// The product.
    pub op: MatMul,
    /// What it reads as A.
    pub a: MatMulOperand,
    /// What it reads as B.
    pub b: MatMulOperand,
}

impl MatMul {
    /// One contiguous product [m, k] x [k, n], alpha = 1, beta = 0.
    pub fn new(m: usize, n: usize, k: usize, dtype: DType) -> Self {
        MatMul {
            m,
            n,
            k,
            batch: Batch::ONE,
            trans_a: false,
            trans_b: false,
            lda: k,
            ldb: n,
            ldc: n,
            alpha: Scalar(1.0),
            beta: Scalar(0.0),
            dtype,
            b_format: Format::Plain,
        }
    }

    /// A stored [k, m], contiguous.
    pub fn trans_a(mut self) -> Self {
        self.trans_a = true;
        self.lda = self.m;
        self
    }

    /// B stored [n, k], contiguous.
    pub fn trans_b(mut self) -> Self {
        self.trans_b = true;
        self.ldb = self.k;
        self
    }

    /// `count` products of contiguous matrices that follow each other.
    pub fn batched(mut self, count: usize) -> Self {
        let stride = |rows: usize, row: usize| rows.saturating_mul(row);
        let (a_rows, b_rows) = (if self.trans_a { self.k } else { self.m }, if self.trans_b { self.n } else { self.k });
        self.batch.dims[2] = count;
        self.batch.a[2] = stride(a_rows, self.lda);
        self.batch.b[2] = stride(b_rows, self.ldb);
        self.batch.c[2] = stride(self.m, self.ldc);
        self
    }

    /// Factors of the product and of what C held before.
    pub fn scaled(mut self, alpha: f32, beta: f32) -> Self {
        self.alpha = alpha.into();
        self.beta = beta.into();
        self
    }

    /// B given as `Stream::pack` made it.
    pub fn packed_b(mut self) -> Self {
        self.b_format = Format::Packed;
        self
    }

    /// The product of two tensors as their owners describe them, into a new contiguous C: the descriptor and C's shape.
    /// Leading dimensions are batches and broadcast against each other; where B is one matrix, A's batches become rows.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] where the shapes do not fit, [`Error::Strides`] where an operand has to be made
    /// contiguous first, [`Error::Shape`] for fewer than two dimensions.
    pub fn of(a: Layout<'_>, b: Layout<'_>, dtype: DType) -> Result<(MatMul, Vec<usize>)> {
        const OP: &str = "matmul";
        let mismatch = |remedy| Error::ShapeMismatch {
            op: OP,
            left: "a",
            left_shape: a.shape.into(),
            right: "b",
            right_shape: b.shape.into(),
            remedy,
        };
        for (operand, layout) in [("a", a), ("b", b)] {
            if layout.shape.len() < 2 {
                return Err(Error::Shape {
                    op: OP,
                    operand,
                    shape: layout.shape.into(),
                    remedy: "a matrix has at least two dimensions",
                });
            }
        }
        let (a_outer, a_matrix) = a.shape.split_at(a.shape.len() - 2);
        let (b_outer, b_matrix) = b.shape.split_at(b.shape.len() - 2);
        let (m, k, n) = (a_matrix[0], a_matrix[1], b_matrix[1]);
        if b_matrix[0] != k {
            return Err(mismatch("the columns of a must equal the rows of b"));
        }
        let rank = a_outer.len().max(b_outer.len());
        let size = |outer: &[usize], i: usize| if i + outer.len() < rank { 1 } else { outer[i + outer.len() - rank] };
        let mut shape = Vec::with_capacity(rank + 2);
        for i in 0..rank {
            shape.push(match (size(a_outer, i), size(b_outer, i)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                _ => return Err(mismatch("leading dimensions must be equal, or one of them 1")),
            });
        }
        let outer = shape.clone();
        shape.extend([m, n]);
        if shape.contains(&0) || k == 0 {
            // Empty: nothing is read, so no stride matters. C is empty, or all zeros.
            let batches = Shape::new(&outer).elements().ok_or(Error::TooLarge {
                op: OP,
                operand: "c",
                shape: shape.as_slice().into(),
            })?;
            let mut op = MatMul::new(m, n, k, dtype).batched(batches);
            // A broadcast operand that is not empty itself has fewer matrices than C.
            (op.batch.a, op.batch.b) = ([0; 3], [0; 3]);
            return Ok((op, shape));
        }

        let (trans_a, lda) = matrix_strides(OP, "a", a)?;
        let (trans_b, ldb) = matrix_strides(OP, "b", b)?;
        let mut op = MatMul { trans_a, trans_b, lda, ldb, ..MatMul::new(m, n, k, dtype) };
        if !trans_a && b_outer.iter().all(|&size| size == 1) {
            // One B for all: the batches of A are more rows of the same product.
            let rows_strides = &a.strides[..a.strides.len() - 1];
            if let Some((rows, stride)) = collapse(&a.shape[..a.shape.len() - 1], rows_strides)
                && (rows == 1 || stride >= k)
            {
                op.m = rows;
                op.lda = if rows > 1 { stride } else { k };
                return Ok((op, shape));
            }
        }
        let c_strides = contiguous_strides(&outer, m.saturating_mul(n));
        op.batch = Batch::ONE;
        let mut used = 3;
        // Innermost first; a dimension that continues the one inside it joins it.
        for i in (0..rank).rev().filter(|&i| outer[i] > 1) {
            let stride = |layout: Layout<'_>, outer: &[usize]| {
                if size(outer, i) == 1 { 0 } else { layout.strides[i + outer.len() - rank] }
            };
            let dim = (outer[i], stride(a, a_outer), stride(b, b_outer), c_strides[i]);
            let batch = &mut op.batch;
            let joins = used < 3 && {
                let inner = batch.dims[used];
                [(batch.a[used], dim.1), (batch.b[used], dim.2), (batch.c[used], dim.3)]
                    .iter()
                    .all(|&(within, across)| within.checked_mul(inner) == Some(across))
            };
            if joins {
                batch.dims[used] = batch.dims[used].saturating_mul(dim.0);
                continue;
            }
            if used == 0 {
                let (operand, layout) = if a_outer.len() >= b_outer.len() { ("a", a) } else { ("b", b) };
                return Err(Error::Strides {
                    op: OP,
                    operand,
                    shape: layout.shape.into(),
                    strides: layout.strides.into(),
                    remedy: "at most three batch dimensions that do not join: make a and b contiguous",
                });
            }
            used -= 1;
            (batch.dims[used], batch.a[used], batch.b[used], batch.c[used]) = dim;
        }
        Ok((op, shape))
    }

    /// The product that gives the gradient of A from the gradient of C.
    pub fn grad_a(&self) -> Gradient {
        use MatMulOperand::{B, GradC};
        let swap = |a: [usize; 3], b: [usize; 3]| Batch { dims: self.batch.dims, a, b, c: self.batch.a };
        let base = MatMul { beta: Scalar(0.0), b_format: Format::Plain, ldc: self.lda, ..*self };
        if self.trans_a {
            // A is stored [k, m]: its gradient is op(B) dCᵀ.
            let op = MatMul {
                m: self.k,
                n: self.m,
                k: self.n,
                batch: swap(self.batch.b, self.batch.c),
                trans_a: self.trans_b,
                lda: self.ldb,
                trans_b: true,
                ldb: self.ldc,
                ..base
            };
            Gradient { op, a: B, b: GradC }
        } else {
            // dA = dC op(B)ᵀ.
            let op = MatMul {
                n: self.k,
                k: self.n,
                batch: swap(self.batch.c, self.batch.b),
                trans_a: false,
                lda: self.ldc,
                trans_b: !self.trans_b,
                ..base
            };
            Gradient { op, a: GradC, b: B }
        }
    }

    /// The product that gives the gradient of B from the gradient of C.
    pub fn grad_b(&self) -> Gradient {
        use MatMulOperand::{A, GradC};
        let swap = |a: [usize; 3], b: [usize; 3]| Batch { dims: self.batch.dims, a, b, c: self.batch.b };
        let base = MatMul { beta: Scalar(0.0), b_format: Format::Plain, ldc: self.ldb, ..*self };
        if self.trans_b {
            // B is stored [n, k]: its gradient is dCᵀ op(A).
            let op = MatMul {
                m: self.n,
                n: self.k,
                k: self.m,
                batch: swap(self.batch.c, self.batch.a),
                trans_a: true,
                lda: self.ldc,
                trans_b: self.trans_a,
                ldb: self.lda,
                ..base
            };
            Gradient { op, a: GradC, b: A }
        } else {
            // dB = op(A)ᵀ dC.
            let op = MatMul {
                m: self.k,
                k: self.m,
                batch: swap(self.batch.a, self.batch.c),
                trans_a: !self.trans_a,
                trans_b: false,
                ldb: self.ldc,
                ..base
            };
            Gradient { op, a: A, b: GradC }
        }
    }

    /// How many products are added up into one C.
    pub fn summed_batches(&self) -> usize {
        let summed = (0..3).filter(|&i| self.batch.c[i] == 0).map(|i| self.batch.dims[i]);
        summed.fold(1, usize::saturating_mul).max(1)
    }

    pub(super) fn flops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64 * self.batch.count() as f64
    }

    pub(super) fn shape(&self) -> String {
        let batch = if self.batch.count() == 1 { String::new() } else { format!("{}x", self.batch.count()) };
        let transposes = match (self.trans_a, self.trans_b) {
            (false, false) => "",
            (true, false) => " tn",
            (false, true) => " nt",
            (true, true) => " tt",
        };
        let packed = if self.b_format == Format::Packed { " packed" } else { "" };
        format!("{batch}{}x{}x{}{transposes}{packed}", self.m, self.n, self.k)
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let name = Op::from(*self).name();
        let (a_rows, a_cols) = if self.trans_a { (self.k, self.m) } else { (self.m, self.k) };
        let (b_rows, b_cols) = if self.trans_b { (self.n, self.k) } else { (self.k, self.n) };
        check_row_stride(name, "lda", self.lda, a_cols)?;
        check_row_stride(name, "ldb", self.ldb, b_cols)?;
        check_row_stride(name, "ldc", self.ldc, self.n)?;
        let tensor = |operand_name, strides: [usize; 3], rows, cols, row: usize| -> Result<Operand> {
            // Batch dimensions of one carry no information in a message.
            let mut dims: Vec<(usize, usize)> =
                (0..3).filter(|&i| self.batch.dims[i] != 1).map(|i| (self.batch.dims[i], strides[i])).collect();
            dims.extend([(rows, row), (cols, 1)]);
            operand(name, operand_name, self.dtype, &dims)
        };
        let mut b = tensor("b", self.batch.b, b_rows, b_cols, self.ldb)?;
        b.format = self.b_format;
        if self.b_format == Format::Packed && self.batch.count() != 1 {
            return Err(Error::Descriptor {
                op: name,
                field: "b_format",
                value: "Packed".into(),
                remedy: "a packed b serves one product, not a batch: leave b plain",
            });
        }
        self.check_output()?;
        Ok(Operands {
            inputs: vec![tensor("a", self.batch.a, a_rows, a_cols, self.lda)?, b],
            outputs: vec![tensor("c", self.batch.c, self.m, self.n, self.ldc)?],
        })
    }

    /// No two elements of C may share a place, or their order would decide the result.
    fn check_output(&self) -> Result<()> {
        if self.m == 0 || self.n == 0 || self.batch.dims.contains(&0) {
            return Ok(());
        }
        let mut dims: Vec<(usize, usize)> = (0..3)
            .filter(|&i| self.batch.c[i] != 0)
            .map(|i| (self.batch.c[i], self.batch.dims[i]))
            .chain([(self.ldc, self.m), (1, self.n)])
            .filter(|&(_, size)| size > 1)
            .collect();
        dims.sort_unstable();
        let mut end = 1usize;
        for (stride, size) in dims {
            if stride < end {
                return Err(Error::Strides {
                    op: "matmul",
                    operand: "c",
                    shape: Shape::from([self.batch.count(), self.m, self.n]),
                    strides: Shape::new(&[self.batch.c[0], self.batch.c[1], self.batch.c[2], self.ldc, 1]),
                    remedy: "elements of the output overlap: use larger strides (0 sums over that batch dimension)",
                });
            }
            end = (size - 1).saturating_mul(stride).saturating_add(end);
        }
        Ok(())
    }
}

/// `(transposed, row stride)` of a tensor's last two dimensions.
fn matrix_strides(op: &'static str, operand: &'static str, layout: Layout<'_>) -> Result<(bool, usize)> {
    let i = layout.shape.len() - 2;
    let (rows, cols, row, col) = (layout.shape[i], layout.shape[i + 1], layout.strides[i], layout.strides[i + 1]);
    if (cols == 1 || col == 1) && (rows == 1 || row >= cols) {
        Ok((false, if rows == 1 { cols } else { row }))
    } else if (rows == 1 || row == 1) && (cols == 1 || col >= rows) {
        Ok((true, if cols == 1 { rows } else { col }))
    } else {
        Err(Error::Strides {
            op,
            operand,
            shape: layout.shape.into(),
            strides: layout.strides.into(),
            remedy: "a matrix needs stride 1 along its rows or its columns: make it contiguous first",
        })
    }
}

fn contiguous_strides(sizes: &[usize], inner: usize) -> Vec<usize> {
    let mut strides = vec![0; sizes.len()];
    let mut stride = inner;
    for (to, size) in strides.iter_mut().zip(sizes).rev() {
        *to = stride;
        stride = stride.saturating_mul(*size);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(a: (&[usize], &[usize]), b: (&[usize], &[usize])) -> Result<(MatMul, Vec<usize>)> {
        MatMul::of(Layout::new(a.0, a.1), Layout::new(b.0, b.1), DType::F32)
    }

    #[test]
    fn batches_of_a_become_rows_where_b_is_one_matrix() {
        let (op, shape) = of((&[2, 3, 4], &[12, 4, 1]), (&[4, 5], &[5, 1])).unwrap();
        assert_eq!((op.m, op.n, op.k, op.batch.count()), (6, 5, 4, 1));
        assert_eq!(shape, [2, 3, 5]);
    }

    #[test]
    fn a_transposed_view_is_read_in_place() {
        let (op, _) = of((&[3, 4], &[1, 3]), (&[4, 5], &[1, 4])).unwrap();
        assert!(op.trans_a && op.trans_b);
        assert_eq!((op.lda, op.ldb), (3, 4));
    }

    #[test]
    fn broadcast_batches_have_stride_zero() {
        let (op, shape) = of((&[2, 1, 3, 4], &[12, 12, 4, 1]), (&[1, 7, 4, 5], &[140, 20, 5, 1])).unwrap();
        assert_eq!(shape, [2, 7, 3, 5]);
        assert_eq!(op.batch, Batch { dims: [1, 2, 7], a: [0, 12, 0], b: [0, 0, 20], c: [0, 105, 15] });
        // The gradient of a broadcast sums: its output has stride zero.
        assert_eq!(op.grad_b().op.batch.c, [0, 0, 20]);
        assert_eq!(op.grad_b().op.summed_batches(), 2);
    }

    #[test]
    fn mismatches_name_both_shapes() {
        let error = of((&[64, 32], &[32, 1]), (&[16, 8], &[8, 1])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "matmul: a [64, 32] and b [16, 8] do not fit: the columns of a must equal the rows of b"
        );
        assert!(matches!(of((&[4], &[1]), (&[4, 4], &[4, 1])), Err(Error::Shape { .. })));
        assert!(matches!(of((&[4, 4], &[8, 2]), (&[4, 4], &[4, 1])), Err(Error::Strides { .. })));
    }

    #[test]
    fn an_empty_product_reads_nothing_of_a_broadcast_operand() {
        let (op, shape) = of((&[1, 3, 3], &[9, 3, 1]), (&[2, 3, 0], &[0, 0, 1])).unwrap();
        assert_eq!(shape, [2, 3, 0]);
        assert_eq!(op.operands().unwrap().inputs[0].span, 9, "one matrix of a, not two");
    }

    #[test]
    fn overlapping_outputs_are_refused() {
        let mut op = MatMul::new(4, 4, 4, DType::F32).batched(2);
        op.batch.c[2] = 8;
        assert!(matches!(op.operands(), Err(Error::Strides { operand: "c", .. })));
        op.batch.c[2] = 0;
        assert!(op.operands().is_ok(), "zero sums");
        assert!(MatMul::new(5, 0, 7, DType::F32).operands().is_ok(), "an empty output has nothing to overlap");
    }

    #[test]
    fn sizes_that_overflow_are_an_error() {
        let op = MatMul::new(usize::MAX, usize::MAX, 2, DType::F32);
        assert!(matches!(op.operands(), Err(Error::TooLarge { .. })));
    }
}
