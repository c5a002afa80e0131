//! Every instruction set of this CPU, method by method.

use super::*;
use half::{bf16, f16};

/// Runs `$check::<S>()` for every instruction set, compiled as kernels are: inlined into a function with its features.
macro_rules! on_every_isa {
    ($($test:ident => $check:ident;)+) => {
        $(
            #[test]
            fn $test() {
                // SAFETY: each call is behind the check that this CPU has the instruction set.
                unsafe {
                    $check::<portable::Portable>();
                    #[cfg(target_arch = "x86_64")]
                    {
                        #[target_feature(enable = "avx2,fma,f16c")]
                        unsafe fn avx2() {
                            // SAFETY: the caller's contract.
                            unsafe { $check::<avx2::Avx2>() }
                        }
                        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
                        unsafe fn avx512() {
                            // SAFETY: the caller's contract.
                            unsafe { $check::<avx512::Avx512>() }
                        }
                        if Isa::Avx2.is_available() {
                            avx2();
                        }
                        if Isa::Avx512.is_available() {
                            avx512();
                        }
                    }
                    #[cfg(target_arch = "aarch64")]
                    $check::<neon::Neon>();
                }
            }
        )+
    };
}

on_every_isa! {
    partial_loads_and_stores => check_partial;
    partial_halves => check_partial_halves;
    exponential => check_exp;
    f16_conversions => check_f16;
    bf16_conversions => check_bf16;
    sums_and_shuffles => check_sums;
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn lanes<S: Simd>(v: S::V) -> Vec<f32> {
    let mut out = vec![0.0; S::LANES];
    // SAFETY: the vector fits.
    unsafe { S::store(out.as_mut_ptr(), v) };
    out
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_partial<S: Simd>() {
    for n in 0..=S::LANES {
        // Exactly n elements: reading more is out of bounds, which Miri sees.
        let source: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
        let halves: Vec<u16> = (0..n).map(|i| i as u16 + 1).collect();
        let mut target = [-7.0f32; MAX_LANES + 1];
        let mut half_target = [7u16; MAX_LANES + 1];
        // SAFETY: n elements are valid everywhere.
        unsafe {
            let v = S::load_first(source.as_ptr(), n);
            let all = lanes::<S>(v);
            assert_eq!(all[..n], source[..]);
            assert!(all[n..].iter().all(|x| *x == 0.0));
            S::store_first(target.as_mut_ptr(), v, n);
            S::store_half_first(half_target.as_mut_ptr(), S::load_half_first(halves.as_ptr(), n), n);
        }
        assert_eq!(target[..n], source[..]);
        assert!(target[n..].iter().all(|x| *x == -7.0));
        assert_eq!(half_target[..n], halves[..]);
        assert!(half_target[n..].iter().all(|x| *x == 7));
    }
}

/// Numbers narrowed on their way to memory, in counts that the compiler knows and that it does not: it treats the two
/// differently, and nothing behind the count may change.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_partial_halves<S: Simd>() {
    macro_rules! of_every_type {
        ($n:expr) => {
            // SAFETY: the caller's contract.
            unsafe {
                check_narrowed::<S, f16>($n, |i| (i as f32, f16::from_f32(i as f32)));
                check_narrowed::<S, bf16>($n, |i| (i as f32, bf16::from_f32(i as f32)));
                check_narrowed::<S, Bits>($n, |i| (f32::from_bits(i), Bits(i as u16)));
            }
        };
    }
    macro_rules! known {
        ($($n:literal)+) => { $(if $n <= S::LANES { of_every_type!($n) })+ };
    }
    known!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    for n in 0..=S::LANES {
        of_every_type!(std::hint::black_box(n));
    }
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_narrowed<S: Simd, T: Lane + PartialEq + std::fmt::Debug>(n: usize, number: fn(u32) -> (f32, T)) {
    let source: [f32; MAX_LANES] = std::array::from_fn(|i| number(i as u32).0);
    let want: Vec<T> = (0..n as u32).map(|i| number(i).1).collect();
    let sentinel = number(99).1;
    let mut stored = [sentinel; MAX_LANES + 1];
    let mut again = [sentinel; MAX_LANES + 1];
    // SAFETY: there is room for a whole vector everywhere.
    unsafe {
        T::store_first::<S>(stored.as_mut_ptr(), S::load(std::hint::black_box(&source).as_ptr()), n);
        T::store_first::<S>(again.as_mut_ptr(), T::load_first::<S>(stored.as_ptr(), n), n);
    }
    assert_eq!(stored[..n], want);
    assert_eq!(again[..n], want);
    assert!(stored[n..].iter().chain(&again[n..]).all(|&x| x == sentinel), "{n} elements: {stored:?}, {again:?}");
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_exp<S: Simd>() {
    // SAFETY: the caller's contract.
    let exp = |x: f32| unsafe { lanes::<S>(S::exp(S::splat(x)))[0] };
    let steps = if cfg!(miri) { 50 } else { 40_000 };
    for i in 0..=steps {
        let x = -87.0 + 175.7 * i as f32 / steps as f32;
        let want = f64::from(x).exp();
        let unit = f64::from((want as f32).next_up() - want as f32);
        let off = (f64::from(exp(x)) - want).abs() / unit;
        assert!(off <= 2.0, "exp({x}) = {}, expected {want}: {off} units off", exp(x));
    }
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(exp(-1e30), 0.0);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(89.0), f32::INFINITY);
    assert!(exp(f32::NAN).is_nan());
    assert!(f64::from(exp(-100.0)) < 1e-43);
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_f16<S: Simd>() {
    for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 997 } else { 1 }) {
        let value = f16::from_bits(bits).to_f32();
        let halves = [bits; MAX_LANES];
        let mut back = [0u16; MAX_LANES];
        // SAFETY: whole vectors everywhere.
        let wide = unsafe {
            let v = S::from_f16(S::load_half(halves.as_ptr()));
            S::store_half(back.as_mut_ptr(), S::to_f16(v));
            lanes::<S>(v)[S::LANES - 1]
        };
        assert!(wide == value || wide.is_nan() && value.is_nan(), "{bits:x}");
        assert!(back[0] == bits || f16::from_bits(back[0]).is_nan() && value.is_nan(), "{bits:x}");
    }
    for x in narrowing_samples() {
        let mut narrow = [0u16; MAX_LANES];
        // SAFETY: whole vectors everywhere.
        unsafe { S::store_half(narrow.as_mut_ptr(), S::to_f16(S::splat(x))) };
        let (got, want) = (f16::from_bits(narrow[0]), f16::from_f32(x));
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{x}: {got}, expected {want}");
    }
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_bf16<S: Simd>() {
    for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 997 } else { 1 }) {
        let halves = [bits; MAX_LANES];
        // SAFETY: whole vectors everywhere.
        let (wide, raw) = unsafe {
            let h = S::load_half(halves.as_ptr());
            (lanes::<S>(S::from_bf16(h))[0], lanes::<S>(S::from_bits(h))[0])
        };
        assert_eq!(wide.to_bits(), u32::from(bits) << 16);
        assert_eq!(raw.to_bits(), u32::from(bits));
    }
    for x in narrowing_samples() {
        let mut narrow = [0u16; MAX_LANES];
        let mut low = [0u16; MAX_LANES];
        // SAFETY: whole vectors everywhere.
        unsafe {
            S::store_half(narrow.as_mut_ptr(), S::to_bf16(S::splat(x)));
            S::store_half(low.as_mut_ptr(), S::to_bits(S::splat(x)));
        }
        let (got, want) = (bf16::from_bits(narrow[0]), bf16::from_f32(x));
        assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{x}: {got}, expected {want}");
        // Only bit patterns that fit are ever narrowed as raw bits.
        if x.to_bits() <= 0xffff {
            assert_eq!(low[0], x.to_bits() as u16);
        }
    }
}

/// Values next to every kind of rounding: halfway, overflow, underflow, NaN with few bits.
fn narrowing_samples() -> impl Iterator<Item = f32> {
    let step = if cfg!(miri) { 40_000_003 } else { 65_521 };
    let ties = [0x3f80_8000, 0x3f81_8000, 0x7f7f_8000, 0x7f80_0001, 0x7fff_ffff, 0xff80_0001, 0x477f_f000, 0x0000_ffff];
    (0..=u32::MAX).step_by(step).chain(ties).map(f32::from_bits)
}

/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn check_sums<S: Simd>() {
    let n = S::LANES;
    let rows: Vec<f32> = (0..8 * n).map(|i| ((i * 37) % 101) as f32).collect();
    let largest = rows[..n].iter().fold(0.0f32, |a, b| a.max(*b));
    // SAFETY: whole vectors everywhere.
    unsafe {
        let mut v = [S::splat(0.0); 8];
        for (i, v) in v.iter_mut().enumerate() {
            *v = S::load(rows.as_ptr().add(i * n));
        }
        let sums: Vec<f32> = rows.chunks_exact(n).map(|row| row.iter().sum()).collect();
        assert_eq!(S::sum8(v)[..], sums[..]);
        assert_eq!(S::reduce_add(v[3]), sums[3]);
        assert_eq!(S::reduce_max(v[0]), largest);
        let (low, high) = S::interleave(v[0], v[1]);
        let both: Vec<f32> = (0..n).flat_map(|i| [rows[i], rows[n + i]]).collect();
        assert_eq!([lanes::<S>(low), lanes::<S>(high)].concat(), both);
        assert_eq!(lanes::<S>(S::round(S::splat(2.5)))[0], 2.0);
        assert_eq!(lanes::<S>(S::scale(S::splat(1.5), S::splat(-150.0)))[0], 1.5 * 2f32.powi(-75) * 2f32.powi(-75));
        assert!(lanes::<S>(S::max(S::splat(0.0), S::splat(f32::NAN)))[0].is_nan());
        assert!(lanes::<S>(S::min(S::splat(0.0), S::splat(f32::NAN)))[0].is_nan());
    }
}
