//! The product on the matrix unit: with a model of the unit on any CPU with AVX-512, and with the real one where it is.

use super::*;
use crate::kernels::product_amx::product;
use crate::kernels::{PackArgs, PairSegment, Panels, ProductArgs, ProductBf16Args, Segment};
use crate::simd::amx::{Amx, Block, COLS, DEPTH, MatrixUnit};
use std::cell::Cell;

/// What the unit does, in plain loops.
struct Model;

thread_local! {
    /// For how many rows this thread's model is configured.
    static CONFIGURED: Cell<usize> = const { Cell::new(0) };
}

impl MatrixUnit for Model {
    unsafe fn configure(rows: usize) {
        assert!((1..=32).contains(&rows), "{rows}");
        CONFIGURED.set(rows);
    }
    unsafe fn multiply(block: &Block) {
        let Block { rows, steps, a, a_row_bytes, b, sums, sums_row_bytes, add, .. } = *block;
        assert_eq!(rows, CONFIGURED.get());
        assert!(steps > 0, "a loop that counts down to zero would not end");
        let number = |p: *const u8, i: usize| {
            // SAFETY: the driver promises that every element of the block is valid.
            flushed(unsafe { p.cast::<bf16>().add(i).read_unaligned() }.to_f32())
        };
        for (i, j) in (0..rows).flat_map(|i| (0..COLS).map(move |j| (i, j))) {
            let row = a.wrapping_add(i * a_row_bytes);
            // SAFETY: as above.
            let to = unsafe { sums.byte_add(i * sums_row_bytes).add(j) };
            // SAFETY: as above; sums that are added to were written.
            let mut sum = if add { unsafe { to.read() } } else { 0.0 };
            for p in 0..steps * DEPTH {
                sum = flushed(number(row, p).mul_add(number(b, (p / 2 * COLS + j) * 2 + p % 2), sum));
            }
            // SAFETY: as above.
            unsafe { to.write(sum) };
        }
    }
    unsafe fn narrow(rows: usize, alpha: f32, sums: *const f32, c: *mut u8, c_row: usize) {
        for (i, j) in (0..rows).flat_map(|i| (0..COLS).map(move |j| (i, j))) {
            // SAFETY: the driver promises that there are so many rows of both.
            unsafe {
                let sum = bf16::from_f32(alpha * sums.add(i * COLS + j).read());
                c.cast::<bf16>().add(i * c_row + j).write_unaligned(sum);
            }
        }
    }
    unsafe fn release() {
        CONFIGURED.set(0);
    }
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0 } else { x }
}

type Product = unsafe fn(&ProductBf16Args<'_>);

/// The units that can be tried here.
fn units() -> Vec<(&'static str, Product)> {
    let mut units: Vec<(&str, Product)> = Vec::new();
    if Isa::Avx512.is_available() {
        units.push(("model", product::<Model>));
    }
    if Isa::Amx.is_available() {
        units.push(("amx", product::<Amx>));
    }
    units
}

/// A product, and what else goes into C.
#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    k: usize,
    rank: usize,
    alpha: f32,
    beta: f32,
    bias: bool,
    c_dtype: DType,
}

impl Case {
    fn check(self, (unit, product): (&str, Product)) {
        let Case { rows, cols, k, rank, alpha, beta, bias, c_dtype } = self;
        let table = kernels(Isa::Avx512).expect("units need it");
        // NaN between the rows of A, and behind B's panels, shows whether anything is read that should not be.
        let (a_row, c_row) = (k + 5, cols + 3);
        let mut a = random(rows * a_row, 1);
        a.iter_mut().enumerate().filter(|(at, _)| at % a_row >= k).for_each(|(_, gap)| *gap = f32::NAN);
        let a = Numbers::new(DType::BF16, &a);
        let b = Numbers::random(DType::BF16, k * cols, 2);
        let size = cols.div_ceil(COLS) * COLS * k.next_multiple_of(2);
        let mut panels = Numbers::new(DType::BF16, &vec![f32::NAN; size + 2 * DEPTH * COLS]);
        let (src_dtype, dst_dtype) = (DType::BF16, DType::BF16);
        let (src, dst) = (b.ptr(), panels.mut_ptr());
        let pack = PackArgs { k, cols, src, src_dtype, src_row: cols, transposed: false, dst, dst_dtype };
        let (h, w) = (random(rows * rank, 3), Numbers::random(DType::BF16, rank * cols, 4));
        let shift = Numbers::random(c_dtype, cols, 5);
        let mut c = Numbers::random(c_dtype, rows * c_row, 6);
        let before = c.values();
        let w_panels = Panels { ptr: w.ptr(), dtype: DType::BF16, row: cols, panel: COLS, padded: false };
        let segments = [Segment { a: h.as_ptr(), a_row: rank, a_col: 1, b: w_panels, k: rank }];
        let args = ProductArgs {
            rows,
            cols,
            segments: if rank > 0 { &segments } else { &[] },
            alpha,
            beta,
            bias: if bias { shift.ptr() } else { std::ptr::null() },
            c: c.mut_ptr(),
            c_row,
            c_dtype,
        };
        let pairs = PairSegment { a: a.ptr(), a_row, b: panels.ptr(), k };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe {
            (table.pack_pairs)(&pack);
            product(&ProductBf16Args { pairs, product: args });
        }
        assert_eq!(CONFIGURED.get(), 0, "{unit}: still in use");
        let (a, b, w, shift) = (a.values(), b.values(), w.values(), shift.values());
        let f = f64::from;
        for (at, &got) in c.values().iter().enumerate() {
            let (i, j) = (at / c_row, at % c_row);
            if j >= cols {
                assert_eq!(got, before[at], "{unit} {self:?}: wrote beyond C at ({i}, {j})");
                continue;
            }
            let first = (0..k).map(|p| f(a[i * a_row + p]) * f(b[p * cols + j]));
            let second = (0..rank).map(|p| f(h[i * rank + p]) * f(w[p * cols + j]));
            let added = if bias { f(shift[j]) } else { 0.0 } + f(beta) * f(before[at]);
            let want = f(alpha) * first.chain(second).sum::<f64>() + added;
            let what = format!("{unit} {self:?} at ({i}, {j})");
            assert_near(got, want, 1e-7 * (k + rank + 8) as f64, c_dtype, &what);
        }
    }
}

#[test]
fn blocks_and_remainders_of_every_kind() {
    for unit in units() {
        for rows in [0, 1, 15, 16, 17, 31, 32, 33, 65] {
            for cols in [0, 1, 31, 32, 33, 100] {
                for k in [0, 1, 2, 31, 32, 33, 63, 64, 100] {
                    let plain =
                        Case { rows, cols, k, rank: 0, alpha: 0.5, beta: 0.0, bias: false, c_dtype: DType::F32 };
                    plain.check(unit);
                    Case { alpha: 1.0, ..plain }.check(unit);
                    Case { alpha: 1.0, beta: 1.0, ..plain }.check(unit);
                    Case { c_dtype: DType::BF16, ..plain }.check(unit);
                    Case { rank: 3, beta: -1.5, bias: true, c_dtype: DType::BF16, ..plain }.check(unit);
                }
            }
        }
    }
}

#[test]
fn every_format_of_c_and_every_epilogue() {
    for unit in units() {
        for c_dtype in DType::ALL {
            for (rank, beta, bias) in [(0, 0.0, true), (0, 2.0, false), (16, 0.0, false), (16, 1.0, true)] {
                Case { rows: 45, cols: 70, k: 77, rank, alpha: 0.5, beta, bias, c_dtype }.check(unit);
            }
        }
    }
}

#[test]
fn long_sums() {
    for unit in units() {
        for rows in [1, 16, 40] {
            Case { rows, cols: 64, k: 1031, rank: 8, alpha: 0.5, beta: 0.0, bias: true, c_dtype: DType::F32 }
                .check(unit);
        }
    }
}

#[test]
fn alpha_zero_reads_neither_factor() {
    for (unit, product) in units() {
        let mut c = [2.0f32; 33];
        let args = ProductArgs {
            rows: 1,
            cols: 33,
            segments: &[],
            alpha: 0.0,
            beta: 0.5,
            bias: std::ptr::null(),
            c: c.as_mut_ptr().cast(),
            c_row: 33,
            c_dtype: DType::F32,
        };
        let pairs = PairSegment { a: std::ptr::null(), a_row: 64, b: std::ptr::null(), k: 64 };
        // SAFETY: C has 33 elements; nothing else is read.
        unsafe { product(&ProductBf16Args { pairs, product: args }) };
        assert_eq!(c, [1.0; 33], "{unit}");
    }
}
