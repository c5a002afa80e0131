//! Finds accesses that meet in memory and that nothing orders, by byte range.

use std::collections::HashMap;
use std::ops::Range;

use super::past::Past;
use super::work::{Bound, Touched};
use crate::report::{Report, Rule};

/// What lies before a command: for all memory, and by barriers over some of it.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Visible in all memory.
    pub all: Past,
    /// Visible in these memories (roots) alone.
    pub by_root: HashMap<u64, Past>,
}

impl Before {
    fn has(&self, number: usize, root: u64) -> bool {
        self.all.contains(number) || self.by_root.get(&root).is_some_and(|past| past.contains(number))
    }
}

/// Who made an access.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The command's number.
    pub number: usize,
    /// The pass it was encoded in.
    pub pass: u64,
    /// "dispatch `softmax` of encoder .. in command buffer ..".
    pub name: String,
}

/// The pass of what the host does by itself.
pub const HOST: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Read,
    Write,
    Atomic,
}

struct Access {
    actor: usize,
    range: Range<usize>,
    manner: Manner,
}

/// The accesses of the recent past, by memory.
#[derive(Default)]
pub struct Hazards {
    accesses: HashMap<u64, Vec<Access>>,
    actors: HashMap<usize, Actor>,
}

/// After so many commands what lies behind the window of [`Past`] is forgotten.
const FORGET_EVERY: usize = 1 << 10;
const FORGET_BEHIND: usize = 1 << 13;

impl Hazards {
    /// Notes what a command touched and compares it with everything that is not ordered before it.
    pub fn note(
        &mut self,
        actor: &Actor,
        before: &Before,
        bound: &[Bound],
        touched: &[Touched],
        names: &[String],
    ) -> Vec<Report> {
        // One report for a pair of commands and a memory is enough.
        let mut found: HashMap<(usize, u64), Report> = HashMap::new();
        let mut fresh: Vec<(u64, Access)> = Vec::new();
        for touched in touched {
            let (root, offset) = bound[touched.bound].root;
            let manners =
                [(&touched.reads, Manner::Read), (&touched.writes, Manner::Write), (&touched.atomics, Manner::Atomic)];
            for (ranges, manner) in manners {
                for range in ranges.iter().filter(|range| !range.is_empty()) {
                    let range = range.start + offset..range.end + offset;
                    if let Some((other, report)) =
                        self.meet(actor, before, root, &range, manner, &names[touched.bound], offset)
                    {
                        found.entry((other, root)).or_insert(report);
                    }
                    fresh.push((root, Access { actor: actor.number, range, manner }));
                }
            }
        }
        for (root, access) in fresh {
            let list = self.accesses.entry(root).or_default();
            if access.manner == Manner::Write {
                // What a write covers and comes after will be found through the write.
                list.retain(|old| {
                    old.actor == access.actor
                        || !(access.range.start <= old.range.start && old.range.end <= access.range.end)
                        || !before.has(old.actor, root)
                });
            }
            list.push(access);
        }
        self.actors.insert(actor.number, actor.clone());
        if actor.number.is_multiple_of(FORGET_EVERY) {
            self.forget(actor.number.saturating_sub(FORGET_BEHIND));
        }
        found.into_values().collect()
    }

    #[expect(clippy::too_many_arguments, reason = "one access, spelled out")]
    fn meet(
        &self,
        actor: &Actor,
        before: &Before,
        root: u64,
        range: &Range<usize>,
        manner: Manner,
        memory: &str,
        offset: usize,
    ) -> Option<(usize, Report)> {
        for old in self.accesses.get(&root).into_iter().flatten() {
            let apart = old.range.end <= range.start || range.end <= old.range.start;
            let harmless =
                matches!((old.manner, manner), (Manner::Read, Manner::Read) | (Manner::Atomic, Manner::Atomic));
            if old.actor == actor.number || apart || harmless || before.has(old.actor, root) {
                continue;
            }
            let other = self.actors.get(&old.actor)?;
            // Told in the order of encoding, whichever ran first.
            let ((first, was), (second, is)) = if other.number < actor.number {
                ((other, old.manner), (actor, manner))
            } else {
                ((actor, manner), (other, old.manner))
            };
            let start = range.start.max(old.range.start).saturating_sub(offset);
            let end = range.end.min(old.range.end).saturating_sub(offset);
            let (rule, remedy) = if first.pass == HOST || second.pass == HOST {
                (Rule::HostAccess, "nothing made the host wait for the command buffer")
            } else if first.pass == second.pass {
                (Rule::MissingBarrier, "no memoryBarrier lies between them")
            } else {
                (Rule::MissingFence, "no fence, event or tracked resource orders the two passes")
            };
            let kind = match (was != Manner::Read, is != Manner::Read) {
                (true, true) => "write after write",
                (true, false) => "read after write",
                _ => "write after read",
            };
            let text = format!(
                "{kind}: {} {} what {} {}, {memory} bytes {start}..{end}: {remedy}",
                second.name,
                if is == Manner::Read { "reads" } else { "writes" },
                first.name,
                if was == Manner::Read { "reads" } else { "writes" },
            );
            return Some((other.number, Report::new(rule, text)));
        }
        None
    }

    fn forget(&mut self, before: usize) {
        self.actors.retain(|number, _| *number >= before);
        self.accesses.retain(|_, list| {
            list.retain(|access| access.actor >= before);
            !list.is_empty()
        });
    }
}
