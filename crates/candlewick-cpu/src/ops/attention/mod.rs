//! Attention and its backward: tiles of scores that stay in the innermost cache.

mod backward;
mod forward;
mod tiles;

pub(super) use backward::Backward;
pub(super) use forward::Forward;

use super::{Floats, Read};
use candlewick_core::Attention;
use candlewick_core::op::Span;
use std::ops::Range;

/// Queries of a task.
const QUERIES: usize = tiles::TILE;
/// Keys of a tile.
const KEYS: usize = tiles::TILE;
/// One thread's floating-point operations per second, roughly: it decides about threads only.
const RATE: f64 = 30e9;

/// Which sequence each query is in, and the sequences' spans.
#[derive(Clone, Copy)]
struct Sequences {
    op: Attention,
    spans: Read,
    owners: Floats,
}

/// The `nth` of blocks of queries or keys to be done: with causal attention work grows from one end to the other, so light
/// and heavy ones take turns, for each thread begins with a range of them.
fn in_turns(nth: usize, blocks: usize) -> usize {
    if nth.is_multiple_of(2) { blocks - 1 - nth / 2 } else { nth / 2 }
}

/// A query in no span.
const NONE: u32 = u32::MAX;

impl Sequences {
    /// `owners` has a word for each query.
    ///
    /// # Safety
    /// `spans` holds the operation's spans, and nothing else reads or writes `owners`.
    unsafe fn new(op: Attention, spans: Read, owners: Floats) -> Self {
        let sequences = Sequences { op, spans, owners };
        // SAFETY: the caller's contract; spans are clamped to the queries.
        unsafe {
            for query in 0..op.queries {
                owners.at(query).cast::<u32>().write(NONE);
            }
            // Backwards, so that the first span that holds a query has it in the end.
            for nth in (0..op.sequences).rev() {
                let span = sequences.span(nth);
                for query in span.query..span.query + span.queries {
                    owners.at(query).cast::<u32>().write(nth as u32);
                }
            }
        }
        sequences
    }

    fn span(&self, nth: usize) -> Span {
        // SAFETY: there are four numbers for each sequence, aligned as u32 are.
        self.op.span(unsafe { self.spans.at(4 * nth, 4).cast::<[u32; 4]>().read() })
    }

    fn owner(&self, query: usize) -> u32 {
        // SAFETY: `new` wrote a word for each query.
        unsafe { self.owners.at(query).cast::<u32>().read() }
    }

    /// The first queries of a range that are in one sequence, or in none.
    fn run(&self, queries: Range<usize>) -> (Range<usize>, Option<Span>) {
        let owner = self.owner(queries.start);
        let end = (queries.start + 1..queries.end).find(|&query| self.owner(query) != owner).unwrap_or(queries.end);
        (queries.start..end, (owner != NONE).then(|| self.span(owner as usize)))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_block_has_its_turn() {
        for blocks in 0..9 {
            let mut turns: Vec<usize> = (0..blocks).map(|nth| super::in_turns(nth, blocks)).collect();
            turns.sort();
            assert!(turns.into_iter().eq(0..blocks));
        }
    }
}
