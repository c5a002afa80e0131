//! Packing of bf16 pairs, and the product that reads them.

use super::*;
use crate::kernels::{PackArgs, PairSegment, Panels, ProductArgs, ProductBf16Args, Segment};

fn packed(table: &Kernels, src: &Numbers, k: usize, cols: usize, src_row: usize, transposed: bool) -> Numbers {
    let size = cols.div_ceil(table.panel) * table.panel * k.div_ceil(2) * 2;
    let mut dst = Numbers::new(DType::BF16, &vec![-7.0; size + 2]);
    let (src_dtype, dst_dtype) = (DType::BF16, DType::BF16);
    let args = PackArgs { k, cols, src: src.ptr(), src_dtype, src_row, transposed, dst: dst.mut_ptr(), dst_dtype };
    // SAFETY: the buffers have the sizes that the arguments say.
    unsafe { (table.pack_pairs)(&args) };
    assert_eq!(dst.values()[size..], [-7.0; 2], "{}: wrote beyond the panels", table.isa);
    dst
}

#[test]
fn packs_pairs_from_both_layouts() {
    for table in tables() {
        for k in [0, 1, 2, 7, 16, 33, 64, 65].into_iter().step_by(STEP) {
            for cols in [0, 1, 7, 16, 17, 33, 65].into_iter().step_by(STEP) {
                for transposed in [false, true] {
                    let what = format!("{} {k}x{cols} transposed {transposed}", table.isa);
                    let (lines, length) = if transposed { (cols, k) } else { (k, cols) };
                    let src_row = length + 3;
                    let src = Numbers::random(DType::BF16, lines * src_row, 5);
                    let got = packed(table, &src, k, cols, src_row, transposed).values();
                    let src = src.values();
                    let pairs = k.div_ceil(2);
                    for (at, &got) in got[..got.len() - 2].iter().enumerate() {
                        let (panel, pair) = (at / (2 * table.panel * pairs), at / (2 * table.panel) % pairs);
                        let (p, j) = (2 * pair + at % 2, panel * table.panel + at / 2 % table.panel);
                        let want = match (p < k && j < cols, transposed) {
                            (false, _) => 0.0,
                            (true, true) => src[j * src_row + p],
                            (true, false) => src[p * src_row + j],
                        };
                        assert_eq!(got, want, "{what} at ({p}, {j})");
                    }
                }
            }
        }
    }
}

#[test]
fn products_of_pairs() {
    for table in tables() {
        let Some(product_bf16) = table.product_bf16 else { continue };
        for (rows, cols) in [(1, 1), (1, 128), (2, 65), (3, 33), (4, 64), (5, 17), (13, 40), (25, 31)] {
            for (k, rank) in [(0, 3), (1, 0), (2, 1), (7, 5), (33, 8), (64, 0)] {
                let what = format!("{} {rows}x{cols}x{k}+{rank}", table.isa);
                // NaN between the rows of A shows whether the last pair of an odd k reads beyond it.
                let a_row = k + 1;
                let mut a = random(rows * a_row, 1);
                a.iter_mut().skip(k).step_by(a_row).for_each(|gap| *gap = f32::NAN);
                let a = Numbers::new(DType::BF16, &a);
                let b = Numbers::random(DType::BF16, k * cols, 2);
                let pairs = packed(table, &b, k, cols, cols, false);
                let (h, w) = (random(rows * rank, 3), random(rank * cols, 4));
                let panels =
                    Panels { ptr: w.as_ptr().cast(), dtype: DType::F32, row: cols, panel: table.panel, padded: false };
                let segments = [Segment { a: h.as_ptr(), a_row: rank, a_col: 1, b: panels, k: rank }];
                let mut c = vec![f32::NAN; rows * cols];
                let product = ProductArgs {
                    rows,
                    cols,
                    segments: &segments,
                    alpha: 0.5,
                    beta: 0.0,
                    bias: std::ptr::null(),
                    c: c.as_mut_ptr().cast(),
                    c_row: cols,
                    c_dtype: DType::F32,
                };
                let pairs = PairSegment { a: a.ptr(), a_row, b: pairs.ptr(), k };
                // SAFETY: the buffers have the sizes that the arguments say.
                unsafe { product_bf16(&ProductBf16Args { pairs, product }) };
                let (a, b) = (a.values(), b.values());
                for (at, &got) in c.iter().enumerate() {
                    let (i, j) = (at / cols, at % cols);
                    let first = (0..k).map(|p| f64::from(a[i * a_row + p]) * f64::from(b[p * cols + j]));
                    let second = (0..rank).map(|p| f64::from(h[i * rank + p]) * f64::from(w[p * cols + j]));
                    let want: f64 = 0.5 * first.chain(second).sum::<f64>();
                    assert_near(got, want, 1e-7 * (k + rank + 4) as f64, DType::F32, &what);
                }
            }
        }
    }
}
