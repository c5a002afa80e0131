//! The product with a first term in bf16, on Intel's matrix unit: blocks of 32 rows by one panel.
//!
//! A block's sums are made in C, where they are all that C becomes, or in a buffer. From there they go into AVX-512 registers,
//! a few rows at a time, to have the other terms added and to be written, as in any other product.

use super::product::{Sums, Tile, accumulate_all, write};
use super::{Kernels, PairSegment, ProductBf16Args, avx512};
use crate::simd::amx::{AHEAD, Amx, Block, COLS, DEPTH, MatrixUnit, ROWS, ask_to_write};
use crate::simd::{Isa, Simd, avx512::Avx512};
use candlewick_core::DType;
use std::mem::MaybeUninit;

/// The AVX-512 kernels with this product.
pub(super) const TABLE: Kernels =
    Kernels { isa: Isa::Amx, tile_rows: ROWS, product_bf16: Some(product::<Amx>), ..avx512::TABLE };

const _: () = assert!(COLS == Avx512::PANEL);

/// Bytes of a row of pairs of a panel.
const PAIR_ROW: usize = 4 * COLS;

/// Bytes of a cache line.
const LINE: usize = 64;

/// The sums of a block.
#[repr(align(64))]
struct BlockSums([MaybeUninit<f32>; ROWS * COLS]);

/// The last, incomplete step of k, filled up with zeros.
#[repr(align(64))]
struct Tail {
    a: [u16; ROWS * DEPTH],
    b: [u16; DEPTH * COLS],
}

/// Walks C in blocks: panels outside, so that a panel of B is still in cache for the next rows.
///
/// # Safety
/// See [`ProductBf16Args`]; the CPU has AVX-512 and the unit.
pub(super) unsafe fn product<U: MatrixUnit>(args: &ProductBf16Args<'_>) {
    let ProductBf16Args { pairs, product: args } = args;
    if args.alpha == 0.0 || pairs.k == 0 {
        // SAFETY: the caller's contract.
        return unsafe { (TABLE.product)(args) };
    }
    let mut buffer = BlockSums([const { MaybeUninit::uninit() }; ROWS * COLS]);
    let buffer: *mut f32 = buffer.0.as_mut_ptr().cast();
    let mut tail = (!pairs.k.is_multiple_of(DEPTH)).then(Tail::new);
    let mut configured = 0;
    // Whether there is no other term.
    let alone = args.segments.is_empty() && args.bias.is_null();
    let bytes = args.c_dtype.bytes();
    for panel in 0..args.cols.div_ceil(COLS) {
        if let Some(tail) = &mut tail {
            // SAFETY: the caller's contract: the panel is one of B's.
            unsafe { tail.take_b(pairs, panel) };
        }
        let cols = (args.cols - panel * COLS).min(COLS);
        for row in (0..args.rows).step_by(ROWS) {
            let rows = (args.rows - row).min(ROWS);
            let c = args.c.wrapping_add((row * args.c_row + panel * COLS) * bytes);
            let (f32_alone, bf16_alone) = match args.c_dtype {
                _ if !alone || cols < COLS => (false, false),
                DType::F32 => (args.alpha == 1.0 && (args.beta == 0.0 || args.beta == 1.0), false),
                dtype => (false, dtype == DType::BF16 && args.beta == 0.0),
            };
            let add = f32_alone && args.beta == 1.0;
            let (sums, sums_row) = if f32_alone { (c.cast(), args.c_row) } else { (buffer, COLS) };
            if !f32_alone {
                // Lines of C are far apart: asked for now, they are there when the sums are.
                for i in 0..rows {
                    (0..cols * bytes)
                        .step_by(LINE)
                        .for_each(|at| ask_to_write(c.wrapping_add(i * args.c_row * bytes + at)));
                }
            }
            // SAFETY: the caller's contract; the block lies within C, and the unit is configured for its rows.
            unsafe {
                if rows != configured {
                    U::configure(rows);
                    configured = rows;
                }
                multiply::<U>(pairs, (row, rows), panel, tail.as_mut(), (sums, sums_row), add);
                if bf16_alone {
                    U::narrow(rows, args.alpha, sums, c, args.c_row);
                } else if !f32_alone {
                    finish_block(Tile { args, segments: args.segments, pairs: None, row, panel, cols }, rows, sums);
                }
            }
        }
    }
    if configured != 0 {
        // SAFETY: the caller's contract.
        unsafe { U::release() };
    }
}

/// The bf16 term of one block: its sums, or added to them.
///
/// # Safety
/// That of [`product`], with the unit configured for `rows`; `tail` has this panel's rows of B, if k has an incomplete step.
#[inline(always)]
unsafe fn multiply<U: MatrixUnit>(
    pairs: &PairSegment,
    (row, rows): (usize, usize),
    panel: usize,
    tail: Option<&mut Tail>,
    (sums, sums_row): (*mut f32, usize),
    add: bool,
) {
    let steps = pairs.k / DEPTH;
    let sums_row_bytes = sums_row * size_of::<f32>();
    let b = panel_of(pairs, panel);
    // Weights come from memory. While one panel is multiplied, each block of rows brings a part of the next.
    let part = row / ROWS;
    let ahead = if part < PAIR_ROW * DEPTH / 2 / AHEAD {
        panel_of(pairs, panel + 1).wrapping_add(part * steps * AHEAD)
    } else {
        b
    };
    // SAFETY: the caller's contract. The unit reads whole steps of k only, and of the rest its copy.
    unsafe {
        if steps > 0 {
            let a = pairs.a.add(row * pairs.a_row * size_of::<u16>());
            let a_row_bytes = pairs.a_row * size_of::<u16>();
            U::multiply(&Block { rows, steps, a, a_row_bytes, b, sums, sums_row_bytes, add, ahead });
        }
        if let Some(tail) = tail {
            tail.take_a(pairs, row, rows);
            let (a, b, a_row_bytes) = (tail.a.as_ptr().cast(), tail.b.as_ptr().cast(), DEPTH * size_of::<u16>());
            U::multiply(&Block {
                rows,
                steps: 1,
                a,
                a_row_bytes,
                b,
                sums,
                sums_row_bytes,
                add: add || steps > 0,
                ahead: b,
            });
        }
    }
}

/// A panel of B.
fn panel_of(pairs: &PairSegment, panel: usize) -> *const u8 {
    pairs.b.wrapping_add(panel * pairs.k.div_ceil(2) * PAIR_ROW)
}

impl Tail {
    fn new() -> Tail {
        Tail { a: [0; ROWS * DEPTH], b: [0; DEPTH * COLS] }
    }

    /// Copies the last columns of some rows of A. The rest stays zero: every tail of a product is as long.
    ///
    /// # Safety
    /// Every element of the rows is valid.
    #[inline(always)]
    unsafe fn take_a(&mut self, pairs: &PairSegment, row: usize, rows: usize) {
        let start = pairs.k / DEPTH * DEPTH;
        for i in 0..rows {
            let from = pairs.a.wrapping_add(((row + i) * pairs.a_row + start) * size_of::<u16>());
            let to = self.a[i * DEPTH..].as_mut_ptr().cast();
            // SAFETY: the caller's contract; a row of the copy has room for more. A may be aligned to bytes only.
            unsafe { std::ptr::copy_nonoverlapping(from, to, (pairs.k - start) * size_of::<u16>()) };
        }
    }

    /// Copies the last rows of pairs of a panel of B. The rest stays zero.
    ///
    /// # Safety
    /// Every pair of the panel is valid.
    #[inline(always)]
    unsafe fn take_b(&mut self, pairs: &PairSegment, panel: usize) {
        let start = pairs.k / DEPTH * DEPTH / 2;
        let from = panel_of(pairs, panel).wrapping_add(start * PAIR_ROW);
        let to = self.b.as_mut_ptr().cast();
        // SAFETY: the caller's contract; the copy has room for one row more.
        unsafe { std::ptr::copy_nonoverlapping(from, to, (pairs.k.div_ceil(2) - start) * PAIR_ROW) };
    }
}

/// The rest of the work on one block, in tiles of nearly equal height.
///
/// # Safety
/// That of [`product`]; the block that begins with `tile` and has `rows` rows lies within C.
unsafe fn finish_block(tile: Tile<'_>, rows: usize, sums: *const f32) {
    let parts = rows.div_ceil(FINISH.len());
    for part in 0..parts {
        let (start, end) = (rows * part / parts, rows * (part + 1) / parts);
        let part = Tile { row: tile.row + start, ..tile };
        // SAFETY: the caller's contract; the buffer has these rows.
        unsafe { FINISH[end - start - 1](&part, sums.add(start * COLS)) };
    }
}

/// What follows the bf16 term: of one row, two rows, and so on.
static FINISH: [unsafe fn(&Tile<'_>, *const f32); 12] = [
    finish::<1>,
    finish::<2>,
    finish::<3>,
    finish::<4>,
    finish::<5>,
    finish::<6>,
    finish::<7>,
    finish::<8>,
    finish::<9>,
    finish::<10>,
    finish::<11>,
    finish::<12>,
];

/// Adds the other terms to the sums of `HEIGHT` rows and writes the result.
///
/// # Safety
/// See [`ProductBf16Args`]; the tile lies within C; there are as many rows of sums; the CPU has these features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn finish<const HEIGHT: usize>(tile: &Tile<'_>, from: *const f32) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums: Sums<Avx512, HEIGHT, 1> = [[[Avx512::splat(0.0); 2]; 1]; HEIGHT];
        for (i, [row]) in sums.iter_mut().enumerate() {
            let from = from.add(i * COLS);
            *row = [Avx512::load(from), Avx512::load(from.add(Avx512::LANES))];
        }
        accumulate_all::<Avx512, HEIGHT, 1>(&mut sums, tile);
        write::<Avx512, HEIGHT, 1>(&sums, tile);
    }
}
