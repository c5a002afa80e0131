//! Cross-entropy of one row of a chunk of logits, and its gradient.

use super::vector::{each_vector, fill_from, load, store};
use super::with_type;
use crate::simd::{Lane, MAX_LANES, Simd};
use candlewick_core::DType;

/// The arguments of `cross_entropy_stats`: folds logits into the largest and the sum of exponentials.
///
/// # Safety
/// `n` logits and the two numbers of `stats` are valid, and do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyStatsArgs {
    /// How many logits.
    pub n: usize,
    /// Their number format.
    pub dtype: DType,
    /// The logits.
    pub logits: *const u8,
    /// (largest, sum) so far, to be updated; (-inf, 0) before the first. NaN makes both NaN.
    pub stats: *mut f32,
}

/// The arguments of `cross_entropy_grad`: `dlogits = factor * exp(logits - max) / sum`.
///
/// # Safety
/// `n` elements are valid at both pointers, which may be the same.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyGradArgs {
    /// How many logits.
    pub n: usize,
    /// The number format of both.
    pub dtype: DType,
    /// The largest logit of the row, in all chunks.
    pub max: f32,
    /// The sum of exponentials.
    pub sum: f32,
    /// The gradient of the row's loss.
    pub factor: f32,
    /// The label's column, or any number from `n` on: there `factor` is subtracted.
    pub label: usize,
    /// The logits.
    pub logits: *const u8,
    /// Their gradient, to write.
    pub dlogits: *mut u8,
}

/// # Safety
/// See [`CrossEntropyStatsArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn cross_entropy_stats<S: Simd>(args: &CrossEntropyStatsArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dtype, T => stats::<S, T>(args)) }
}

/// # Safety
/// That of [`cross_entropy_stats`], with T the number format.
#[inline(always)]
unsafe fn stats<S: Simd, T: Lane>(args: &CrossEntropyStatsArgs) {
    let logits = args.logits.cast::<T>();
    // SAFETY: the caller's contract.
    unsafe {
        let (before, sum) = (*args.stats, *args.stats.add(1));
        let mut largest = S::splat(before);
        each_vector!(S, args.n, |i, width, WHOLE| {
            let v = load::<S, T, WHOLE>(logits.add(i), width);
            let v = if WHOLE { v } else { fill_from::<S>(v, width, f32::NEG_INFINITY) };
            largest = S::max(v, largest)
        });
        let max = S::reduce_max(largest);
        // Where all are -inf, exp(-inf - 0) is the 0 that it should be.
        let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let mut sums = S::splat(0.0);
        each_vector!(S, args.n, |i, width, WHOLE| {
            let v = load::<S, T, WHOLE>(logits.add(i), width);
            let v = if WHOLE { v } else { fill_from::<S>(v, width, f32::NEG_INFINITY) };
            sums = S::add(sums, S::exp(S::sub(v, S::splat(shift))))
        });
        let earlier = if sum == 0.0 { 0.0 } else { sum * (before - shift).exp() };
        let total = earlier + S::reduce_add(sums);
        *args.stats = if total.is_nan() { f32::NAN } else { max };
        *args.stats.add(1) = total;
    }
}

/// # Safety
/// See [`CrossEntropyGradArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn cross_entropy_grad<S: Simd>(args: &CrossEntropyGradArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dtype, T => grad::<S, T>(args)) }
}

/// # Safety
/// That of [`cross_entropy_grad`], with T the number format.
#[inline(always)]
unsafe fn grad<S: Simd, T: Lane>(args: &CrossEntropyGradArgs) {
    let (logits, dlogits) = (args.logits.cast::<T>(), args.dlogits.cast::<T>());
    // SAFETY: the caller's contract; dlogits is written after what it may lie on was read.
    unsafe {
        let (max, share) = (S::splat(args.max), S::splat(1.0 / args.sum));
        let factor = S::splat(args.factor);
        // The label's own is computed apart: rounding p to 16 bits before subtracting 1 would lose it.
        let label = if args.label < args.n { T::load_first::<S>(logits.add(args.label), 1) } else { max };
        each_vector!(S, args.n, |i, width, WHOLE| {
            let power = S::exp(S::sub(load::<S, T, WHOLE>(logits.add(i), width), max));
            store::<S, T, WHOLE>(dlogits.add(i), S::mul(factor, S::mul(power, share)), width)
        });
        if args.label < args.n {
            let p = S::mul(S::exp(S::sub(label, max)), share);
            let mut lanes = [T::ZERO; MAX_LANES];
            T::store::<S>(lanes.as_mut_ptr(), S::mul(factor, S::sub(p, S::splat(1.0))));
            *dlogits.add(args.label) = lanes[0];
        }
    }
}
