//! How a product on simdgroup matrices is cut: pure arithmetic, tested on every system.

/// The larger tile reads half as much; the smaller one keeps more of the GPU busy. A guess, until a Mac measures it.
pub(crate) fn tile(m: usize, n: usize, batches: usize, cores: u32) -> usize {
    let groups = m.div_ceil(64) * n.div_ceil(64) * batches;
    if m > 32 && n > 32 && groups >= 2 * cores as usize { 64 } else { 32 }
}

/// A split has at least so many steps: the second launch costs about as much. A guess, until a Mac measures it.
const LEAST_STEPS: usize = 16;

/// How many groups share a sum, where C has fewer tiles than the GPU has cores.
pub(crate) fn splits(tiles: usize, steps: usize, cores: u32) -> usize {
    let wanted = (cores as usize / tiles).min(steps / LEAST_STEPS).clamp(1, 64);
    // As many as have something to do.
    steps.div_ceil(steps.div_ceil(wanted).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_large_where_there_are_many() {
        assert_eq!([tile(64, 64, 1, 8), tile(256, 256, 1, 8), tile(20, 4096, 100, 8)], [32, 64, 32]);
        assert_eq!(tile(64, 64, 16, 8), 64, "batches count");
    }

    #[test]
    fn long_sums_are_split_only_where_tiles_are_few() {
        assert_eq!(splits(1, 4, 8), 1, "a short sum");
        assert_eq!(splits(8, 1000, 8), 1, "enough tiles");
        assert_eq!(splits(1, 1000, 8), 8);
        assert_eq!(splits(2, 1000, 8), 4);
        assert_eq!(splits(1, 40, 8), 2, "each with enough steps");
        assert_eq!(splits(1, 0, 8), 1, "nothing to add");
        for steps in 1..300 {
            let splits = splits(1, steps, 10);
            assert!(steps.div_ceil(splits) * (splits - 1) < steps, "{steps} steps: the last of {splits} has some");
        }
    }
}
