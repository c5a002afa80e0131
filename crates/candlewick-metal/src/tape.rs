//! Recorded sequences: replayed into one command buffer, whatever the limits of ordinary commits are.

use crate::Stream;
use crate::kernel::Kernel;
use crate::limits::CommitLimits;
use crate::memory;
use crate::runtime::dispatch::{Place, Places};
use candlewick_core::tape::{self, Step};
use candlewick_core::{Element, Error, Result};
use std::sync::Arc;

/// Memory that one stream alone reaches.
#[derive(Clone)]
pub struct Memory(Arc<Owned>);

struct Owned {
    memory: memory::Memory,
    bytes: usize,
    stream: u64,
}

/// A recorded sequence.
pub struct Tape {
    stream: u64,
    calls: Vec<Call>,
    memories: Vec<Memory>,
}

struct Call {
    kernel: Kernel,
    /// Which memory, and bytes from its start: inputs first.
    places: Vec<(usize, usize)>,
}

/// A run is one command buffer up to so much: a GPU that gets nothing for long is a GPU that waits.
const WHOLE: CommitLimits = CommitLimits { operations: 4096, bytes: usize::MAX };

impl Memory {
    pub(crate) fn new(memory: memory::Memory, bytes: usize, stream: u64) -> Self {
        Memory(Arc::new(Owned { memory, bytes, stream }))
    }

    /// Where byte `offset` is.
    pub(crate) fn place(&self, offset: usize) -> Place<'_> {
        let place = self.0.memory.part().place();
        Place { offset: place.offset + offset, ..place }
    }

    /// Where byte `offset` is, for the CPU.
    pub(crate) fn pointer(&self, offset: usize) -> *mut u8 {
        self.0.memory.part().pointer().wrapping_add(offset)
    }

    /// That numbers from byte `offset` on lie within this memory of stream `stream`.
    pub(crate) fn check<T: Element>(
        &self,
        op: &'static str,
        stream: u64,
        offset: usize,
        elements: usize,
    ) -> Result<()> {
        self.check_owner(op, stream)?;
        let end = elements.saturating_mul(size_of::<T>()).saturating_add(offset);
        if end > self.0.bytes || !offset.is_multiple_of(size_of::<T>()) {
            let (first, size) = (offset, self.0.bytes);
            return Err(Error::Place { op, operand: "the slice", first, end, size });
        }
        Ok(())
    }

    fn check_owner(&self, op: &'static str, stream: u64) -> Result<()> {
        if self.0.stream == stream {
            Ok(())
        } else {
            Err(Error::of_another_stream(op, "the memory", self.0.stream, stream))
        }
    }
}

impl Stream {
    pub(crate) fn record_steps(&mut self, memories: &[Memory], steps: Vec<Step<Kernel>>) -> Result<Tape> {
        for memory in memories {
            memory.check_owner("record", self.id())?;
        }
        let sizes: Vec<usize> = memories.iter().map(|memory| memory.0.bytes).collect();
        let mut calls = Vec::with_capacity(steps.len());
        for step in steps {
            if step.kernel.0.stream != self.id() {
                return Err(Error::wrong_stream(step.kernel.op(), step.kernel.0.stream, self.id()));
            }
            tape::check(&step.kernel.0.signature, &step, &sizes)?;
            let places = step.inputs.iter().chain(&step.outputs).map(|place| (place.memory, place.offset)).collect();
            calls.push(Call { kernel: step.kernel, places });
        }
        Ok(Tape { stream: self.id(), calls, memories: memories.to_vec() })
    }

    /// One command buffer from the first operation to the last, with what was pending before it.
    pub(crate) fn replay_tape(&mut self, tape: &Tape) -> Result<()> {
        if tape.stream != self.id() {
            return Err(Error::of_another_stream("replay", "the tape", tape.stream, self.id()));
        }
        let limits = self.set_commit_limits(WHOLE);
        let mut replay = || {
            for call in &tape.calls {
                let place = |&(memory, offset): &(usize, usize)| tape.memories[memory].place(offset);
                let places: Places<'_> = call.places.iter().map(place).collect();
                // Never on the CPU: the same tape gives the same bits, whatever was waited for.
                self.encode_on_gpu(&call.kernel, &places)?;
            }
            Ok(())
        };
        let done = replay();
        self.set_commit_limits(limits);
        self.commit();
        done
    }
}
