//! Random numbers without a state: each use has a stream of its own, named by seed, purpose and a number. So what a run has
//! to remember of its randomness is its seed and how far it is.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// What numbers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The order of documents in an epoch.
    Order = 1,
    /// The order of rows in an epoch.
    Rows,
    /// Which documents validate.
    Split,
    /// The first numbers of a module's A.
    Adapter,
}

/// A generator whose numbers are the same on every machine and in every version.
pub(super) fn random(seed: u64, purpose: Purpose, number: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&number.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn every_stream_is_its_own() {
        let first = |seed, purpose, number| random(seed, purpose, number).next_u64();
        let one = first(1, Purpose::Order, 0);
        assert_eq!(one, first(1, Purpose::Order, 0));
        let others = [first(2, Purpose::Order, 0), first(1, Purpose::Rows, 0), first(1, Purpose::Order, 1)];
        assert!(!others.contains(&one));
    }
}
