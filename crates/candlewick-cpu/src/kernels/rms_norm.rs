//! Root-mean-square normalisation of one row, and its gradients.

use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `rms_norm`: `y = x / sqrt(mean(x^2) + eps) * w`.
///
/// # Safety
/// `n` elements are valid at each pointer; y may be the same as x.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormArgs {
    /// Elements of the row.
    pub n: usize,
    /// What is added to the mean square.
    pub eps: f32,
    /// The number format of x, w and y.
    pub dtype: DType,
    /// The row to read.
    pub x: *const u8,
    /// The weights.
    pub w: *const u8,
    /// The row to write.
    pub y: *mut u8,
}

/// The arguments of `rms_norm_backward`. With `inv = 1 / sqrt(mean(x^2) + eps)`:
/// `dx = inv * w * dy - x * inv^3 / n * sum(w * dy * x)` and `dw += dy * x * inv`.
///
/// # Safety
/// `n` elements are valid at each pointer, `dw` may be null; dx may be the same as dy or x; dw overlaps nothing.
#[derive(Clone, Copy, Debug)]
pub struct RmsNormBackwardArgs {
    /// Elements of the row.
    pub n: usize,
    /// What is added to the mean square.
    pub eps: f32,
    /// The number format of x, w, dy and dx.
    pub dtype: DType,
    /// The row that the forward pass read.
    pub x: *const u8,
    /// The weights.
    pub w: *const u8,
    /// The gradient of y.
    pub dy: *const u8,
    /// The gradient of x, to write.
    pub dx: *mut u8,
    /// The gradient of w, to add to, or null.
    pub dw: *mut f32,
}

/// # Safety
/// See [`RmsNormArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn rms_norm<S: Simd>(args: &RmsNormArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dtype, T => row::<S, T>(args, args.x.cast(), args.w.cast(), args.y.cast())) }
}

/// # Safety
/// That of [`rms_norm`], with T the number format.
#[inline(always)]
unsafe fn row<S: Simd, T: Lane>(args: &RmsNormArgs, x: *const T, w: *const T, y: *mut T) {
    let n = args.n;
    // SAFETY: the caller's contract.
    unsafe {
        let (squares, _) = sums::<S, T, false>(n, x, x, x);
        let inv = S::splat(1.0 / (squares / n as f32 + args.eps).sqrt());
        let mut i = 0;
        while i + S::LANES <= n {
            T::store::<S>(y.add(i), S::mul(S::mul(T::load::<S>(x.add(i)), inv), T::load::<S>(w.add(i))));
            i += S::LANES;
        }
        if i < n {
            let (x, w) = (T::load_first::<S>(x.add(i), n - i), T::load_first::<S>(w.add(i), n - i));
            T::store_first::<S>(y.add(i), S::mul(S::mul(x, inv), w), n - i);
        }
    }
}

/// # Safety
/// See [`RmsNormBackwardArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn rms_norm_backward<S: Simd>(args: &RmsNormBackwardArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dtype, T => backward_row::<S, T>(args)) }
}

/// # Safety
/// That of [`rms_norm_backward`], with T the number format.
#[inline(always)]
unsafe fn backward_row<S: Simd, T: Lane>(args: &RmsNormBackwardArgs) {
    let (n, dw) = (args.n, args.dw);
    let (x, w, dy, dx) = (args.x.cast::<T>(), args.w.cast::<T>(), args.dy.cast::<T>(), args.dx.cast::<T>());
    // SAFETY: the caller's contract.
    unsafe {
        let (squares, products) = sums::<S, T, true>(n, x, w, dy);
        let inv = 1.0 / (squares / n as f32 + args.eps).sqrt();
        // inv^3 alone can overflow where the gradient does not.
        let slope = S::splat(-(products * inv / n as f32) * inv * inv);
        let inv = S::splat(inv);
        let mut i = 0;
        while i + S::LANES <= n {
            let (x, w, dy) = (T::load::<S>(x.add(i)), T::load::<S>(w.add(i)), T::load::<S>(dy.add(i)));
            let scaled = S::mul(dy, inv);
            T::store::<S>(dx.add(i), S::fma(x, slope, S::mul(w, scaled)));
            if !dw.is_null() {
                S::store(dw.add(i), S::fma(scaled, x, S::load(dw.add(i))));
            }
            i += S::LANES;
        }
        if i < n {
            let rest = n - i;
            let (x, w) = (T::load_first::<S>(x.add(i), rest), T::load_first::<S>(w.add(i), rest));
            let scaled = S::mul(T::load_first::<S>(dy.add(i), rest), inv);
            T::store_first::<S>(dx.add(i), S::fma(x, slope, S::mul(w, scaled)), rest);
            if !dw.is_null() {
                S::store_first(dw.add(i), S::fma(scaled, x, S::load_first(dw.add(i), rest)), rest);
            }
        }
    }
}

/// `sum(x^2)`, and `sum(w * dy * x)` if `PRODUCTS`.
///
/// # Safety
/// `n` elements are valid at each pointer; the CPU has the instruction set.
#[inline(always)]
unsafe fn sums<S: Simd, T: Lane, const PRODUCTS: bool>(n: usize, x: *const T, w: *const T, dy: *const T) -> (f32, f32) {
    // SAFETY: the caller's contract.
    unsafe {
        // Four chains each: an addition waits for the one before it.
        let mut squares = [S::splat(0.0); 4];
        let mut products = [S::splat(0.0); 4];
        let mut i = 0;
        while i + 4 * S::LANES <= n {
            for j in 0..4 {
                let at = i + j * S::LANES;
                let v = T::load::<S>(x.add(at));
                squares[j] = S::fma(v, v, squares[j]);
                if PRODUCTS {
                    let g = S::mul(T::load::<S>(w.add(at)), T::load::<S>(dy.add(at)));
                    products[j] = S::fma(v, g, products[j]);
                }
            }
            i += 4 * S::LANES;
        }
        while i < n {
            let width = (n - i).min(S::LANES);
            let v = T::load_first::<S>(x.add(i), width);
            squares[0] = S::fma(v, v, squares[0]);
            if PRODUCTS {
                let g = S::mul(T::load_first::<S>(w.add(i), width), T::load_first::<S>(dy.add(i), width));
                products[0] = S::fma(v, g, products[0]);
            }
            i += width;
        }
        (total::<S>(squares), total::<S>(products))
    }
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn total<S: Simd>(v: [S::V; 4]) -> f32 {
    // SAFETY: the caller's contract.
    unsafe { S::reduce_add(S::add(S::add(v[0], v[1]), S::add(v[2], v[3]))) }
}
