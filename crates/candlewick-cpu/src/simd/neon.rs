//! NEON of 64-bit Arm: four lanes, thirty-two registers.
#![allow(unsafe_op_in_unsafe_fn, reason = "each body is intrinsics under the contract of `Simd`")]
#![allow(clippy::needless_range_loop, reason = "one index names the same row of several arrays")]

use super::{ByteDot, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

/// The instruction set as a type.
#[derive(Clone, Copy, Debug)]
pub struct Neon;

impl Simd for Neon {
    const LANES: usize = 4;
    const TILE_ROWS: usize = 12;
    const DOT_ROWS: usize = 3;
    const DOT_RANK: usize = 8;
    type V = float32x4_t;
    type H = uint16x4_t;
    type I = int32x4_t;

    #[inline(always)]
    unsafe fn splat(x: f32) -> float32x4_t {
        vdupq_n_f32(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> float32x4_t {
        vld1q_f32(p)
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> float32x4_t {
        let mut buffer = [0.0; 4];
        std::ptr::copy_nonoverlapping(p.cast::<u8>(), buffer.as_mut_ptr().cast(), 4 * n);
        vld1q_f32(buffer.as_ptr())
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: float32x4_t) {
        vst1q_f32(p, v)
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: float32x4_t, n: usize) {
        let mut buffer = [0.0; 4];
        vst1q_f32(buffer.as_mut_ptr(), v);
        std::ptr::copy_nonoverlapping(buffer.as_ptr().cast::<u8>(), p.cast(), 4 * n);
    }

    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> uint16x4_t {
        vld1_u16(p)
    }
    #[inline(always)]
    unsafe fn store_half(p: *mut u16, h: uint16x4_t) {
        vst1_u16(p, h)
    }
    // FCVTL and FCVTN are in every 64-bit Arm CPU; their intrinsics are newer than the compiler this crate asks for.
    #[inline(always)]
    unsafe fn from_f16(h: uint16x4_t) -> float32x4_t {
        let v: float32x4_t;
        asm!("fcvtl {v:v}.4s, {h:v}.4h", v = out(vreg) v, h = in(vreg) h, options(pure, nomem, nostack, preserves_flags));
        v
    }
    #[inline(always)]
    unsafe fn to_f16(v: float32x4_t) -> uint16x4_t {
        let h: uint16x4_t;
        asm!("fcvtn {h:v}.4h, {v:v}.4s", h = out(vreg) h, v = in(vreg) v, options(pure, nomem, nostack, preserves_flags));
        h
    }
    #[inline(always)]
    unsafe fn from_bf16(h: uint16x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vshll_n_u16::<16>(h))
    }
    #[inline(always)]
    unsafe fn to_bf16(v: float32x4_t) -> uint16x4_t {
        let bits = vreinterpretq_u32_f32(v);
        let high = vshrq_n_u32::<16>(bits);
        // Adding half a unit, less one where the kept part is even, rounds to nearest, ties to even.
        let odd = vandq_u32(high, vdupq_n_u32(1));
        let half = vaddq_u32(odd, vdupq_n_u32(0x7fff));
        let rounded = vshrq_n_u32::<16>(vaddq_u32(bits, half));
        let quiet = vorrq_u32(high, vdupq_n_u32(0x40));
        vmovn_u32(vbslq_u32(vceqq_f32(v, v), rounded, quiet))
    }
    #[inline(always)]
    unsafe fn even_bf16(pairs: float32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(pairs)))
    }
    #[inline(always)]
    unsafe fn odd_bf16(pairs: float32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pairs), vdupq_n_u32(0xffff_0000)))
    }
    #[inline(always)]
    unsafe fn from_bits(h: uint16x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vmovl_u16(h))
    }
    #[inline(always)]
    unsafe fn to_bits(v: float32x4_t) -> uint16x4_t {
        vmovn_u32(vreinterpretq_u32_f32(v))
    }

    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vaddq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vsubq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vdivq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn sqrt(v: float32x4_t) -> float32x4_t {
        vsqrtq_f32(v)
    }
    #[inline(always)]
    unsafe fn load_words(p: *const u8) -> int32x4_t {
        vreinterpretq_s32_u8(vld1q_u8(p))
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u8, v: int32x4_t) {
        vst1q_u8(p, vreinterpretq_u8_s32(v))
    }
    #[inline(always)]
    unsafe fn store_signed_bytes(p: *mut i8, v: float32x4_t) {
        let halves = vqmovn_s32(vcvtnq_s32_f32(v));
        let bytes = vqmovn_s16(vcombine_s16(halves, halves));
        p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_s8(bytes)))
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> int32x4_t {
        let bytes = vreinterpret_u8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
        vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(p: *const u8) -> int32x4_t {
        let bytes = vreinterpret_s8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
        vmovl_s16(vget_low_s16(vmovl_s8(bytes)))
    }
    #[inline(always)]
    unsafe fn and_bits(v: int32x4_t, mask: i32) -> int32x4_t {
        vandq_s32(v, vdupq_n_s32(mask))
    }
    #[inline(always)]
    unsafe fn or_bits(a: int32x4_t, b: int32x4_t) -> int32x4_t {
        vorrq_s32(a, b)
    }
    #[inline(always)]
    unsafe fn xor_bits(v: int32x4_t, mask: i32) -> int32x4_t {
        veorq_s32(v, vdupq_n_s32(mask))
    }
    #[inline(always)]
    unsafe fn shift_left<const N: u32>(v: int32x4_t) -> int32x4_t {
        vshlq_s32(v, vdupq_n_s32(N as i32))
    }
    #[inline(always)]
    unsafe fn shift_right<const N: u32>(v: int32x4_t) -> int32x4_t {
        vshlq_s32(v, vdupq_n_s32(-(N as i32)))
    }
    #[inline(always)]
    unsafe fn from_integers(v: int32x4_t) -> float32x4_t {
        vcvtq_f32_s32(v)
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmaxq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vminq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)))
    }
    #[inline(always)]
    unsafe fn reduce_add(v: float32x4_t) -> f32 {
        vaddvq_f32(v)
    }
    #[inline(always)]
    unsafe fn reduce_max(v: float32x4_t) -> f32 {
        vmaxvq_f32(v)
    }
    #[inline(always)]
    unsafe fn sum8(v: [float32x4_t; 8]) -> [f32; 8] {
        let low = vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3]));
        let high = vpaddq_f32(vpaddq_f32(v[4], v[5]), vpaddq_f32(v[6], v[7]));
        let mut out = [0.0; 8];
        vst1q_f32(out.as_mut_ptr(), low);
        vst1q_f32(out.as_mut_ptr().add(4), high);
        out
    }
    #[inline(always)]
    unsafe fn interleave(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        (vzip1q_f32(a, b), vzip2q_f32(a, b))
    }
    #[inline(always)]
    unsafe fn round(v: float32x4_t) -> float32x4_t {
        vrndnq_f32(v)
    }
    #[inline(always)]
    unsafe fn scale(v: float32x4_t, n: float32x4_t) -> float32x4_t {
        // Two factors: 2^n itself may lie outside the range of f32 where the product does not.
        let n = vcvtq_s32_f32(n);
        let half = vshrq_n_s32::<1>(n);
        let rest = vsubq_s32(n, half);
        let bias = vdupq_n_s32(127);
        let first = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(half, bias)));
        let second = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(rest, bias)));
        vmulq_f32(vmulq_f32(v, first), second)
    }
}

/// Four bytes at `x` in each lane.
#[inline(always)]
unsafe fn four(x: *const i8) -> int8x16_t {
    vreinterpretq_s8_s32(vdupq_n_s32(x.cast::<i32>().read_unaligned()))
}

/// Products of bytes by the dot product extension: four of them are added to a lane in one instruction.
#[derive(Clone, Copy, Debug)]
pub struct DotProd;

impl ByteDot for DotProd {
    type S = Neon;
    const SIGNED: bool = true;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[int32x4_t],
        _bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [int32x4_t; ROWS] {
        let mut sums = [vdupq_n_s32(0); ROWS];
        for r in 0..ROWS {
            sums[r] = dot_extended(start[r], words, x.add(r * x_row));
        }
        sums
    }
}

/// One row's.
#[inline(always)]
unsafe fn dot_extended(start: i32, words: &[int32x4_t], x: *const i8) -> int32x4_t {
    let mut sum = vdupq_n_s32(start);
    for (j, &word) in words.iter().enumerate() {
        let x = four(x.add(4 * j));
        // The intrinsic is unstable.
        asm!(
            "sdot {sum:v}.4s, {word:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum, word = in(vreg) word, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

impl ByteDot for Neon {
    type S = Neon;
    const SIGNED: bool = true;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[int32x4_t],
        bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [int32x4_t; ROWS] {
        let mut sums = [vdupq_n_s32(0); ROWS];
        for r in 0..ROWS {
            sums[r] = dot(start[r], words, bits, x.add(r * x_row));
        }
        sums
    }
}

/// One row's, in 16 bits.
#[inline(always)]
unsafe fn dot(start: i32, words: &[int32x4_t], bits: u32, x: *const i8) -> int32x4_t {
    // So many products stay within 16 bits: 15 · 127, 63 · 127, 128 · 127.
    let most = match bits {
        0..=4 => 8,
        5..=6 => 4,
        _ => 2,
    };
    let mut sum = vdupq_n_s32(start);
    for first in (0..words.len()).step_by(most) {
        let (mut low, mut high) = (vdupq_n_s16(0), vdupq_n_s16(0));
        for j in first..words.len().min(first + most) {
            let (word, x) = (vreinterpretq_s8_s32(words[j]), four(x.add(4 * j)));
            low = vmlal_s8(low, vget_low_s8(word), vget_low_s8(x));
            high = vmlal_high_s8(high, word, x);
        }
        sum = vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
    }
    sum
}
