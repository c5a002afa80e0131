//! What the decoders of all block formats share: groups of numbers with a scale and an offset.

use super::Take;
use crate::simd::{MAX_LANES, Simd};
use candlewick_core::Quant;

/// Scales of this many groups are brought to f32 at once: converting them one by one would take as long as all the rest.
pub(super) const GROUPS: usize = 32;

/// Scales and offsets of successive groups: a number is scale · q + offset. Room for a vector beyond the last.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    pub(super) scale: [f32; GROUPS + MAX_LANES],
    pub(super) offset: [f32; GROUPS + MAX_LANES],
}

impl Scales {
    pub(super) const ZERO: Scales = Scales { scale: [0.0; GROUPS + MAX_LANES], offset: [0.0; GROUPS + MAX_LANES] };
}

/// A block format whose numbers can be decoded.
pub(super) trait Blocks {
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
    unsafe fn decode<S: Simd, T: Take<S>>(p: *const u8, scales: &Scales, first: usize, to: &mut T);
}

/// scale · q + offset, or scale · q.
///
/// # Safety
/// The CPU has the instruction set; the group is one of [`GROUPS`].
#[inline(always)]
pub(super) unsafe fn number<S: Simd, const OFFSET: bool>(q: S::V, scales: &Scales, group: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        let scale = S::splat(*scales.scale.get_unchecked(group));
        if OFFSET { S::fma(q, scale, S::splat(*scales.offset.get_unchecked(group))) } else { S::mul(q, scale) }
    }
}
