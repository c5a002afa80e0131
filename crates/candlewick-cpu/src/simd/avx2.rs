//! AVX2 with FMA and F16C: eight lanes, sixteen registers.
#![allow(unsafe_op_in_unsafe_fn, reason = "each body is intrinsics under the contract of `Simd`")]
#![allow(clippy::needless_range_loop, reason = "one index names the same row of several arrays")]

use super::{ByteDot, Simd};
use std::arch::asm;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy, Debug)]
pub struct Avx2;

/// A window of eight into this table selects the first n lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast())
}

/// The low 16 bits of each lane, which must fit an unsigned 16-bit number.
#[inline(always)]
unsafe fn narrow(v: __m256i) -> __m128i {
    _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v))
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    const DOT_ROWS: usize = 3;
    const DOT_RANK: usize = 4;
    type V = __m256;
    type H = __m128i;
    type I = __m256i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        _mm256_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> __m256 {
        _mm256_maskload_ps(p, first(n))
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        _mm256_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: __m256, n: usize) {
        _mm256_maskstore_ps(p, first(n), v)
    }

    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> __m128i {
        _mm_loadu_si128(p.cast())
    }
    #[inline(always)]
    unsafe fn store_half(p: *mut u16, h: __m128i) {
        _mm_storeu_si128(p.cast(), h)
    }
    #[inline(always)]
    unsafe fn from_f16(h: __m128i) -> __m256 {
        _mm256_cvtph_ps(h)
    }
    #[inline(always)]
    unsafe fn to_f16(v: __m256) -> __m128i {
        _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
    }
    #[inline(always)]
    unsafe fn from_bf16(h: __m128i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(h)))
    }
    #[inline(always)]
    unsafe fn to_bf16(v: __m256) -> __m128i {
        let bits = _mm256_castps_si256(v);
        let high = _mm256_srli_epi32::<16>(bits);
        // Adding half a unit, less one where the kept part is even, rounds to nearest, ties to even.
        let odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        let half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, half));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        narrow(_mm256_blendv_epi8(rounded, quiet, nan))
    }
    #[inline(always)]
    unsafe fn even_bf16(pairs: __m256) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(pairs)))
    }
    #[inline(always)]
    unsafe fn odd_bf16(pairs: __m256) -> __m256 {
        _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32)))
    }
    #[inline(always)]
    unsafe fn from_bits(h: __m128i) -> __m256 {
        _mm256_castsi256_ps(_mm256_cvtepu16_epi32(h))
    }
    #[inline(always)]
    unsafe fn to_bits(v: __m256) -> __m128i {
        narrow(_mm256_castps_si256(v))
    }

    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        _mm256_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        _mm256_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sqrt(v: __m256) -> __m256 {
        _mm256_sqrt_ps(v)
    }
    #[inline(always)]
    unsafe fn load_words(p: *const u8) -> __m256i {
        _mm256_loadu_si256(p.cast())
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u8, v: __m256i) {
        _mm256_storeu_si256(p.cast(), v)
    }
    #[inline(always)]
    unsafe fn store_signed_bytes(p: *mut i8, v: __m256) {
        let words = _mm256_cvtps_epi32(v);
        let halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_storel_epi64(p.cast(), _mm_packs_epi16(halves, halves))
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m256i {
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(p: *const u8) -> __m256i {
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))
    }
    #[inline(always)]
    unsafe fn and_bits(v: __m256i, mask: i32) -> __m256i {
        _mm256_and_si256(v, _mm256_set1_epi32(mask))
    }
    #[inline(always)]
    unsafe fn or_bits(a: __m256i, b: __m256i) -> __m256i {
        _mm256_or_si256(a, b)
    }
    #[inline(always)]
    unsafe fn xor_bits(v: __m256i, mask: i32) -> __m256i {
        _mm256_xor_si256(v, _mm256_set1_epi32(mask))
    }
    #[inline(always)]
    unsafe fn shift_left<const N: u32>(v: __m256i) -> __m256i {
        _mm256_sll_epi32(v, _mm_cvtsi32_si128(N as i32))
    }
    #[inline(always)]
    unsafe fn shift_right<const N: u32>(v: __m256i) -> __m256i {
        _mm256_srl_epi32(v, _mm_cvtsi32_si128(N as i32))
    }
    #[inline(always)]
    unsafe fn from_integers(v: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(v)
    }
    #[inline(always)]
    unsafe fn halves_apart(p: *const u8, bytes: usize, n: usize) -> __m256 {
        let lanes = _mm256_min_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(n as i32 - 1));
        let words = _mm256_i32gather_epi32::<1>(p.cast(), _mm256_mullo_epi32(lanes, _mm256_set1_epi32(bytes as i32)));
        _mm256_cvtph_ps(narrow(_mm256_and_si256(words, _mm256_set1_epi32(0xffff))))
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        _mm256_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        _mm256_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __m256, b: __m256) -> __m256 {
        _mm256_or_ps(a, b)
    }
    #[inline(always)]
    unsafe fn reduce_add(v: __m256) -> f32 {
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }
    #[inline(always)]
    unsafe fn reduce_max(v: __m256) -> f32 {
        let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
    }
    #[inline(always)]
    unsafe fn sum8(v: [__m256; 8]) -> [f32; 8] {
        let low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
        let high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
        // Each 128-bit half of `low` holds four partial sums of v0..v3; `high` those of v4..v7.
        let sums = _mm256_add_ps(_mm256_blend_ps::<0xf0>(low, high), _mm256_permute2f128_ps::<0x21>(low, high));
        let mut out = [0.0; 8];
        _mm256_storeu_ps(out.as_mut_ptr(), sums);
        out
    }
    #[inline(always)]
    unsafe fn interleave(a: __m256, b: __m256) -> (__m256, __m256) {
        let even = _mm256_unpacklo_ps(a, b);
        let odd = _mm256_unpackhi_ps(a, b);
        (_mm256_permute2f128_ps::<0x20>(even, odd), _mm256_permute2f128_ps::<0x31>(even, odd))
    }
    #[inline(always)]
    unsafe fn round(v: __m256) -> __m256 {
        _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
    }
    #[inline(always)]
    unsafe fn scale(v: __m256, n: __m256) -> __m256 {
        // Two factors: 2^n itself may lie outside the range of f32 where the product does not.
        let n = _mm256_cvtps_epi32(n);
        let half = _mm256_srai_epi32::<1>(n);
        let rest = _mm256_sub_epi32(n, half);
        let bias = _mm256_set1_epi32(127);
        let first = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
        let second = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
        _mm256_mul_ps(_mm256_mul_ps(v, first), second)
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(p.cast())
    }
    #[inline(always)]
    unsafe fn opaque(p: *const f32) -> *const f32 {
        let mut address = p.addr();
        asm!("/* {0} */", inout(reg) address, options(pure, nomem, nostack, preserves_flags));
        p.with_addr(address)
    }
}

/// Four bytes at `x` in each lane.
#[inline(always)]
unsafe fn four(x: *const i8) -> __m256i {
    _mm256_set1_epi32(x.cast::<i32>().read_unaligned())
}

/// Products of bytes by AVX-VNNI: four of them are added to a lane in one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Vnni;

impl ByteDot for Vnni {
    type S = Avx2;
    const SIGNED: bool = false;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[__m256i],
        _bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [__m256i; ROWS] {
        let mut sums = [_mm256_set1_epi32(0); ROWS];
        for r in 0..ROWS {
            sums[r] = _mm256_set1_epi32(start[r]);
        }
        // One word after the other, for all rows: an addition waits for the one before it. Written out, as the compiler does
        // not unroll so much.
        macro_rules! add {
            ($($j:literal)+) => {$(
                for r in 0..ROWS {
                    sums[r] = _mm256_dpbusd_avx_epi32(sums[r], words[$j], four(x.add(r * x_row + 4 * $j)));
                }
            )+};
        }
        add!(0 1 2 3);
        if words.len() == 8 {
            add!(4 5 6 7);
        }
        sums
    }
}

impl ByteDot for Avx2 {
    type S = Avx2;
    const SIGNED: bool = true;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[__m256i],
        bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [__m256i; ROWS] {
        let mut sums = [_mm256_set1_epi32(0); ROWS];
        for r in 0..ROWS {
            sums[r] = dot(start[r], words, bits, x.add(r * x_row));
        }
        sums
    }
}

/// One row's, in pairs of 16 bits.
#[inline(always)]
unsafe fn dot(start: i32, words: &[__m256i], bits: u32, x: *const i8) -> __m256i {
    let mut sum = _mm256_set1_epi32(start);
    for first in (0..words.len()).step_by(super::pairs_in_16_bits(bits)) {
        let mut pairs = _mm256_setzero_si256();
        for j in first..words.len().min(first + super::pairs_in_16_bits(bits)) {
            let (word, x) = (words[j], four(x.add(4 * j)));
            // Unsigned bytes times signed ones: the sign of w goes to x.
            let product = if bits == 8 {
                _mm256_maddubs_epi16(_mm256_abs_epi8(word), _mm256_sign_epi8(x, word))
            } else {
                _mm256_maddubs_epi16(word, x)
            };
            pairs = _mm256_add_epi16(pairs, product);
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    sum
}
