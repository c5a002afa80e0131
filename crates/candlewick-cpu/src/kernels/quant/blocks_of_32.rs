//! Blocks of 32 numbers, one group each.

use super::Take;
use super::blocks::{Blocks, GROUPS, Scales, number};
use crate::simd::{MAX_LANES, Simd};
use candlewick_core::Quant;

pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q8_0;

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

impl Blocks for Q4_0 {
    const FORMAT: Quant = Quant::Q4_0;
    const GROUPS: usize = 1;

    #[inline(always)]
    unsafe fn scales<S: Simd>(p: *const u8, count: usize, to: &mut Scales) {
        // SAFETY: the caller's contract.
        unsafe { halves::<S>(p, Self::FORMAT.bytes(), count, &mut to.scale) }
    }

    #[inline(always)]
    unsafe fn decode<S: Simd, T: Take<S>>(p: *const u8, scales: &Scales, first: usize, to: &mut T) {
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
    unsafe fn decode<S: Simd, T: Take<S>>(p: *const u8, scales: &Scales, first: usize, to: &mut T) {
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
    unsafe fn decode<S: Simd, T: Take<S>>(p: *const u8, scales: &Scales, first: usize, to: &mut T) {
        // SAFETY: the caller's contract.
        unsafe {
            for j in (0..32).step_by(S::LANES) {
                let q = S::from_integers(S::load_signed_bytes(p.add(2 + j)));
                to.take(j, number::<S, false>(q, scales, first));
            }
        }
    }
}
