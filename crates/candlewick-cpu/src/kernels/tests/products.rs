//! The dense and the skinny product.

use super::*;
use crate::kernels::{DotArgs, PackArgs, Panels, ProductArgs, Segment};
use std::fmt::Display;

/// A product with everything that can vary.
struct Case {
    rows: usize,
    cols: usize,
    /// k of each segment.
    ks: Vec<usize>,
    alpha: f32,
    beta: f32,
    bias: bool,
    packed: bool,
    transposed_a: bool,
    b_dtype: DType,
    c_dtype: DType,
}

impl Case {
    fn new(rows: usize, cols: usize, k: usize) -> Case {
        let (b_dtype, c_dtype) = (DType::F32, DType::F32);
        let ks = vec![k];
        Case {
            rows,
            cols,
            ks,
            alpha: 1.0,
            beta: 0.0,
            bias: false,
            packed: false,
            transposed_a: false,
            b_dtype,
            c_dtype,
        }
    }

    /// Runs the product on every instruction set, compares it, and looks for writes next to C.
    fn check(&self) {
        for table in tables() {
            self.check_on(table);
        }
    }

    fn check_on(&self, table: &Kernels) {
        let Case { rows, cols, .. } = *self;
        let what = format!(
            "{} {rows}x{cols}x{:?} alpha {} beta {} bias {} packed {} transposed {} {} -> {}",
            table.isa,
            self.ks,
            self.alpha,
            self.beta,
            self.bias,
            self.packed,
            self.transposed_a,
            self.b_dtype,
            self.c_dtype
        );
        // The strides leave a gap of NaN in A and B, so that whatever is read there shows.
        let (ldb, c_row) = (cols + 3, cols + 2);
        let mut want = vec![0.0f64; rows * cols];
        let mut size = vec![0.0f64; rows * cols];
        let mut held = Vec::new();
        for (s, &k) in self.ks.iter().enumerate() {
            let (a_row, a_col) = if self.transposed_a { (1, rows + 1) } else { (k + 1, 1) };
            let mut a = vec![f32::NAN; (rows + 1) * (k + 1)];
            let values = random(rows * k, 1 + s as u64);
            for i in 0..rows {
                for p in 0..k {
                    a[i * a_row + p * a_col] = values[i * k + p];
                }
            }
            let mut b = vec![f32::NAN; k * ldb];
            let random_b = Numbers::random(self.b_dtype, k * cols, 11 + s as u64).values();
            for p in 0..k {
                b[p * ldb..][..cols].copy_from_slice(&random_b[p * cols..][..cols]);
            }
            for i in 0..rows {
                for j in 0..cols {
                    for p in 0..k {
                        let term = f64::from(a[i * a_row + p * a_col]) * f64::from(b[p * ldb + j]);
                        want[i * cols + j] += term;
                        size[i * cols + j] += term.abs();
                    }
                }
            }
            let b = Numbers::new(self.b_dtype, &b);
            let (b, row, panel) = if self.packed {
                let panels = cols.div_ceil(table.panel) * table.panel;
                let mut packed = Numbers::new(self.b_dtype, &vec![f32::NAN; k * panels]);
                let args = PackArgs {
                    k,
                    cols,
                    src: b.ptr(),
                    src_dtype: self.b_dtype,
                    src_row: ldb,
                    transposed: false,
                    dst: packed.mut_ptr(),
                    dst_dtype: self.b_dtype,
                };
                // SAFETY: the buffers have the sizes that the arguments say.
                unsafe { (table.pack)(&args) };
                (packed, table.panel, k * table.panel)
            } else {
                (b, ldb, table.panel)
            };
            held.push((a, a_row, a_col, b, row, panel, k));
        }
        let segments: Vec<Segment> = held
            .iter()
            .map(|(a, a_row, a_col, b, row, panel, k)| Segment {
                a: a.as_ptr(),
                a_row: *a_row,
                a_col: *a_col,
                b: Panels { ptr: b.ptr(), dtype: self.b_dtype, row: *row, panel: *panel, padded: self.packed },
                k: *k,
            })
            .collect();
        let bias = Numbers::random(self.c_dtype, cols, 21);
        let before = match self.beta {
            0.0 => Numbers::new(self.c_dtype, &vec![f32::NAN; (rows + 1) * c_row]),
            _ => Numbers::random(self.c_dtype, (rows + 1) * c_row, 22),
        };
        let mut c = before.clone();
        let args = ProductArgs {
            rows,
            cols,
            segments: &segments,
            alpha: self.alpha,
            beta: self.beta,
            bias: if self.bias { bias.ptr() } else { std::ptr::null() },
            c: c.mut_ptr(),
            c_row,
            c_dtype: self.c_dtype,
        };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe { (table.product)(&args) };
        let (before, bias, after) = (before.values(), bias.values(), c.values());
        let k: usize = self.ks.iter().sum();
        for (at, &got) in after.iter().enumerate() {
            let (i, j) = (at / c_row, at % c_row);
            if i >= rows || j >= cols {
                assert_eq!(got.to_bits(), before[at].to_bits(), "{what}: wrote beyond C at ({i}, {j})");
                continue;
            }
            let mut expected = if self.alpha == 0.0 { 0.0 } else { f64::from(self.alpha) * want[i * cols + j] };
            if self.bias {
                expected += f64::from(bias[j]);
            }
            if self.beta != 0.0 {
                expected += f64::from(self.beta) * f64::from(before[at]);
            }
            let scale = f64::from(self.alpha.abs()) * size[i * cols + j] + 2.0 + f64::from(self.beta.abs());
            let error = (k + 4) as f64 * DType::F32.unit_roundoff() * scale;
            assert_near(got, expected, error, self.c_dtype, &format!("{what} at ({i}, {j})"));
        }
    }
}

#[test]
fn every_tile_height_and_panel_width() {
    for rows in (0..=14).chain([25, 33]).step_by(STEP) {
        for cols in [0, 1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 65].into_iter().step_by(STEP) {
            let mut case = Case::new(rows, cols, 7);
            case.check();
            case.packed = true;
            case.check();
        }
    }
}

#[test]
fn few_rows_take_several_panels() {
    for rows in 1..=3 {
        for cols in [128, 129, 200, 256].into_iter().step_by(STEP) {
            for b_dtype in DType::ALL {
                for packed in [false, true] {
                    Case { packed, b_dtype, bias: true, ..Case::new(rows, cols, 17) }.check();
                }
            }
        }
    }
}

#[test]
fn every_format_factor_and_layout() {
    for (b_dtype, c_dtype) in DType::ALL.into_iter().flat_map(|b| DType::ALL.map(|c| (b, c))) {
        for (rows, cols) in [(1, 33), (5, 17), (13, 65)] {
            for ks in [vec![], vec![0], vec![33], vec![17, 3], vec![0, 8], vec![65, 0]] {
                for (alpha, beta, bias) in [(1.0, 0.0, false), (0.5, 0.0, true), (-2.0, 1.5, true), (0.0, 0.5, false)] {
                    for packed in [false, true] {
                        let ks = ks.clone();
                        let transposed_a = alpha == 0.5;
                        Case { rows, cols, ks, alpha, beta, bias, packed, transposed_a, b_dtype, c_dtype }.check();
                    }
                }
            }
        }
    }
}

#[test]
fn alpha_zero_leaves_nan_in_the_operands_unread() {
    for table in tables() {
        let nan = [f32::NAN; 4];
        let mut c = [2.0f32; 4];
        let b = Panels { ptr: nan.as_ptr().cast(), dtype: DType::F32, row: 2, panel: table.panel, padded: false };
        let segments = [Segment { a: nan.as_ptr(), a_row: 2, a_col: 1, b, k: 2 }];
        let args = ProductArgs {
            rows: 2,
            cols: 2,
            segments: &segments,
            alpha: 0.0,
            beta: 0.5,
            bias: std::ptr::null(),
            c: c.as_mut_ptr().cast(),
            c_row: 2,
            c_dtype: DType::F32,
        };
        // SAFETY: all matrices are 2 x 2.
        unsafe { (table.product)(&args) };
        assert_eq!(c, [1.0; 4], "{}", table.isa);
    }
}

fn check_dot(rows: usize, rank: usize, k: usize, x_dtype: DType, a_dtype: DType) {
    let (x_row, a_row, h_row) = (k + 1, k + 2, rank + 1);
    let alpha = 0.5;
    let with_gap = |values: &[f32], row: usize| -> Vec<f32> {
        values.iter().enumerate().map(|(at, &v)| if at % row < k { v } else { f32::NAN }).collect()
    };
    let x = Numbers::new(x_dtype, &with_gap(&random(rows * x_row, 1), x_row));
    let a = Numbers::new(a_dtype, &with_gap(&random(rank * a_row, 2), a_row));
    let (xs, ws) = (x.values(), a.values());
    for table in tables() {
        let what: &dyn Display = &format!("{} {rows}x{rank}x{k} {x_dtype} {a_dtype}", table.isa);
        let mut h = vec![-7.0f32; (rows + 1) * h_row];
        let (x, a, h_ptr) = (x.ptr(), a.ptr(), h.as_mut_ptr());
        let args = DotArgs { rows, rank, k, alpha, x, x_row, x_dtype, a, a_row, a_dtype, h: h_ptr, h_row };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe { (table.dot)(&args) };
        for (at, &got) in h.iter().enumerate() {
            let (i, j) = (at / h_row, at % h_row);
            if i >= rows || j >= rank {
                assert_eq!(got, -7.0, "{what}: wrote beyond H at ({i}, {j})");
                continue;
            }
            let terms = (0..k).map(|p| f64::from(xs[i * x_row + p]) * f64::from(ws[j * a_row + p]));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            let error = (k + 4) as f64 * DType::F32.unit_roundoff() * size;
            assert_near(got, f64::from(alpha) * sum, error, DType::F32, what);
        }
    }
}

#[test]
fn skinny_products_of_every_shape() {
    for rows in [0, 1, 2, 3, 4, 5, 6, 7, 8].into_iter().step_by(STEP) {
        for rank in [0, 1, 2, 3, 5, 7, 8, 13, 17].into_iter().step_by(STEP) {
            for k in [0, 1, 3, 7, 8, 16, 17, 33, 65].into_iter().step_by(STEP) {
                check_dot(rows, rank, k, DType::F32, DType::F32);
            }
        }
    }
}

#[test]
fn skinny_products_of_every_format() {
    for x_dtype in DType::ALL {
        for a_dtype in [x_dtype, DType::F32] {
            for (rows, rank, k) in [(1, 8, 33), (3, 5, 16), (7, 11, 65), (4, 64, 20)] {
                check_dot(rows, rank, k, x_dtype, a_dtype);
            }
        }
    }
}
