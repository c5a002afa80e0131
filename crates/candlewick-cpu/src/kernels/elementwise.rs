//! y = a + b, and the gate of a SwiGLU feed-forward with its gradients, element by element.

use super::vector::{each_vector, load, store};
use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `sum`: `y = a + b`.
///
/// # Safety
/// `n` elements are valid at each pointer; y may be the same as a or b.
#[derive(Clone, Copy, Debug)]
pub struct SumArgs {
    /// How many elements.
    pub n: usize,
    /// The number format of all three.
    pub dtype: DType,
    /// The first term.
    pub a: *const u8,
    /// The second.
    pub b: *const u8,
    /// The sum, to write.
    pub y: *mut u8,
}

/// The arguments of `silu_mul`: `y = gate / (1 + exp(-gate)) * up`.
///
/// # Safety
/// `n` elements are valid at each pointer; y may be the same as gate or up.
#[derive(Clone, Copy, Debug)]
pub struct SiluMulArgs {
    /// How many elements.
    pub n: usize,
    /// The number format of all three.
    pub dtype: DType,
    /// What passes through the activation.
    pub gate: *const u8,
    /// What it is multiplied with.
    pub up: *const u8,
    /// The product, to write.
    pub y: *mut u8,
}

/// The arguments of `silu_mul_backward`. With `s = 1 / (1 + exp(-gate))`:
/// `dgate = dy * up * s * (1 + gate * (1 - s))` and `dup = dy * gate * s`.
///
/// # Safety
/// `n` elements are valid at each pointer; dgate and dup, which differ, may be the same as gate, up or dy.
#[derive(Clone, Copy, Debug)]
pub struct SiluMulBackwardArgs {
    /// How many elements.
    pub n: usize,
    /// The number format of all.
    pub dtype: DType,
    /// What passed through the activation.
    pub gate: *const u8,
    /// What it was multiplied with.
    pub up: *const u8,
    /// The gradient of y.
    pub dy: *const u8,
    /// The gradient of gate, to write.
    pub dgate: *mut u8,
    /// The gradient of up, to write.
    pub dup: *mut u8,
}

/// # Safety
/// See [`SumArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn sum<S: Simd>(args: &SumArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.dtype, T => {
            let (a, b, y) = (args.a.cast::<T>(), args.b.cast::<T>(), args.y.cast::<T>());
            each_vector!(S, args.n, |i, width, WHOLE| {
                let sum = S::add(load::<S, T, WHOLE>(a.add(i), width), load::<S, T, WHOLE>(b.add(i), width));
                store::<S, T, WHOLE>(y.add(i), sum, width)
            })
        })
    }
}

/// 1 / (1 + exp(-v))
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn sigmoid<S: Simd>(v: S::V) -> S::V {
    // SAFETY: the caller's contract.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, S::exp(S::sub(S::splat(0.0), v))))
    }
}

/// # Safety
/// See [`SiluMulArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn silu_mul<S: Simd>(args: &SiluMulArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.dtype, T => {
            let (gate, up, y) = (args.gate.cast::<T>(), args.up.cast::<T>(), args.y.cast::<T>());
            each_vector!(S, args.n, |i, width, WHOLE| {
                let (gate, up) = (load::<S, T, WHOLE>(gate.add(i), width), load::<S, T, WHOLE>(up.add(i), width));
                let silu = S::mul(gate, sigmoid::<S>(gate));
                store::<S, T, WHOLE>(y.add(i), S::mul(silu, up), width)
            })
        })
    }
}

/// # Safety
/// See [`SiluMulBackwardArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn silu_mul_backward<S: Simd>(args: &SiluMulBackwardArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dtype, T => backward::<S, T>(args)) }
}

/// # Safety
/// That of [`silu_mul_backward`], with T the number format.
#[inline(always)]
unsafe fn backward<S: Simd, T: Lane>(args: &SiluMulBackwardArgs) {
    let (gate, up, dy) = (args.gate.cast::<T>(), args.up.cast::<T>(), args.dy.cast::<T>());
    let (dgate, dup) = (args.dgate.cast::<T>(), args.dup.cast::<T>());
    // SAFETY: the caller's contract.
    unsafe {
        let one = S::splat(1.0);
        each_vector!(S, args.n, |i, width, WHOLE| {
            let (gate, up) = (load::<S, T, WHOLE>(gate.add(i), width), load::<S, T, WHOLE>(up.add(i), width));
            let dy = load::<S, T, WHOLE>(dy.add(i), width);
            let s = sigmoid::<S>(gate);
            let slope = S::mul(s, S::fma(gate, S::sub(one, s), one));
            store::<S, T, WHOLE>(dgate.add(i), S::mul(S::mul(dy, up), slope), width);
            store::<S, T, WHOLE>(dup.add(i), S::mul(dy, S::mul(gate, s)), width)
        })
    }
}
