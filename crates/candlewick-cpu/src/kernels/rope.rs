//! Rotary position embedding of one row.

use super::vector::{each_vector, load, store};
use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::{DType, Pairs};

/// The arguments of `rope_table`: `cos[i]` and `sin[i]` of `position * frequencies[i]`, times `direction` in the sine.
///
/// # Safety
/// `n` elements are valid at each pointer; nothing overlaps.
#[derive(Clone, Copy, Debug)]
pub struct RopeTableArgs {
    /// How many pairs turn.
    pub n: usize,
    /// The row's position.
    pub position: u32,
    /// 1, or -1 to turn back.
    pub direction: f32,
    /// Radians per position of each pair.
    pub frequencies: *const f32,
    /// The cosines, to write.
    pub cos: *mut f32,
    /// The sines, to write.
    pub sin: *mut f32,
}

/// The arguments of `rope`: turns the pairs of every head of a row.
///
/// # Safety
/// `heads * head` elements are valid at x and y, which may be the same; `rotary / 2` at `cos` and `sin`; there is
/// room for `rotary` f32 at `scratch`, which may be null with [`Pairs::Halves`].
#[derive(Clone, Copy, Debug)]
pub struct RopeArgs {
    /// Heads in the row.
    pub heads: usize,
    /// Elements of a head.
    pub head: usize,
    /// How many of them turn.
    pub rotary: usize,
    /// Which two are a pair.
    pub pairs: Pairs,
    /// The number format of x and y.
    pub dtype: DType,
    /// The row to read.
    pub x: *const u8,
    /// Cosines of the pairs' angles.
    pub cos: *const f32,
    /// Their sines.
    pub sin: *const f32,
    /// The row to write.
    pub y: *mut u8,
    /// Room for a head.
    pub scratch: *mut f32,
}

/// # Safety
/// See [`RopeTableArgs`]; the CPU has the instruction set.
#[inline(always)]
#[allow(clippy::extra_unused_type_parameters, reason = "entry points of kernels name their instruction set")]
pub(super) unsafe fn rope_table<S: Simd>(args: &RopeTableArgs) {
    let position = args.position as f32;
    for i in 0..args.n {
        // SAFETY: the caller's contract. Nothing here needs the instruction set: the compiler makes vectors of the loop.
        unsafe {
            let (sin, cos) = sin_cos(position * *args.frequencies.add(i));
            *args.cos.add(i) = cos;
            *args.sin.add(i) = args.direction * sin;
        }
    }
}

/// Sine and cosine within 2e-7 for |angle| up to 2^28, without branches.
///
/// The argument is reduced in f64, in two parts of pi / 2: the first has 33 bits, so that its multiples up to 2^20 are
/// exact, and those beyond are off by less than 2^-53 of the angle.
#[inline(always)]
fn sin_cos(angle: f32) -> (f32, f32) {
    const HALF_PI_HIGH: f64 = f64::from_bits(0x3FF9_21FB_5440_0000);
    const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;
    // Adding 1.5 * 2^52 rounds to an integer, whose last bits are then those of the sum.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let x = f64::from(angle);
    let shifted = x * std::f64::consts::FRAC_2_PI + SHIFT;
    let (quadrant, n) = (shifted.to_bits() as u32, shifted - SHIFT);
    let r = ((x - n * HALF_PI_HIGH) - n * HALF_PI_LOW) as f32;
    // Taylor series on |r| <= pi / 4, whose first left-out terms are below 2e-9 and 2e-10.
    let s = r * r;
    let sin = r + r * s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s * (1.0 / 362_880.0))));
    let cos = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40_320.0 - s * (1.0 / 3_628_800.0)))));
    let (a, b) = if quadrant & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let sign = |bit: u32| f32::from_bits((bit & 2) << 30 | 1f32.to_bits());
    (a * sign(quadrant), b * sign(quadrant.wrapping_add(1)))
}

/// # Safety
/// See [`RopeArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn rope<S: Simd>(args: &RopeArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.dtype, T => {
            for head in 0..args.heads {
                let (x, y) = (args.x.cast::<T>().add(head * args.head), args.y.cast::<T>().add(head * args.head));
                match args.pairs {
                    Pairs::Halves => halves::<S, T>(args, x, y),
                    Pairs::Interleaved => interleaved::<S, T>(args, x, y),
                }
                std::ptr::copy(x.add(args.rotary), y.add(args.rotary), args.head - args.rotary);
            }
        })
    }
}

/// # Safety
/// That of [`rope`], with T the number format, for one head.
#[inline(always)]
unsafe fn halves<S: Simd, T: Lane>(args: &RopeArgs, x: *const T, y: *mut T) {
    let half = args.rotary / 2;
    // SAFETY: the caller's contract; both elements of a pair are read before either is written.
    unsafe {
        each_vector!(S, half, |i, width, WHOLE| {
            let (a, b) = (load::<S, T, WHOLE>(x.add(i), width), load::<S, T, WHOLE>(x.add(half + i), width));
            let cos = load::<S, f32, WHOLE>(args.cos.add(i), width);
            let sin = load::<S, f32, WHOLE>(args.sin.add(i), width);
            store::<S, T, WHOLE>(y.add(i), S::sub(S::mul(a, cos), S::mul(b, sin)), width);
            store::<S, T, WHOLE>(y.add(half + i), S::fma(a, sin, S::mul(b, cos)), width)
        })
    }
}

/// # Safety
/// That of [`rope`], with T the number format, for one head.
#[inline(always)]
unsafe fn interleaved<S: Simd, T: Lane>(args: &RopeArgs, x: *const T, y: *mut T) {
    // SAFETY: the caller's contract.
    unsafe {
        each_vector!(S, args.rotary, |i, width, WHOLE| {
            S::store_first(args.scratch.add(i), load::<S, T, WHOLE>(x.add(i), width), width)
        });
        for i in 0..args.rotary / 2 {
            let pair = args.scratch.add(2 * i);
            let (a, b, cos, sin) = (*pair, *pair.add(1), *args.cos.add(i), *args.sin.add(i));
            *pair = a * cos - b * sin;
            *pair.add(1) = a * sin + b * cos;
        }
        each_vector!(S, args.rotary, |i, width, WHOLE| {
            store::<S, T, WHOLE>(y.add(i), load::<S, f32, WHOLE>(args.scratch.add(i), width), width)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sine_and_cosine_of_large_angles() {
        assert_eq!(HALF_PI_SUM, std::f64::consts::FRAC_PI_2, "the two parts make pi / 2 as exactly as one f64");
        let mut angle = 1e-3f32;
        while angle < 2.6e8 {
            for angle in [angle, -angle, angle.round(), (angle / 1.570_796_4).round() * 1.570_796_4] {
                let (sin, cos) = sin_cos(angle);
                let (want_sin, want_cos) = f64::from(angle).sin_cos();
                let off = (f64::from(sin) - want_sin).abs().max((f64::from(cos) - want_cos).abs());
                assert!(off < 2e-7, "{angle}: off by {off:e}");
            }
            angle *= 1.000_7;
        }
    }

    const HALF_PI_SUM: f64 = f64::from_bits(0x3FF9_21FB_5440_0000) + 6.077_100_506_506_192e-11;
}
