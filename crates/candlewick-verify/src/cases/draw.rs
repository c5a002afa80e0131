//! What every operation draws its random shapes with.

use crate::case::{Hardware, Values};
use crate::rng::Rng;
use candlewick::DType;

/// Sizes at and beside the edges of vectors, tiles and panels.
const SIZES: [usize; 26] =
    [0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 127, 129];

const LARGE: [usize; 8] = [63, 64, 65, 100, 127, 129, 200, 257];

/// A random descriptor in the making.
pub(crate) struct Draw {
    pub(crate) rng: Rng,
    pub(crate) dtype: DType,
    pub(crate) values: Values,
    pub(crate) hardware: Hardware,
}

impl Draw {
    /// Sizes whose product stays below a budget: the f64 reference is a plain loop, and a GPU may be an emulated one. Some
    /// cases are large enough for every thread.
    pub(crate) fn sizes<const N: usize>(&mut self, budget: usize) -> [usize; N] {
        let budget = match self.hardware {
            Hardware::Cpu => budget,
            Hardware::Gpu => budget / 8,
        };
        let rng = &mut self.rng;
        let large = rng.chance(4);
        let budget = if large { 16 * budget } else { budget };
        let mut sizes = [(); N].map(|()| rng.pick(if large { &LARGE } else { &SIZES }));
        if rng.chance(10) {
            let long = rng.below(N);
            sizes[long] = 200 + rng.below(900);
        }
        while sizes.iter().product::<usize>() > budget {
            let largest = (0..N).max_by_key(|&i| sizes[i]).unwrap_or(0);
            sizes[largest] = sizes[largest] / 2 + 1;
        }
        sizes
    }

    /// A row stride: often the row itself, else more; for a GPU sometimes a multiple of 16 bytes.
    pub(crate) fn stride(&mut self, cols: usize) -> usize {
        let rng = &mut self.rng;
        if rng.chance(50) {
            return cols;
        }
        match self.hardware {
            Hardware::Gpu if rng.chance(50) => cols.next_multiple_of(8) + rng.pick(&[0, 8, 16]),
            _ => cols + rng.pick(&[1, 2, 3, 7, 8, 16, 31]),
        }
    }
}

/// `count` numbers, uniform in [centre - width, centre + width).
pub(crate) fn uniform(centre: f64, width: f64, count: usize, rng: &mut Rng) -> Vec<f64> {
    (0..count).map(|_| centre + width * rng.unit()).collect()
}
