//! Number formats in memory: kernels are generic over them and compute in f32.

use super::Simd;
use half::{bf16, f16};

/// A number in memory that a lane of a vector can be read from and written to.
///
/// # Safety contract of all methods
/// That of [`Simd`].
pub trait Lane: Copy + 'static {
    /// Zero.
    const ZERO: Self;
    /// `LANES` elements at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    /// The first `n <= LANES` elements at `p`, zero in the other lanes.
    /// # Safety
    /// See the trait.
    unsafe fn load_first<S: Simd>(p: *const Self, n: usize) -> S::V;
    /// One of two vectors that together hold the `2 * LANES` elements at `p`, in whatever order is cheapest to read:
    /// the same order for every pointer.
    /// # Safety
    /// See the trait.
    #[inline(always)]
    unsafe fn load_part<S: Simd, const PART: usize>(p: *const Self) -> S::V {
        // SAFETY: the caller's contract.
        unsafe { Self::load::<S>(p.add(PART * S::LANES)) }
    }
    /// Writes `LANES` elements at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn store<S: Simd>(p: *mut Self, v: S::V);
    /// Writes the first `n <= LANES` lanes at `p`.
    /// # Safety
    /// See the trait.
    unsafe fn store_first<S: Simd>(p: *mut Self, v: S::V, n: usize);
}

impl Lane for f32 {
    const ZERO: f32 = 0.0;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        // SAFETY: the caller's contract.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    unsafe fn load_first<S: Simd>(p: *const f32, n: usize) -> S::V {
        // SAFETY: the caller's contract.
        unsafe { S::load_first(p, n) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(p: *mut f32, v: S::V) {
        // SAFETY: the caller's contract.
        unsafe { S::store(p, v) }
    }
    #[inline(always)]
    unsafe fn store_first<S: Simd>(p: *mut f32, v: S::V, n: usize) {
        // SAFETY: the caller's contract.
        unsafe { S::store_first(p, v, n) }
    }
}

/// 16 bits that are moved and never computed with, so that a copy is a copy, NaN payloads included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bits(pub u16);

macro_rules! lane_of_16_bits {
    ($type:ty, $zero:expr, $from:ident, $to:ident, $($load_part:item)?) => {
        impl Lane for $type {
            const ZERO: $type = $zero;
            $($load_part)?
            #[inline(always)]
            unsafe fn load<S: Simd>(p: *const $type) -> S::V {
                // SAFETY: the caller's contract; the type is 16 bits wide.
                unsafe { S::$from(S::load_half(p.cast())) }
            }
            #[inline(always)]
            unsafe fn load_first<S: Simd>(p: *const $type, n: usize) -> S::V {
                // SAFETY: the caller's contract; the type is 16 bits wide.
                unsafe { S::$from(S::load_half_first(p.cast(), n)) }
            }
            #[inline(always)]
            unsafe fn store<S: Simd>(p: *mut $type, v: S::V) {
                // SAFETY: the caller's contract; the type is 16 bits wide.
                unsafe { S::store_half(p.cast(), S::$to(v)) }
            }
            #[inline(always)]
            unsafe fn store_first<S: Simd>(p: *mut $type, v: S::V, n: usize) {
                // SAFETY: the caller's contract; the type is 16 bits wide.
                unsafe { S::store_half_first(p.cast(), S::$to(v), n) }
            }
        }
    };
}

lane_of_16_bits!(f16, f16::ZERO, from_f16, to_f16,);
lane_of_16_bits!(
    bf16,
    bf16::ZERO,
    from_bf16,
    to_bf16,
    // Even and odd elements: a shift or a mask each, where elements in order would first have to be spread.
    #[inline(always)]
    unsafe fn load_part<S: Simd, const PART: usize>(p: *const bf16) -> S::V {
        // SAFETY: the caller's contract.
        unsafe {
            let pairs = S::load(p.cast());
            if PART == 0 { S::even_bf16(pairs) } else { S::odd_bf16(pairs) }
        }
    }
);
lane_of_16_bits!(Bits, Bits(0), from_bits, to_bits,);
