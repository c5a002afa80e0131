//! Which operations meet in memory, by byte range.
//!
//! Metal tracks whole buffers, and with an arena everything lies in one of them. Here a barrier goes in only where an
//! operation reads what was written, or writes what was read or written, since the last barrier.

use super::ranges::Ranges;
use std::ops::Range;

/// What a command does with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads them.
    Read,
    /// Writes them, and may read them.
    Write,
}

/// What was read and written since the last barrier.
#[derive(Debug)]
pub(crate) struct Hazards {
    read: Ranges,
    written: Ranges,
}

impl Hazards {
    pub(crate) fn new() -> Self {
        Hazards { read: Ranges::new(), written: Ranges::new() }
    }

    /// Whether a command with these accesses must come after what was noted.
    #[inline]
    pub(crate) fn meet(&self, accesses: &[(Range<u64>, Access)]) -> bool {
        // A set that is full counts as met: it is empty after the barrier.
        self.read.is_full()
            || self.written.is_full()
            || accesses.iter().any(|(range, access)| {
                self.written.meets(range) || (*access == Access::Write && self.read.meets(range))
            })
    }

    /// Notes a command.
    #[inline]
    pub(crate) fn note(&mut self, accesses: &[(Range<u64>, Access)]) {
        for (range, access) in accesses {
            let set = match access {
                Access::Read => &mut self.read,
                Access::Write => &mut self.written,
            };
            set.insert(range);
        }
    }

    /// A barrier: everything noted lies before everything to come.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.read.clear();
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_meets_must_wait() {
        let mut hazards = Hazards::new();
        hazards.note(&[(0..10, Access::Read), (10..20, Access::Write)]);
        assert!(!hazards.meet(&[(0..10, Access::Read)]), "two may read the same");
        assert!(hazards.meet(&[(9..10, Access::Write)]), "a write after a read");
        assert!(hazards.meet(&[(19..30, Access::Read)]), "a read after a write");
        assert!(hazards.meet(&[(15..16, Access::Write)]), "a write after a write");
        assert!(!hazards.meet(&[(20..30, Access::Write)]), "beside it");
        hazards.clear();
        assert!(!hazards.meet(&[(0..30, Access::Write)]));
    }

    #[test]
    fn more_ranges_than_there_is_room_for_ask_for_a_barrier() {
        // Seven ranges a command: the room is not a multiple of it.
        let mut hazards = Hazards::new();
        for command in 0..100u64 {
            let accesses: Vec<_> =
                (0..7).map(|i| 7 * command + i).map(|at| (10 * at..10 * at + 1, Access::Read)).collect();
            if hazards.meet(&accesses) {
                assert!(command > 10, "after {command} commands");
                hazards.clear();
                assert!(!hazards.meet(&accesses));
                return;
            }
            hazards.note(&accesses);
        }
        panic!("never full");
    }
}
