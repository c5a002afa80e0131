//! Products of x in f32 with panels of quantised weights: what operations that round nothing run, and rows of x that
//! cannot be rounded.

use super::int8::write;
use super::panels::{GROUP, Groups, PANEL, Q4_0, Q4_1, Q4K, Q6K, Q8_0, WORDS};
use crate::simd::Simd;
use candlewick_core::{DType, Quant};

/// The arguments of `quant_exact`: `y(row, o) = sum of x(row) * w(o)` for the rows of one panel. An infinite scale may make
/// a NaN of what the format's definition makes infinite.
///
/// # Safety
/// The panel has `groups` groups of 32, x `32 * groups` elements and y `cols` in each of `rows` rows.
#[derive(Clone, Copy, Debug)]
pub struct QuantExactArgs {
    /// Rows of x and y.
    pub rows: usize,
    /// Columns of y: at most those of a panel.
    pub cols: usize,
    /// Groups of 32 that a row of x and of W has.
    pub groups: usize,
    /// W's format.
    pub format: Quant,
    /// The panel.
    pub panel: *const u8,
    /// x.
    pub x: *const f32,
    /// Elements between rows of x.
    pub x_row: usize,
    /// Where to write.
    pub y: *mut u8,
    /// Elements between rows of y.
    pub y_row: usize,
    /// y's number format.
    pub y_dtype: DType,
    /// Whether y is added to.
    pub accumulate: bool,
}

/// # Safety
/// See [`QuantExactArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(in crate::kernels) unsafe fn quant_exact<S: Simd>(args: &QuantExactArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        match args.format {
            Quant::Q4_0 => tiles::<S, Q4_0>(args),
            Quant::Q4_1 => tiles::<S, Q4_1>(args),
            Quant::Q8_0 => tiles::<S, Q8_0>(args),
            Quant::Q4K => tiles::<S, Q4K>(args),
            Quant::Q6K => tiles::<S, Q6K>(args),
        }
    }
}

/// # Safety
/// That of [`quant_exact`], with F its format.
#[inline(always)]
unsafe fn tiles<S: Simd, F: Groups>(args: &QuantExactArgs) {
    let mut row = 0;
    // SAFETY: the caller's contract; the rows are there.
    unsafe {
        while row < args.rows {
            row += match args.rows - row {
                8.. => tile::<S, F, 8>(args, row),
                4.. => tile::<S, F, 4>(args, row),
                _ => tile::<S, F, 1>(args, row),
            };
        }
    }
}

/// `ROWS` rows from `row` on; returns how many.
///
/// # Safety
/// That of [`quant_exact`]; the rows are there.
#[inline(always)]
unsafe fn tile<S: Simd, F: Groups, const ROWS: usize>(args: &QuantExactArgs, row: usize) -> usize {
    let mut sums = [[0f32; PANEL]; ROWS];
    // SAFETY: the caller's contract.
    unsafe {
        let x = args.x.add(row * args.x_row);
        for part in 0..PANEL / S::LANES {
            // Two chains: an addition waits for the one before it.
            let mut even = [S::splat(0.0); ROWS];
            let mut odd = [S::splat(0.0); ROWS];
            for group in 0..args.groups {
                let words = F::words::<S, false>(args.panel, group, part);
                let share = WORDS / F::SCALES;
                for nth in 0..F::SCALES {
                    let (scale, offset) = F::scale::<S, false>(args.panel, group, nth, part);
                    for j in nth * share..(nth + 1) * share {
                        let col = group * GROUP + 4 * j;
                        let number = (scale, offset);
                        add::<S, ROWS>(&mut even, words[j], number, x.add(col), args.x_row);
                        add::<S, ROWS>(&mut odd, S::shift_right::<8>(words[j]), number, x.add(col + 1), args.x_row);
                        add::<S, ROWS>(&mut even, S::shift_right::<16>(words[j]), number, x.add(col + 2), args.x_row);
                        add::<S, ROWS>(&mut odd, S::shift_right::<24>(words[j]), number, x.add(col + 3), args.x_row);
                    }
                }
            }
            for r in 0..ROWS {
                S::store(sums[r].as_mut_ptr().add(part * S::LANES), S::add(even[r], odd[r]));
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let y = args.y.add((row + r) * args.y_row * args.y_dtype.bytes());
            write::<S>(sums, args.cols, y, args.y_dtype, args.accumulate);
        }
    }
    ROWS
}

/// Adds a column: the lowest bytes of the lanes are W's, `x` and every `x_row`th number behind it x's.
///
/// # Safety
/// The numbers are there; the CPU has the instruction set.
#[inline(always)]
unsafe fn add<S: Simd, const ROWS: usize>(
    sums: &mut [S::V; ROWS],
    bytes: S::I,
    (scale, offset): (S::V, S::V),
    x: *const f32,
    x_row: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let w = S::fma(S::from_integers(S::and_bits(bytes, 255)), scale, offset);
        for r in 0..ROWS {
            sums[r] = S::fma(S::splat(*x.add(r * x_row)), w, sums[r]);
        }
    }
}
