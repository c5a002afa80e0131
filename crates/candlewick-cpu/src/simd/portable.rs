//! Plain Rust on arrays of eight f32: runs anywhere, Miri included, and is what the others are checked against.
#![allow(unsafe_op_in_unsafe_fn, reason = "each body reads or writes under the contract of `Simd`")]
#![allow(clippy::needless_range_loop, reason = "one index names the same row of several arrays")]

use super::{ByteDot, PairDot, Simd};
use half::{bf16, f16};

/// The instruction set as a type.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

const LANES: usize = 8;

/// `$f` of each lane of the operands.
macro_rules! each {
    (|$($x:ident),+| $f:expr) => {{
        let mut out = [Default::default(); LANES];
        for i in 0..LANES {
            $(let $x = $x[i];)+
            out[i] = $f;
        }
        out
    }};
}

impl Simd for Portable {
    const LANES: usize = LANES;
    // Two rows of two vectors take eight of the sixteen 128-bit registers that every x86-64 has.
    const TILE_ROWS: usize = 2;
    const DOT_ROWS: usize = 2;
    const DOT_RANK: usize = 2;
    type V = [f32; LANES];
    type H = [u16; LANES];
    type I = [i32; LANES];

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; LANES] {
        p.cast::<[f32; LANES]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> [f32; LANES] {
        let mut v = [0.0; LANES];
        std::ptr::copy_nonoverlapping(p.cast::<u8>(), v.as_mut_ptr().cast(), 4 * n);
        v
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; LANES]) {
        p.cast::<[f32; LANES]>().write_unaligned(v)
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: [f32; LANES], n: usize) {
        std::ptr::copy_nonoverlapping(v.as_ptr().cast::<u8>(), p.cast(), 4 * n);
    }

    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> [u16; LANES] {
        p.cast::<[u16; LANES]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store_half(p: *mut u16, h: [u16; LANES]) {
        p.cast::<[u16; LANES]>().write_unaligned(h)
    }
    #[inline(always)]
    unsafe fn from_f16(h: [u16; LANES]) -> [f32; LANES] {
        each!(|h| f16::from_bits(h).to_f32_const())
    }
    #[inline(always)]
    unsafe fn to_f16(v: [f32; LANES]) -> [u16; LANES] {
        each!(|v| f16::from_f32_const(v).to_bits())
    }
    #[inline(always)]
    unsafe fn from_bf16(h: [u16; LANES]) -> [f32; LANES] {
        each!(|h| f32::from_bits(u32::from(h) << 16))
    }
    #[inline(always)]
    unsafe fn to_bf16(v: [f32; LANES]) -> [u16; LANES] {
        each!(|v| bf16::from_f32_const(v).to_bits())
    }
    #[inline(always)]
    unsafe fn even_bf16(pairs: [f32; LANES]) -> [f32; LANES] {
        each!(|pairs| f32::from_bits(pairs.to_bits() << 16))
    }
    #[inline(always)]
    unsafe fn odd_bf16(pairs: [f32; LANES]) -> [f32; LANES] {
        each!(|pairs| f32::from_bits(pairs.to_bits() & 0xffff_0000))
    }
    #[inline(always)]
    unsafe fn from_bits(h: [u16; LANES]) -> [f32; LANES] {
        each!(|h| f32::from_bits(u32::from(h)))
    }
    #[inline(always)]
    unsafe fn to_bits(v: [f32; LANES]) -> [u16; LANES] {
        each!(|v| v.to_bits() as u16)
    }

    #[inline(always)]
    unsafe fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| a * b)
    }
    // Not `mul_add`: without FMA in hardware it calls a slow library function.
    #[inline(always)]
    unsafe fn fma(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b, c| a * b + c)
    }
    #[inline(always)]
    unsafe fn div(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| a / b)
    }
    #[inline(always)]
    unsafe fn sqrt(v: [f32; LANES]) -> [f32; LANES] {
        each!(|v| v.sqrt())
    }
    #[inline(always)]
    unsafe fn load_words(p: *const u8) -> [i32; LANES] {
        let words = p.cast::<[[u8; 4]; LANES]>().read_unaligned();
        each!(|words| i32::from_le_bytes(words))
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u8, v: [i32; LANES]) {
        let bytes: [[u8; 4]; LANES] = each!(|v| v.to_le_bytes());
        p.cast::<[[u8; 4]; LANES]>().write_unaligned(bytes)
    }
    #[inline(always)]
    unsafe fn store_signed_bytes(p: *mut i8, v: [f32; LANES]) {
        let bytes: [i8; LANES] = each!(|v| v as i8);
        p.cast::<[i8; LANES]>().write_unaligned(bytes)
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> [i32; LANES] {
        let bytes = p.cast::<[u8; LANES]>().read_unaligned();
        each!(|bytes| i32::from(bytes))
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(p: *const u8) -> [i32; LANES] {
        let bytes = p.cast::<[i8; LANES]>().read_unaligned();
        each!(|bytes| i32::from(bytes))
    }
    #[inline(always)]
    unsafe fn and_bits(v: [i32; LANES], mask: i32) -> [i32; LANES] {
        each!(|v| v & mask)
    }
    #[inline(always)]
    unsafe fn or_bits(a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        each!(|a, b| a | b)
    }
    #[inline(always)]
    unsafe fn xor_bits(v: [i32; LANES], mask: i32) -> [i32; LANES] {
        each!(|v| v ^ mask)
    }
    #[inline(always)]
    unsafe fn shift_left<const N: u32>(v: [i32; LANES]) -> [i32; LANES] {
        each!(|v| v << N)
    }
    #[inline(always)]
    unsafe fn shift_right<const N: u32>(v: [i32; LANES]) -> [i32; LANES] {
        each!(|v| v >> N)
    }
    #[inline(always)]
    unsafe fn from_integers(v: [i32; LANES]) -> [f32; LANES] {
        each!(|v| v as f32)
    }
    #[inline(always)]
    unsafe fn max(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn or(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each!(|a, b| f32::from_bits(a.to_bits() | b.to_bits()))
    }
    #[inline(always)]
    unsafe fn reduce_add(v: [f32; LANES]) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    unsafe fn reduce_max(v: [f32; LANES]) -> f32 {
        let mut largest = v[0];
        for x in v {
            largest = if largest > x { largest } else { x };
        }
        largest
    }
    #[inline(always)]
    unsafe fn sum8(v: [[f32; LANES]; 8]) -> [f32; 8] {
        each!(|v| Self::reduce_add(v))
    }
    #[inline(always)]
    unsafe fn interleave(a: [f32; LANES], b: [f32; LANES]) -> ([f32; LANES], [f32; LANES]) {
        ([a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]], [a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]])
    }
    #[inline(always)]
    unsafe fn round(v: [f32; LANES]) -> [f32; LANES] {
        // Adding 1.5 * 2^23 pushes the fraction out, to nearest even; exact for the small numbers that `exp` rounds.
        const SHIFT: f32 = 12_582_912.0;
        each!(|v| (v + SHIFT) - SHIFT)
    }
    #[inline(always)]
    unsafe fn scale(v: [f32; LANES], n: [f32; LANES]) -> [f32; LANES] {
        // Two factors: 2^n itself may lie outside the range of f32 where the product does not.
        each!(|v, n| {
            let n = n as i32;
            let half = n >> 1;
            let first = f32::from_bits(((half + 127) << 23) as u32);
            let second = f32::from_bits(((n - half + 127) << 23) as u32);
            v * first * second
        })
    }
}

impl PairDot for Portable {
    #[inline(always)]
    unsafe fn dot_pairs(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        let even = Self::fma(Self::even_bf16(a), Self::even_bf16(b), c);
        Self::fma(Self::odd_bf16(a), Self::odd_bf16(b), even)
    }
}

impl ByteDot for Portable {
    type S = Portable;
    const SIGNED: bool = true;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[[i32; LANES]],
        _bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [[i32; LANES]; ROWS] {
        let mut sums = [[0; LANES]; ROWS];
        for r in 0..ROWS {
            sums[r] = dot(start[r], words, x.add(r * x_row));
        }
        sums
    }
}

/// One row's.
#[inline(always)]
unsafe fn dot(start: i32, words: &[[i32; LANES]], x: *const i8) -> [i32; LANES] {
    let mut sum = [start; LANES];
    for (j, word) in words.iter().enumerate() {
        let x = x.add(4 * j).cast::<[i8; 4]>().read_unaligned().map(i32::from);
        for (sum, word) in sum.iter_mut().zip(word) {
            let w = word.to_le_bytes().map(|byte| i32::from(byte as i8));
            *sum += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
        }
    }
    sum
}
