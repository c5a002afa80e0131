//! A small generator for orders that can be drawn again: xorshift64 (Marsaglia, 2003).

/// Numbers from a seed; seed 0 stands for "no randomness".
#[derive(Debug, Default)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Starts anew if the seed is another one.
    pub fn reseed(&mut self, seed: u64) {
        if self.seed != seed {
            self.seed = seed;
            self.state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        }
    }

    /// The seed in force.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number; never 0 once seeded.
    pub fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
