//! Whole and partial vectors by one name, so that a loop's body is written once.

use crate::simd::{Lane, Simd};

/// Runs `$body` for every vector of `$n` elements: `$i` is the first element, `$WHOLE` whether there are `LANES` of
/// them, `$width` how many there are.
macro_rules! each_vector {
    ($S:ty, $n:expr, |$i:ident, $width:ident, $WHOLE:ident| $body:expr) => {{
        let n = $n;
        let mut $i = 0;
        while $i + <$S>::LANES <= n {
            const $WHOLE: bool = true;
            #[allow(unused_variables, reason = "a whole vector needs no width")]
            let $width = <$S>::LANES;
            $body;
            $i += <$S>::LANES;
        }
        if $i < n {
            const $WHOLE: bool = false;
            let $width = n - $i;
            $body;
        }
    }};
}
pub(super) use each_vector;

/// `LANES` elements at `p` or, unless `WHOLE`, the first `n` and zeros.
///
/// # Safety
/// The elements are valid; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, T: Lane, const WHOLE: bool>(p: *const T, n: usize) -> S::V {
    // SAFETY: the caller's contract.
    unsafe { if WHOLE { T::load::<S>(p) } else { T::load_first::<S>(p, n) } }
}

/// Writes `LANES` elements at `p` or, unless `WHOLE`, the first `n`.
///
/// # Safety
/// The elements are valid; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn store<S: Simd, T: Lane, const WHOLE: bool>(p: *mut T, v: S::V, n: usize) {
    // SAFETY: the caller's contract.
    unsafe { if WHOLE { T::store::<S>(p, v) } else { T::store_first::<S>(p, v, n) } }
}

/// `v` with `filler` in the lanes from `n` on.
///
/// # Safety
/// The CPU has the instruction set; `n <= LANES`.
#[inline(always)]
pub(super) unsafe fn fill_from<S: Simd>(v: S::V, n: usize, filler: f32) -> S::V {
    let mut lanes = [filler; crate::simd::MAX_LANES];
    // SAFETY: the array has room for a vector.
    unsafe {
        S::store_first(lanes.as_mut_ptr(), v, n);
        S::load(lanes.as_ptr())
    }
}
