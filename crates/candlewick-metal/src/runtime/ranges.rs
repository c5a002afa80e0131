//! A set of byte ranges: sorted, apart, and of bounded number.

use std::ops::Range;

/// Addresses, as ranges that neither overlap nor touch.
#[derive(Debug)]
pub(crate) struct Ranges {
    ranges: Vec<Range<u64>>,
}

impl Ranges {
    /// More ranges than this would cost more to look through than a barrier costs the GPU.
    const MOST: usize = 128;
    /// What one command may add on top.
    const SPARE: usize = 16;

    pub(crate) fn new() -> Self {
        Ranges { ranges: Vec::with_capacity(Self::MOST + Self::SPARE) }
    }

    /// Whether some byte of `range` is in the set.
    #[inline]
    pub(crate) fn meets(&self, range: &Range<u64>) -> bool {
        let first = self.ranges.partition_point(|known| known.end <= range.start);
        !range.is_empty() && self.ranges.get(first).is_some_and(|known| known.start < range.end)
    }

    /// Whether there are so many that nothing more should be added.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.ranges.len() >= Self::MOST
    }

    /// Adds every byte of `range`.
    #[inline]
    pub(crate) fn insert(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|known| known.end < range.start);
        let behind = first + self.ranges[first..].partition_point(|known| known.start <= range.end);
        match self.ranges.get_mut(first) {
            Some(known) if first < behind => {
                known.start = known.start.min(range.start);
                let end = self.ranges[behind - 1].end.max(range.end);
                self.ranges[first].end = end;
                self.ranges.drain(first + 1..behind);
            }
            _ => self.ranges.insert(first, range.clone()),
        }
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut set = Ranges::new();
        for range in [10..20, 40..50, 20..30, 0..5, 30..30] {
            set.insert(&range);
        }
        assert_eq!(set.ranges, [0..5, 10..30, 40..50]);
        set.insert(&(4..41));
        assert_eq!(set.ranges, [Range { start: 0, end: 50 }]);
    }

    #[test]
    fn a_range_meets_what_shares_a_byte_with_it() {
        let mut set = Ranges::new();
        set.insert(&(10..20));
        set.insert(&(30..40));
        for (range, meets) in
            [(0..10, false), (0..11, true), (20..30, false), (19..20, true), (25..31, true), (40..50, false)]
        {
            assert_eq!(set.meets(&range), meets, "{range:?}");
        }
        assert!(!set.meets(&(15..15)), "an empty range meets nothing");
    }

    /// Against a plain array of flags.
    #[test]
    fn agrees_with_flags() {
        let mut state = 7u64;
        let mut below = |end: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % end
        };
        for _ in 0..200 {
            let (mut set, mut flags) = (Ranges::new(), [false; 200]);
            for _ in 0..40 {
                let start = below(190);
                let range = start..start + below(10);
                let expected = flags[range.start as usize..range.end as usize].contains(&true);
                assert_eq!(set.meets(&range), expected);
                set.insert(&range);
                flags[range.start as usize..range.end as usize].fill(true);
            }
            assert!(set.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
