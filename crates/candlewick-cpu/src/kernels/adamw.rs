//! The optimizer's loops: a sum of squares, and one step of AdamW.

use super::vector::{each_vector, load, store};
use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `sum_squares`: `*sum = sum(x^2)`.
///
/// # Safety
/// `n` elements are valid at x, and one at `sum`.
#[derive(Clone, Copy, Debug)]
pub struct SumSquaresArgs {
    /// How many elements.
    pub n: usize,
    /// Their number format.
    pub dtype: DType,
    /// The elements.
    pub x: *const u8,
    /// Where to write the sum.
    pub sum: *mut f32,
}

/// The arguments of `adamw`: `g = clip * grad`, `m = beta1 * m + (1 - beta1) * g`, `v = beta2 * v + (1 - beta2) * g^2`,
/// `master = keep * master - rate * m / (sqrt(v) * root + eps)`, `param = master`.
///
/// # Safety
/// `n` elements are valid at each pointer; nothing overlaps.
#[derive(Clone, Copy, Debug)]
pub struct AdamWArgs {
    /// How many elements.
    pub n: usize,
    /// The number format of grad and param.
    pub dtype: DType,
    /// Factor of the gradients.
    pub clip: f32,
    /// beta1.
    pub beta1: f32,
    /// 1 - beta1, rounded once.
    pub blend: f32,
    /// beta2.
    pub beta2: f32,
    /// 1 - beta2, rounded once.
    pub gain: f32,
    /// 1 - learning rate * weight decay.
    pub keep: f32,
    /// The learning rate over the bias correction of m.
    pub rate: f32,
    /// 1 / sqrt(the bias correction of v).
    pub root: f32,
    /// What is added to the root.
    pub eps: f32,
    /// The gradients.
    pub grad: *const u8,
    /// The weights, to be updated.
    pub master: *mut f32,
    /// The gradients' mean, to be updated.
    pub m: *mut f32,
    /// Their mean square, to be updated.
    pub v: *mut f32,
    /// The weights in the model's format, to write.
    pub param: *mut u8,
}

/// # Safety
/// See [`SumSquaresArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn sum_squares<S: Simd>(args: &SumSquaresArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.dtype, T => {
            let x = args.x.cast::<T>();
            // Four chains: an addition waits for the one before it.
            let mut sums = [S::splat(0.0); 4];
            let whole = args.n - args.n % (4 * S::LANES);
            for i in (0..whole).step_by(4 * S::LANES) {
                for (j, sum) in sums.iter_mut().enumerate() {
                    let v = T::load::<S>(x.add(i + j * S::LANES));
                    *sum = S::fma(v, v, *sum);
                }
            }
            each_vector!(S, args.n - whole, |i, width, WHOLE| {
                let v = load::<S, T, WHOLE>(x.add(whole + i), width);
                sums[0] = S::fma(v, v, sums[0])
            });
            *args.sum = S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
        })
    }
}

/// # Safety
/// See [`AdamWArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn adamw<S: Simd>(args: &AdamWArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dtype, T => step::<S, T>(args)) }
}

/// # Safety
/// That of [`adamw`], with T the number format.
#[inline(always)]
unsafe fn step<S: Simd, T: Lane>(args: &AdamWArgs) {
    let (grad, param) = (args.grad.cast::<T>(), args.param.cast::<T>());
    // SAFETY: the caller's contract.
    unsafe {
        let (clip, beta1, blend, beta2, gain) = (
            S::splat(args.clip),
            S::splat(args.beta1),
            S::splat(args.blend),
            S::splat(args.beta2),
            S::splat(args.gain),
        );
        let (keep, rate, root, eps) =
            (S::splat(args.keep), S::splat(-args.rate), S::splat(args.root), S::splat(args.eps));
        each_vector!(S, args.n, |i, width, WHOLE| {
            let g = S::mul(load::<S, T, WHOLE>(grad.add(i), width), clip);
            // Not m + (g - m) * (1 - beta1), which is NaN where m is infinite.
            let m = S::fma(g, blend, S::mul(beta1, load::<S, f32, WHOLE>(args.m.add(i), width)));
            let v = S::fma(S::mul(g, g), gain, S::mul(beta2, load::<S, f32, WHOLE>(args.v.add(i), width)));
            let change = S::div(m, S::fma(S::sqrt(v), root, eps));
            let master = S::mul(keep, load::<S, f32, WHOLE>(args.master.add(i), width));
            let master = S::fma(rate, change, master);
            store::<S, f32, WHOLE>(args.m.add(i), m, width);
            store::<S, f32, WHOLE>(args.v.add(i), v, width);
            store::<S, f32, WHOLE>(args.master.add(i), master, width);
            store::<S, T, WHOLE>(param.add(i), master, width)
        })
    }
}
