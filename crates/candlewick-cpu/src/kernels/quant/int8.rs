//! Products of integers of 8 bits: x rounded by blocks of 32, times panels of quantised weights.
//!
//! x is about d · q, so y is the sum over groups of scale · d · (bytes · q) + offset · d · sum(q). The sums of q need no look
//! at W: they are made when x is rounded. Where the offset is a multiple of the scale, integers take it: sums of bytes · q
//! start from -bias · sum(q).

use super::panels::{GROUP, Groups, LINE, PANEL, Q4_0, Q4_1, Q4K, Q6K, Q8_0, Unpacked, WORDS};
use super::panels::{bias_of, scales_of, unpack};
use crate::kernels::with_type;
use crate::simd::{ByteDot, Lane, Simd};
use candlewick_core::{DType, Quant};

/// The arguments of `quant_round`, which rounds one row of x for `quant_product`.
///
/// # Safety
/// `32 * groups` elements are valid at `x`, and the tile has room for [`rounded_bytes`] of each of its rows.
#[derive(Clone, Copy, Debug)]
pub struct QuantRoundArgs {
    /// Groups of 32.
    pub groups: usize,
    /// W's format.
    pub format: Quant,
    /// The row.
    pub x: *const u8,
    /// Its number format.
    pub dtype: DType,
    /// The tile that the row belongs to.
    pub tile: *mut u8,
    /// How many rows the tile has.
    pub tile_rows: usize,
    /// Which of them this is.
    pub row: usize,
    /// Becomes 1 where the row cannot be rounded, and 0 elsewhere.
    pub exact: *mut u32,
}

/// The arguments of `quant_product`: `y(row, o) = sum of x(row) * w(o)` for the rows of one panel.
///
/// # Safety
/// x was made by `quant_round` in the tiles of [`tile_of`]; the panel has `groups` groups of 32; y has `cols` elements in
/// each of `rows` rows; there is a flag for each row.
#[derive(Clone, Copy, Debug)]
pub struct QuantProductArgs {
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
    /// Rounded x.
    pub x: *const u8,
    /// Rows that are left alone.
    pub exact: *const u32,
    /// Room for [`unpacked_bytes`], or null for few rows of x.
    pub unpacked: *mut u8,
    /// Where to write.
    pub y: *mut u8,
    /// Elements between rows of y.
    pub y_row: usize,
    /// y's number format.
    pub y_dtype: DType,
    /// Whether y is added to.
    pub accumulate: bool,
}

/// Bytes of a group of a rounded row: its numbers, its scale, a sum for each scale of W. A tile has the numbers of all its
/// rows first, then the scales, then the sums.
pub const fn rounded_bytes(scales: usize) -> usize {
    GROUP + 4 + 4 * scales
}

/// Bytes of an unpacked panel.
pub const fn unpacked_bytes(format: Quant, groups: usize) -> usize {
    (WORDS + 2 * scales_of(format)) * LINE * groups
}

/// The first row of the tile that `row` belongs to, and how many it has: as many as `most` while there are so many, and then
/// powers of two.
pub fn tile_of(row: usize, rows: usize, most: usize) -> (usize, usize) {
    let mut first = rows / most * most;
    if row < first {
        return (row / most * most, most);
    }
    loop {
        let size = 1 << (rows - first).ilog2();
        if row < first + size {
            return (first, size);
        }
        first += size;
    }
}

/// How far ahead of the products W is asked for, in bytes: as they wait for data, few lines are under way otherwise. Of 1, 2, 4
/// and 8 KiB the best on a Sapphire Rapids whose weights come from the last cache: 24 GB/s on two cores instead of 18.
const AHEAD: usize = 4096;

/// Rows of the largest tile for weights with so many scales in a group: each scale wants registers.
pub const fn most_rows(rows: usize, scales: usize) -> usize {
    if scales > 1 && rows > 8 { 8 } else { rows }
}

/// Magnitudes of a block whose products stay well within f32. Zero is well, too.
const ORDINARY: std::ops::RangeInclusive<f32> = 1e-30..=1e18;

/// # Safety
/// See [`QuantRoundArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(in crate::kernels) unsafe fn quant_round<B: ByteDot>(args: &QuantRoundArgs) {
    let QuantRoundArgs { groups, format, tile, tile_rows, row, .. } = *args;
    let (scales, bias) = (scales_of(format), bias_of(format, B::SIGNED));
    // SAFETY: the caller's contract.
    unsafe {
        let zero = B::S::splat(0.0);
        with_type!(args.dtype, T => {
            let x = args.x.cast::<T>();
            let mut odd = false;
            // NaN from the first infinity or NaN on, which `max` may pass over.
            let mut finite = zero;
            for group in 0..groups {
                let x = x.add(group * GROUP);
                let tile = tile.add(group * tile_rows * rounded_bytes(scales));
                let mut largest = zero;
                for i in (0..GROUP).step_by(B::S::LANES) {
                    let v = T::load::<B::S>(x.add(i));
                    finite = B::S::fma(v, zero, finite);
                    largest = B::S::max(largest, B::S::max(v, B::S::sub(zero, v)));
                }
                let largest = B::S::reduce_max(largest);
                odd |= largest != 0.0 && !ORDINARY.contains(&largest);
                let inverse = B::S::splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
                let d = largest / 127.0;
                *tile.add(tile_rows * GROUP).cast::<f32>().add(row) = d;
                let sums = tile.add(tile_rows * (GROUP + 4)).cast::<f32>().add(row * scales);
                let span = GROUP / scales;
                for nth in 0..scales {
                    let mut sum = zero;
                    for i in (nth * span..(nth + 1) * span).step_by(B::S::LANES) {
                        let q = B::S::round(B::S::mul(T::load::<B::S>(x.add(i)), inverse));
                        B::S::store_signed_bytes(tile.add(row * GROUP + i).cast(), q);
                        sum = B::S::add(sum, q);
                    }
                    let sum = B::S::reduce_add(sum);
                    match bias {
                        Some(bias) => sums.add(nth).cast::<i32>().write(-bias * sum as i32),
                        None => sums.add(nth).write(d * sum),
                    }
                }
            }
            odd |= B::S::reduce_add(finite).is_nan();
            *args.exact = odd.into();
        });
    }
}

/// # Safety
/// See [`QuantProductArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(in crate::kernels) unsafe fn quant_product<B: ByteDot>(args: &QuantProductArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        match args.format {
            Quant::Q4_0 => panel::<B, Q4_0, Unpacked<4, 1, true>>(args),
            Quant::Q4_1 => panel::<B, Q4_1, Unpacked<4, 1, false>>(args),
            Quant::Q8_0 => panel::<B, Q8_0, Unpacked<8, 1, true>>(args),
            Quant::Q4K => panel::<B, Q4K, Unpacked<4, 1, false>>(args),
            Quant::Q6K => panel::<B, Q6K, Unpacked<6, 2, true>>(args),
        }
    }
}

/// Few rows of x meet the panel as it is; for more it is unpacked once.
///
/// # Safety
/// That of [`quant_product`], with F its format, and U what it is unpacked to.
#[inline(always)]
unsafe fn panel<B: ByteDot, F: Groups, U: Groups>(args: &QuantProductArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        if args.unpacked.is_null() {
            return tiles::<B, F, 4>(args, args.panel);
        }
        if B::SIGNED {
            unpack::<B::S, F, true>(args.panel, args.groups, args.unpacked);
        } else {
            unpack::<B::S, F, false>(args.panel, args.groups, args.unpacked);
        }
        tiles::<B, U, 12>(args, args.unpacked);
    }
}

/// # Safety
/// That of [`quant_product`], with G the source at `panel`.
#[inline(always)]
unsafe fn tiles<B: ByteDot, G: Groups, const MOST: usize>(args: &QuantProductArgs, panel: *const u8) {
    let row_bytes = args.groups * rounded_bytes(G::SCALES);
    let mut sums = [[0f32; PANEL]; 12];
    let mut first = 0;
    while first < args.rows {
        let (_, size) = tile_of(first, args.rows, most_rows(B::ROWS, G::SCALES));
        // SAFETY: the caller's contract; a tile has as many bytes as its rows.
        unsafe {
            let x = args.x.add(first * row_bytes);
            match size {
                12 if MOST >= 12 && B::ROWS >= 12 => tile::<B, G, 12>(args.groups, panel, x, &mut sums),
                8 if MOST >= 8 && B::ROWS >= 8 => tile::<B, G, 8>(args.groups, panel, x, &mut sums),
                4 => tile::<B, G, 4>(args.groups, panel, x, &mut sums),
                2 => tile::<B, G, 2>(args.groups, panel, x, &mut sums),
                _ => tile::<B, G, 1>(args.groups, panel, x, &mut sums),
            }
            for (row, sums) in sums.iter().enumerate().take(size) {
                if *args.exact.add(first + row) == 0 {
                    let y = args.y.add((first + row) * args.y_row * args.y_dtype.bytes());
                    write::<B::S>(sums, args.cols, y, args.y_dtype, args.accumulate);
                }
            }
        }
        first += size;
    }
}

/// Writes a row's results of a panel, or adds them.
///
/// # Safety
/// There are `cols` elements at y; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn write<S: Simd>(sums: &[f32; PANEL], cols: usize, y: *mut u8, dtype: DType, accumulate: bool) {
    // SAFETY: the caller's contract; whole vectors of the sums are there.
    unsafe {
        with_type!(dtype, T => {
            for i in (0..cols).step_by(S::LANES) {
                let (y, n) = (y.cast::<T>().add(i), S::LANES.min(cols - i));
                let mut sum = S::load(sums.as_ptr().add(i));
                if accumulate {
                    sum = S::add(sum, T::load_first::<S>(y, n));
                }
                T::store_first::<S>(y, sum, n);
            }
        });
    }
}

/// `ROWS` rows of x times a panel.
///
/// # Safety
/// The panel and the tile have the groups; the CPU has the instruction set.
#[inline(always)]
unsafe fn tile<B: ByteDot, G: Groups, const ROWS: usize>(
    groups: usize,
    panel: *const u8,
    x: *const u8,
    to: &mut [[f32; PANEL]; 12],
) {
    let step = ROWS * rounded_bytes(G::SCALES);
    let share = WORDS / G::SCALES;
    for part in 0..PANEL / B::S::LANES {
        // SAFETY: the caller's contract.
        unsafe {
            let mut sums = [B::S::splat(0.0); ROWS];
            for group in 0..groups {
                let x = x.add(group * step);
                let (d, ds) = (x.add(ROWS * GROUP).cast::<f32>(), x.add(ROWS * (GROUP + 4)).cast::<f32>());
                let words = if B::SIGNED {
                    G::words::<B::S, true>(panel, group, part)
                } else {
                    G::words::<B::S, false>(panel, group, part)
                };
                if part == 0 {
                    for line in 0..G::BYTES.div_ceil(64) {
                        B::S::prefetch(panel.wrapping_add(group * G::BYTES + AHEAD + 64 * line));
                    }
                }
                for nth in 0..G::SCALES {
                    let (scale, offset) = if B::SIGNED {
                        G::scale::<B::S, true>(panel, group, nth, part)
                    } else {
                        G::scale::<B::S, false>(panel, group, nth, part)
                    };
                    let of_x = ds.add(nth);
                    let mut start = [0; ROWS];
                    if G::BIASED {
                        for r in 0..ROWS {
                            start[r] = *of_x.add(r * G::SCALES).cast::<i32>();
                        }
                    }
                    let q = x.add(4 * nth * share).cast::<i8>();
                    let dots = B::dots(start, &words[nth * share..(nth + 1) * share], G::BITS, q, GROUP);
                    for r in 0..ROWS {
                        let scaled = B::S::mul(scale, B::S::splat(*d.add(r)));
                        sums[r] = B::S::fma(B::S::from_integers(dots[r]), scaled, sums[r]);
                        if !G::BIASED {
                            sums[r] = B::S::fma(offset, B::S::splat(*of_x.add(r * G::SCALES)), sums[r]);
                        }
                    }
                }
            }
            for r in 0..ROWS {
                B::S::store(to[r].as_mut_ptr().add(part * B::S::LANES), sums[r]);
            }
        }
    }
}
