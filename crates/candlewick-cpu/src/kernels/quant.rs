//! GGUF's quantised blocks, decoded in registers: written out, or multiplied with x as they come.
//!
//! What the bytes mean is `candlewick_core::reference::decode_block`.

use super::with_type;
use crate::simd::{Lane, Simd};
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

/// A block format whose numbers can be decoded.
trait Blocks {
    const FORMAT: Quant;

    /// Hands all numbers of the block at `p` to `to`, in any order.
    ///
    /// # Safety
    /// A block is valid at `p`; the CPU has the instruction set; that of [`Take::take`].
    unsafe fn decode<S: Simd>(p: *const u8, to: &mut impl Take<S>);
}

struct Q4_0;
struct Q4_1;
struct Q8_0;
struct Q4K;
struct Q6K;

/// The f16 at `p` in f32, by integer instructions that other vectors do not wait for.
///
/// # Safety
/// Two bytes are valid at `p`.
#[inline(always)]
unsafe fn half(p: *const u8) -> f32 {
    // SAFETY: the caller's contract.
    let bits = u32::from(unsafe { p.cast::<u16>().read_unaligned() });
    let magnitude = bits & 0x7fff;
    if magnitude.wrapping_sub(0x400) < 0x7800 {
        // A normal number: another exponent bias, and 13 more bits of fraction.
        return f32::from_bits((bits & 0x8000) << 16 | ((magnitude << 13) + (112 << 23)));
    }
    f16::from_bits(bits as u16).to_f32_const()
}

/// The low four bits of each lane as numbers, and the high four.
///
/// # Safety
/// `LANES` bytes are valid at `p`; the CPU has the instruction set.
#[inline(always)]
unsafe fn nibbles<S: Simd>(p: *const u8) -> (S::V, S::V) {
    // SAFETY: the caller's contract.
    unsafe {
        let bytes = S::load_bytes(p);
        (S::from_integers(S::and_bits(bytes, 15)), S::from_integers(S::shift_right::<4>(bytes)))
    }
}

impl Blocks for Q4_0 {
    const FORMAT: Quant = Quant::Q4_0;

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            let d = half(p);
            // q d - 8 d is exact: fifteen bits.
            let (scale, offset) = (S::splat(d), S::splat(-8.0 * d));
            for j in (0..16).step_by(S::LANES) {
                let (low, high) = nibbles::<S>(p.add(2 + j));
                to.take(j, S::fma(low, scale, offset));
                to.take(16 + j, S::fma(high, scale, offset));
            }
        }
    }
}

impl Blocks for Q4_1 {
    const FORMAT: Quant = Quant::Q4_1;

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            let (scale, offset) = (S::splat(half(p)), S::splat(half(p.add(2))));
            for j in (0..16).step_by(S::LANES) {
                let (low, high) = nibbles::<S>(p.add(4 + j));
                to.take(j, S::fma(low, scale, offset));
                to.take(16 + j, S::fma(high, scale, offset));
            }
        }
    }
}

impl Blocks for Q8_0 {
    const FORMAT: Quant = Quant::Q8_0;

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            let scale = S::splat(half(p));
            for j in (0..32).step_by(S::LANES) {
                to.take(j, S::mul(S::from_integers(S::load_signed_bytes(p.add(2 + j))), scale));
            }
        }
    }
}

impl Blocks for Q4K {
    const FORMAT: Quant = Quant::Q4K;

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            let (d, min) = (half(p), half(p.add(2)));
            let word = |nth: usize| p.add(4 + 4 * nth).cast::<u32>().read_unaligned();
            // Twelve bytes as three words: six bits of four groups' numbers in each byte, and the high two bits of the
            // other four groups'.
            let (a, b, c) = (word(0), word(1), word(2));
            let scales = [a & 0x3f3f_3f3f, (c & 0x0f0f_0f0f) | (a >> 2 & 0x3030_3030)];
            let mins = [b & 0x3f3f_3f3f, (c >> 4 & 0x0f0f_0f0f) | (b >> 2 & 0x3030_3030)];
            for pair in 0..4 {
                let of = |words: [u32; 2], group: usize| (words[group / 4] >> (group % 4 * 8) & 255) as f32;
                let (low_group, high_group) = (2 * pair, 2 * pair + 1);
                let low_scale = S::splat(d * of(scales, low_group));
                let high_scale = S::splat(d * of(scales, high_group));
                let low_offset = S::splat(-(min * of(mins, low_group)));
                let high_offset = S::splat(-(min * of(mins, high_group)));
                for j in (0..32).step_by(S::LANES) {
                    let (low, high) = nibbles::<S>(p.add(16 + 32 * pair + j));
                    to.take(64 * pair + j, S::fma(low, low_scale, low_offset));
                    to.take(64 * pair + 32 + j, S::fma(high, high_scale, high_offset));
                }
            }
        }
    }
}

impl Blocks for Q6K {
    const FORMAT: Quant = Quant::Q6K;

    #[inline(always)]
    unsafe fn decode<S: Simd>(p: *const u8, to: &mut impl Take<S>) {
        // SAFETY: the caller's contract.
        unsafe {
            let d = half(p.add(208));
            for part in 0..2 {
                let scales = p.add(192 + 8 * part);
                for j in (0..32).step_by(S::LANES) {
                    let first = S::load_bytes(p.add(64 * part + j));
                    let second = S::load_bytes(p.add(64 * part + 32 + j));
                    let pairs = S::load_bytes(p.add(128 + 32 * part + j));
                    let quarters = [
                        S::or_bits(S::and_bits(first, 15), S::shift_left::<4>(S::and_bits(pairs, 3))),
                        S::or_bits(S::and_bits(second, 15), S::shift_left::<2>(S::and_bits(pairs, 12))),
                        S::or_bits(S::shift_right::<4>(first), S::and_bits(pairs, 48)),
                        S::or_bits(S::shift_right::<4>(second), S::shift_right::<2>(S::and_bits(pairs, 192))),
                    ];
                    for (nth, q) in quarters.into_iter().enumerate() {
                        let scale = d * f32::from(*scales.add(2 * nth + j / 16) as i8);
                        let v = S::fma(S::from_integers(q), S::splat(scale), S::splat(-32.0 * scale));
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
            for nth in 0..args.count {
                let mut to = Write(args.y.cast::<T>().add(nth * F::FORMAT.block()));
                F::decode::<S>(args.blocks.add(nth * F::FORMAT.bytes()), &mut to);
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
            let mut o = 0;
            while o + 4 <= args.rows {
                rows::<S, F, 4>(args, o);
                o += 4;
            }
            while o < args.rows {
                rows::<S, F, 1>(args, o);
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
unsafe fn rows<S: Simd, F: Blocks, const ROWS: usize>(args: &QuantDotArgs, o: usize) {
    let row = args.count * F::FORMAT.bytes();
    // SAFETY: the caller's contract.
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; ROWS];
        for nth in 0..args.count {
            let x = args.x.add(nth * F::FORMAT.block());
            for r in 0..ROWS {
                let mut dot = Dot::<S> { x, sums: sums[r] };
                F::decode::<S>(args.w.add((o + r) * row + nth * F::FORMAT.bytes()), &mut dot);
                sums[r] = dot.sums;
            }
        }
        for r in 0..ROWS {
            *args.y.add(o + r) = S::reduce_add(S::add(sums[r][0], sums[r][1]));
        }
    }
}
