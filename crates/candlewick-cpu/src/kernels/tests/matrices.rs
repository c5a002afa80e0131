//! Packing, transposition and conversion: everything that moves numbers.

use super::*;
use crate::kernels::{AddArgs, NarrowArgs, PackArgs, TransposeArgs, WidenArgs};

/// The formats that `pack` and `transpose` convert between.
fn widening() -> impl Iterator<Item = (DType, DType)> {
    DType::ALL.into_iter().flat_map(|src| [(src, DType::F32), (src, src)])
}

fn check_pack(table: &Kernels, k: usize, cols: usize, transposed: bool, src_dtype: DType, dst_dtype: DType) {
    let what = format!("{} {k}x{cols} transposed {transposed} {src_dtype} {dst_dtype}", table.isa);
    let (lines, length) = if transposed { (cols, k) } else { (k, cols) };
    let src_row = length + 3;
    let src = Numbers::random(src_dtype, lines * src_row, 5);
    let panels = cols.div_ceil(table.panel);
    let size = panels * k * table.panel;
    let mut dst = Numbers::new(dst_dtype, &vec![-7.0; size + 9]);
    // Two calls share the panels, as two threads would.
    let first = (panels / 2 * table.panel).min(cols);
    for (from, to) in [(0, first), (first, cols)] {
        let args = PackArgs {
            k,
            cols: to - from,
            src: src.at(if transposed { from * src_row } else { from }),
            src_dtype,
            src_row,
            transposed,
            dst: dst.mut_ptr().wrapping_add(from * k * dst_dtype.bytes()),
            dst_dtype,
        };
        // SAFETY: the buffers have the sizes that the arguments say.
        unsafe { (table.pack)(&args) };
    }
    let (src, dst) = (src.values(), dst.values());
    for (at, &got) in dst.iter().enumerate() {
        if at >= size {
            assert_eq!(got, -7.0, "{what}: wrote beyond the panels");
            continue;
        }
        let (panel, p, lane) = (at / (k * table.panel), at / table.panel % k, at % table.panel);
        let j = panel * table.panel + lane;
        let want = match (j < cols, transposed) {
            (false, _) => 0.0,
            (true, true) => src[j * src_row + p],
            (true, false) => src[p * src_row + j],
        };
        assert_eq!(got, want, "{what} at ({p}, {j})");
    }
}

#[test]
fn packs_both_layouts() {
    for table in tables() {
        for k in [0, 1, 3, 7, 16, 17, 33, 70].into_iter().step_by(STEP) {
            for cols in [0, 1, 7, 8, 17, 32, 33, 65].into_iter().step_by(STEP) {
                for transposed in [false, true] {
                    for (src, dst) in widening() {
                        check_pack(table, k, cols, transposed, src, dst);
                    }
                }
            }
        }
    }
}

#[test]
fn packing_halves_copies_every_bit_pattern() {
    for table in tables() {
        let memory: Vec<u32> = (0..1u32 << 15).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
        let src = Numbers { dtype: DType::BF16, n: 1 << 16, memory };
        let mut dst = src.clone();
        dst.memory.fill(0);
        let (k, cols) = ((1 << 16) / table.panel, table.panel);
        let args = PackArgs {
            k,
            cols,
            src: src.ptr(),
            src_dtype: DType::BF16,
            src_row: cols,
            transposed: false,
            dst: dst.mut_ptr(),
            dst_dtype: DType::BF16,
        };
        // SAFETY: one panel of 2^16 numbers.
        unsafe { (table.pack)(&args) };
        assert!(src.memory == dst.memory, "{}", table.isa);
    }
}

#[test]
fn transposes_with_conversion_and_scale() {
    for (table, (src_dtype, dst_dtype)) in
        tables().flat_map(|t| widening().flat_map(|(a, b)| [(a, b), (b, a)]).map(move |formats| (t, formats)))
    {
        if src_dtype != DType::F32 && dst_dtype != DType::F32 {
            continue;
        }
        for rows in [0, 1, 3, 8, 16, 17, 33].into_iter().step_by(STEP) {
            for cols in [0, 1, 7, 8, 16, 17, 33].into_iter().step_by(STEP) {
                for scale in [1.0, -0.5] {
                    let (src_row, dst_row) = (cols + 1, rows + 2);
                    let src = Numbers::random(src_dtype, rows * src_row, 6);
                    let mut dst = Numbers::new(dst_dtype, &vec![-7.0; cols * dst_row + 1]);
                    let args = TransposeArgs {
                        rows,
                        cols,
                        scale,
                        src: src.ptr(),
                        src_dtype,
                        src_row,
                        dst: dst.mut_ptr(),
                        dst_dtype,
                        dst_row,
                    };
                    // SAFETY: the buffers have the sizes that the arguments say.
                    unsafe { (table.transpose)(&args) };
                    let mut want = vec![-7.0; cols * dst_row + 1];
                    for (i, line) in src.values().chunks_exact(src_row).enumerate() {
                        for j in 0..cols {
                            want[j * dst_row + i] = scale * line[j];
                        }
                    }
                    let want = Numbers::new(dst_dtype, &want).values();
                    assert_eq!(dst.values(), want, "{} {rows}x{cols} {src_dtype} {dst_dtype}", table.isa);
                }
            }
        }
    }
}

#[test]
fn converts_rows_of_any_length() {
    for table in tables() {
        for dtype in DType::ALL {
            for n in [0, 1, 3, 7, 8, 15, 16, 17, 33, 65].into_iter().step_by(STEP) {
                let src = Numbers::random(dtype, n, 7);
                let mut wide = Numbers::new(DType::F32, &vec![-7.0; n + 1]);
                let dst = wide.mut_ptr().cast();
                // SAFETY: n elements at both pointers.
                unsafe { (table.widen)(&WidenArgs { n, src: src.ptr(), src_dtype: dtype, dst }) };
                let mut want = src.values();
                want.push(-7.0);
                assert_eq!(wide.values(), want, "{} {dtype} {n}", table.isa);

                let values = random(n, 8);
                let mut narrow = Numbers::new(dtype, &vec![-7.0; n + 1]);
                let dst = narrow.mut_ptr();
                // SAFETY: n elements at both pointers.
                unsafe { (table.narrow)(&NarrowArgs { n, scale: -3.0, src: values.as_ptr(), dst, dst_dtype: dtype }) };
                let mut want: Vec<f32> = values.iter().map(|v| -3.0 * v).collect();
                want.push(-7.0);
                assert_eq!(narrow.values(), Numbers::new(dtype, &want).values(), "{} {dtype} {n}", table.isa);

                let mut sums = want.clone();
                // SAFETY: n elements at both pointers.
                unsafe { (table.add)(&AddArgs { n, scale: 2.0, src: values.as_ptr(), dst: sums.as_mut_ptr() }) };
                for i in 0..n {
                    let want = f64::from(want[i]) + 2.0 * f64::from(values[i]);
                    assert_near(sums[i], want, 4e-7, DType::F32, &table.isa);
                }
                assert_eq!(sums[n], -7.0);
            }
        }
    }
}
