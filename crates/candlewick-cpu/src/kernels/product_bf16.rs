//! The product with a first term in bf16, on CPUs that multiply pairs of bf16 and add them up in f32.
//!
//! A is read in place: two neighbours along k are one 32-bit number. B is packed so that two rows are one too.

use super::product::{ProductArgs, Sums, Tile, accumulate_all, write};
use crate::simd::{PairDot, Simd};

/// A term in bf16: `A [rows x k]` times `B [k x cols]`.
#[derive(Clone, Copy, Debug)]
pub struct PairSegment {
    /// A, contiguous along k; two-byte alignment is enough.
    pub a: *const u8,
    /// Elements from one row of A to the next.
    pub a_row: usize,
    /// B, as `pack_pairs` writes it, aligned to four bytes.
    pub b: *const u8,
    /// Columns of A and rows of B.
    pub k: usize,
}

/// The arguments of `product_bf16`: the bf16 term comes first, and then all that `product` does.
///
/// # Safety
/// That of [`ProductArgs`], and every element of the bf16 term is valid.
#[derive(Clone, Copy, Debug)]
pub struct ProductBf16Args<'a> {
    /// The bf16 term.
    pub pairs: PairSegment,
    /// The other terms, if any, and C.
    pub product: ProductArgs<'a>,
}

/// A tile of the product that begins with the bf16 term, if the tile has one.
///
/// # Safety
/// See [`ProductBf16Args`]; the tile lies within C; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn tile<S: PairDot, const ROWS: usize, const PANELS: usize>(tile: &Tile<'_>) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[[S::splat(0.0); 2]; PANELS]; ROWS];
        if let Some(pairs) = tile.pairs {
            accumulate_pairs::<S, ROWS, PANELS>(&mut sums, pairs, tile);
        }
        accumulate_all::<S, ROWS, PANELS>(&mut sums, tile);
        write::<S, ROWS, PANELS>(&sums, tile);
    }
}

/// Adds the bf16 term, two steps of k at a time.
///
/// # Safety
/// That of [`tile`].
#[inline(always)]
unsafe fn accumulate_pairs<S: PairDot, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<S, ROWS, PANELS>,
    segment: &PairSegment,
    tile: &Tile<'_>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let k = segment.k;
        let panel = k.div_ceil(2) * <S as Simd>::PANEL;
        let a = segment.a.cast::<u16>().wrapping_add(tile.row * segment.a_row);
        let b = segment.b.cast::<f32>().wrapping_add(tile.panel * panel);
        let mut local = *sums;
        for pair in 0..k / 2 {
            let mut x = [0u32; ROWS];
            for i in 0..ROWS {
                x[i] = a.add(i * segment.a_row + 2 * pair).cast::<u32>().read_unaligned();
            }
            step::<S, ROWS, PANELS>(&mut local, x, b.add(pair * S::PANEL), panel);
        }
        if k % 2 == 1 {
            // The last number of each row alone: what follows it in memory is not part of A.
            let mut x = [0u32; ROWS];
            for i in 0..ROWS {
                x[i] = u32::from(*a.add(i * segment.a_row + k - 1));
            }
            step::<S, ROWS, PANELS>(&mut local, x, b.add(k / 2 * S::PANEL), panel);
        }
        *sums = local;
    }
}

/// One pair of each row of A times one row of pairs of B.
///
/// # Safety
/// That of [`tile`].
#[inline(always)]
unsafe fn step<S: PairDot, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<S, ROWS, PANELS>,
    x: [u32; ROWS],
    b: *const f32,
    panel: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        for j in 0..PANELS {
            let b = b.add(j * panel);
            let (low, high) = (S::load(b), S::load(b.add(S::LANES)));
            for i in 0..ROWS {
                let x = S::splat(f32::from_bits(x[i]));
                sums[i][j][0] = S::dot_pairs(x, low, sums[i][j][0]);
                sums[i][j][1] = S::dot_pairs(x, high, sums[i][j][1]);
            }
        }
    }
}
