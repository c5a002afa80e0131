//! Conversion between number formats, and addition of f32 vectors.

use super::with_type;
use crate::simd::{Lane, Simd};
use candlewick_core::DType;

/// The arguments of `widen`: `dst = src`, converted to f32; exact.
///
/// # Safety
/// `n` elements are valid at both pointers, and they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct WidenArgs {
    /// How many elements.
    pub n: usize,
    /// What to read.
    pub src: *const u8,
    /// Its number format.
    pub src_dtype: DType,
    /// Where to write.
    pub dst: *mut f32,
}

/// The arguments of `narrow`: `dst = scale * src`, rounded to the number format of `dst`.
///
/// # Safety
/// `n` elements are valid at both pointers, and they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct NarrowArgs {
    /// How many elements.
    pub n: usize,
    /// Factor of every element.
    pub scale: f32,
    /// What to read.
    pub src: *const f32,
    /// Where to write.
    pub dst: *mut u8,
    /// The number format of `dst`.
    pub dst_dtype: DType,
}

/// The arguments of `cast`: `dst = src`, rounded to the number format of `dst`.
///
/// # Safety
/// `n` elements are valid at both pointers, and they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct CastArgs {
    /// How many elements.
    pub n: usize,
    /// What to read.
    pub src: *const u8,
    /// Its number format.
    pub src_dtype: DType,
    /// Where to write.
    pub dst: *mut u8,
    /// The number format of `dst`.
    pub dst_dtype: DType,
}

/// The arguments of `add`: `dst += scale * src`.
///
/// # Safety
/// `n` elements are valid at both pointers, and they do not overlap.
#[derive(Clone, Copy, Debug)]
pub struct AddArgs {
    /// How many elements.
    pub n: usize,
    /// Factor of `src`.
    pub scale: f32,
    /// What to add.
    pub src: *const f32,
    /// What to add to.
    pub dst: *mut f32,
}

/// # Safety
/// See [`WidenArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(args: &WidenArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.src_dtype, T => copy::<S, T, f32>(args.src.cast(), args.dst, args.n, 1.0)) }
}

/// # Safety
/// See [`NarrowArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn narrow<S: Simd>(args: &NarrowArgs) {
    // SAFETY: the caller's contract.
    unsafe { with_type!(args.dst_dtype, T => copy::<S, f32, T>(args.src, args.dst.cast(), args.n, args.scale)) }
}

/// # Safety
/// See [`CastArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn cast<S: Simd>(args: &CastArgs) {
    // SAFETY: the caller's contract.
    unsafe {
        with_type!(args.src_dtype, T => with_type!(args.dst_dtype, U => {
            copy::<S, T, U>(args.src.cast(), args.dst.cast(), args.n, 1.0)
        }))
    }
}

/// # Safety
/// `n` elements are valid at both pointers, and they do not overlap; the CPU has the instruction set.
#[inline(always)]
unsafe fn copy<S: Simd, T: Lane, U: Lane>(src: *const T, dst: *mut U, n: usize, scale: f32) {
    // SAFETY: the caller's contract.
    unsafe {
        let scale = S::splat(scale);
        let mut i = 0;
        while i + S::LANES <= n {
            U::store::<S>(dst.add(i), S::mul(scale, T::load::<S>(src.add(i))));
            i += S::LANES;
        }
        if i < n {
            U::store_first::<S>(dst.add(i), S::mul(scale, T::load_first::<S>(src.add(i), n - i)), n - i);
        }
    }
}

/// # Safety
/// See [`AddArgs`]; the CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn add<S: Simd>(args: &AddArgs) {
    let AddArgs { n, src, dst, .. } = *args;
    // SAFETY: the caller's contract.
    unsafe {
        let scale = S::splat(args.scale);
        let mut i = 0;
        while i + S::LANES <= n {
            S::store(dst.add(i), S::fma(scale, S::load(src.add(i)), S::load(dst.add(i))));
            i += S::LANES;
        }
        if i < n {
            let sum = S::fma(scale, S::load_first(src.add(i), n - i), S::load_first(dst.add(i), n - i));
            S::store_first(dst.add(i), sum, n - i);
        }
    }
}
