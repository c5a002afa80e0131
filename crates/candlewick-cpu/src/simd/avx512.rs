//! AVX-512 (F, BW, VL, DQ): sixteen lanes, thirty-two registers, masks for every tail.
#![allow(unsafe_op_in_unsafe_fn, reason = "each body is intrinsics under the contract of `Simd`")]
#![allow(clippy::needless_range_loop, reason = "one index names the same row of several arrays")]

use super::{ByteDot, PairDot, Simd};
use std::arch::asm;
use std::arch::x86_64::*;

/// The instruction set as a type.
#[derive(Clone, Copy, Debug)]
pub struct Avx512;

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// `n` words from `p` on, `bytes` apart. One gather is cheaper than loads that are stored to be loaded as a vector.
#[inline(always)]
unsafe fn words_apart(p: *const u8, bytes: usize, n: usize) -> __m512i {
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(bytes as i32));
    _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), first(n), offsets, p.cast())
}

/// Half of `a` plus its other half, and the same for `b`, in one vector: `SWAP` moves what `KEEP` does not keep.
macro_rules! fold {
    ($a:expr, $b:expr, $keep:literal, $swapped:expr) => {
        _mm512_add_ps(_mm512_mask_blend_ps($keep, $a, $b), $swapped)
    };
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE_ROWS: usize = 12;
    const DOT_ROWS: usize = 3;
    const DOT_RANK: usize = 8;
    type V = __m512;
    type H = __m256i;
    type I = __m512i;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        _mm512_loadu_ps(p)
    }
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> __m512 {
        _mm512_maskz_loadu_ps(first(n), p)
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        _mm512_storeu_ps(p, v)
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: __m512, n: usize) {
        _mm512_mask_storeu_ps(p, first(n), v)
    }

    #[inline(always)]
    unsafe fn load_half(p: *const u16) -> __m256i {
        _mm256_loadu_si256(p.cast())
    }
    #[inline(always)]
    unsafe fn store_half(p: *mut u16, h: __m256i) {
        _mm256_storeu_si256(p.cast(), h)
    }
    #[inline(always)]
    unsafe fn load_half_first(p: *const u16, n: usize) -> __m256i {
        _mm256_maskz_loadu_epi16(first(n), p.cast())
    }
    #[inline(always)]
    unsafe fn store_half_first(p: *mut u16, h: __m256i, n: usize) {
        // Where one mask bit is known to the compiler, rustc 1.95 (LLVM 22.1.2) makes this store of narrowed lanes one of
        // 32 bits. Other masks, and loads, are well.
        if n == 1 {
            p.write_unaligned(_mm256_extract_epi16::<0>(h) as u16)
        } else {
            _mm256_mask_storeu_epi16(p.cast(), first(n), h)
        }
    }
    #[inline(always)]
    unsafe fn from_f16(h: __m256i) -> __m512 {
        _mm512_cvtph_ps(h)
    }
    #[inline(always)]
    unsafe fn to_f16(v: __m512) -> __m256i {
        _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
    }
    #[inline(always)]
    unsafe fn from_bf16(h: __m256i) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(h)))
    }
    #[inline(always)]
    unsafe fn to_bf16(v: __m512) -> __m256i {
        let bits = _mm512_castps_si512(v);
        let high = _mm512_srli_epi32::<16>(bits);
        // Adding half a unit, less one where the kept part is even, rounds to nearest, ties to even.
        let odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
        let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, half));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)))
    }
    #[inline(always)]
    unsafe fn even_bf16(pairs: __m512) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(pairs)))
    }
    #[inline(always)]
    unsafe fn odd_bf16(pairs: __m512) -> __m512 {
        _mm512_and_ps(pairs, _mm512_castsi512_ps(_mm512_set1_epi32(0xffff_0000_u32 as i32)))
    }
    #[inline(always)]
    unsafe fn from_bits(h: __m256i) -> __m512 {
        _mm512_castsi512_ps(_mm512_cvtepu16_epi32(h))
    }
    #[inline(always)]
    unsafe fn to_bits(v: __m512) -> __m256i {
        _mm512_cvtepi32_epi16(_mm512_castps_si512(v))
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn sqrt(v: __m512) -> __m512 {
        _mm512_sqrt_ps(v)
    }
    #[inline(always)]
    unsafe fn load_words(p: *const u8) -> __m512i {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn store_words(p: *mut u8, v: __m512i) {
        _mm512_storeu_si512(p.cast(), v)
    }
    #[inline(always)]
    unsafe fn store_signed_bytes(p: *mut i8, v: __m512) {
        _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)))
    }
    #[inline(always)]
    unsafe fn load_bytes(p: *const u8) -> __m512i {
        _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_signed_bytes(p: *const u8) -> __m512i {
        _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))
    }
    #[inline(always)]
    unsafe fn and_bits(v: __m512i, mask: i32) -> __m512i {
        _mm512_and_si512(v, _mm512_set1_epi32(mask))
    }
    #[inline(always)]
    unsafe fn or_bits(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }
    #[inline(always)]
    unsafe fn xor_bits(v: __m512i, mask: i32) -> __m512i {
        _mm512_xor_si512(v, _mm512_set1_epi32(mask))
    }
    #[inline(always)]
    unsafe fn shift_left<const N: u32>(v: __m512i) -> __m512i {
        _mm512_slli_epi32::<N>(v)
    }
    #[inline(always)]
    unsafe fn shift_right<const N: u32>(v: __m512i) -> __m512i {
        _mm512_srli_epi32::<N>(v)
    }
    #[inline(always)]
    unsafe fn from_integers(v: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(v)
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8, shift: f32) -> (__m512, __m512) {
        // A table of sixteen numbers is one register, and the permutation looks at the low four bits only.
        let numbers =
            _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0);
        let table = _mm512_add_ps(numbers, _mm512_set1_ps(shift));
        let bytes = Self::load_bytes(p);
        (_mm512_permutexvar_ps(bytes, table), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), table))
    }
    #[inline(always)]
    unsafe fn halves_apart(p: *const u8, bytes: usize, n: usize) -> __m512 {
        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words_apart(p, bytes, n)))
    }
    #[inline(always)]
    unsafe fn pairs_apart(p: *const u8, bytes: usize, n: usize) -> (__m512, __m512) {
        let words = words_apart(p, bytes, n);
        let high = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(words));
        (_mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)), _mm512_cvtph_ps(high))
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }
    #[inline(always)]
    unsafe fn or(a: __m512, b: __m512) -> __m512 {
        _mm512_or_ps(a, b)
    }
    #[inline(always)]
    unsafe fn reduce_add(v: __m512) -> f32 {
        _mm512_reduce_add_ps(v)
    }
    #[inline(always)]
    unsafe fn reduce_max(v: __m512) -> f32 {
        _mm512_reduce_max_ps(v)
    }
    #[inline(always)]
    unsafe fn sum8(v: [__m512; 8]) -> [f32; 8] {
        // Each round halves the number of vectors. The order of the pairs makes lane i the sum of v[i] in the end.
        let mut a = [_mm512_setzero_ps(); 4];
        for i in 0..4 {
            let (x, y) = (v[i], v[i + 4]);
            a[i] = fold!(x, y, 0xff00, _mm512_shuffle_f32x4::<0b01_00_11_10>(x, y));
        }
        // Now [x x y y] in quarters; each quarter holds four partial sums.
        let mut b = [_mm512_setzero_ps(); 2];
        for i in 0..2 {
            let (x, y) = (a[i], a[i + 2]);
            b[i] = fold!(x, y, 0xcccc, _mm512_shuffle_ps::<0b01_00_11_10>(x, y));
        }
        // Now pairs: lanes (0 1) hold x and lanes (2 3) hold y in each quarter.
        let (x, y) = (b[0], b[1]);
        let even = _mm512_shuffle_ps::<0b10_00_10_00>(x, y);
        let odd = _mm512_shuffle_ps::<0b11_01_11_01>(x, y);
        let c = _mm512_add_ps(even, odd);
        // Each quarter now holds (v0 v2 v1 v3); quarters 0 and 1 belong to v0..v3, quarters 2 and 3 to v4..v7.
        let c = _mm512_add_ps(c, _mm512_shuffle_f32x4::<0b10_11_00_01>(c, c));
        let order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 0, 0, 0, 0, 0, 0, 0, 0);
        let sums = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, c));
        let mut out = [0.0; 8];
        _mm256_storeu_ps(out.as_mut_ptr(), sums);
        out
    }
    #[inline(always)]
    unsafe fn interleave(a: __m512, b: __m512) -> (__m512, __m512) {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b))
    }
    #[inline(always)]
    unsafe fn round(v: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
    }
    #[inline(always)]
    unsafe fn scale(v: __m512, n: __m512) -> __m512 {
        _mm512_scalef_ps(v, n)
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

impl PairDot for Avx512 {
    #[inline(always)]
    unsafe fn dot_pairs(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_dpbf16_ps(c, std::mem::transmute::<__m512, __m512bh>(a), std::mem::transmute::<__m512, __m512bh>(b))
    }
}

/// Four bytes at `x` in each lane.
#[inline(always)]
unsafe fn four(x: *const i8) -> __m512i {
    _mm512_set1_epi32(x.cast::<i32>().read_unaligned())
}

/// Products of bytes by AVX-512-VNNI: four of them are added to a lane in one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Vnni;

impl ByteDot for Vnni {
    type S = Avx512;
    const SIGNED: bool = false;
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[__m512i],
        _bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [__m512i; ROWS] {
        let mut sums = [_mm512_set1_epi32(0); ROWS];
        for r in 0..ROWS {
            sums[r] = _mm512_set1_epi32(start[r]);
        }
        // One word after the other, for all rows: an addition waits for the one before it. Written out, as the compiler does
        // not unroll so much.
        macro_rules! add {
            ($($j:literal)+) => {$(
                for r in 0..ROWS {
                    sums[r] = _mm512_dpbusd_epi32(sums[r], words[$j], four(x.add(r * x_row + 4 * $j)));
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

impl ByteDot for Avx512 {
    type S = Avx512;
    const SIGNED: bool = true;
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[__m512i],
        bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [__m512i; ROWS] {
        let mut sums = [_mm512_set1_epi32(0); ROWS];
        for r in 0..ROWS {
            sums[r] = dot(start[r], words, bits, x.add(r * x_row));
        }
        sums
    }
}

/// One row's, in pairs of 16 bits.
#[inline(always)]
unsafe fn dot(start: i32, words: &[__m512i], bits: u32, x: *const i8) -> __m512i {
    let mut sum = _mm512_set1_epi32(start);
    for first in (0..words.len()).step_by(super::pairs_in_16_bits(bits)) {
        let mut pairs = _mm512_setzero_si512();
        for j in first..words.len().min(first + super::pairs_in_16_bits(bits)) {
            let (word, x) = (words[j], four(x.add(4 * j)));
            // Unsigned bytes times signed ones: the sign of w goes to x.
            let product = if bits == 8 {
                let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(word), _mm512_setzero_si512(), x);
                _mm512_maddubs_epi16(_mm512_abs_epi8(word), x)
            } else {
                _mm512_maddubs_epi16(word, x)
            };
            pairs = _mm512_add_epi16(pairs, product);
        }
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    sum
}
