//! GGUF's quantised blocks, decoded in registers: written out, or multiplied with x as they come.
//!
//! What the bytes mean is `candlewick_core::reference::decode_block`.

use super::with_type;
use crate::simd::{Lane, MAX_LANES, Simd};
use candlewick_core::{DType, Quant};
use half::f16;

/// The arguments of `dequantize`: `y = the numbers of the blocks`.
///
/// # Safety
/// `count` blocks are valid at `blocks`, and their numbers at y; they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct DequantizeArgs {
    /// How many blocks.
    pub count: usize,
    /// Their format.
    pub format: Quant,
    /// The blocks.
    pub blocks: *const u8,
    /// y's number format.
    pub dtype: DType,
    /// Where to write.
    pub y: *mut u8,
}

/// The arguments of `quant_dot`: `y(o) = sum of x * w(o)` for rows of blocks.
///
/// # Safety
/// `count` blocks are valid in each of `rows` rows of w, their numbers at x, and `rows` elements at y; y overlaps nothing.
#[derive(Clone, Copy, Debug)]
pub struct QuantDotArgs {
    /// Rows of w, elements of y.
    pub rows: usize,
    /// Blocks in a row.
    pub count: usize,
    /// Their format.
    pub format: Quant,
    /// What the rows are multiplied with, in f32.
    pub x: *const f32,
    /// The blocks, row after row.
    pub w: *const u8,
    /// Where to write.
    pub y: *mut f32,
}

/// Takes the numbers of a block, a vector at a time.
trait Take<S: Simd> {
    /// The `LANES` numbers from `at` on, counted from the block's first.
    ///
    /// # Safety
    /// The CPU has the instruction set, and what takes them has room or partners for them.
    unsafe fn take(&mut self, at: usize, v: S::V);
}

/// Scales of this many groups are brought to f32 at once: converting them one by one would take as long as all the rest.
const GROUPS: usize = 32;

/// Scales and offsets of successive groups: a number is scale · q + offset. Room for a vector beyond the last.
#[derive(Clone, Copy)]
struct Scales {
    scale: [f32; GROUPS + MAX_LANES],
    offset: [f32; GROUPS + MAX_LANES],
}

impl Scales {
    const ZERO: Scales = Scales { scale: [0.0; GROUPS + MAX_LANES], offset: [0.0; GROUPS + MAX_LANES] };
}

/// A block format whose numbers can be decoded.
trait Blocks {
    const FORMAT: Quant;
    /// Groups of a block, each with a scale.
    const GROUPS: usize;

    /// The scales and offsets of `count` blocks at `p`.
    ///
    /// # Safety
    /// The blocks are valid, and have at most [`GROUPS`] groups; the CPU has the instruction set.
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales);

    /// Hands all numbers of the block at `p`, whose first group is `first` of the scales, to `to`, in any order.
    ///
    /// # Safety
    /// A block is valid at `p`; the CPU has the instruction set; that of [`Take::take`].
    unsafe fn decode<S: Simd>(p: *const u8, scales: &Scales, first: usize, to: &mut impl Take<S>);
}

struct Q4_0;
struct Q4_1;
struct Q8_0;
struct Q4K;
struct Q6K;

/// The f16 at `at` of each of `count` blocks, in f32; whole vectors are written.
///
/// # Safety
/// The blocks are valid, and at most [`GROUPS`]; the CPU has the instruction set.
#[inline(always)]
unsafe fn halves<S: Simd>(p: *const u8, bytes: usize, count: usize, to: &mut [f32; GROUPS + MAX_LANES]) {
    // SAFETY: the caller's contract; the array has room for a vector beyond the last.
    unsafe {
        for i in (0..count).step_by(S::LANES) {
            let n = S::LANES.min(count - i);
            S::store(to.as_mut_ptr().add(i), S::halves_apart(p.add(i * bytes), bytes, n));
        }
    }
}

/// The f16 at `p` in f32.
///
/// # Safety
/// Two bytes are valid at `p`.
#[inline(always)]
unsafe fn half(p: *const u8) -> f32 {
    // SAFETY: the caller's contract.
    f16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32_const()
}

/// scale · q + offset, or scale · q.
///
/// # Safety
/// The CPU has the instruction set; the group is one of [`GROUPS`].
#[inline(always)]
unsafe fn number<S: Simd, const OFFSET: bool>(q: S::V, scales: &Scales, group: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        let scale = S::splat(*scales.scale.get_unchecked(group));
        if OFFSET { S::fma(q, scale, S::splat(*scales.offset.get_unchecked(group))) } else { S::mul(q, scale) }
    }
}

impl Blocks for Q4_0 {
    const FORMAT: Quant = Quant::Q4_0;
    const GROUPS: usize = 1;

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales) {
        // SAFETY: the caller's contract.
        unsafe { halves::<S>(p, Self::FORMAT.bytes(), count, &mut to.scale) }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, scales: &Scales, first: usize, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            for j in (0..16).step_by(S::LANES) {
                let (low, high) = S::nibbles(p.add(2 + j), -8.0);
                to.take(j, number::<S, false>(low, scales, first));
                to.take(16 + j, number::<S, false>(high, scales, first));
            }
        }
    }
}

impl Blocks for Q4_1 {
    const FORMAT: Quant = Quant::Q4_1;
    const GROUPS: usize = 1;

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales) {
        // SAFETY: the caller's contract.
        unsafe {
            let bytes = Self::FORMAT.bytes();
            for i in (0..count).step_by(S::LANES) {
                let (scale, offset) = S::pairs_apart(p.add(i * bytes), bytes, S::LANES.min(count - i));
                S::store(to.scale.as_mut_ptr().add(i), scale);
                S::store(to.offset.as_mut_ptr().add(i), offset);
            }
        }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, scales: &Scales, first: usize, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            for j in (0..16).step_by(S::LANES) {
                let (low, high) = S::nibbles(p.add(4 + j), 0.0);
                to.take(j, number::<S, true>(low, scales, first));
                to.take(16 + j, number::<S, true>(high, scales, first));
            }
        }
    }
}

impl Blocks for Q8_0 {
    const FORMAT: Quant = Quant::Q8_0;
    const GROUPS: usize = 1;

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales) {
        // SAFETY: the caller's contract.
        unsafe { halves::<S>(p, Self::FORMAT.bytes(), count, &mut to.scale) }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, scales: &Scales, first: usize, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            for j in (0..32).step_by(S::LANES) {
                let q = S::from_integers(S::load_signed_bytes(p.add(2 + j)));
                to.take(j, number::<S, false>(q, scales, first));
            }
        }
    }
}

impl Blocks for Q4K {
    const FORMAT: Quant = Quant::Q4K;
    const GROUPS: usize = 8;

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales) {
        // SAFETY: the caller's contract; the arrays have room for a vector beyond the last group.
        unsafe {
            for nth in 0..count {
                let p = p.add(nth * Self::FORMAT.bytes());
                let (d, min) = (S::splat(half(p)), S::splat(-half(p.add(2))));
                // Twelve bytes as three words: six bits of four groups' numbers in each byte of the first two, with the
                // high two bits of the other four groups' above them, whose low four bits are in the third.
                let word = |nth: usize| p.add(4 + 4 * nth).cast::<u32>().read_unaligned();
                let (a, b, c) = (word(0), word(1), word(2));
                let mut scales = [0u32; 4];
                let mut mins = [0u32; 4];
                scales[..2].copy_from_slice(&[a & 0x3f3f_3f3f, (c & 0x0f0f_0f0f) | (a >> 2 & 0x3030_3030)]);
                mins[..2].copy_from_slice(&[b & 0x3f3f_3f3f, (c >> 4 & 0x0f0f_0f0f) | (b >> 2 & 0x3030_3030)]);
                for i in (0..8).step_by(S::LANES) {
                    let numbers =
                        |words: &[u32; 4]| S::from_integers(S::load_bytes(words.as_ptr().cast::<u8>().add(i)));
                    S::store(to.scale.as_mut_ptr().add(8 * nth + i), S::mul(numbers(&scales), d));
                    S::store(to.offset.as_mut_ptr().add(8 * nth + i), S::mul(numbers(&mins), min));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, scales: &Scales, first: usize, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            for pair in 0..4 {
                for j in (0..32).step_by(S::LANES) {
                    let (low, high) = S::nibbles(p.add(16 + 32 * pair + j), 0.0);
                    to.take(64 * pair + j, number::<S, true>(low, scales, first + 2 * pair));
                    to.take(64 * pair + 32 + j, number::<S, true>(high, scales, first + 2 * pair + 1));
                }
            }
        }
    }
}

impl Blocks for Q6K {
    const FORMAT: Quant = Quant::Q6K;
    const GROUPS: usize = 16;

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales) {
        // SAFETY: the caller's contract.
        unsafe {
            for nth in 0..count {
                let p = p.add(nth * Self::FORMAT.bytes());
                let d = S::splat(half(p.add(208)));
                for i in (0..16).step_by(S::LANES) {
                    let scale = S::mul(S::from_integers(S::load_signed_bytes(p.add(192 + i))), d);
                    S::store(to.scale.as_mut_ptr().add(16 * nth + i), scale);
                    S::store(to.offset.as_mut_ptr().add(16 * nth + i), S::mul(scale, S::splat(-32.0)));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, scales: &Scales, first: usize, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            for part in 0..2 {
                for j in (0..32).step_by(S::LANES) {
                    let low = S::load_bytes(p.add(64 * part + j));
                    let next = S::load_bytes(p.add(64 * part + 32 + j));
                    let pairs = S::load_bytes(p.add(128 + 32 * part + j));
                    let quarters = [
                        S::or_bits(S::and_bits(low, 15), S::shift_left::<4>(S::and_bits(pairs, 3))),
                        S::or_bits(S::and_bits(next, 15), S::shift_left::<2>(S::and_bits(pairs, 12))),
                        S::or_bits(S::shift_right::<4>(low), S::and_bits(pairs, 48)),
                        S::or_bits(S::shift_right::<4>(next), S::shift_right::<2>(S::and_bits(pairs, 192))),
                    ];
                    for (nth, q) in quarters.into_iter().enumerate() {
                        let group = first + 8 * part + 2 * nth + j / 16;
                        let v = number::<S, true>(S::from_integers(q), scales, group);
                        to.take(128 * part + 32 * nth + j, v);
                    }
                }
            }
        }
    }
}

/// Runs `$body` with `$F` standing for the decoder of `$format`.
macro_rules! with_format {
    ($format:expr, $F:ident => $body:expr) => {
        match $format {
            Quant::Q4_0 => {
                type $F = Q4_0;
                $body
            }
            Quant::Q4_1 => {
                type $F = Q4_1;
                $body
            }
            Quant::Q8_0 => {
                type $F = Q8_0;
                $body
            }
            Quant::Q4K => {
                type $F = Q4K;
                $body
            }
            Quant::Q6K => {
                type $F = Q6K;
                $body
            }
        }
    };
}

/// Writes numbers.
struct Write<T>(*mut T);

impl<S: Simd, T: Lane> Take<S> for Write<T> {
    #[inline(always)]
    unsafe fn take(&mut self, at: usize, v: S::V) {
        // SAFETY: the caller's contract.
        unsafe { T::store::<S>(self.0.add(at), v) }
    }
}

/// Adds up products with x, in two chains: an addition waits for the one before it.
struct Dot<S: Simd> {
    x: *const f32,
    sums: [S::V; 2],
}

impl<S: Simd> Take<S> for Dot<S> {
    #[inline(always)]
    unsafe fn take(&mut self, at: usize, v: S::V) {
        let chain = at / S::LANES % 2;
        // SAFETY: the caller's contract.
        unsafe { self.sums[chain] = S::fma(v, S::load(self.x.add(at)), self.sums[chain]) }
    }
}

/// # Safety
/// See [`DequantizeArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn dequantize<S: Simd>(args: &DequantizeArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_format!(args.format, F => with_type!(args.dtype, T => {
            let mut scales = Scales::ZERO;
            let most = GROUPS / F::GROUPS;
            for first in (0..args.count).step_by(most) {
                let blocks = args.blocks.add(first * F::FORMAT.bytes());
                let count = most.min(args.count - first);
                F::scales::<S>(blocks, count, &mut scales);
                for nth in 0..count {
                    let mut to = Write(args.y.cast::<T>().add((first + nth) * F::FORMAT.block()));
                    F::decode::<S>(blocks.add(nth * F::FORMAT.bytes()), &scales, nth * F::GROUPS, &mut to);
                }
            }
        }))
    }
}

/// # Safety
/// See [`QuantDotArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn quant_dot<S: Simd>(args: &QuantDotArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_format!(args.format, F => {
            let mut scales = [Scales::ZERO; 4];
            let mut o = 0;
            while o + 4 <= args.rows {
                rows::<S, F, 4>(args, o, &mut scales);
                o += 4;
            }
            while o < args.rows {
                rows::<S, F, 1>(args, o, &mut scales);
                o += 1;
            }
        })
    }
}

/// `ROWS` rows of w from `o` on: a vector of x serves them all.
///
/// # Safety
/// That of [`quant_dot`], with F its format.
#[inline(always)]
unsafe fn rows<S: Simd, F: Blocks, const ROWS: usize>(args: &QuantDotArgs, o: usize, scales: &mut [Scales; 4]) {
    let row = args.count * F::FORMAT.bytes();
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; ROWS];
        let most = GROUPS / F::GROUPS;
        for first in (0..args.count).step_by(most) {
            let count = most.min(args.count - first);
            let w = args.w.add(o * row + first * F::FORMAT.bytes());
            for r in 0..ROWS {
                F::scales::<S>(w.add(r * row), count, &mut scales[r]);
            }
            for nth in 0..count {
                let x = args.x.add((first + nth) * F::FORMAT.block());
                for r in 0..ROWS {
                    let mut dot = Dot::<S> { x, sums: sums[r] };
                    let block = w.add(r * row + nth * F::FORMAT.bytes());
                    F::decode::<S>(block, &scales[r], nth * F::GROUPS, &mut dot);
                    sums[r] = dot.sums;
                }
            }
        }
        for r in 0..ROWS {
            *args.y.add(o + r) = S::reduce_add(S::add(sums[r][0], sums[r][1]));
        }
    }
}
