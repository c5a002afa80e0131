//! The number formats that operations read and write.

use std::fmt;

/// The number format of a tensor's elements. Every operation accumulates in f32, whatever it reads and writes.
///
/// Operations compute with the three float formats, [`DType::ALL`]. The integers are for storage: they say which rows, or
/// hold the bytes of quantised blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// Unsigned 32-bit integers: token ids, positions, labels, slots, spans.
    U32,
    /// Bytes of quantised blocks, see [`crate::op::Quant`].
    U8,
}

impl DType {
    /// Every dtype that operations compute with, in the order that tables print them.
    pub const ALL: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 => 1,
        }
    }

    /// Whether operations compute with it.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Unit round-off: the largest relative error of rounding a real number to this format (Higham, 2002, section 2.1).
    /// Zero for integers, which are only copied.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            DType::F32 => 1.0 / (1u64 << 24) as f64,
            DType::F16 => 1.0 / (1u64 << 11) as f64,
            DType::BF16 => 1.0 / (1u64 << 8) as f64,
            DType::U32 | DType::U8 => 0.0,
        }
    }

    /// The number of this dtype nearest to `value`, see [`Element::from_f64`].
    pub fn round(self, value: f64) -> f64 {
        fn through<T: Element>(value: f64) -> f64 {
            T::from_f64(value).to_f64()
        }
        match self {
            DType::F32 => through::<f32>(value),
            DType::F16 => through::<half::f16>(value),
            DType::BF16 => through::<half::bf16>(value),
            DType::U32 => through::<u32>(value),
            DType::U8 => through::<u8>(value),
        }
    }

    /// The name users type and tables print.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::U32 => "u32",
            DType::U8 => "u8",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A Rust number type that tensors can be made of.
pub trait Element: Copy + Default + Send + Sync + fmt::Debug + 'static {
    /// Its dtype.
    const DTYPE: DType;
    /// Rounds to nearest, ties to even; an integer is the nearest that there is, zero for NaN.
    fn from_f64(value: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
}

impl Element for f32 {
    const DTYPE: DType = DType::F32;
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

/// The f32 towards zero from `value`, with its last bit set where that is inexact: no tie of a format with at least two
/// bits less, so that rounding to it from here is rounding `value` once (Boldo and Melquiond, 2008, theorem 2).
/// `half`'s own conversions from f64 drop low bits, or round twice.
fn round_to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    if back == value || value.is_nan() {
        return nearest;
    }
    let towards_zero = if back.abs() > value.abs() { nearest.to_bits() - 1 } else { nearest.to_bits() };
    f32::from_bits(towards_zero | 1)
}

impl Element for half::f16 {
    const DTYPE: DType = DType::F16;
    fn from_f64(value: f64) -> Self {
        half::f16::from_f32(round_to_odd(value))
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for half::bf16 {
    const DTYPE: DType = DType::BF16;
    fn from_f64(value: f64) -> Self {
        half::bf16::from_f32(round_to_odd(value))
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for u32 {
    const DTYPE: DType = DType::U32;
    fn from_f64(value: f64) -> Self {
        value.round_ties_even() as u32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Element for u8 {
    const DTYPE: DType = DType::U8;
    fn from_f64(value: f64) -> Self {
        value.round_ties_even() as u8
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// Around every number of a format that is not negative: itself, the tie above it, and the f64 next to that tie.
    fn check<T: Element>(infinity: u16, of_bits: fn(u16) -> T, bits: fn(T) -> u16) {
        for low in 0..infinity {
            let value = of_bits(low).to_f64();
            // Where the next is infinite, what it would be without a largest exponent.
            let step =
                if low + 1 < infinity { of_bits(low + 1).to_f64() - value } else { value - of_bits(low - 1).to_f64() };
            let tie = value + step / 2.0;
            let even = low + low % 2;
            for (x, want) in [(value, low), (tie.next_down(), low), (tie, even), (tie.next_up(), low + 1)] {
                assert_eq!(bits(T::from_f64(x)), want, "{} {x:e}", T::DTYPE);
                assert_eq!(bits(T::from_f64(-x)), want | 0x8000, "{} -{x:e}", T::DTYPE);
            }
        }
        for (x, want) in [(f64::INFINITY, infinity), (f64::MAX, infinity), (f64::MIN_POSITIVE, 0), (5e-324, 0)] {
            assert_eq!(bits(T::from_f64(x)), want, "{} {x:e}", T::DTYPE);
            assert_eq!(bits(T::from_f64(-x)), want | 0x8000, "{} -{x:e}", T::DTYPE);
        }
        assert!(T::from_f64(f64::NAN).to_f64().is_nan());
    }

    #[test]
    #[cfg_attr(miri, ignore = "every number of both formats: hours under Miri")]
    fn sixteen_bits_are_rounded_once() {
        check(f16::INFINITY.to_bits(), f16::from_bits, f16::to_bits);
        check(bf16::INFINITY.to_bits(), bf16::from_bits, bf16::to_bits);
    }
}
