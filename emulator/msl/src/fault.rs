//! What a launch can find wrong with a kernel.

use std::fmt;
use std::ops::Range;

/// A thread of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// `threadgroup_position_in_grid`, unless only "another threadgroup" is known.
    pub threadgroup: Option<[u32; 3]>,
    /// `thread_index_in_threadgroup`, unless that is not known.
    pub index: Option<u32>,
}

/// The memory that a fault is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// A buffer or the bytes of `setBytes`.
    Buffer {
        /// The number of the [`Region`](crate::Region).
        region: u64,
        /// The slot it is bound to; the lowest one, if there are several.
        slot: u32,
    },
    /// Threadgroup memory: the name of the variable or of the kernel's argument.
    Threadgroup(String),
}

/// What would order the two accesses of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A `threadgroup_barrier` with the flag of this memory.
    ThreadgroupBarrier,
    /// At least a `simdgroup_barrier` with the flag of this memory: both threads are of one SIMD group.
    SimdgroupBarrier,
    /// Nothing inside the dispatch: threads of different threadgroups. Atomics, or two dispatches.
    Split,
}

/// What is wrong; [`Display`](fmt::Display) says it in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An access outside everything that is bound. The dispatch ended there.
    OutOfBounds {
        /// The kernel.
        kernel: String,
        /// The line of the source, if known.
        line: Option<u32>,
        /// The nearest memory; nothing is near if the kernel has none.
        memory: Option<Memory>,
        /// Its length in bytes.
        length: usize,
        /// Where the access starts, from the start of that memory.
        offset: i64,
        /// How many bytes.
        bytes: usize,
        /// A write.
        write: bool,
        /// Who.
        thread: Thread,
    },
    /// An access through an argument to which nothing is bound. The dispatch ended there.
    NotBound {
        /// The kernel.
        kernel: String,
        /// The line of the source, if known.
        line: Option<u32>,
        /// The argument's name.
        argument: String,
        /// Its slot.
        slot: u32,
        /// Who.
        thread: Thread,
    },
    /// Two threads touched the same bytes, at least one wrote, not both by atomic operations, and nothing orders them.
    Race {
        /// The kernel.
        kernel: String,
        /// The line of the later access, if known.
        line: Option<u32>,
        /// Where.
        memory: Memory,
        /// From the first to the last byte that the threads met on at this place of the code.
        bytes: Range<usize>,
        /// The earlier access.
        first: Thread,
        /// It was a write.
        first_wrote: bool,
        /// The later access.
        second: Thread,
        /// It was a write.
        second_wrote: bool,
        /// What to do.
        remedy: Remedy,
    },
    /// Not all threads of a threadgroup reached the same `threadgroup_barrier`.
    DivergentBarrier {
        /// The kernel.
        kernel: String,
        /// The line of the barrier, if known.
        line: Option<u32>,
        /// The threadgroup.
        threadgroup: [u32; 3],
        /// How many threads waited there.
        waiting: u32,
        /// How many had returned.
        returned: u32,
        /// How many threads the threadgroup has; those left waited at another barrier.
        threads: u32,
    },
    /// The threads of a threadgroup wait for a value that none of them will write. The dispatch ended there.
    Deadlock {
        /// The kernel.
        kernel: String,
        /// The line where one of them waits, if known.
        line: Option<u32>,
        /// The threadgroup.
        threadgroup: [u32; 3],
    },
    /// A thread needs more private memory than the emulator gives. The dispatch ended there.
    StackOverflow {
        /// The kernel.
        kernel: String,
        /// The line of the function, if known.
        line: Option<u32>,
        /// Who.
        thread: Thread,
    },
}

impl Fault {
    /// The sentence, with buffers called as `name` calls their regions.
    pub fn describe(&self, name: &dyn Fn(u64) -> String) -> String {
        let memory_name = |memory: &Memory| match memory {
            Memory::Buffer { region, slot } => format!("{} (buffer {slot})", name(*region)),
            Memory::Threadgroup(variable) => format!("threadgroup memory `{variable}`"),
        };
        match self {
            Fault::OutOfBounds { kernel, line, memory, length, offset, bytes, write, thread } => {
                let verb = if *write { "writes" } else { "reads" };
                let place = match memory {
                    Some(memory) => format!("at offset {offset} of {}, which has {length}", memory_name(memory)),
                    None => "where nothing is bound".to_owned(),
                };
                format!("{}: {thread} {verb} {bytes} bytes out of bounds, {place}", at(kernel, *line))
            }
            Fault::NotBound { kernel, line, argument, slot, thread } => {
                format!("{}: {thread} uses `{argument}`, but nothing is bound to slot {slot}", at(kernel, *line))
            }
            Fault::Race { kernel, line, memory, bytes, first, first_wrote, second, second_wrote, remedy } => {
                let verb = |wrote: bool| if wrote { "wrote" } else { "read" };
                let flag = match memory {
                    Memory::Buffer { .. } => "mem_device",
                    Memory::Threadgroup(_) => "mem_threadgroup",
                };
                let advice = match remedy {
                    Remedy::ThreadgroupBarrier => {
                        format!("threadgroup_barrier(mem_flags::{flag}) is missing between them")
                    }
                    Remedy::SimdgroupBarrier => {
                        format!("simdgroup_barrier(mem_flags::{flag}) or threadgroup_barrier is missing between them")
                    }
                    Remedy::Split => "threads of different threadgroups: no barrier can order them".to_owned(),
                };
                format!(
                    "{}: race on bytes {}..{} of {}: {first} {}, {second} {}; {advice}",
                    at(kernel, *line),
                    bytes.start,
                    bytes.end,
                    memory_name(memory),
                    verb(*first_wrote),
                    verb(*second_wrote),
                )
            }
            Fault::DivergentBarrier { kernel, line, threadgroup, waiting, returned, threads } => {
                let elsewhere = threads - waiting - returned;
                format!(
                    "{}: threadgroup_barrier reached by {waiting} of the {threads} threads of threadgroup \
                     {threadgroup:?}: {returned} had returned, {elsewhere} wait at another barrier",
                    at(kernel, *line)
                )
            }
            Fault::Deadlock { kernel, line, threadgroup } => format!(
                "{}: the threads of threadgroup {threadgroup:?} wait for a value that none of them will write",
                at(kernel, *line)
            ),
            Fault::StackOverflow { kernel, line, thread } => {
                format!("{}: {thread} has more private memory than fits", at(kernel, *line))
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(&|region| format!("region {region}")))
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "thread {index}")?,
            None => f.write_str("a thread")?,
        }
        match self.threadgroup {
            Some(position) => write!(f, " of threadgroup {position:?}"),
            None => f.write_str(" of another threadgroup"),
        }
    }
}

fn at(kernel: &str, line: Option<u32>) -> String {
    match line {
        Some(line) => format!("kernel `{kernel}`, line {line}"),
        None => format!("kernel `{kernel}`"),
    }
}

impl std::error::Error for Fault {}
