//! y = x with some elements zero and the others larger, by chance (Srivastava et al., 2014).

use super::{Op, Operands, check_row_stride, matrix, require, vector};
use crate::philox::philox;
use crate::{DType, Result, Scalar};

/// y = x · m, where m is 0 with probability `rate` and 1 / (1 - rate) otherwise, so that the mean stays. A rate of 0 is a
/// copy. What is dropped is multiplied too: NaN and infinities become NaN.
///
/// m depends on `seed` [1, 2] = (seed, step) in device memory, on `stream`, and on an element's number row · cols + column,
/// on nothing else: it is the same for every layout, dtype and device. Element n has word n % 4 of Philox4x32-10 with key
/// (seed, step) and counter (n / 4's low half, its high half, stream, 0), and is dropped where that is below
/// rate · 2^32. Backward: the same operation on dy, with the seed unchanged. In place is legal where the strides are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dropout {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// The probability that an element becomes zero: 0 or more, and less than 1.
    pub rate: Scalar,
    /// Tells uses of one seed apart: another number for each in a model.
    pub stream: u32,
    /// Elements between rows of x.
    pub x_row: usize,
    /// Elements between rows of y.
    pub y_row: usize,
    /// Of x and y; the seed is U32.
    pub dtype: DType,
}

impl Dropout {
    /// Contiguous rows.
    pub fn new(rows: usize, cols: usize, rate: f32, stream: u32, dtype: DType) -> Self {
        Dropout { rows, cols, rate: rate.into(), stream, x_row: cols, y_row: cols, dtype }
    }

    /// Random words below it drop their element.
    pub fn threshold(&self) -> u32 {
        // A rate below 1 is at most 1 - 2^-24.
        (f64::from(self.rate.get()) * (1u64 << 32) as f64) as u32
    }

    /// What elements that stay are multiplied with.
    pub fn factor(&self) -> f32 {
        (1.0 / (1.0 - f64::from(self.rate.get()))) as f32
    }

    /// The factors of `N` times four successive elements, from element 4 · `block` on: those of four elements in a row of
    /// the result are those of each fourth element.
    #[inline(always)]
    pub fn factors<const N: usize>(&self, block: u64, seed: [u32; 2]) -> [[f32; N]; 4] {
        let (threshold, factor) = (self.threshold(), self.factor());
        let blocks: [u64; N] = std::array::from_fn(|i| block.wrapping_add(i as u64));
        let counters =
            [blocks.map(|block| block as u32), blocks.map(|block| (block >> 32) as u32), [self.stream; N], [0; N]];
        philox(counters, seed).map(|words| words.map(|word| if word < threshold { 0.0 } else { factor }))
    }

    pub(super) fn elements(&self) -> f64 {
        self.rows as f64 * self.cols as f64
    }

    pub(super) fn operands(&self) -> Result<Operands> {
        let op = Op::Dropout(*self).name();
        let fits = (0.0..1.0).contains(&self.rate.get());
        require(op, "rate", self.rate, fits, "the share of elements to drop, 0 or more and less than 1")?;
        check_row_stride(op, "x_row", self.x_row, self.cols)?;
        check_row_stride(op, "y_row", self.y_row, self.cols)?;
        let rows = |name, row| matrix(op, name, self.dtype, self.rows, row, self.cols);
        let seed = vector(op, "seed", DType::U32, 2)?;
        Ok(Operands { inputs: vec![rows("x", self.x_row)?, seed], outputs: vec![rows("y", self.y_row)?] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors of the first elements.
    fn factors(rate: f32, stream: u32, seed: [u32; 2], blocks: usize) -> Vec<f32> {
        let op = Dropout::new(1, 4 * blocks, rate, stream, DType::F32);
        (0..blocks as u64).flat_map(|block| op.factors::<1>(block, seed).map(|[factor]| factor)).collect()
    }

    /// Mean and variance of m, and of products of neighbours, within five standard deviations of what independent choices
    /// have.
    #[test]
    #[cfg_attr(miri, ignore = "five million random numbers")]
    fn as_many_are_dropped_as_the_rate_says() {
        let count = 1 << 18;
        for rate in [0.01f32, 0.1, 0.5, 0.9, 0.999] {
            for (stream, seed) in [(0, [0, 0]), (7, [1, 0]), (7, [1, 1]), (u32::MAX, [u32::MAX, 12345])] {
                let m = factors(rate, stream, seed, count / 4);
                let (p, n) = (f64::from(rate), count as f64);
                let variance = p / (1.0 - p);
                let mean = m.iter().map(|&m| f64::from(m)).sum::<f64>() / n;
                assert!((mean - 1.0).abs() < 5.0 * (variance / n).sqrt(), "rate {rate} {seed:?}: mean {mean}");
                let dropped = m.iter().filter(|&&m| m == 0.0).count() as f64;
                let spread = (n * p * (1.0 - p)).sqrt();
                assert!((dropped - n * p).abs() < 5.0 * spread, "rate {rate} {seed:?}: {dropped} of {n}");
                for apart in [1, 2, 3, 4, 64] {
                    let pairs = m.iter().zip(&m[apart..]);
                    let together =
                        pairs.map(|(&a, &b)| (f64::from(a) - 1.0) * (f64::from(b) - 1.0)).sum::<f64>() / n / variance;
                    assert!(together.abs() < 5.0 / n.sqrt(), "rate {rate} {seed:?}: {together} at {apart}");
                }
            }
        }
    }

    #[test]
    fn seeds_steps_and_streams_give_other_masks() {
        let all =
            [(0, [0, 0]), (0, [1, 0]), (0, [0, 1]), (1, [0, 0])].map(|(stream, seed)| factors(0.5, stream, seed, 64));
        for (i, one) in all.iter().enumerate() {
            for other in &all[..i] {
                let equal = one.iter().zip(other).filter(|(a, b)| a == b).count();
                assert!((64..192).contains(&equal), "{equal} of 256 are the same");
            }
        }
    }

    #[test]
    fn a_rate_of_nothing_keeps_all_and_impossible_rates_are_refused() {
        assert!(factors(0.0, 3, [4, 5], 1000).iter().all(|&m| m == 1.0));
        let most = f32::from_bits(1f32.to_bits() - 1);
        assert_eq!(Dropout::new(1, 1, most, 0, DType::F32).threshold(), u32::MAX - 255);
        for rate in [-0.1, 1.0, 2.0, f32::NAN, f32::INFINITY] {
            let error = Op::from(Dropout::new(2, 3, rate, 0, DType::F32)).operands().unwrap_err().to_string();
            assert!(error.contains("dropout") && error.contains("less than 1"), "{error}");
        }
    }
}
