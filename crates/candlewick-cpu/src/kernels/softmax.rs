//! Softmax of one row, and its gradient.

use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `softmax`: `y[..valid] = softmax(scale * x[..valid])`, and `y[valid..n] = 0`.
///
/// A row with NaN or +infinity, and a row that is all -infinity, comes out as NaN.
///
/// # Safety
/// `n` elements are valid at each pointer, `valid <= n`; x and y may be the same.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxArgs {
    /// Elements of the row.
    pub n: usize,
    /// How many of them take part.
    pub valid: usize,
    /// Factor of x.
    pub scale: f32,
    /// The number format of x and y.
    pub dtype: DType,
    /// The row to read.
    pub x: *const u8,
    /// The row to write.
    pub y: *mut u8,
    /// Room for `valid` f32, overlapping nothing; unused, and may be null, if the dtype is f32.
    pub scratch: *mut f32,
}

/// The arguments of `softmax_backward`: `dx = scale * y * (dy - sum(dy * y))` on the first `valid` elements, zero after.
///
/// # Safety
/// `n` elements are valid at each pointer, `valid <= n`; dx may be the same as dy or y.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxBackwardArgs {
    /// Elements of the row.
    pub n: usize,
    /// How many of them took part.
    pub valid: usize,
    /// Factor of x in the forward pass.
    pub scale: f32,
    /// The number format of y, dy and dx.
    pub dtype: DType,
    /// The row that the forward pass wrote.
    pub y: *const u8,
    /// The gradient of y.
    pub dy: *const u8,
    /// The gradient of x, to write.
    pub dx: *mut u8,
}

/// # Safety
/// See [`SoftmaxArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(args: &SoftmaxArgs) {
    // SAFETY: the caller's contract. f32 rows keep the exponentials in y itself.
    unsafe {
        with_type!(args.dtype, T => {
            let scratch = if args.dtype == DType::F32 { args.y.cast() } else { args.scratch };
            row::<S, T>(args, args.x.cast(), args.y.cast(), scratch)
        });
    }
}

/// # Safety
/// That of [`softmax`], with T the number format.
#[inline(always)]
unsafe fn row<S: Simd, T: Lane>(args: &SoftmaxArgs, x: *const T, y: *mut T, scratch: *mut f32) {
    let SoftmaxArgs { n, valid, .. } = *args;
    let whole = valid - valid % S::LANES;
    let rest = valid - whole;
    // SAFETY: the caller's contract.
    unsafe {
        let scale = S::splat(args.scale);
        let shift = S::splat(largest::<S, T>(x, valid, scale));

        // NaN may be lost in the maximum, but here it makes the sum NaN, and that the whole row.
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let e = S::exp(S::sub(S::mul(scale, T::load::<S>(x.add(i))), shift));
            sum = S::add(sum, e);
            S::store(scratch.add(i), e);
        }
        let mut total = S::reduce_add(sum);
        if rest > 0 {
            let e = S::exp(S::sub(S::mul(scale, T::load_first::<S>(x.add(whole), rest)), shift));
            S::store_first(scratch.add(whole), e, rest);
            // Read back, the unused lanes are zero.
            total += S::reduce_add(S::load_first(scratch.add(whole), rest));
        }

        let factor = S::splat(1.0 / total);
        for i in (0..whole).step_by(S::LANES) {
            T::store::<S>(y.add(i), S::mul(factor, S::load(scratch.add(i))));
        }
        if rest > 0 {
            T::store_first::<S>(y.add(whole), S::mul(factor, S::load_first(scratch.add(whole), rest)), rest);
        }
        fill_zero(y, valid, n);
    }
}

/// The largest of `scale * x`, of any value if x has NaN.
///
/// # Safety
/// `n` elements at `x` are valid; the CPU has the instruction set.
#[inline(always)]
unsafe fn largest<S: Simd, T: Lane>(x: *const T, n: usize, scale: S::V) -> f32 {
    // SAFETY: the caller's contract.
    unsafe {
        // Four chains: each maximum waits for the one before it.
        let mut chains = [S::splat(f32::NEG_INFINITY); 4];
        let mut i = 0;
        while i + 4 * S::LANES <= n {
            for (j, chain) in chains.iter_mut().enumerate() {
                *chain = S::max(*chain, S::mul(scale, T::load::<S>(x.add(i + j * S::LANES))));
            }
            i += 4 * S::LANES;
        }
        while i + S::LANES <= n {
            chains[0] = S::max(chains[0], S::mul(scale, T::load::<S>(x.add(i))));
            i += S::LANES;
        }
        let mut largest = S::reduce_max(S::max(S::max(chains[0], chains[1]), S::max(chains[2], chains[3])));
        if i < n {
            // The lanes beyond the row must not win with their zeros.
            let mut tail = [f32::NEG_INFINITY; crate::simd::MAX_LANES];
            S::store_first(tail.as_mut_ptr(), S::mul(scale, T::load_first::<S>(x.add(i), n - i)), n - i);
            largest = S::reduce_max(S::max(S::splat(largest), S::load(tail.as_ptr())));
        }
        largest
    }
}

/// # Safety
/// See [`SoftmaxBackwardArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn softmax_backward<S: Simd>(args: &SoftmaxBackwardArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.dtype, T => backward_row::<S, T>(args, args.y.cast(), args.dy.cast(), args.dx.cast()));
    }
}

/// # Safety
/// That of [`softmax_backward`], with T the number format.
#[inline(always)]
unsafe fn backward_row<S: Simd, T: Lane>(args: &SoftmaxBackwardArgs, y: *const T, dy: *const T, dx: *mut T) {
    let SoftmaxBackwardArgs { n, valid, .. } = *args;
    // SAFETY: the caller's contract.
    unsafe {
        let mut chains = [S::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * S::LANES <= valid {
            for (j, chain) in chains.iter_mut().enumerate() {
                let at = i + j * S::LANES;
                *chain = S::fma(T::load::<S>(y.add(at)), T::load::<S>(dy.add(at)), *chain);
            }
            i += 4 * S::LANES;
        }
        while i < valid {
            let width = (valid - i).min(S::LANES);
            let (y, dy) = (T::load_first::<S>(y.add(i), width), T::load_first::<S>(dy.add(i), width));
            chains[0] = S::fma(y, dy, chains[0]);
            i += width;
        }
        let sum = S::reduce_add(S::add(S::add(chains[0], chains[1]), S::add(chains[2], chains[3])));

        let (sum, scale) = (S::splat(sum), S::splat(args.scale));
        let mut i = 0;
        while i + S::LANES <= valid {
            let (y, dy) = (T::load::<S>(y.add(i)), T::load::<S>(dy.add(i)));
            T::store::<S>(dx.add(i), S::mul(S::mul(scale, y), S::sub(dy, sum)));
            i += S::LANES;
        }
        if i < valid {
            let width = valid - i;
            let (y, dy) = (T::load_first::<S>(y.add(i), width), T::load_first::<S>(dy.add(i), width));
            T::store_first::<S>(dx.add(i), S::mul(S::mul(scale, y), S::sub(dy, sum)), width);
        }
        fill_zero(dx, valid, n);
    }
}

/// # Safety
/// The elements `from..to` of `p` are valid.
#[inline(always)]
unsafe fn fill_zero<T: Lane>(p: *mut T, from: usize, to: usize) {
    for i in from..to {
        // SAFETY: the caller's contract.
        unsafe { p.add(i).write(T::ZERO) };
    }
}
