//! The dense product `C = alpha * sum_s A_s B_s + beta * C + bias`, with one or two terms in the same registers.
//!
//! The second term is LoRA's rank extension: `[x | s h] [W ; B]` is one product whose rank columns come last.
//! A tile of C stays in registers over the whole of k, so each element of C is one chain of additions in the order of
//! k, whatever the number of rows, the split among threads, and the panels that are taken at once.

use super::product_bf16::PairSegment;
use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The right operand of a product, in panels of as many columns as [`Kernels::panel`](super::Kernels::panel) says:
/// `B(p, j) = ptr[(j / panel columns) * panel + p * row + j % panel columns]`.
#[derive(Clone, Copy, Debug)]
pub struct Panels {
    /// The first element.
    pub ptr: *const u8,
    /// Its number format; converted to f32 as it is read.
    pub dtype: DType,
    /// Elements from one row of a panel to the next: the panel's columns if packed, B's row stride if not.
    pub row: usize,
    /// Elements from one panel to the next: k times the panel's columns if packed, the panel's columns if not.
    pub panel: usize,
    /// Whether the last panel can be read in full, as packing makes it; if not, only its valid columns are read.
    pub padded: bool,
}

/// One term of the sum: `A [rows x k]` times `B [k x cols]`.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// `A(i, p) = a[i * a_row + p * a_col]`.
    pub a: *const f32,
    /// Elements from one row of A to the next.
    pub a_row: usize,
    /// Elements from one column of A to the next.
    pub a_col: usize,
    /// B.
    pub b: Panels,
    /// Columns of A and rows of B.
    pub k: usize,
}

/// The arguments of `product`.
///
/// # Safety
/// Every element of A, B and C named by the strides is valid, and C overlaps nothing else.
#[derive(Clone, Copy, Debug)]
pub struct ProductArgs<'a> {
    /// Rows of C.
    pub rows: usize,
    /// Columns of C.
    pub cols: usize,
    /// The terms of the sum, in the order of their addition.
    pub segments: &'a [Segment],
    /// Factor of the sum; zero leaves A and B unread.
    pub alpha: f32,
    /// Factor of C as it was; zero leaves it unread.
    pub beta: f32,
    /// `cols` elements of C's dtype to add to each row, or null.
    pub bias: *const u8,
    /// C, row by row.
    pub c: *mut u8,
    /// Elements from one row of C to the next.
    pub c_row: usize,
    /// C's number format.
    pub c_dtype: DType,
}

/// A few rows and one or more panels of a product.
pub(super) struct Tile<'a> {
    pub args: &'a ProductArgs<'a>,
    pub segments: &'a [Segment],
    pub pairs: Option<&'a PairSegment>,
    pub row: usize,
    pub panel: usize,
    /// Columns of C from the tile's first to the last of the tile or of C.
    pub cols: usize,
}

/// A tile of a fixed number of rows and panels.
pub(super) type TileFn = unsafe fn(&Tile<'_>);

/// The tiles of one instruction set.
pub(super) struct Tiles {
    /// One panel by one row, two rows, and so on.
    pub one_panel: &'static [TileFn],
    /// For products of one row, two rows, and so on: a tile of several panels, and how many. One panel of a few rows has
    /// so few sums that each addition would wait for the one before it.
    pub wide: &'static [(TileFn, usize)],
}

/// The most rows of any tile.
const MAX_TILE_ROWS: usize = 12;
/// Rows of A that share a pointer: it reaches the next two rows by scaled indexing.
const GROUP: usize = 3;
/// How many rows of B ahead to ask for.
const AHEAD: usize = 32;

/// Walks C in tiles: panels outside, so that a panel of B is still in cache for the next rows.
///
/// # Safety
/// See [`ProductArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn product<S: Simd>(args: &ProductArgs<'_>, pairs: Option<&PairSegment>, tiles: &Tiles) {
    let (segments, pairs) = if args.alpha == 0.0 { (&[][..], None) } else { (args.segments, pairs) };
    if args.rows == 0 {
        return;
    }
    let wide = tiles.wide.get(args.rows - 1);
    // Blocks of nearly equal height: a short last one would leave the multipliers waiting.
    let blocks = args.rows.div_ceil(tiles.one_panel.len());
    let mut col = 0;
    while col < args.cols {
        let panel = col / S::PANEL;
        let cols = args.cols - col;
        if let Some((tile, panels)) = wide
            && cols >= panels * S::PANEL
        {
            let cols = panels * S::PANEL;
            // SAFETY: the tile lies within C.
            unsafe { tile(&Tile { args, segments, pairs, row: 0, panel, cols }) };
            col += cols;
            continue;
        }
        let cols = cols.min(S::PANEL);
        for block in 0..blocks {
            let row = args.rows * block / blocks;
            let rows = args.rows * (block + 1) / blocks - row;
            // SAFETY: the tile lies within C.
            unsafe { tiles.one_panel[rows - 1](&Tile { args, segments, pairs, row, panel, cols }) };
        }
        col += S::PANEL;
    }
}

/// The sums of a tile: for each row and panel, two vectors.
pub(super) type Sums<S, const ROWS: usize, const PANELS: usize> = [[[<S as Simd>::V; 2]; PANELS]; ROWS];

/// `ROWS` rows and `PANELS` panels of C. With more than one panel, all of their columns are in C.
///
/// # Safety
/// See [`ProductArgs`]; the tile lies within C; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn tile<S: Simd, const ROWS: usize, const PANELS: usize>(tile: &Tile<'_>) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[[S::splat(0.0); 2]; PANELS]; ROWS];
        accumulate_all::<S, ROWS, PANELS>(&mut sums, tile);
        write::<S, ROWS, PANELS>(&sums, tile);
    }
}

/// Adds all f32 segments.
///
/// # Safety
/// That of [`tile`].
#[inline(always)]
pub(super) unsafe fn accumulate_all<S: Simd, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<S, ROWS, PANELS>,
    tile: &Tile<'_>,
) {
    for segment in tile.segments {
        let partial = PANELS == 1 && tile.cols < S::PANEL && !segment.b.padded;
        // SAFETY: the caller's contract.
        unsafe {
            with_type!(segment.b.dtype, T => if partial {
                accumulate::<S, T, ROWS, PANELS, true>(sums, segment, tile)
            } else {
                accumulate::<S, T, ROWS, PANELS, false>(sums, segment, tile)
            });
        }
    }
}

/// `C = alpha * sums + beta * C + bias` of one tile.
///
/// # Safety
/// That of [`tile`].
#[inline(always)]
pub(super) unsafe fn write<S: Simd, const ROWS: usize, const PANELS: usize>(
    sums: &Sums<S, ROWS, PANELS>,
    tile: &Tile<'_>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        if tile.args.c_dtype == DType::F32 && tile.args.beta == 0.0 && tile.cols >= PANELS * S::PANEL {
            write_over::<S, ROWS, PANELS>(sums, tile);
        } else {
            // A copy: indexing it in a loop would force the sums themselves into memory.
            let mut copy = [[[S::splat(0.0); 2]; PANELS]; ROWS];
            copy.copy_from_slice(sums);
            with_type!(tile.args.c_dtype, T => write_any::<S, T, ROWS, PANELS>(&copy, tile));
        }
    }
}

/// Adds one segment: each step of k multiplies a column of A with a row of B.
///
/// # Safety
/// That of [`tile`].
#[inline(always)]
unsafe fn accumulate<S: Simd, T: Lane, const ROWS: usize, const PANELS: usize, const PARTIAL: bool>(
    sums: &mut Sums<S, ROWS, PANELS>,
    segment: &Segment,
    tile: &Tile<'_>,
) {
    // SAFETY: the caller's contract; the pointers are only stepped past the last element, never read there.
    unsafe {
        let Segment { a_row, a_col, k, .. } = *segment;
        let Panels { row: b_row, panel, .. } = segment.b;
        let first = segment.a.wrapping_add(tile.row * a_row);
        let mut a = [first; MAX_TILE_ROWS / GROUP];
        for i in 1..ROWS.div_ceil(GROUP) {
            a[i] = S::opaque(first.wrapping_add(i * GROUP * a_row));
        }
        let mut b = segment.b.ptr.cast::<T>().wrapping_add(tile.panel * panel);
        let low = tile.cols.min(S::LANES);
        let high = tile.cols.min(S::PANEL) - low;
        // A short B ends before that: asking for what lies behind it would push out what is needed.
        let ahead = if k > AHEAD { AHEAD * b_row } else { 0 };
        let mut local = *sums;
        for _ in 0..k {
            let mut row = [[S::splat(0.0); 2]; PANELS];
            for (i, row) in row.iter_mut().enumerate() {
                let b = b.wrapping_add(i * panel);
                if ROWS > 1 {
                    let ahead = b.wrapping_add(ahead);
                    S::prefetch(ahead.cast());
                    if size_of::<T>() == size_of::<f32>() {
                        S::prefetch(ahead.wrapping_add(S::LANES).cast());
                    }
                }
                *row = if PARTIAL {
                    [T::load_first::<S>(b, low), T::load_first::<S>(b.wrapping_add(low), high)]
                } else {
                    [T::load::<S>(b), T::load::<S>(b.add(S::LANES))]
                };
            }
            for i in 0..ROWS {
                let x = S::splat(*a[i / GROUP].add(i % GROUP * a_row));
                for j in 0..PANELS {
                    local[i][j][0] = S::fma(x, row[j][0], local[i][j][0]);
                    local[i][j][1] = S::fma(x, row[j][1], local[i][j][1]);
                }
            }
            for a in &mut a[..ROWS.div_ceil(GROUP)] {
                *a = a.wrapping_add(a_col);
            }
            b = b.wrapping_add(b_row);
        }
        *sums = local;
    }
}

/// `C = alpha * sums + bias` of one whole tile in f32: the common case, straight from the registers.
///
/// # Safety
/// That of [`tile`]; C is f32.
#[inline(always)]
unsafe fn write_over<S: Simd, const ROWS: usize, const PANELS: usize>(sums: &Sums<S, ROWS, PANELS>, tile: &Tile<'_>) {
    // SAFETY: the caller's contract.
    unsafe {
        let args = tile.args;
        let first = tile.panel * S::PANEL;
        let mut c = args.c.cast::<f32>().add(tile.row * args.c_row + first);
        let alpha = S::splat(args.alpha);
        let mut shift = [[S::splat(0.0); 2]; PANELS];
        if !args.bias.is_null() {
            let bias = args.bias.cast::<f32>().add(first);
            for j in 0..PANELS {
                shift[j] = [S::load(bias.add(j * S::PANEL)), S::load(bias.add(j * S::PANEL + S::LANES))];
            }
        }
        for i in 0..ROWS {
            for j in 0..PANELS {
                S::store(c.add(j * S::PANEL), S::fma(alpha, sums[i][j][0], shift[j][0]));
                S::store(c.add(j * S::PANEL + S::LANES), S::fma(alpha, sums[i][j][1], shift[j][1]));
            }
            c = c.wrapping_add(args.c_row);
        }
    }
}

/// `C = alpha * sums + beta * C + bias` of any tile.
///
/// # Safety
/// That of [`tile`]; C's dtype is T.
#[inline(always)]
unsafe fn write_any<S: Simd, T: Lane, const ROWS: usize, const PANELS: usize>(
    sums: &Sums<S, ROWS, PANELS>,
    tile: &Tile<'_>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let args = tile.args;
        let first = tile.panel * S::PANEL;
        let c = args.c.cast::<T>().add(tile.row * args.c_row + first);
        let bias = args.bias.cast::<T>();
        let alpha = S::splat(args.alpha);
        let beta = S::splat(args.beta);
        for j in 0..2 * PANELS {
            let col = j * S::LANES;
            if col >= tile.cols {
                return;
            }
            let n = (tile.cols - col).min(S::LANES);
            let shift = if bias.is_null() { S::splat(0.0) } else { load_upto::<S, T>(bias.add(first + col), n) };
            for (i, sums) in sums.iter().enumerate() {
                let c = c.add(i * args.c_row + col);
                let mut v = S::fma(alpha, sums[j / 2][j % 2], shift);
                if args.beta != 0.0 {
                    v = S::fma(beta, load_upto::<S, T>(c, n), v);
                }
                if n == S::LANES {
                    T::store::<S>(c, v);
                } else {
                    T::store_first::<S>(c, v, n);
                }
            }
        }
    }
}

/// # Safety
/// `n <= LANES` elements at `p` are valid; the CPU has the instruction set.
#[inline(always)]
unsafe fn load_upto<S: Simd, T: Lane>(p: *const T, n: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe { if n == S::LANES { T::load::<S>(p) } else { T::load_first::<S>(p, n) } }
}
