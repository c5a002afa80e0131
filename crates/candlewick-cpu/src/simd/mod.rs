//! One vector register per instruction set, behind one trait: kernels are written once, generic over [`Simd`].
//!
//! Every method is `#[inline(always)]` and holds a few intrinsics. It becomes a single instruction only inside a
//! function that enables the instruction set, which is what the entry points in [`crate::kernels`] do.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
mod exp;
mod isa;
mod lane;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;
#[cfg(test)]
mod tests;

pub use isa::Isa;
pub use lane::{Bits, Lane};

/// The widest [`Simd::LANES`] of all: the length of arrays that hold one vector per lane.
pub const MAX_LANES: usize = 16;

/// Instruction sets that multiply pairs of bf16; the portable one, to check the other.
pub trait PairDot: Simd {
    /// `c + a0 * b0 + a1 * b1` in each lane, where the lanes of a and b hold two bf16, the first in the low half.
    /// # Safety
    /// See [`Simd`]; on x86-64 the CPU also has AVX512-BF16.
    unsafe fn dot_pairs(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// Instruction sets as they multiply bytes, four to a lane.
pub trait ByteDot: Copy + 'static {
    /// Their vectors.
    type S: Simd;
    /// Whether bytes of W are signed; they are unsigned otherwise. With seven bits or fewer they are both.
    const SIGNED: bool;
    /// Rows of x of the largest tile whose sums stay in registers: 12, 8 or 4.
    const ROWS: usize;

    /// In each lane `start` plus the sum of products of its bytes in `words` with those at `x`, which are the same for all
    /// lanes, signed and none -128; the same for rows of x `x_row` bytes apart. There are eight words, or four. `bits` of each
    /// byte of the words may be set.
    /// # Safety
    /// There are four bytes in each row of x for each word; see [`Simd`], and the CPU has the byte products of this type.
    unsafe fn dots<const ROWS: usize>(
        start: [i32; ROWS],
        words: &[<Self::S as Simd>::I],
        bits: u32,
        x: *const i8,
        x_row: usize,
    ) -> [<Self::S as Simd>::I; ROWS];
}

/// A vector of f32 of one instruction set.
///
/// # Safety contract of all methods
/// The CPU has the instruction set. Pointers are valid for as many elements as the method says; no alignment is needed.
pub trait Simd: Copy + 'static {
    /// f32 per vector.
    const LANES: usize;
    /// Columns of one panel of a packed matrix: two vectors.
    const PANEL: usize = 2 * Self::LANES;
    /// Rows of the largest product tile whose accumulators stay in registers.
    const TILE_ROWS: usize;
    /// Rows of X that the skinny product takes at once, for the same reason.
    const DOT_ROWS: usize;
    /// Rows of A that it takes at once with more than one row of X.
    const DOT_RANK: usize;
    /// A vector of f32.
    type V: Copy;
    /// As many 16-bit numbers as `V` has lanes.
    type H: Copy;
    /// As many 32-bit integers as `V` has lanes.
    type I: Copy;

    /// `x` in every lane.
    /// # Safety
    /// See the trait.
    unsafe fn splat(x: f32) -> Self::V;
    /// `LANES` elements at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn load(p: *const f32) -> Self::V;
    /// The first `n <= LANES` elements at `p`, zero in the other lanes; touches nothing beyond them.
    /// # Safety
    /// See the trait.
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V;
    /// Writes `LANES` elements at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Writes the first `n <= LANES` lanes at `p`; touches nothing beyond them.
    /// # Safety
    /// See the trait.
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize);

    /// `LANES` raw 16-bit elements at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn load_half(p: *const u16) -> Self::H;
    /// Writes `LANES` raw 16-bit elements at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn store_half(p: *mut u16, h: Self::H);
    /// The first `n <= LANES` raw elements at `p`, zero in the other lanes.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn load_half_first(p: *const u16, n: usize) -> Self::H {
        let mut buffer = [0u16; MAX_LANES];
        // SAFETY: the caller's contract; the buffer has room for a whole vector.
        unsafe {
            std::ptr::copy_nonoverlapping(p.cast::<u8>(), buffer.as_mut_ptr().cast(), 2 * n);
            Self::load_half(buffer.as_ptr())
        }
    }
    /// Writes the first `n <= LANES` raw elements at `p`.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn store_half_first(p: *mut u16, h: Self::H, n: usize) {
        let mut buffer = [0u16; MAX_LANES];
        // SAFETY: the caller's contract; the buffer has room for a whole vector.
        unsafe {
            Self::store_half(buffer.as_mut_ptr(), h);
            std::ptr::copy_nonoverlapping(buffer.as_ptr().cast::<u8>(), p.cast(), 2 * n);
        }
    }
    /// Widens f16; exact.
    /// # Safety
    /// See the trait.
    unsafe fn from_f16(h: Self::H) -> Self::V;
    /// Narrows to f16: nearest, ties to even; NaN stays NaN.
    /// # Safety
    /// See the trait.
    unsafe fn to_f16(v: Self::V) -> Self::H;
    /// Widens bf16; exact.
    /// # Safety
    /// See the trait.
    unsafe fn from_bf16(h: Self::H) -> Self::V;
    /// Narrows to bf16: nearest, ties to even; NaN stays NaN.
    /// # Safety
    /// See the trait.
    unsafe fn to_bf16(v: Self::V) -> Self::H;
    /// Widens the first bf16 of the pair in each lane.
    /// # Safety
    /// See the trait.
    unsafe fn even_bf16(pairs: Self::V) -> Self::V;
    /// Widens the second bf16 of the pair in each lane.
    /// # Safety
    /// See the trait.
    unsafe fn odd_bf16(pairs: Self::V) -> Self::V;
    /// Puts 16 raw bits into the low half of each lane, for moving them about.
    /// # Safety
    /// See the trait.
    unsafe fn from_bits(h: Self::H) -> Self::V;
    /// Takes the low 16 bits of each lane.
    /// # Safety
    /// See the trait.
    unsafe fn to_bits(v: Self::V) -> Self::H;

    /// a + b
    /// # Safety
    /// See the trait.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    /// # Safety
    /// See the trait.
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// a * b
    /// # Safety
    /// See the trait.
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, in one rounding where the hardware has it.
    /// # Safety
    /// See the trait.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// a / b
    /// # Safety
    /// See the trait.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// The square root.
    /// # Safety
    /// See the trait.
    unsafe fn sqrt(v: Self::V) -> Self::V;
    /// Four bytes at `p` for each lane.
    /// # Safety
    /// See the trait.
    unsafe fn load_words(p: *const u8) -> Self::I;
    /// Writes four bytes of each lane at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn store_words(p: *mut u8, v: Self::I);
    /// Writes each lane, a whole number of -128..=127, as a byte at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn store_signed_bytes(p: *mut i8, v: Self::V);
    /// `LANES` bytes at `p`, each in a lane of its own.
    /// # Safety
    /// See the trait.
    unsafe fn load_bytes(p: *const u8) -> Self::I;
    /// `LANES` signed bytes at `p`, each in a lane of its own.
    /// # Safety
    /// See the trait.
    unsafe fn load_signed_bytes(p: *const u8) -> Self::I;
    /// The bits of each lane that `mask` has.
    /// # Safety
    /// See the trait.
    unsafe fn and_bits(v: Self::I, mask: i32) -> Self::I;
    /// The bits that are set in a, in b, or in both.
    /// # Safety
    /// See the trait.
    unsafe fn or_bits(a: Self::I, b: Self::I) -> Self::I;
    /// Each lane with the bits that `mask` has flipped.
    /// # Safety
    /// See the trait.
    unsafe fn xor_bits(v: Self::I, mask: i32) -> Self::I;
    /// Each lane shifted left by `N` bits.
    /// # Safety
    /// See the trait.
    unsafe fn shift_left<const N: u32>(v: Self::I) -> Self::I;
    /// Each lane shifted right by `N` bits; the highest `N` bits are the sign's or zeros where it is negative.
    /// # Safety
    /// See the trait.
    unsafe fn shift_right<const N: u32>(v: Self::I) -> Self::I;
    /// Each integer as f32, rounded to nearest.
    /// # Safety
    /// See the trait.
    unsafe fn from_integers(v: Self::I) -> Self::V;
    /// The low four bits of each of `LANES` bytes at `p`, and the high four, each plus `shift`, an integer.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn nibbles(p: *const u8, shift: f32) -> (Self::V, Self::V) {
        // SAFETY: the caller's contract.
        unsafe {
            let bytes = Self::load_bytes(p);
            let low = Self::from_integers(Self::and_bits(bytes, 15));
            let high = Self::from_integers(Self::shift_right::<4>(bytes));
            if shift == 0.0 {
                return (low, high);
            }
            (Self::add(low, Self::splat(shift)), Self::add(high, Self::splat(shift)))
        }
    }
    /// The f16 at `p` and `n - 1` more, `bytes` apart, widened; any finite numbers in the other lanes. May read four bytes
    /// at each.
    /// # Safety
    /// See the trait; `1 <= n <= LANES`.
    #[inline(always)]
    unsafe fn halves_apart(p: *const u8, bytes: usize, n: usize) -> Self::V {
        let mut halves = [0u16; MAX_LANES];
        // SAFETY: the caller's contract; the array has room for a vector.
        unsafe {
            for (i, half) in halves.iter_mut().enumerate().take(n) {
                *half = p.add(i * bytes).cast::<u16>().read_unaligned();
            }
            Self::from_f16(Self::load_half(halves.as_ptr()))
        }
    }
    /// [`Simd::halves_apart`] at `p`, and at the two bytes after it.
    /// # Safety
    /// See the trait; `1 <= n <= LANES`.
    #[inline(always)]
    unsafe fn pairs_apart(p: *const u8, bytes: usize, n: usize) -> (Self::V, Self::V) {
        // SAFETY: the caller's contract.
        unsafe { (Self::halves_apart(p, bytes, n), Self::halves_apart(p.add(2), bytes, n)) }
    }
    /// The larger of a and b; b where either is NaN (NEON: NaN).
    /// # Safety
    /// See the trait.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of a and b; b where either is NaN (NEON: NaN).
    /// # Safety
    /// See the trait.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The bits that are set in a, in b, or in both.
    /// # Safety
    /// See the trait.
    unsafe fn or(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes.
    /// # Safety
    /// See the trait.
    unsafe fn reduce_add(v: Self::V) -> f32;
    /// The largest lane; any lane's value if one is NaN.
    /// # Safety
    /// See the trait.
    unsafe fn reduce_max(v: Self::V) -> f32;
    /// The sums of eight vectors, in one tree: far cheaper than eight `reduce_add`.
    /// # Safety
    /// See the trait.
    unsafe fn sum8(v: [Self::V; 8]) -> [f32; 8];
    /// a and b lane by lane: `(a0 b0 a1 b1 ...)`, first half and second half.
    /// # Safety
    /// See the trait.
    unsafe fn interleave(a: Self::V, b: Self::V) -> (Self::V, Self::V);
    /// The nearest integer, ties to even.
    /// # Safety
    /// See the trait.
    unsafe fn round(v: Self::V) -> Self::V;
    /// `v * 2^n` for integers n in -160..=160, and NaN where n is NaN and v is.
    /// # Safety
    /// See the trait.
    unsafe fn scale(v: Self::V, n: Self::V) -> Self::V;
    /// Asks for the cache line at `p`, which need not be valid.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        let _ = p;
    }
    /// `p`, with its origin hidden from the compiler, which otherwise computes each of several pointers from the one
    /// before: a chain of additions as long as a step of the product.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn opaque(p: *const f32) -> *const f32 {
        p
    }

    /// e^v within 2 units in the last place; `exp(-inf) = 0`, `exp(NaN) = NaN`.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn exp(v: Self::V) -> Self::V {
        // SAFETY: the caller's contract.
        unsafe { exp::exp::<Self>(v) }
    }
}

/// How many sums of two products of a byte of `bits` bits (eight: of magnitude up to 128) and one of magnitude up to 127 add
/// up within 16 bits with a sign: 2 · 15 · 127 eight times, 2 · 63 · 127 twice, 2 · 128 · 127 once.
#[cfg(target_arch = "x86_64")]
const fn pairs_in_16_bits(bits: u32) -> usize {
    match bits {
        0..=4 => 8,
        5..=6 => 2,
        _ => 1,
    }
}
