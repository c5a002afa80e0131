//! Blocks of 256 numbers (K formats), in groups whose scales are quantised themselves.

use super::Take;
use super::blocks::{Blocks, Scales, number};
use crate::simd::Simd;
use candlewick_core::Quant;
use half::f16;

pub(super) struct Q4K;
pub(super) struct Q6K;

/// The f16 at `p` in f32.
///
/// # Safety
/// Two bytes are valid at `p`.
#[inline(always)]
unsafe fn half(p: *const u8) -> f32 {
    // SAFETY: the caller's contract.
    f16::from_bits(unsafe { p.cast::<u16>().read_unaligned() }).to_f32_const()
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
    unsafe fn decode<S: Simd, T: Take<S>>(p: *const u8, scales: &Scales, first: usize, to: &mut T) {
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
    unsafe fn decode<S: Simd, T: Take<S>>(p: *const u8, scales: &Scales, first: usize, to: &mut T) {
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
                        let q = S::from_integers(q);
                        let v = if T::INFINITE_SCALES {
                            number::<S, false>(S::sub(q, S::splat(32.0)), scales, group)
                        } else {
                            number::<S, true>(q, scales, group)
                        };
                        to.take(128 * part + 32 * nth + j, v);
                    }
                }
            }
        }
    }
}
