//! The exponential function, for any instruction set.

use super::Simd;

// ln 2 in two parts: the first has few enough digits that multiples of it up to 2^8 are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

// (e^r - 1 - r) / r^2 on |r| <= ln(2) / 2, fitted so that the largest relative error of e^r is smallest (3e-9).
const COEFFICIENTS: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_745, 0.001_381_453_9];

/// e^v: v = n ln 2 + r, and then 2^n e^r.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(v: S::V) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        // e^-104 rounds to zero and e^89 to infinity. NaN passes, because it is the second operand.
        let v = S::min(S::splat(89.0), S::max(S::splat(-104.0), v));
        let n = S::round(S::mul(v, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-LN2_HIGH), v);
        let r = S::fma(n, S::splat(-LN2_LOW), r);
        let mut q = S::splat(COEFFICIENTS[4]);
        q = S::fma(q, r, S::splat(COEFFICIENTS[3]));
        q = S::fma(q, r, S::splat(COEFFICIENTS[2]));
        q = S::fma(q, r, S::splat(COEFFICIENTS[1]));
        q = S::fma(q, r, S::splat(COEFFICIENTS[0]));
        let tail = S::fma(S::mul(r, r), q, r);
        S::scale(S::add(tail, S::splat(1.0)), n)
    }
}
